"""The numbers that a report shows, from the comparisons of a data set; neither torch nor engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cellseg.cells.labels import IntArray, disc_diameters
from cellseg.evaluation.coco import RECALLS, THRESHOLDS
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.error_kinds import CONFUSED, KINDS, classify_errors, confused_pairs
from cellseg.evaluation.metric_kinds import IOU_THRESHOLDS
from cellseg.evaluation.metrics import name_at
from cellseg.evaluation.scoring import Comparisons
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

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


def find_kinds(image: Comparison) -> CellKinds:
    """Sort the cells of one image by what happened to them.

    `classify_errors`, in which classes play no part; then cells that are correct in shape and of
    another class than their partner are "confused". Predicted cells that the crowd rule forgives
    have no kind: give `Comparison.counted`, which has none.
    """
    found = classify_errors(image)
    kinds_true = [KINDS[k] for k in found.true_kind]
    kinds_pred = [KINDS[k] for k in found.pred_kind]
    counts = {kind: found.counts[kind] for kind in KINDS[1:]} | {CONFUSED: 0}
    for i, j in confused_pairs(image):
        kinds_true[i] = kinds_pred[j] = CONFUSED
        counts[CONFUSED] += 1
    return CellKinds(tuple(kinds_true), tuple(kinds_pred), counts)


def metrics_over_iou(kept: Comparisons, names: Sequence[str]) -> dict[str, list[float]]:
    """Each metric at each of the ten IoU thresholds 0.50, 0.55, ..., 0.95."""
    wanted = {name: [name_at(name, t) for t in IOU_THRESHOLDS] for name in names}
    found = kept.metrics([each for several in wanted.values() for each in several])
    return {name: [found[each] for each in several] for name, several in wanted.items()}


def precision_over_recall(
    everything: Comparisons, threshold: float
) -> tuple[FloatArray, FloatArray]:
    """COCO's precision at recall 0, 0.01, ..., 1 at one IoU threshold, the mean over classes.

    At each recall it is the best precision reached at this recall or a higher one. NaN where there
    is no true cell.
    """
    every = everything.coco("mask").numbers().precision
    precision = every[int(np.argmin(np.abs(THRESHOLDS - threshold)))]
    known = ~np.isnan(precision).all(axis=0)
    if not known.any():
        return RECALLS, np.full(len(RECALLS), np.nan)
    return RECALLS, precision[:, known].mean(axis=1)


def recall_and_precision(kept: Comparisons, threshold: float) -> tuple[float, float]:
    """Recall and precision of the cells given, each the mean over the classes that have true cells.

    The point of `precision_over_recall` that a score threshold leads to. NaN where there is no
    true cell.
    """
    numbers = {number for image in kept.images for number in image.true.classes.tolist()}
    names = [name_at(name, threshold) for name in ("recall", "precision")]
    found = [list(kept.of_class(number).metrics(names).values()) for number in sorted(numbers)]
    if not found:
        return float("nan"), float("nan")
    recall, precision = np.mean(found, axis=0).tolist()
    return recall, precision


def judge_detections(
    everything: Comparisons, threshold: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    """(score, whether it is right) of every detection, matched in order of the scores.

    Right is one that gets a true cell of its class at an IoU of `threshold` or more; one that the
    crowd rule forgives is neither right nor wrong and left out.
    """
    scores, right = [np.zeros(0)], [np.zeros(0)]
    for image in (each.within_classes for each in everything.images):
        matching = image.match(threshold, greedy=True)
        hit = np.zeros(len(image.pred))
        hit[matching.pred_index] = 1
        judged = ~image.forgiven(threshold, matching)
        scores.append(image.pred.scores[judged])
        right.append(hit[judged])
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


def diameters_of_matches(kept: Comparisons, threshold: float = 0.5) -> FloatArray:
    """Diameters of the circles of equal area, float64 [K, 2] (true, predicted), pixels."""
    rows = [np.zeros((0, 2))]
    for image in kept.images:
        pairs = image.match(threshold)
        areas = (image.true.areas_px[pairs.true_index], image.pred.areas_px[pairs.pred_index])
        rows.append(disc_diameters(np.stack(areas, axis=1)))
    return np.concatenate(rows)


def choose_images(order: Sequence[int], most: int) -> list[int]:
    """At most so many of images ordered from worst to best: the worst half, the rest evenly."""
    if len(order) <= most:
        return list(order)
    worst = most - most // 2
    rest = order[worst:]
    steps = np.linspace(0, len(rest) - 1, most - worst).round().astype(int).tolist()
    return [*order[:worst], *(rest[k] for k in steps)]
