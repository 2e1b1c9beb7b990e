"""Detections of an image among which cells are chosen again and again, without the network.

    found = detect_softly(model, plane)            # once; the thresholds of the model are low
    detections = AdjustableDetections(found)
    chosen = detections.choose(DetectionThresholds(score=0.5, mask=0.4))
    chosen = detections.choose(DetectionThresholds(score=0.7, mask=0.4))   # milliseconds

What is chosen is what `cellseg predict` finds with these thresholds. For another mask threshold, or
another cleaning of masks, masks are cut and compared anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from cellseg.cells.cleaning import replace_masks
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.selection import (
    LOOKING_AT_EVERYTHING,
    Candidates,
    DetectionThresholds,
    clean_detections,
    passes_score,
    select_detections,
    vote_class,
)
from cellseg.cells.windows import Window
from cellseg.images import PlaneImage
from cellseg.inference.detections import SoftDetections
from cellseg.inference.model import CellModel
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.modeling.pasting import PastedMasks
from torch import Tensor, nn
from torchvision.ops import batched_nms

Progress = Callable[[int, int], None]

LEAST_SCORE = 0.05
"""Of detections to choose among; what has a lower one is hardly ever a cell."""

MOST_KEPT_PX = 2**26
"""Of all boxes together, for their masks to be kept in pixels: 256 MiB."""

SEAM_IOU = 0.5
"""Two detections of one class, of two tiles, whose boxes have so high an IoU are of one cell."""


class Chosen(NamedTuple):
    """What was chosen of the detections of an image.

    Attributes:
        cells: by descending score.
        ids: int64 [N], of each the number of its detection, from 1: the same one whenever it is
            chosen.
    """

    cells: CellInstances
    ids: IntArray


class AdjustableDetections:
    """Detections of one image, to choose cells among.

    Args:
        found: by descending score, as `detect_softly` gives them; detection k has the id k + 1.
    """

    def __init__(self, found: SoftDetections) -> None:
        self.found = found
        self._candidates: Candidates | None = None
        self._made_for: object = None
        self._pasted: PastedMasks | None = None

    def __len__(self) -> int:
        return len(self.found)

    def choose(self, thresholds: DetectionThresholds) -> Chosen:
        """The detections that are cells, with the pixels that are theirs.

        Args:
            thresholds: all are looked at; a score lower than what the network was asked for finds
                no more.

        Raises:
            ConfigError: a list of thresholds is shorter than the classes that occur.
        """
        found = self.voted(thresholds)
        passing = passes_score(found.scores.float().numpy(), found.classes.numpy(), thresholds)
        last = int(np.flatnonzero(passing).max(initial=-1))
        candidates = self._measure(found, thresholds, last + 1)
        numbers, new = select_detections(candidates, thresholds)
        cells, _ = replace_masks(candidates.cells, new)
        return Chosen(cells[numbers], numbers + 1)

    def voted(self, thresholds: DetectionThresholds) -> SoftDetections:
        """All detections, of the class that they vote for where these thresholds have them vote."""
        scores, classes = self.found.scores.float().numpy(), self.found.classes.numpy()
        elected = vote_class(scores, classes, thresholds)
        return self.found if elected is None else self.found.of_one_class(elected)

    def measure(self, thresholds: DetectionThresholds) -> Candidates:
        """All detections with the masks that these thresholds give them; kept until they change."""
        return self._measure(self.voted(thresholds), thresholds, len(self))

    def _measure(
        self, found: SoftDetections, thresholds: DetectionThresholds, first: int
    ) -> Candidates:
        """At least the first detections, by descending score, with their masks.

        While masks change, fainter ones than are asked for play no part, and are left out; they are
        measured when the score threshold sinks to theirs.
        """
        classes = None if found is self.found else found.classes[:1].tolist()
        wanted = (thresholds.mask, thresholds.largest_component, thresholds.fill_holes, classes)
        is_known = self._candidates is not None and wanted == self._made_for
        if self._candidates is None or not is_known or len(self._candidates.cells) < first:
            first = len(self) if is_known or self._candidates is None else first
            cut = found[:first].to_cells(thresholds.mask, self._paste())
            cells, _ = clean_detections(cut, thresholds)
            self._candidates = Candidates.measure(cells, LOOKING_AT_EVERYTHING)
            self._made_for = wanted
        return self._candidates

    def _paste(self) -> PastedMasks | None:
        """The masks in pixels, kept from the second time on that masks are cut."""
        is_again = self._pasted is None and self._made_for is not None
        if is_again and self.found.num_pixels <= MOST_KEPT_PX:
            self._pasted = self.found.paste()
        return self._pasted


def detect_softly(
    model: CellModel,
    plane: PlaneImage,
    *,
    window: Window | None = None,
    progress: Progress = lambda done, total: None,
) -> SoftDetections:
    """All that a model detects in a plane, or in a part of it, before masks are cut.

    Args:
        model: the lowest score threshold of its predictor says what is a detection.
        plane: read window by window, once each.
        window: the part that is looked at, of the size and with the intensities that it has in
            the whole plane; by default all of it.
        progress: called with the numbers of tiles done and of all tiles (0 and 1 until it is known
            how large the plane is looked at), whenever the network goes from one layer to the next.
            What it raises ends the work at once.

    Returns:
        By descending score, in the frame of the window. A cell longer than the overlap of tiles
        (CELLSEG.TEST.TILE_OVERLAP) may be cut at a seam; `predict_plane` joins such pieces.

    Raises:
        ImageReadError: pixels cannot be read.
        LabelError: the model gives no soft masks.
    """
    window = window or Window(0, 0, *plane.image_hw)
    with _told_at_each_layer(model.predictor.model, partial(progress, 0, 1)):
        look = model.look_at(plane)
    grid = model.plan_tiles(window.hw, look)
    limits = model.predictor.limits_of(plane)
    scale, is_smooth = model.scale_in_tiles(plane.image_hw, look)
    parts = []
    for tile in grid.tiles:
        tell = partial(progress, tile.number, len(grid))
        with _told_at_each_layer(model.predictor.model, tell):
            pixels = plane.read(*_in_plane(tile.window, window))
            found = model.predictor.detect_softly(pixels, limits, scale, is_smooth=is_smooth)
        parts.append(_of_tile(found, grid, tile))
    progress(len(grid), len(grid))
    return _once_at_seams(parts, window.hw)


@contextmanager
def _told_at_each_layer(model: nn.Module, tell: Callable[[], None]) -> Iterator[None]:
    """Within the context `tell` is called before each layer does its work, and once before."""
    tell()
    handles = [
        layer.register_forward_pre_hook(lambda *_: tell())
        for layer in model.modules()
        if not any(True for _ in layer.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _in_plane(tile: Window, window: Window) -> tuple[slice, slice]:
    top, left = window.top + tile.top, window.left + tile.left
    return slice(top, top + tile.hw[0]), slice(left, left + tile.hw[1])


def _of_tile(found: SoftDetections, grid: TileGrid, tile: Tile) -> tuple[SoftDetections, Tensor]:
    """The detections that a tile answers for, and which of them reach out of its core."""
    found = found.moved((tile.window.top, tile.window.left), grid.image_hw)
    boxes = found.boxes_xyxy.round().long()
    found = found[torch.from_numpy(grid.tiles_of(boxes.numpy()) == tile.number)]
    x0, y0, x1, y1 = found.boxes_xyxy.T
    core = tile.core
    is_inside = (x0 >= core.left) & (y0 >= core.top) & (x1 <= core.right) & (y1 <= core.bottom)
    return found, ~is_inside


def _once_at_seams(
    parts: list[tuple[SoftDetections, Tensor]], image_hw: tuple[int, int]
) -> SoftDetections:
    """All detections, less those that two tiles found: the one with the lower score is left out."""
    inside = [found[~reaches_out] for found, reaches_out in parts]
    across = SoftDetections.concatenate([found[out] for found, out in parts], image_hw)
    if len(parts) > 1:
        kept = batched_nms(across.boxes_xyxy, across.scores.float(), across.classes, SEAM_IOU)
        across = across[kept]
    return SoftDetections.concatenate([*inside, across], image_hw)
