"""The numbers that a report shows, from true and predicted cells; neither torch nor engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.matching import match_overlaps
from cellseg.cells.overlaps import find_overlaps
from cellseg.evaluation.coco_figures import RECALLS, THRESHOLDS, coco_figures
from cellseg.evaluation.comparison import compare
from cellseg.evaluation.error_kinds import CORRECT_ABOVE_IOU, KINDS, classify_errors
from cellseg.evaluation.greedy import match_greedily
from cellseg.evaluation.scoring import score
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Pair = tuple[CellInstances, CellInstances]

CONFUSED = "confused"
ERROR_KINDS = (*KINDS[1:], CONFUSED)
BINS = 10


@dataclass(frozen=True)
class CellKinds:
    """The kind of every cell of one image: those of `error_kinds.KINDS`, or "confused".

    Attributes:
        true, pred: [N] and [M] kinds.
        counts: errors by kind, in events (a split true cell is one).
    """

    true: tuple[str, ...]
    pred: tuple[str, ...]
    counts: dict[str, int]


@dataclass(frozen=True)
class Calibration:
    """What scores are worth, in `BINS` equal bins of the score.

    Attributes:
        detections: int64 [BINS].
        mean_score, share_correct: float64 [BINS], NaN where there is no detection.
        error: expected calibration error, the mean of |share - score| over detections (Naeini et
            al., AAAI 2015); NaN without detections.
    """

    detections: IntArray
    mean_score: FloatArray
    share_correct: FloatArray
    error: float


def find_kinds(true: CellInstances, pred: CellInstances) -> CellKinds:
    """Sort cells by what happened to them.

    `classify_errors`, in which classes play no part; then cells that are correct in shape and of
    another class than their partner are "confused".
    """
    image = compare(true, pred)
    found = classify_errors(image)
    kinds_true = [KINDS[k] for k in found.true_kind]
    kinds_pred = [KINDS[k] for k in found.pred_kind]
    matching = match_overlaps(image.overlaps, CORRECT_ABOVE_IOU, strict=True)
    counts = {kind: found.counts[kind] for kind in KINDS[1:]} | {CONFUSED: 0}
    for i, j in zip(matching.true_index.tolist(), matching.pred_index.tolist()):
        if true.classes[i] != pred.classes[j]:
            kinds_true[i] = kinds_pred[j] = CONFUSED
            counts[CONFUSED] += 1
    return CellKinds(tuple(kinds_true), tuple(kinds_pred), counts)


def figures_over_iou(pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, list[float]]:
    """Each metric at each of the ten IoU thresholds 0.50, 0.55, ..., 0.95."""
    wanted = [f"{name}@{t:.2f}" for name in names for t in THRESHOLDS]
    true, pred = split_sides(pairs)
    figures = score(true, pred, wanted)
    return {name: [figures[f"{name}@{t:.2f}"] for t in THRESHOLDS] for name in names}


def precision_over_recall(pairs: Sequence[Pair], threshold: float) -> tuple[FloatArray, FloatArray]:
    """COCO's precision at recall 0, 0.01, ..., 1 at one IoU threshold, the mean over classes.

    At each recall it is the best precision reached at this recall or a higher one. NaN where there
    is no true cell.
    """
    figures = coco_figures(pairs)
    precision = figures.precision[int(np.argmin(np.abs(THRESHOLDS - threshold)))]
    known = ~np.isnan(precision).all(axis=0)
    if not known.any():
        return RECALLS, np.full(len(RECALLS), np.nan)
    return RECALLS, precision[:, known].mean(axis=1)


def recall_and_precision(pairs: Sequence[Pair], threshold: float) -> tuple[float, float]:
    """Recall and precision of the cells given, each the mean over the classes that have true cells.

    The point of `precision_over_recall` that a score threshold leads to. NaN where there is no
    true cell.
    """
    numbers = np.unique(
        np.concatenate([np.zeros(0, np.int64), *(true.classes for true, _ in pairs)])
    )
    names = [f"recall@{threshold:.2f}", f"precision@{threshold:.2f}"]
    found = []
    for number in numbers.tolist():
        of_class = [(t[t.classes == number], p[p.classes == number]) for t, p in pairs]
        figures = score(*split_sides(of_class), names)
        found.append([figures[name] for name in names])
    if not found:
        return float("nan"), float("nan")
    recall, precision = np.mean(found, axis=0).tolist()
    return recall, precision


def judge_detections(
    pairs: Sequence[Pair], threshold: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    """(score, whether it is right) of every detection, matched in order of the scores.

    Right is one that gets a true cell of its class at an IoU of `threshold` or more.
    """
    scores, right = [np.zeros(0)], [np.zeros(0)]
    for true, pred in pairs:
        for number in np.unique(pred.classes):
            cells = pred[pred.classes == number]
            overlaps = find_overlaps(true[true.classes == number], cells)
            own = cells.scores.astype(np.float64)
            hit = np.zeros(len(cells))
            hit[match_greedily(overlaps, own, threshold).pred_index] = 1
            scores.append(own)
            right.append(hit)
    return np.concatenate(scores), np.concatenate(right)


def calibrate(scores: FloatArray, right: FloatArray) -> Calibration:
    """Compare scores with how often their detections are right."""
    number = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    detections = np.bincount(number, minlength=BINS)
    some = np.where(detections, detections, np.nan)
    mean_score = np.bincount(number, scores, minlength=BINS) / some
    share = np.bincount(number, right, minlength=BINS) / some
    error = float("nan")
    if len(scores):
        error = float(np.nansum(np.abs(share - mean_score) * detections) / len(scores))
    return Calibration(detections, mean_score, share, error)


def diameters_of_matches(pairs: Sequence[Pair], threshold: float = 0.5) -> FloatArray:
    """Diameters of the circles of equal area, float64 [K, 2] (true, predicted), pixels."""
    rows = [np.zeros((0, 2))]
    for true, pred in pairs:
        matching = match_overlaps(find_overlaps(true, pred), threshold)
        areas = np.stack(
            [true.areas_px[matching.true_index], pred.areas_px[matching.pred_index]], axis=1
        )
        rows.append(2 * np.sqrt(areas / np.pi))
    return np.concatenate(rows)


def confusion_matrix(pairs: Sequence[Pair], num_classes: int, threshold: float = 0.5) -> IntArray:
    """Which class is taken for which, int64 [C + 1, C + 1].

    Rows are true classes, columns predicted ones, of the pairs that match whatever their class.
    The last row counts predicted cells without a true one, the last column true cells that were
    not found.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for true, pred in pairs:
        matching = match_overlaps(find_overlaps(true, pred), threshold)
        rows = np.concatenate([true.classes, np.full(len(pred), num_classes)])
        columns = np.full(len(rows), num_classes)
        columns[len(true) :] = pred.classes
        columns[matching.true_index] = pred.classes[matching.pred_index]
        counted = np.ones(len(rows), bool)
        counted[len(true) + matching.pred_index] = False
        np.add.at(counts, (rows[counted], columns[counted]), 1)
    return counts


def choose_images(order: Sequence[int], most: int) -> list[int]:
    """At most so many of images ordered from worst to best: the worst half, the rest evenly."""
    if len(order) <= most:
        return list(order)
    worst = most - most // 2
    rest = order[worst:]
    steps = np.linspace(0, len(rest) - 1, most - worst).round().astype(int).tolist()
    return [*order[:worst], *(rest[k] for k in steps)]


def split_sides(pairs: Sequence[Pair]) -> tuple[list[CellInstances], list[CellInstances]]:
    """All true and all predicted cells, image by image."""
    return [true for true, _ in pairs], [pred for _, pred in pairs]
