"""Convolutions on a CPU whose weights oneDNN, PyTorch's library for it, has rearranged once.

PyTorch's own rearrange them with every map. The functions that it is done with are those of its
compiler; it does not promise to keep them, so `can_rearrange_weights` tries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@cache
def can_rearrange_weights() -> bool:
    """Whether this PyTorch convolves with rearranged weights, and gets right what it gets."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    image = torch.arange(32.0).reshape(1, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.arange(54.0).reshape(3, 2, 3, 3), torch.arange(3.0)
    try:
        with torch.inference_mode():
            rearranged = rearrange(weight, image, (2, 2), (1, 1))
            found = convolve_rearranged(image, rearranged, bias, (2, 2), (1, 1))
    except (AttributeError, RuntimeError, TypeError):  # what PyTorch does not promise to keep
        return False
    return torch.allclose(found, F.conv2d(image, weight, bias, 2, 1))


@dataclass
class RearrangedWeights:
    """Weights of one convolution, rearranged for the shapes of maps that it has seen last.

    What suits one shape is slower than nothing for another. Every map of a shape is treated alike,
    the first one too: what comes out does not depend on what was there before, to the last bit.

    Attributes:
        stride: (vertical, horizontal) of the convolution.
        padding: (vertical, horizontal) of the convolution, zeros.
        dtype: what it computes in.
        places: for how many shapes weights are kept; the oldest make way.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dtype: torch.dtype
    places: int
    _state: Any = field(default=None, init=False)
    _plain: Any = field(default=None, init=False)
    _rearranged: dict[torch.Size, Tensor] = field(default_factory=dict, init=False)

    def convolve(
        self,
        x: Tensor,
        source: Sequence[Tensor | None],
        make: Callable[[], tuple[Tensor, Tensor | None]],
        *,
        with_relu: bool = False,
    ) -> Tensor:
        """Convolve maps that lie `channels_last`.

        Args:
            x: [N, C, H, W].
            source: what the weights are made of; they are made again once it has changed.
            make: gives weights [O, C, h, w] and bias [O].
            with_relu: negative results become 0.
        """
        state = [(t.data_ptr(), _version(t)) for t in source if t is not None]
        if state != self._state:
            weight, bias = make()
            weight, bias = weight.detach().to(self.dtype), _as_dtype(bias, self.dtype)
            self._plain, self._state = (weight, bias), state
            self._rearranged.clear()
        bias = self._plain[1]
        rearranged = self._rearranged_for(x)
        return convolve_rearranged(x, rearranged, bias, self.stride, self.padding, with_relu)

    def _rearranged_for(self, x: Tensor) -> Tensor:
        found = self._rearranged.get(x.shape)
        if found is None:
            if len(self._rearranged) >= self.places:
                del self._rearranged[next(iter(self._rearranged))]
            found = rearrange(self._plain[0], x, self.stride, self.padding)
            self._rearranged[x.shape] = found
        return found

    def __reduce__(self) -> Any:  # copies and pickles of a model make their own
        return RearrangedWeights, (self.stride, self.padding, self.dtype, self.places)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _as_dtype(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.detach().to(dtype)


def rearrange(weight: Tensor, x: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """Weights [O, C, h, w] as oneDNN wants them for maps of the shape of x; opaque."""
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    opaque = weight.contiguous().to_mkldnn()
    rearranged: Tensor = reorder(opaque, padding, stride, (1, 1), 1, list(x.shape))
    return rearranged


def convolve_rearranged(
    x: Tensor,
    rearranged: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    with_relu: bool = False,
) -> Tensor:
    then = "relu" if with_relu else "none"
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, rearranged, bias, padding, stride, (1, 1), 1, then, [], None
    )
    return result
