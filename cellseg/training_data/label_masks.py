"""LabelMasks: training masks of one image as label planes, in the place of BitMasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from cellseg.cells.label_planes import EVERY_CELL, LabelPlanes, tight_boxes
from cellseg.errors import LabelError
from detectron2.structures import BitMasks, Boxes
from numpy.typing import ArrayLike
from torch import Tensor

_SAMPLES_AT_ONCE = 2**20
_MOST_LABELS_IN_INT16 = 2**15 - 1


class LabelMasks:
    """Masks of the cells of one image, which may overlap.

    Does what `BitMasks` does, with the same numbers, but holds one integer per pixel and layer of
    non-overlapping cells in place of one bitmap per cell. Selecting cells selects labels and copies
    no pixels.

    Attributes:
        planes: int16 or int32 [L, H, W], shared between selections and never changed. 0 is
            background, `cellseg.cells.label_planes.EVERY_CELL` belongs to all cells.
        labels: int64 [N]: mask k is where `planes[layers[k]] == labels[k]`.
        layers: in which plane each mask lies, int64 [N].
        image_size: (height, width) of the image, pixels.
    """

    def __init__(self, planes: Tensor, labels: Tensor, layers: Tensor) -> None:
        """See the attributes.

        Raises:
            LabelError: other shapes.
        """
        if planes.dim() != 3 or labels.dim() != 1 or layers.shape != labels.shape:
            shapes = [list(tensor.shape) for tensor in (planes, labels, layers)]
            raise LabelError(f"masks are planes [L, H, W], labels [N], layers [N]; found {shapes}")
        self.planes, self.labels, self.layers = planes, labels, layers
        self.image_size = planes.shape[1:]

    @classmethod
    def from_planes(cls, planes: LabelPlanes) -> LabelMasks:
        """All cells of `planes`, in their order."""
        fits = len(planes) <= _MOST_LABELS_IN_INT16
        pixels = np.ascontiguousarray(planes.planes, np.int16 if fits else np.int32)
        labels = torch.arange(1, len(planes) + 1)
        return cls(torch.from_numpy(pixels), labels, torch.from_numpy(planes.layers))

    @classmethod
    def from_label_image(cls, labels: ArrayLike | Tensor) -> LabelMasks:
        """The cells of a label image [H, W], in ascending order of their labels.

        Raises:
            LabelError: not two-dimensional, not integers, or negative.
        """
        on_device = labels.device if isinstance(labels, Tensor) else "cpu"
        array = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
        return cls.from_planes(LabelPlanes.from_label_image(array)).to(on_device)

    @classmethod
    def from_bitmasks(cls, bitmasks: BitMasks | Tensor) -> LabelMasks:
        """The same masks from bitmaps [N, H, W]; overlapping ones go to different layers."""
        bitmaps = bitmasks.tensor if isinstance(bitmasks, BitMasks) else bitmasks
        if bitmaps.dim() != 3:
            raise LabelError(f"bitmaps have shape [N, H, W]; found {list(bitmaps.shape)}")
        crops = [bitmap.cpu().numpy() != 0 for bitmap in bitmaps]
        image_hw = (bitmaps.shape[1], bitmaps.shape[2])
        planes = LabelPlanes.from_crops(crops, np.zeros((len(crops), 2)), image_hw)
        return cls.from_planes(planes).to(bitmaps.device)

    def to_bitmasks(self) -> BitMasks:
        """One bitmap per mask: N times the image's size in memory."""
        return BitMasks(self.tensor)

    @property
    def tensor(self) -> Tensor:
        """Bitmaps, bool [N, H, W], made anew each time: for code that reads `BitMasks.tensor`."""
        bitmaps = torch.empty(
            len(self), *self.image_size, dtype=torch.bool, device=self.planes.device
        )
        for target, bitmap in zip(bitmaps, self):
            target.copy_(bitmap)
        return bitmaps

    @property
    def device(self) -> torch.device:
        return self.planes.device

    def to(self, *args: Any, **kwargs: Any) -> LabelMasks:
        """The masks on another device; arguments as for `Tensor.to`, but a dtype has no effect."""
        device = torch.empty(0, device=self.device).to(*args, **kwargs).device
        if device == self.device:
            return self
        moved = (each.to(device) for each in (self.planes, self.labels, self.layers))
        return LabelMasks(*moved)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def __getitem__(self, item: Any) -> LabelMasks:
        """The masks selected by an int (one mask), slice, or index or boolean array of any kind.

        Raises:
            IndexError: a number or a length that does not fit, or an index of more dimensions.
        """
        if isinstance(item, (int, np.integer)):
            item = [int(item)]
        if isinstance(item, (list, tuple, np.ndarray)):
            item = torch.as_tensor(np.asarray(item, None if len(item) else np.int64))
        if isinstance(item, Tensor) and item.dim() != 1:
            raise IndexError(f"masks are selected by one dimension; found {list(item.shape)}")
        if isinstance(item, Tensor):
            item = item.to(self.device, torch.bool if item.dtype == torch.bool else torch.int64)
        return LabelMasks(self.planes, self.labels[item], self.layers[item])

    def __iter__(self) -> Iterator[Tensor]:
        """One bool tensor [H, W] per mask."""
        for layer, label in zip(self.layers.tolist(), self.labels.tolist()):
            plane = self.planes[layer]
            yield (plane == label) | (plane == EVERY_CELL)

    def area(self) -> Tensor:
        """Pixels of each mask, int64 [N]."""
        if len(self) == 0:
            return torch.zeros(0, dtype=torch.int64, device=self.device)
        # Labels from -1 on, shifted to 0; as many columns in every layer.
        columns = int(torch.stack([self.planes.max().long(), self.labels.max()]).max()) + 2
        counts = torch.stack(
            [torch.bincount(plane.flatten().int() + 1, minlength=columns) for plane in self.planes]
        )
        return counts[self.layers, self.labels + 1] + counts[self.layers, 0]

    def nonempty(self) -> Tensor:
        """bool [N]: whether a mask has any pixel."""
        return self.area() > 0

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each mask, on the CPU; all zero for a mask without pixels."""
        labels, layers = self.labels.cpu().numpy(), self.layers.cpu().numpy()
        boxes = np.zeros((len(labels), 4), np.float32)
        for layer in np.unique(layers):
            here = layers == layer
            boxes[here] = tight_boxes(self.planes[layer].cpu().numpy(), labels[here])
        return Boxes(torch.from_numpy(boxes))

    @staticmethod
    def cat(masks: Sequence[LabelMasks]) -> LabelMasks:
        """All masks of several objects of one image size; planes that they share are kept once.

        Raises:
            LabelError: nothing to join, or image sizes differ.
        """
        sizes = {tuple(one.image_size) for one in masks}
        if len(sizes) != 1:
            raise LabelError(f"masks to join are of one image size; found {sorted(sizes)}")
        first_layer: dict[int, int] = {}
        planes: list[Tensor] = []
        for one in masks:
            if id(one.planes) not in first_layer:
                first_layer[id(one.planes)] = sum(len(each) for each in planes)
                planes.append(one.planes)
        return LabelMasks(
            torch.cat(planes) if len(planes) > 1 else planes[0],
            torch.cat([one.labels for one in masks]),
            torch.cat([one.layers + first_layer[id(one.planes)] for one in masks]),
        )

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask out by its own box and scale it to a square: targets of the mask head.

        The samples, weights and sums are those of torchvision's aligned `roi_align` of float32
        bitmaps, in its order, so that the result is that of `BitMasks.crop_and_resize` to the bit.

        Args:
            boxes: [N, 4], (x0, y0, x1, y1) in pixels, one per mask; may reach beyond the image. A
                box without area gives no pixel.
            mask_size: height and width of the square that a box becomes, in bins.

        Returns:
            bool [N, mask_size, mask_size], on the device of the masks.

        Raises:
            LabelError: not one box per mask.
        """
        if boxes.shape != (len(self), 4):
            raise LabelError(f"{len(self)} masks need boxes [N, 4]; found {list(boxes.shape)}")
        squares = torch.zeros(len(self), mask_size, mask_size, dtype=torch.bool, device=self.device)
        if squares.numel() == 0 or min(self.image_size) == 0:
            return squares
        low, high = (boxes.to(self.device, torch.float32) - 0.5).split(2, dim=1)
        bins = _divide_truly(high - low, mask_size)
        has_shared = bool((self.planes == EVERY_CELL).any())
        kinds, kind_of = bins.ceil().long().unique(dim=0, return_inverse=True)
        for number, (across, down) in enumerate(kinds.tolist()):
            if across <= 0 or down <= 0:
                continue
            alike = (kind_of == number).nonzero()[:, 0]
            for part in alike.split(max(1, _SAMPLES_AT_ONCE // (mask_size**2 * across * down))):
                x = _axis_taps(low[part, 0], bins[part, 0], across, mask_size, self.image_size[1])
                y = _axis_taps(low[part, 1], bins[part, 1], down, mask_size, self.image_size[0])
                squares[part] = self[part]._mean_of_samples(x, y, has_shared) >= 0.5
        return squares

    def _mean_of_samples(
        self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], has_shared: bool
    ) -> Tensor:
        """Bins [N, side, side], float32, from the taps of both axes (see `_axis_taps`)."""
        (columns, x_shares), (rows, y_shares) = x, y
        _, across, count, side = columns.shape
        down = rows.shape[1]
        height, width = self.image_size
        starts = rows * width + (self.layers * (height * width))[:, None]
        total = torch.zeros(count, side, side, device=self.device)
        portion = max(1, _SAMPLES_AT_ONCE // (count * side * side * across))
        for begin in range(0, down, portion):
            some = slice(begin, begin + portion)
            samples = self._bilinear_samples(
                (columns, x_shares), (starts[:, some], y_shares[:, some]), has_shared
            )
            for sample in samples.flatten(0, 1):  # one by one: floats add up in this order
                total += sample
        return _divide_truly(total, across * down)

    def _bilinear_samples(
        self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], has_shared: bool
    ) -> Tensor:
        """Bilinear samples [down, across, N, side, side]."""
        (columns, x_shares), (starts, y_shares) = x, y
        pixels = self.planes.reshape(-1)
        labels = self.labels.to(pixels.dtype)[:, None, None]
        samples: Tensor | None = None
        for upper in (0, 1):
            for left in (0, 1):
                at = starts[upper][:, None, :, :, None] + columns[left][None, :, :, None, :]
                found = pixels.take(at)
                is_cell = found == labels
                if has_shared:
                    is_cell |= found == EVERY_CELL
                weights = y_shares[upper][:, None, :, :, None] * x_shares[left][None, :, :, None, :]
                weights *= is_cell
                samples = weights if samples is None else samples.add_(weights)
        assert samples is not None
        return samples


def _divide_truly(values: Tensor, divisor: int) -> Tensor:
    """True division on every device; by a plain number CUDA would multiply with the inverse."""
    return values / torch.full((), divisor, dtype=values.dtype, device=values.device)


def _axis_taps(
    start: Tensor, bins: Tensor, samples: int, side: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Pixels along one axis that the samples of each bin mix, and their weights.

    In the order of operations of torchvision's CPU kernel.

    Args:
        start: float32 [n], the box's edge, 0 in the middle of the first pixel.
        bins: float32 [n], size of a bin in pixels.
        samples: how many samples a bin is the mean of along this axis.
        side: how many bins a box has along this axis.
        limit: how many pixels the image has along this axis.

    Returns:
        int64 and float32 [2, samples, n, side]: lower and higher pixel. Both weights are 0 outside
        of the image.
    """
    numbers = torch.arange(side, dtype=start.dtype, device=start.device)
    halves = torch.arange(samples, dtype=start.dtype, device=start.device)[:, None, None] + 0.5
    steps = _divide_truly(halves * bins[:, None], samples)
    at = (start[:, None] + numbers * bins[:, None]) + steps
    outside = (at < -1) | (at > limit)
    at = at.clamp(0, limit - 1)
    low = at.floor()
    share = at - low
    pixels = torch.stack([low, (low + 1).clamp(max=limit - 1)]).long()
    shares = torch.stack([1 - share, share]).masked_fill(outside, 0)
    return pixels, shares
