"""COCO's average precision of boxes and masks."""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation._coco_figures import (
    COCOevalMaxDets,
    _evaluate_predictions_on_coco,
    mean_of_valid,
)
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

__all__ = ["COCOEvaluator", "COCOevalMaxDets", "instances_to_coco_json"]

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_TASKS = {"bbox": "bbox", "segm": "segmentation"}  # task: field of a result


class COCOEvaluator(DatasetEvaluator):
    """Average precision of boxes and masks, in 0 to 100.

    A figure that has nothing to be computed from is NaN. Where the dataset is not one of COCO
    files, it is written as one into `output_dir` first.

    Args:
        dataset_name: registered name.
        tasks: of "bbox" and "segm"; by default those that the predictions allow.
        distributed: gather the predictions of all processes.
        output_dir: for "instances_predictions.pth", as the model made them, and
            "coco_instances_results.json", in COCO's result format; None writes neither.
        max_dets_per_image: how many detections per image count, the best first; 100 by default.
        use_fast_impl: has no effect; pycocotools computes everything.
        kpt_oks_sigmas: has no effect; keypoints are not evaluated.
        allow_cached_coco: use the converted dataset of an earlier run if there is one.

    Raises:
        ValueError: an unknown task, or a dataset without COCO file and no `output_dir`.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        self._logger = logging.getLogger(__name__)
        if isinstance(tasks, CfgNode):  # what the second argument once was
            self._logger.warning("COCOEvaluator takes no config any more; it is ignored")
            tasks = None
        if tasks is not None and (unknown := sorted(set(tasks) - set(_TASKS))):
            raise ValueError(f"COCOEvaluator here knows the tasks {sorted(_TASKS)}, not {unknown}")
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_image = [1, 10, max_dets_per_image or 100]
        self._metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(self._metadata, "json_file"):
            self._metadata.json_file = self._convert_dataset(dataset_name, allow_cached_coco)
        with redirect_stdout(io.StringIO()):
            self._coco_api = COCO(PathManager.get_local_path(self._metadata.json_file))
        # COCO publishes the images of its test sets without annotations.
        self._do_evaluation = "annotations" in self._coco_api.dataset
        self._predictions: list[dict[str, Any]] = []

    def _convert_dataset(self, dataset_name: str, allow_cached: bool) -> str:
        if self._output_dir is None:
            raise ValueError(
                f"Dataset {dataset_name} has no COCO file: COCOEvaluator needs an output_dir to "
                "write one"
            )
        path = os.path.join(self._output_dir, f"{dataset_name}_coco_format.json")
        self._logger.info("Converting %s to COCO format: %s", dataset_name, path)
        convert_to_coco_json(dataset_name, path, allow_cached=allow_cached)
        return path

    def reset(self) -> None:
        """Forget all predictions."""
        self._predictions = []

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take one batch.

        Args:
            inputs: dicts with "image_id".
            outputs: dicts with "instances": `pred_boxes`, `scores`, `pred_classes` and perhaps
                `pred_masks` of shape (N, H, W), in the size of the original image.

        Raises:
            ValueError: there are "proposals".
        """
        for image, output in zip(inputs, outputs):
            if "proposals" in output:
                raise ValueError("COCOEvaluator here scores detections only, not box proposals")
            if "instances" in output:
                image_id = image["image_id"]
                instances = output["instances"].to("cpu")
                results = instances_to_coco_json(instances, image_id)
                self._predictions.append({"image_id": image_id, "instances": results})

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> OrderedDict[str, Any]:
        """Figures of all predictions since `reset`.

        Args:
            img_ids: evaluate on these images only.

        Returns:
            Per task AP, AP50, AP75, APs, APm, APl and, if there are several classes, AP-<class>;
            all NaN if nothing was detected. Empty in all but the main process, without
            annotations, and if no image was processed.

        Raises:
            ValueError: a predicted class that the dataset has not.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain.from_iterable(comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return OrderedDict()
        if not predictions:
            self._logger.warning("COCOEvaluator received no predictions")
            return OrderedDict()
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "instances_predictions.pth")
            with PathManager.open(path, "wb") as file:
                torch.save(predictions, file)
        return self._evaluate_results(predictions, img_ids)

    def _evaluate_results(
        self, predictions: Sequence[Mapping[str, Any]], img_ids: Sequence[Any] | None
    ) -> OrderedDict[str, Any]:
        results = [result for of_image in predictions for result in of_image["instances"]]
        tasks = self._tasks or self._tasks_from_predictions(results)
        results = self._with_dataset_categories(results)
        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            self._logger.info("Writing results to %s", path)
            with PathManager.open(path, "w") as file:
                json.dump(results, file)
        figures: OrderedDict[str, Any] = OrderedDict()
        if not self._do_evaluation:
            self._logger.info("The dataset has no annotations to evaluate with")
            return figures
        for task in sorted(tasks):
            scores = self._score(results, task, img_ids) if results else None
            figures[task] = self._derive_coco_results(
                scores, task, class_names=self._metadata.get("thing_classes")
            )
        return figures

    def _tasks_from_predictions(self, results: Sequence[Mapping[str, Any]]) -> list[str]:
        """Boxes always, masks if one result has one."""
        has_masks = any(_TASKS["segm"] in result for result in results)
        return ["bbox", "segm"] if has_masks else ["bbox"]

    def _with_dataset_categories(self, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results with the dataset's own category ids in place of the model's 0 to K - 1."""
        to_contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if to_contiguous is None:
            return results
        category_ids = {index: dataset_id for dataset_id, index in to_contiguous.items()}
        if strange := {result["category_id"] for result in results} - category_ids.keys():
            raise ValueError(
                f"Predicted classes {sorted(strange)}, but the dataset has {len(category_ids)} "
                f"classes, counted from 0"
            )
        return [r | {"category_id": category_ids[r["category_id"]]} for r in results]

    def _score(
        self, results: Sequence[Mapping[str, Any]], task: str, img_ids: Sequence[Any] | None
    ) -> COCOeval:
        limits = self._max_dets_per_image
        with redirect_stdout(io.StringIO()):
            return _evaluate_predictions_on_coco(
                self._coco_api,
                results,
                task,
                cocoeval_fn=COCOevalMaxDets,
                img_ids=img_ids,
                max_dets_per_image=limits,
            )

    def _derive_coco_results(
        self,
        coco_eval: COCOeval | None,
        iou_type: str,
        class_names: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Figures of one task from summarized scores, or from None if nothing was detected."""
        if coco_eval is None:
            self._logger.warning("The model detected nothing")
            return dict.fromkeys(_FIGURES, math.nan)
        figures = {name: _percent(value) for name, value in zip(_FIGURES, coco_eval.stats)}
        self._logger.info("Results for %s:\n%s", iou_type, create_small_table(figures))
        if any(math.isnan(value) for value in figures.values()):
            self._logger.info("NaN: there is nothing that the figure could be computed from")
        if class_names is None or len(class_names) < 2:
            return figures
        # Axes: IoU threshold, recall, class, range of areas (all first), maximum of detections.
        precision = coco_eval.eval["precision"][:, :, :, 0, -1]
        per_class = {
            name: _percent(mean_of_valid(precision[:, :, index]))
            for index, name in enumerate(class_names)
        }
        self._logger.info("AP of %s per class:\n%s", iou_type, _table_of_classes(per_class))
        return figures | {f"AP-{name}": value for name, value in per_class.items()}


def _percent(value: float) -> float:
    """0..1 -> 0..100; COCO's -1 for "nothing to compute" -> NaN."""
    return float(value * 100) if value >= 0 else math.nan


def _table_of_classes(per_class: Mapping[str, float]) -> str:
    columns = min(len(per_class), 3)
    rows = itertools.zip_longest(
        *[itertools.chain.from_iterable(per_class.items())] * (2 * columns)
    )
    # `zip_longest` over one repeated iterator deals the items out row by row.
    return tabulate(
        rows, ["class", "AP"] * columns, tablefmt="pipe", floatfmt=".3f", numalign="left"
    )


def instances_to_coco_json(instances: Instances, img_id: Any) -> list[dict[str, Any]]:
    """Predictions of one image in COCO's result format.

    Args:
        instances: on the CPU, with `pred_boxes`, `scores`, `pred_classes` and perhaps
            `pred_masks` (N, H, W).
        img_id: goes into every result.

    Returns:
        One dict per instance: "bbox" as x, y, width, height in pixels, "category_id" as the
        model counts, "score", and "segmentation" as compressed RLE if there are masks.
    """
    boxes = instances.pred_boxes.tensor.clone()
    boxes[:, 2:] -= boxes[:, :2]
    columns: dict[str, list[Any]] = {
        "category_id": instances.pred_classes.tolist(),
        "bbox": boxes.tolist(),
        "score": instances.scores.tolist(),
    }
    if instances.has("pred_masks"):
        columns["segmentation"] = [_encode(mask) for mask in instances.pred_masks]
    return [{"image_id": img_id, **dict(zip(columns, values))} for values in zip(*columns.values())]


def _encode(mask: torch.Tensor) -> dict[str, Any]:
    """Compressed RLE with text, which JSON can hold, in place of bytes."""
    rle = mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
