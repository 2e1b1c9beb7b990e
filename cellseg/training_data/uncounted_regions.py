"""UncountedRegions: where in a training image nobody counted cells, beside its instances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from cellseg.errors import LabelError
from torch import Tensor
from torch.nn.functional import pad


class UncountedRegions:
    """The uncounted pixels of an image of N cells, as the field `uncounted` of its `Instances`.

    A model of Detectron2 hands only instances on to where losses are made. All fields of these
    have one entry per cell, so this one counts cells too, and whatever is done with them leaves it
    the whole image's; without a cell it is there as well. The name has no `gt_` in front: what has
    is copied to every proposal.

    Attributes:
        mask: bool [H, W], never changed; selections share it.
        entries: [N, 0], nothing for each cell.

    Example:
        >>> regions = UncountedRegions.of_cells(torch.tensor([[False, False, True, True]]), 0)
        >>> regions.hold(torch.tensor([[0.0, 0.0, 3.0, 1.0], [1.0, 0.0, 3.0, 1.0]])).tolist()
        [False, True]
    """

    def __init__(self, mask: Tensor, entries: Tensor) -> None:
        """See the attributes.

        Raises:
            LabelError: a mask of another type or shape.
        """
        if mask.dim() != 2 or mask.dtype != torch.bool:
            found = f"{mask.dtype} {list(mask.shape)}"
            raise LabelError(f"uncounted regions are a mask, bool [H, W]; found {found}")
        self.mask, self.entries = mask, entries

    @classmethod
    def of_cells(cls, mask: Tensor, num_cells: int) -> UncountedRegions:
        """The regions of an image of so many cells."""
        return cls(mask, torch.empty(num_cells, 0, device=mask.device))

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"{type(self).__name__}({height} x {width}, num_instances={len(self)})"

    def __getitem__(self, item: Any) -> UncountedRegions:
        """The same regions beside the selected cells; `item` as for a tensor."""
        return UncountedRegions(self.mask, self.entries[item])

    def to(self, *args: Any, **kwargs: Any) -> UncountedRegions:
        """The regions on another device; arguments as for `Tensor.to`."""
        entries = self.entries.to(*args, **kwargs)
        if entries.device == self.mask.device:
            return self
        return UncountedRegions(self.mask.to(entries.device), entries)

    @staticmethod
    def cat(regions: Sequence[UncountedRegions]) -> UncountedRegions:
        """Those of the first, which are those of the image, beside the cells of all."""
        return UncountedRegions(regions[0].mask, torch.cat([one.entries for one in regions]))

    def hold(self, boxes: Tensor) -> Tensor:
        """Which boxes are uncounted: at least half of what they cover of the image.

        The intersection is divided by the box's own area, as COCO does with crowd regions: a
        region is larger than a cell, so their IoU would say nothing. What reaches beyond the image
        does not count, for no cell is there to be counted, and a box is taken as the pixels that
        it touches. Four look-ups in a table of sums per box, whatever its size.

        Args:
            boxes: [R, 4], (x0, y0, x1, y1) in pixels, on the device of the regions.

        Returns:
            bool [R]; False for a box outside of the image.
        """
        height, width = self.mask.shape
        x0, y0 = boxes[:, :2].floor().unbind(dim=1)
        x1, y1 = boxes[:, 2:].ceil().unbind(dim=1)
        left, right = (x.clamp(0, width).long() for x in (x0, x1))
        upper, lower = (y.clamp(0, height).long() for y in (y0, y1))
        above, below = upper * (width + 1), lower * (width + 1)
        sums = self._sums
        inside = sums[below + right] - sums[below + left] - sums[above + right] + sums[above + left]
        areas = (right - left) * (lower - upper)
        return (areas > 0) & (2 * inside >= areas)

    @cached_property
    def _sums(self) -> Tensor:
        """int32 [(H + 1) * (W + 1)]: uncounted pixels above and left of each corner of a pixel."""
        rows = pad(self.mask.int(), (1, 0, 1, 0)).cumsum(0, dtype=torch.int32)
        return rows.cumsum(1, dtype=torch.int32).flatten()
