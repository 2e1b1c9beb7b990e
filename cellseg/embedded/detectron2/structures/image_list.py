"""Images of different sizes in one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False, repr=False)
class ImageList:
    """A batch of images, padded at the right and at the bottom to a common size.

    Attributes:
        tensor: [N, ..., H, W].
        image_sizes: (height, width) of each image without its padding.
    """

    tensor: Tensor
    image_sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """One image without its padding, [..., height, width]; a view."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """The batch on another device or in another type; arguments as for `Tensor.to`."""
        return replace(self, tensor=self.tensor.to(*args, **kwargs))

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
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
        leading = {tuple(image.shape[:-2]) for image in tensors}
        assert len(leading) == 1, f"images of one batch differ in channels: {sorted(leading)}"

        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        common = _common_size(sizes, size_divisibility, dict(padding_constraints or {}))
        batch = tensors[0].new_full((len(tensors), *leading.pop(), *common), pad_value)
        for padded, image, (height, width) in zip(batch, tensors, sizes):
            padded[..., :height, :width] = image
        return ImageList(batch, sizes)


def _common_size(
    sizes: Sequence[tuple[int, int]], divisor: int, constraints: Mapping[str, int]
) -> list[int]:
    square = constraints.get("square_size", 0)
    divisor = max(1, constraints.get("size_divisibility", divisor))
    largest = [square, square] if square > 0 else [max(sides) for sides in zip(*sizes)]
    return [-(-side // divisor) * divisor for side in largest]
