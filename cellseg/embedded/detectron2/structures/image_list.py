"""Images of different sizes in one tensor."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch import device as Device  # torch.jit.script takes no dotted type


class ImageList:
    """A batch of images, padded at the right and at the bottom to a common size.

    Works under `torch.jit.script`, and under `torch.jit.trace` for a fixed number of images.

    Attributes:
        tensor: [N, ..., H, W].
        image_sizes: (height, width) of each image without its padding; int64 [2] each in a trace.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    @property
    def device(self) -> Device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """One image without its padding, [..., height, width]; a view."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    @torch.jit.unused
    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """The batch on another device or in another type; arguments as for `Tensor.to`."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @staticmethod
    def from_tensors(
        tensors: list[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Pad images to the size of the largest and stack them.

        Args:
            tensors: one or more images [..., H, W] that differ at most in H and W.
            size_divisibility: make the common height and width multiples of this; 0 or 1: as is.
            pad_value: what fills the padding.
            padding_constraints: "square_size" > 0 makes the common size that square;
                "size_divisibility" replaces the argument of this name.

        Raises:
            AssertionError: no images, or images of different leading dimensions.
        """
        assert isinstance(tensors, (list, tuple)), f"expected a list of images, not {type(tensors)}"
        assert len(tensors) > 0, "expected one or more images"
        leading = list(tensors[0].shape[:-2])
        for image in tensors:
            assert list(image.shape[:-2]) == leading, "images of one batch differ in channels"

        square, divisor = 0, size_divisibility
        if padding_constraints is not None:
            square = padding_constraints.get("square_size", 0)
            divisor = padding_constraints.get("size_divisibility", divisor)
        height, width = square, square
        if square <= 0:
            height = _maximum([image.shape[-2] for image in tensors])
            width = _maximum([image.shape[-1] for image in tensors])
        common = [_round_up(height, divisor), _round_up(width, divisor)]

        shape = [len(tensors)] + leading + common  # noqa: RUF005 (torch.jit.script)
        batch = tensors[0].new_full(shape, pad_value)
        for index, image in enumerate(tensors):
            batch[index, ..., : image.shape[-2], : image.shape[-1]] = image
        return ImageList(batch, [_image_size(image) for image in tensors])


def _round_up(side: int, divisor: int) -> int:
    return side if divisor <= 1 else (side + divisor - 1) // divisor * divisor


# In a trace the sizes of a tensor are tensors themselves, and have to stay so: a plain number
# would become a constant of the traced function.


def _maximum(sides: list[int]) -> int:
    if not torch.jit.is_scripting() and torch.jit.is_tracing():
        return cast(int, torch.stack(cast(Any, sides)).amax())
    return max(sides)


def _image_size(image: Tensor) -> tuple[int, int]:
    if not torch.jit.is_scripting() and torch.jit.is_tracing():
        sides = cast(Any, (image.shape[-2], image.shape[-1]))
        return cast(tuple[int, int], torch.stack(sides))
    return image.shape[-2], image.shape[-1]
