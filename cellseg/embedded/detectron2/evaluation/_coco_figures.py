"""COCO's figures from results in its own format, with limits of one's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def _evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: Sequence[Mapping[str, Any]],
    iou_type: str,
    kpt_oks_sigmas: Sequence[float] | None = None,
    cocoeval_fn: Callable[..., COCOeval] = COCOeval_opt,
    img_ids: Sequence[Any] | None = None,
    max_dets_per_image: Sequence[int] | None = None,
) -> COCOeval:
    """COCO's figures of the results of one kind.

    Args:
        coco_gt: the true objects.
        coco_results: in COCO's result format, at least one; they are not changed.
        iou_type: "bbox", "segm" or "keypoints".
        kpt_oks_sigmas: tolerance of each keypoint as a share of the object's size; by default
            those of COCO's 17 points of a person.
        cocoeval_fn: called with the true objects, the results and `iou_type`.
        img_ids: evaluate on these images only.
        max_dets_per_image: three limits of detections per image, [1, 10, 100] by default. Where
            the last is another one than 100, `COCOevalMaxDets` evaluates: the summaries of
            pycocotools speak of 100 detections only.

    Returns:
        The evaluation with its `stats`: evaluated, accumulated and summarized.

    Raises:
        ValueError: no results, fewer than three limits, or keypoints that differ in number.
    """
    if not coco_results:
        raise ValueError("There are no results to evaluate")
    limits = [*(max_dets_per_image or (1, 10, 100))]
    if len(limits) < 3:
        raise ValueError(f"max_dets_per_image takes three limits, got {limits}")
    if iou_type == "segm":  # pycocotools would take the size of an object from its box
        coco_results = [{k: v for k, v in result.items() if k != "bbox"} for result in coco_results]
    evaluate = cocoeval_fn if limits[2] == 100 else COCOevalMaxDets
    # Sizes of boxes and masks are written into the results: into copies.
    scores = evaluate(coco_gt, coco_gt.loadRes([{**each} for each in coco_results]), iou_type)
    if img_ids is not None:
        scores.params.imgIds = img_ids
    if iou_type == "keypoints":
        _set_keypoint_tolerances(scores, coco_results[0], kpt_oks_sigmas)
    else:
        scores.params.maxDets = limits
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return scores


def _set_keypoint_tolerances(
    scores: COCOeval, result: Mapping[str, Any], sigmas: Sequence[float] | None
) -> None:
    if sigmas:
        scores.params.kpt_oks_sigmas = np.array(sigmas)
    true = next(iter(scores.cocoGt.anns.values()))
    counts = {
        "results": len(result["keypoints"]) // 3,
        "true objects": len(true["keypoints"]) // 3,
        "tolerances (TEST.KEYPOINT_OKS_SIGMAS)": len(scores.params.kpt_oks_sigmas),
    }
    if len({*counts.values()}) > 1:
        found = ", ".join(f"{count} in {where}" for where, count in counts.items())
        raise ValueError(f"Numbers of keypoints differ: {found}")


class COCOevalMaxDets(COCOeval):
    """COCO's evaluation whose summary follows `params.maxDets` instead of always 1, 10, 100.

    `stats` has the usual twelve figures, in 0 to 1, -1 where there is nothing to compute:
    AP over all thresholds, at 0.5, at 0.75, of small, medium, large objects, all at the last of
    three limits; recall at each of the limits, and of the three sizes at the last.
    """

    def summarize(self) -> None:
        """Compute `stats` and log a line for each.

        Raises:
            RuntimeError: `accumulate` has not run.
        """
        if not self.eval:
            raise RuntimeError("Call accumulate() before summarize()")
        few, more, limit = self.params.maxDets[:3]
        sizes = ("small", "medium", "large")
        rows = [("precision", threshold, "all", limit) for threshold in (None, 0.5, 0.75)]
        rows += [("precision", None, size, limit) for size in sizes]
        rows += [("recall", None, "all", count) for count in (few, more, limit)]
        rows += [("recall", None, size, limit) for size in sizes]
        self.stats = np.array([self._average(*row) for row in rows])
        lines = [
            f"{kind:<9} | IoU {'0.50:0.95' if iou is None else iou:<9} | area {area:>6} | "
            f"maxDets {count:>4} | {value:.3f}"
            for (kind, iou, area, count), value in zip(rows, self.stats)
        ]
        logging.getLogger(__name__).info("COCO, %s:\n%s", self.params.iouType, "\n".join(lines))

    def _average(self, kind: str, iou: float | None, area: str, max_dets: int) -> float:
        """Mean of "precision" or "recall" over classes, thresholds and points of recall."""
        params, values = self.params, self.eval[kind]  # last axes: areas, limits
        areas = [label == area for label in params.areaRngLbl]
        limits = [count == max_dets for count in params.maxDets]
        values = values[..., areas, :][..., limits]
        if iou is not None:
            values = values[params.iouThrs == iou]
        return float(mean_of_valid(values))


def mean_of_valid(values: np.ndarray) -> float:
    """Mean of COCO's entries that could be computed; -1 for none."""
    valid = values[values > -1]
    return np.mean(valid) if valid.size else -1.0
