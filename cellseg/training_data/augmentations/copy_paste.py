# ruff: noqa: NPY002 (numpy's global generator, as Detectron2's augmentations: one seed for all)
"""Copy-paste of cells between images of one class (after Ghiasi et al., 2021)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from cellseg.cells.label_planes import LabelPlanes
from cellseg.errors import InputValueError
from cellseg.training_data.augmentations.base import Image
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and its cells.

    Attributes:
        image: [H, W] or [H, W, C].
        cells: of the same height and width.
        classes: class of each cell, int64 [N].
    """

    image: Image
    cells: LabelPlanes
    classes: IntArray

    def flip(self, *, rows: bool, cols: bool) -> LabelledImage:
        """Mirrored; `rows` turns it upside down."""
        axes = tuple(axis for axis, wanted in enumerate((rows, cols)) if wanted)
        planes = np.flip(self.cells.planes, tuple(axis + 1 for axis in axes))
        return replace(
            self, image=np.flip(self.image, axes), cells=LabelPlanes(planes, self.cells.layers)
        )


class SameClassImages:
    """Draws images of a dataset by the classes of their cells, for `CopyPaste`.

    Args:
        get_entries: gives Detectron2's dataset dicts; called once, when first needed.
        load: reads the image and the cells of an entry.
    """

    def __init__(
        self,
        get_entries: Callable[[], Sequence[Mapping[str, Any]]],
        load: Callable[[Mapping[str, Any]], LabelledImage],
    ) -> None:
        self._get_entries = get_entries
        self._load = load

    @cached_property
    def _by_class(self) -> dict[int, list[Mapping[str, Any]]]:
        found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in self._get_entries():
            cells = (cell for cell in entry["annotations"] if not cell.get("iscrowd", 0))
            for number in {int(cell["category_id"]) for cell in cells}:
                found[number].append(entry)
        return dict(found)

    def __getstate__(self) -> dict[str, Any]:
        """With the entries: a process that is spawned does not know what is registered here."""
        return {"_by_class": self._by_class, "_load": self._load}

    def __call__(self, classes: IntArray) -> LabelledImage | None:
        """A random image that has cells of a random one of `classes`; None if there is none."""
        known = [number for number in np.unique(classes).tolist() if number in self._by_class]
        if not known:
            return None
        entries = self._by_class[known[np.random.randint(len(known))]]
        return self._load(entries[np.random.randint(len(entries))])


@dataclass(eq=False)
class CopyPaste:
    """Puts cells of another image in front of those of an image.

    The other image is mirrored at random and moved; some of its whole cells (not those that its
    border cuts) of classes that the image has too are taken. An image without cells has no class,
    and stays as it is.

    Attributes:
        get_other: another image for the classes of an image, or None; see `SameClassImages`.
        prob: how often anything is pasted.
        num_cells: least and highest number of cells to paste; fewer where there are not as many.
        flip: mirror the other image, each axis half of the time.
        shift: how far the other image moves at most, as a share of its size; the images' sizes may
            differ, then it lies anywhere within.
        edge_sigma_px: width of the soft edge of pasted cells; 0 makes it hard.
        min_visible: a cell that is left with a smaller share of its pixels, by a cell that was
            pasted over it or by the image's border, is dropped.
        min_area_px: so is one that lost pixels and is left with fewer than these.
    """

    get_other: Callable[[IntArray], LabelledImage | None]
    prob: float = 0.5
    num_cells: tuple[int, int] = (1, 20)
    flip: bool = True
    shift: float = 0.5
    edge_sigma_px: float = 1.0
    min_visible: float = 0.3
    min_area_px: int = 8

    def __call__(self, target: LabelledImage) -> LabelledImage:
        """Paste onto an image.

        Returns:
            A new image (same shape and dtype) with the cells that are left, in their order, then
            the pasted ones; the very same object if nothing is pasted.

        Raises:
            InputValueError: the other image has another number of channels.
        """
        if not len(target.classes) or np.random.random() >= self.prob:
            return target
        other = self.get_other(target.classes)
        if other is None:
            return target
        if other.image.shape[2:] != target.image.shape[2:]:
            raise InputValueError(
                f"copy-paste: an image of shape {list(other.image.shape)} cannot be pasted onto "
                f"one of {list(target.image.shape)}; the channels differ"
            )
        chosen, areas = self._choose_cells(other, target.classes)
        flips = np.random.random(2) < 0.5 if self.flip else (False, False)
        other = other.flip(rows=bool(flips[0]), cols=bool(flips[1]))
        here, there = self._draw_windows(target.cells.image_hw, other.cells.image_hw)
        front = _cut_out(other.cells, there).select(chosen)
        enough = self._is_enough(front.areas_px, areas)
        if not enough.all():
            front, chosen = front.select(enough), chosen[enough]
        if not chosen.size:
            return target
        covered: NDArray[np.bool_] = np.any(front.planes, axis=0)
        behind, kept = self._clear_pixels(target.cells, covered, here)
        return LabelledImage(
            self._blend_pixels(target.image, other.image[there], covered, here),
            _put_in_front(front, behind, here),
            np.r_[target.classes[kept], other.classes[chosen]],
        )

    def _draw_windows(self, here_hw: Sequence[int], there_hw: Sequence[int]) -> Sequence[Window]:
        """The part that both images share, in pixels of each."""
        pairs = [self._draw_slices(*sides) for sides in zip(here_hw, there_hw)]
        return tuple(zip(*pairs))  # type: ignore[return-value]

    def _draw_slices(self, here: int, there: int) -> tuple[slice, slice]:
        low, high = sorted((0, here - there))
        most = round(self.shift * min(here, there))
        first = int(np.random.randint(low - most, high + most + 1))
        start, stop = max(first, 0), max(min(first + there, here), 0)
        return slice(start, stop), slice(start - first, stop - first)

    def _choose_cells(self, other: LabelledImage, classes: IntArray) -> tuple[IntArray, IntArray]:
        """Numbers of the cells to paste, ascending, and their areas in pixels."""
        planes, areas = other.cells.planes, other.cells.areas_px
        wanted = np.isin(other.classes, classes) & (areas > 0)
        border = (planes[:, [0, -1]].ravel(), planes[:, :, [0, -1]].ravel())
        cut = np.unique(np.concatenate(border))
        wanted[cut[cut > 0] - 1] = False
        low, high = self.num_cells
        drawn = np.random.permutation(np.flatnonzero(wanted))[: np.random.randint(low, high + 1)]
        chosen = np.sort(drawn)
        return chosen, areas[chosen]

    def _is_enough(self, left_px: IntArray, areas_px: IntArray) -> NDArray[np.bool_]:
        enough = (left_px >= self.min_visible * areas_px) & (left_px >= self.min_area_px)
        return (left_px == areas_px) | (enough & (left_px > 0))

    def _clear_pixels(
        self, cells: LabelPlanes, covered: NDArray[np.bool_], here: Window
    ) -> tuple[LabelPlanes, IntArray]:
        """Take the covered pixels away; the cells that are left, and their old numbers."""
        planes = cells.planes.copy()
        window = planes[:, here[0], here[1]]
        lost = np.bincount(window[:, covered].ravel(), minlength=len(cells) + 1)[1:]
        window[:, covered] = 0
        behind = LabelPlanes(planes, cells.layers)
        if not lost.any():
            return behind, np.arange(len(cells))
        areas = cells.areas_px
        enough = self._is_enough(areas - lost, areas)
        return (behind if enough.all() else behind.select(enough)), np.flatnonzero(enough)

    def _blend_pixels(
        self, image: Image, front: Image, covered: NDArray[np.bool_], here: Window
    ) -> Image:
        result = image.copy()
        weight: NDArray[Any] = covered.astype(np.float32)
        if self.edge_sigma_px > 0:
            weight = cv2.GaussianBlur(weight, (0, 0), self.edge_sigma_px)
        rows, cols = np.nonzero(weight)
        share = weight[rows, cols].reshape(-1, *[1] * (image.ndim - 2))
        window = result[here]
        mixed = window[rows, cols] * (1 - share) + front[rows, cols] * share
        if image.dtype.kind in "iu":
            limits = np.iinfo(image.dtype)
            mixed = np.rint(mixed).clip(limits.min, limits.max)
        window[rows, cols] = mixed
        return result


def _cut_out(cells: LabelPlanes, window: Window) -> LabelPlanes:
    return LabelPlanes(cells.planes[:, window[0], window[1]], cells.layers)


def _put_in_front(front: LabelPlanes, behind: LabelPlanes, window: Window) -> LabelPlanes:
    """All cells of both, those in front last; may change `behind`.

    `behind` has no pixel where `front` has one, so the cells in front fit into any layer.
    """
    planes = behind.planes
    missing = len(front.planes) - len(planes)
    if missing > 0:
        planes = np.pad(planes, ((0, missing), (0, 0), (0, 0)))
    into = planes[: len(front.planes), window[0], window[1]]
    np.copyto(into, front.planes + np.int32(len(behind)), where=front.planes > 0)
    return LabelPlanes(planes, np.r_[behind.layers, front.layers])
