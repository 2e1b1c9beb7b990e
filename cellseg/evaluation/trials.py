"""Many selections of cells from the same detections, for which all overlaps are found once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from cellseg.cells.cleaning import NewMasks, replace_masks
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.selection import (
    LOOKING_AT_EVERYTHING,
    Candidates,
    DetectionThresholds,
    clean_detections,
    select_detections,
    vote_over_image,
)
from cellseg.cells.thresholds import flags_of_classes
from cellseg.evaluation.comparison import Comparison, compare_all


class Selection(NamedTuple):
    """The cells of one image at certain thresholds.

    Attributes:
        number: of the image.
        everything: its detections with clean masks, compared.
        classes: int64 [N], of the detections after the vote.
        kept: int64 [K], which of them are cells.
        new: the masks of those that lost pixels to others.
    """

    number: int
    everything: Comparison
    classes: IntArray
    kept: IntArray
    new: NewMasks

    def compare(self) -> Comparison:
        """The cells compared with the true ones."""
        compared = self.everything.with_classes(self.classes).select(self.kept)
        if not self.new:
            return compared
        place = {number: k for k, number in enumerate(self.kept.tolist())}
        new = {place[number]: mask for number, mask in self.new.items()}
        return compared.with_masks(*replace_masks(compared.pred.cells, new))


class TrialImage:
    """One image: its detections compared with its true cells and with each other, once.

    Where masks are cleaned that is done once too, or as often as a vote gives them classes that
    are cleaned differently.
    """

    def __init__(self, number: int, whole: Comparison) -> None:
        self.whole = whole
        self._number = number
        self._cleaned: dict[bytes, tuple[Comparison, Candidates]] = {}

    def select(self, thresholds: DetectionThresholds) -> Selection:
        """The cells of the image."""
        voted = vote_over_image(self.whole.pred.cells, thresholds)
        everything, candidates = self._clean(voted, thresholds)
        if candidates.cells.classes is not voted.classes:
            candidates = replace(candidates, cells=candidates.cells.replace(classes=voted.classes))
        kept, new = select_detections(candidates, thresholds)
        return Selection(self._number, everything, voted.classes, kept, new)

    def _clean(
        self, voted: CellInstances, thresholds: DetectionThresholds
    ) -> tuple[Comparison, Candidates]:
        asked = (thresholds.largest_component, thresholds.fill_holes)
        per_cell = [flags_of_classes(flag, voted.classes) for flag in asked if np.any(flag)]
        key = b"".join(flags.tobytes() for flags in per_cell)
        if key not in self._cleaned:
            cells, is_changed = clean_detections(voted, thresholds)
            everything = self.whole.with_masks(cells, is_changed)
            candidates = Candidates.measure(cells, LOOKING_AT_EVERYTHING)
            self._cleaned[key] = everything, candidates
        return self._cleaned[key]


def prepare_images(
    ground_truth: Sequence[CellInstances], predictions: Sequence[CellInstances]
) -> list[TrialImage]:
    """A set of images, whose true and predicted cells are compared here.

    Raises:
        LabelError: two sides that do not match.
    """
    compared = compare_all(ground_truth, predictions)
    return [TrialImage(number, whole) for number, whole in enumerate(compared)]
