"""One door to all metrics: `score`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError
from cellseg.evaluation import coco_figures as coco
from cellseg.evaluation.comparison import (
    Comparison,
    Segmentation,
    check_lengths,
    compare,
    compare_all,
)
from cellseg.evaluation.figures import FIGURES, THRESHOLDS, FloatArray

DEFAULT_METRICS = (
    "ap_dsb@0.50",
    "ap_dsb",
    "precision@0.50",
    "recall@0.50",
    "f1@0.50",
    "pq@0.50",
    "aji",
    "dice_foreground",
    "seg_ctc",
)
_AFNR = "afnr_livecell"
_COCO = re.compile(
    r"(?P<what>ap|ar)_coco_(?P<kind>mask|box)"
    r"(?:_(?P<size>small|medium|large)(?P<livecell>_livecell)?)?"
    r"(?:@(?P<at>.*))?$"
)
COCO_NAMES = (
    *(
        f"{what}_coco_{kind}{size}"
        for what in ("ap", "ar")
        for kind in ("mask", "box")
        for size in (
            "",
            *(f"_{size}{bins}" for bins in ("", "_livecell") for size in coco.COCO_SIZES),
        )
    ),
    _AFNR,
)
"""COCO's figures; ap_* may end in one of the ten thresholds, ar_* in a number of detections."""


def score(
    ground_truth: Sequence[Segmentation],
    predictions: Sequence[Segmentation],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    match_classes: bool = True,
) -> dict[str, float]:
    """Score a set of images.

    Args:
        ground_truth: per image a label image (integer array [H, W], 0 is background) or
            `CellInstances`.
        predictions: of the same images, in the same order and of the same kind. COCO's metrics
            want instances with scores.
        metrics: names; docs/metrics.md defines each. "f1@0.75" is at that IoU threshold, "f1" the
            mean over 0.50, 0.55, ..., 0.95; "ap_coco_mask@0.50", "ar_coco_mask@500",
            "ap_coco_mask_small", "ap_coco_mask_small_livecell", "afnr_livecell" are COCO's.
        match_classes: a cell matches only cells of its own class; otherwise classes play no part.

    Returns:
        The figures by name, in the order asked for. Without images every share is 1 and every
        count 0; COCO's are NaN where there is no true cell.

    Raises:
        LabelError: the two sides do not match, or a name is no metric.
    """
    requests = {name: _coco_request(name) for name in metrics}
    plain = [name for name, request in requests.items() if request is None]
    for name in plain:
        _parse(name)
    if plain:
        rows = _compare(ground_truth, predictions, match_classes)
        figures = {name: rows.figure(name) for name in plain}
    else:
        figures = {}
    asked = {name: request for name, request in requests.items() if request is not None}
    if asked:
        figures |= _coco_scores(_instances(ground_truth, predictions, match_classes), asked)
    return {name: figures[name] for name in requests}


def _compare(
    ground_truth: Sequence[Segmentation], predictions: Sequence[Segmentation], match_classes: bool
) -> _Rows:
    images = compare_all(ground_truth, predictions)
    return _Rows([_within_classes(image) for image in images] if match_classes else images)


def confidence_intervals(
    ground_truth: Sequence[Segmentation],
    predictions: Sequence[Segmentation],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    match_classes: bool = True,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over images (Efron and Tibshirani, 1993) of the metrics of `score`.

    Images, not cells, are drawn with replacement: cells of one image are no independent sample.

    Args:
        level: of the interval.
        samples: data sets drawn.
        seed: of the draws.

    Returns:
        (low, high) by name.

    Raises:
        LabelError: as `score`; COCO's metrics, which rank detections over all images, have none;
            a level not between 0 and 1, less than one sample.
    """
    if not 0 < level < 1 or samples < 1:
        raise LabelError(f"a level lies in (0, 1), found {level}; samples, {samples}, from 1 on")
    for name in metrics:
        if is_ranked(name):
            raise LabelError(f"{name}: no interval by bootstrap for COCO's ranked metrics")
        _parse(name)
    rows = _compare(ground_truth, predictions, match_classes)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, max(1, len(rows)), (samples, len(rows)))
    tail = 50 * (1 - level)
    intervals = {}
    for name in metrics:
        values = [rows.figure(name, chosen) for chosen in drawn]
        low, high = np.percentile(values, [tail, 100 - tail])
        intervals[name] = (float(low), float(high))
    return intervals


def is_ranked(name: str) -> bool:
    """True for COCO's metrics, which rank the detections of all images.

    Raises:
        LabelError: something behind the @ that is not to be had.
    """
    return _coco_request(name) is not None


def cells_of_class(cells: Segmentation, number: int) -> CellInstances:
    """The cells of one class; those of a label image all have class 0."""
    if not isinstance(cells, CellInstances):
        cells = CellInstances.from_label_image(cells)
    return cells[cells.classes == number]


class _Rows:
    """Numbers of each image, computed once per measure and threshold."""

    def __init__(self, images: Sequence[Comparison]) -> None:
        self._images = images
        self._known: dict[tuple[Any, float], FloatArray] = {}

    def __len__(self) -> int:
        return len(self._images)

    def figure(self, name: str, chosen: Any = slice(None)) -> float:
        """A figure over the images `chosen` (an index array)."""
        key, threshold = _parse(name)
        figure = FIGURES[key]
        if not figure.at_threshold or threshold is not None:
            return figure.combine(self._rows(figure.measure, threshold or 0.0)[chosen])
        at_each = [self._rows(figure.measure, each)[chosen] for each in THRESHOLDS]
        return float(np.mean([figure.combine(rows) for rows in at_each]))

    def _rows(self, measure: Any, threshold: float) -> FloatArray:
        known = self._known.get((measure, threshold))
        if known is None:
            rows = [list(measure(image, threshold)) for image in self._images]
            known = np.array(rows, np.float64)
            if not rows:
                known = np.zeros((0, len(measure(_no_cells(), threshold))))
            self._known[measure, threshold] = known
        return known


def _parse(name: str) -> tuple[str, float | None]:
    """("f1", 0.5) from "f1@0.50".

    Raises:
        LabelError: no such metric, with the nearest ones; a threshold that makes no sense.
    """
    key, at, text = name.partition("@")
    if key not in FIGURES:
        known = sorted([*FIGURES, *COCO_NAMES])
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise LabelError(f"no metric {name!r}; {hint}")
    if not at:
        return key, None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not FIGURES[key].at_threshold or not 0 < threshold <= 1:
        raise LabelError(
            f"{name!r}: expected a metric and an IoU threshold in (0, 1], as in f1@0.50; "
            f"{key} {'takes one' if FIGURES[key].at_threshold else 'takes none'}"
        )
    return key, threshold


def _within_classes(image: Comparison) -> Comparison:
    overlaps = image.overlaps
    same = image.true_classes[overlaps.true_index] == image.pred_classes[overlaps.pred_index]
    if same.all():
        return image
    kept = (overlaps.true_index, overlaps.pred_index, overlaps.intersection_px, overlaps.iou)
    return replace(image, overlaps=type(overlaps)(overlaps.shape, *(each[same] for each in kept)))


def _no_cells() -> Comparison:
    background = np.zeros((1, 1), np.uint8)
    return compare(background, background)


@dataclass(frozen=True)
class _CocoRequest:
    """What a name of `COCO_NAMES` asks for; `threshold` None is the mean over all ten."""

    what: str
    kind: str = "mask"
    sizes_px: tuple[float, float] = coco.EVERY_SIZE
    max_detections: int = coco.MAX_DETECTIONS[-1]
    threshold: float | None = None


def _coco_request(name: str) -> _CocoRequest | None:
    """None for any other name.

    Raises:
        LabelError: something behind the @ that is not to be had.
    """
    if name == _AFNR:
        return _CocoRequest("afnr")
    found = _COCO.match(name)
    if found is None:
        return None
    bins = coco.LIVECELL_SIZES if found["livecell"] else coco.COCO_SIZES
    sizes_px = bins[found["size"]] if found["size"] else coco.EVERY_SIZE
    request = _CocoRequest(found["what"], found["kind"], sizes_px)
    if found["at"] is None:
        return request
    if request.what == "ar":
        if not re.fullmatch("[1-9][0-9]*", found["at"]):
            raise LabelError(f"{name!r}: expected a number of detections, as in ar_coco_mask@500")
        return replace(request, max_detections=int(found["at"]))
    near = [each for each in THRESHOLDS if found["at"] in (f"{each:.2f}", f"{each:g}")]
    if not near:
        raise LabelError(f"{name!r}: expected one of COCO's IoU thresholds, 0.50, 0.55, ..., 0.95")
    return replace(request, threshold=near[0])


def _instances(
    ground_truth: Sequence[Segmentation], predictions: Sequence[Segmentation], match_classes: bool
) -> list[coco.Pair]:
    check_lengths(ground_truth, predictions)
    sides = []
    for side in (ground_truth, predictions):
        cells = [
            each if isinstance(each, CellInstances) else CellInstances.from_label_image(each)
            for each in side
        ]
        if not match_classes:
            cells = [each.replace(classes=np.zeros_like(each.classes)) for each in cells]
        sides.append(cells)
    return list(zip(*sides))


def _coco_scores(
    pairs: Sequence[coco.Pair], requests: Mapping[str, _CocoRequest]
) -> dict[str, float]:
    scores = {}
    for kind in {request.kind for request in requests.values()}:
        asked = {name: request for name, request in requests.items() if request.kind == kind}
        most = max(request.max_detections for request in asked.values())
        evaluation = coco.CocoEvaluation(pairs, kind=kind, max_detections=most)
        figures = cache(evaluation.figures)
        for name, request in asked.items():
            found = figures(request.max_detections, request.sizes_px)
            scores[name] = _coco_figure(found, request)
    return scores


def _coco_figure(found: coco.CocoFigures, request: _CocoRequest) -> float:
    if request.what == "ap":
        return found.ap if request.threshold is None else found.ap_at(request.threshold)
    return found.ar if request.what == "ar" else 1 - found.ar
