"""Masks of the instances of one image: as bitmaps, or as patches inside boxes.

Wrong use is an AssertionError here, as callers that were written for Detectron2 expect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures.boxes import Boxes
from detectron2.structures.polygon_masks import (
    PolygonMasks,
    check_all_of_type,
    check_one_box_per_mask,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor
from torch.nn.functional import pad
from torchvision.ops import roi_align

__all__ = [
    "BitMasks",
    "PolygonMasks",
    "ROIMasks",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
]

MAX_PIXELS_AT_ONCE = 2**25
"""Bitmaps are cropped in portions of this many pixels: 128 MiB as float32."""


class BitMasks:
    """Masks as bitmaps of the size of the image.

    Attributes:
        tensor: bool [N, H, W].
        image_size: (H, W).
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        """Take [N, H, W] of any type; what is not zero belongs to the instance.

        Raises:
            AssertionError: not three dimensions.
        """
        self.tensor = torch.as_tensor(tensor, dtype=torch.bool)
        shape = list(self.tensor.shape)
        assert len(shape) == 3, f"bitmaps have shape [N, H, W], not {shape}"
        self.image_size = self.tensor.shape[1:]

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        """One bool tensor [H, W] per instance."""
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def __getitem__(self, item: Any) -> BitMasks:
        """The masks selected by an int (one mask), slice, index tensor or bool tensor.

        Raises:
            AssertionError: the index does not select whole masks.
        """
        chosen = self.tensor[item][None] if isinstance(item, int) else self.tensor[item]
        assert chosen.dim() == 3, f"indexing masks with {item!r} gave shape {list(chosen.shape)}"
        return BitMasks(chosen)

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """The masks on another device; arguments as for `Tensor.to`."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    def nonempty(self) -> Tensor:
        """bool [N]: whether a mask has any pixel."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Draw the polygons of every instance; no instances give a tensor [0, height, width]."""
        bitmaps = np.zeros((len(polygon_masks), height, width), dtype=bool)
        for bitmap, polygons in zip(bitmaps, polygon_masks):
            bitmap[:] = polygons_to_bitmask(polygons, height, width)
        return BitMasks(bitmaps)

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """All masks of several objects of one image size, copied."""
        return BitMasks(
            torch.cat([one.tensor for one in check_all_of_type(bitmasks_list, BitMasks)])
        )

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each mask, on the CPU; all zero for a mask without pixels."""
        low_high = []
        for axis_pixels in (self.tensor.any(dim=1), self.tensor.any(dim=2)):  # x, then y
            pixels = axis_pixels.cpu().byte()
            length = pixels.shape[1]
            first, after_last = pixels.argmax(dim=1), length - pixels.flip(1).argmax(dim=1)
            low_high.append(torch.stack([first, after_last], dim=1))
        boxes = torch.stack(low_high, dim=2).reshape(-1, 4)
        return Boxes(boxes * self.nonempty().cpu()[:, None])

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask out by its own box and scale it to a square: targets of the mask head.

        Bilinear, by torchvision's aligned `roi_align`; a pixel belongs to the instance where
        the result reaches 0.5.

        Args:
            boxes: [N, 4]: left, top, right, bottom; one per mask.
            mask_size: side of the square.

        Returns:
            bool [N, mask_size, mask_size], on the device of the masks.
        """
        check_one_box_per_mask(boxes, self)
        portion = max(1, MAX_PIXELS_AT_ONCE // max(1, self.image_size.numel()))
        crops = [
            _crop_to_squares(bitmaps, own_boxes, mask_size)
            for bitmaps, own_boxes in zip(self.tensor.split(portion), boxes.split(portion))
        ]
        return torch.cat(crops) >= 0.5


def _crop_to_squares(bitmaps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """float32 [N, side, side]: bitmap k cut out by box k."""
    numbered_boxes = pad(boxes.to(bitmaps.device), (1, 0))
    numbered_boxes[:, 0] = torch.arange(len(boxes))
    images = bitmaps[:, None].to(numbered_boxes.dtype)
    return roi_align(images, numbered_boxes, side, sampling_ratio=0, aligned=True)[:, 0]


class ROIMasks:
    """Masks as small patches, each of which fills a box that is kept elsewhere.

    Attributes:
        tensor: [N, M, M], probabilities.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dim() != 3:
            raise ValueError(f"patches have shape [N, M, M], not {list(tensor.shape)}")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def __getitem__(self, item: Any) -> ROIMasks:
        """The patches selected by a slice, index tensor or bool tensor.

        Raises:
            ValueError: the index does not select whole patches.
        """
        return ROIMasks(self.tensor[item])

    def to(self, device: torch.device | str) -> ROIMasks:
        """The patches on another device."""
        return ROIMasks(self.tensor.to(device))

    def to_bitmasks(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Paste every patch into its box.

        Args:
            boxes: one per patch, in pixels of the image.
            height: of the image.
            width: of the image.
            threshold: probability at which a pixel belongs to the instance.
        """
        from detectron2.layers import paste_masks_in_image  # layers build on structures

        paste = retry_if_cuda_oom(paste_masks_in_image)
        return BitMasks(paste(self.tensor, boxes.tensor, (height, width), threshold=threshold))
