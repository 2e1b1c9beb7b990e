"""PyTorch layers and functions with the few extras that detection models lean on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

BatchNorm2d = nn.BatchNorm2d
ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear
interpolate = F.interpolate


class Conv2d(nn.Conv2d):
    """Convolution, then an optional norm, then an optional activation.

    Takes everything that `torch.nn.Conv2d` takes. A batch of zero images gives zero outputs.

    Args:
        norm: module applied to the convolution's output, or None.
        activation: callable applied last, or None.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # what the base class does; torch.jit.script does not know super()
        out = self._conv_forward(x, self.weight, self.bias)
        if self.norm is not None:
            out = self.norm(out)
        if self.activation is not None:
            out = self.activation(out)
        return out


class _NewEmptyTensorOp(torch.autograd.Function):
    """A tensor of a new, empty shape that hangs on the graph of `x`. Kept for old code."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, new_shape: Sequence[int]) -> torch.Tensor:
        ctx.shape = x.shape
        return x.new_empty(new_shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return grad.new_zeros(ctx.shape), None


def cat(tensors: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """Concatenate along `dim`; a single tensor is returned as it is, without a copy."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def empty_input_loss_func_wrapper(
    loss_func: Callable[..., torch.Tensor],
) -> Callable[..., torch.Tensor]:
    """Make a loss whose mean over no element is a zero with a gradient, instead of NaN.

    `loss_func` is called as `loss_func(input, target, reduction=..., **kwargs)`.
    """

    def safe_loss(
        input: torch.Tensor, target: torch.Tensor, *, reduction: str = "mean", **kwargs: Any
    ) -> torch.Tensor:
        if reduction == "mean" and target.numel() == 0:
            return 0.0 * input.sum()  # keeps the graph connected: every rank must have gradients
        return loss_func(input, target, reduction=reduction, **kwargs)

    return safe_loss


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)


def nonzero_tuple(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Indices of the non-zero elements, one int64 vector per dimension."""
    return torch.nonzero(x, as_tuple=True)


def move_device_like(src: torch.Tensor, dst: torch.Tensor) -> torch.Tensor:
    """Return `src` on the device of `dst`."""
    return src.to(dst.device)


def shapes_to_tensor(x: Sequence[int], device: torch.device | None = None) -> torch.Tensor:
    """Turn a list of sizes into an int64 vector on `device`."""
    return torch.as_tensor(x, device=device)
