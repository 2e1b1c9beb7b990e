"""COCO's AP of boxes and masks, as a Detectron2 evaluator for images with many cells."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.datasets.ground_truth import ImageKey
from cellseg.datasets.registration import category_ids_of
from cellseg.errors import DatasetError
from cellseg.evaluation.coco import COCO_SIZES, CocoEvaluation, compare_boxes
from cellseg.evaluation.comparison import Comparison, compare
from cellseg.inference.detections import detections_to_cells
from cellseg.io.coco_results import EVALUATED_NAME, cells_to_coco_results, write_entries
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from pycocotools.coco import COCO
from tabulate import tabulate

_NO_LIMIT = 1_000_000
_LEAST_LIMIT = 10  # COCOEvaluator looks at 1, 10 and the limit, and takes the highest

logger = logging.getLogger("cellseg.evaluation")


class DenseCOCOEvaluator(DatasetEvaluator):
    """Detectron2's COCOEvaluator for images with hundreds or thousands of cells.

    The same numbers, from `cellseg.evaluation.coco`: seconds where pycocotools takes minutes. Every
    task has every metric, NaN ("cannot be computed") where there is nothing to find, and 0 where
    there is and nothing was found; Detectron2's leaves out a task when the data set has no
    annotation at all or no image came, and says NaN of a model that finds nothing.

    As Detectron2 does, it reads the true cells from the COCO file of the data set if there is one
    (`json_file` in its metadata); otherwise it makes one in `output_dir`, anew every time: a cached
    file would outlive a change of the data set.

    Args:
        dataset_name: registered in DatasetCatalog; image ids may be strings.
        tasks: "bbox", "segm" or both.
        output_dir: gets the converted truth and `coco_instances_results.json`.
        max_detections: how many detections per image and class count, the best first.
        distributed: gather the detections of all ranks.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str],
        output_dir: str | Path,
        *,
        max_detections: int = 100,
        distributed: bool = True,
    ) -> None:
        self.max_detections = max_detections
        self._dataset_name = dataset_name
        self._classes = list(MetadataCatalog.get(dataset_name).get("thing_classes") or ())
        # Class number of each category id in the truth and in the results file; it has to be in
        # the metadata before the truth is converted.
        self._class_numbers = category_ids_of(dataset_name)
        self._tasks = sorted(tasks)
        self._output_dir = Path(output_dir)
        self._distributed = distributed
        path = _find_truth(dataset_name, self._output_dir)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            self._truth = COCO(str(path))
        self.reset()

    def reset(self) -> None:
        # by image: entries of the results file, and the comparison of each task
        self._images: dict[ImageKey, tuple[list[dict[str, Any]], dict[str, Comparison]]] = {}

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Compare the detections of some images with the true cells.

        Args:
            inputs: dicts with the data set's "image_id".
            outputs: dicts with "instances", as Detectron2's models return them in evaluation.

        Raises:
            DatasetError: the data set has no such image.
        """
        for image, output in zip(inputs, outputs):
            key = image["image_id"]
            if key not in self._truth.imgs:
                raise DatasetError(f"dataset {self._dataset_name!r} has no image with id {key!r}")
            cells = self._to_cells(output["instances"])
            entries = cells_to_coco_results(key, cells, self._category_ids())
            if "segm" not in self._tasks:
                entries = [{k: v for k, v in one.items() if k != "segmentation"} for one in entries]
            self._images[key] = entries, self._compare(key, cells)

    def _to_cells(self, instances: Instances) -> CellInstances:
        """The detections; without pixels where only boxes are evaluated."""
        if "segm" in self._tasks:
            return detections_to_cells(instances)
        return CellInstances.from_crops(
            [np.zeros((0, 0), bool)] * len(instances),
            np.zeros((len(instances), 2)),
            instances.image_size,
            scores=instances.scores.cpu().numpy(),
            classes=instances.pred_classes.cpu().numpy(),
            boxes_xyxy=instances.pred_boxes.tensor.cpu().numpy(),
        )

    def _category_ids(self) -> list[int]:
        """The category id of each class in the results file."""
        return sorted(self._class_numbers, key=lambda category: self._class_numbers[category])

    def _compare(self, key: ImageKey, cells: CellInstances | None) -> dict[str, Comparison]:
        """The comparison of each task, with boxes and areas as they were annotated."""
        image, annotations = self._truth.imgs[key], self._truth.imgToAnns[key]
        image_hw = (image["height"], image["width"])
        true = CellInstances.from_rles(
            [self._truth.annToRLE(one) for one in annotations],
            image_hw,
            classes=[self._class_numbers[one["category_id"]] for one in annotations],
            is_crowd=[bool(one.get("iscrowd", 0)) for one in annotations],
        )
        cells = CellInstances.empty(image_hw) if cells is None else cells
        areas = np.array([one["area"] for one in annotations], np.float64)
        masks = compare(true, cells).without_masks
        masks = replace(masks, truth=replace(masks.truth, areas_px=areas))
        true_xywh = np.array([one["bbox"] for one in annotations], np.float64).reshape(-1, 4)
        pred_xywh = cells.boxes_xyxy.copy()
        pred_xywh[:, 2:] -= pred_xywh[:, :2]  # in float32, as Detectron2 does
        boxes = compare_boxes(masks, true_xywh, pred_xywh.astype(np.float64))
        return {"bbox": boxes, "segm": masks}

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> OrderedDict[str, Any]:
        """COCO's metrics in 0 to 100 by task; empty on ranks other than 0.

        Args:
            img_ids: evaluate on these images only; by default on all of the data set, those that
                never came having no detections.
        """
        parts = [self._images]
        if self._distributed:
            comm.synchronize()
            parts = comm.gather(self._images, dst=0)
            if not comm.is_main_process():
                return OrderedDict()
        found = {key: image for part in parts for key, image in part.items()}
        entries = [entry for of_image, _ in found.values() for entry in of_image]
        path = self._output_dir / EVALUATED_NAME
        write_entries(path, entries, self._classes, self._category_ids())
        if not entries:
            logger.warning("COCO's metrics of %s: nothing was detected", self._dataset_name)
        compared = [
            found[key][1] if key in found else self._compare(key, None)
            for key in sorted(self._truth.imgs if img_ids is None else set(img_ids))
        ]
        results: OrderedDict[str, Any] = OrderedDict()
        for task in self._tasks:
            images = [of_image[task] for of_image in compared]
            results[task] = self._metrics(images)
            table = tabulate([list(results[task].values())], [*results[task]], "pipe", ".3f")
            logger.info("COCO's metrics of %s:\n%s", task, table)
        return results

    def _metrics(self, images: Sequence[Comparison]) -> dict[str, float]:
        """The metrics of one task; NaN where there is no true cell."""
        evaluation = CocoEvaluation(images, num_classes=max(1, len(self._classes)))
        limit = max(self.max_detections, _LEAST_LIMIT)
        every = evaluation.numbers(limit)
        values = {"AP": every.ap, "AP50": every.ap_at(0.5), "AP75": every.ap_at(0.75)}
        for letter, sizes in zip("sml", COCO_SIZES.values()):
            values[f"AP{letter}"] = evaluation.numbers(limit, sizes).ap
        if len(self._classes) > 1:
            for number, name in enumerate(self._classes):
                values[f"AP-{name}"] = every.of_class(number).ap
        return {name: 100 * value for name, value in values.items()}


def build_coco_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | Path
) -> DenseCOCOEvaluator:
    """COCO's evaluator at the number of detections that the model may give.

    By itself Detectron2 evaluates at most 100 detections per image, whatever the model gives;
    here it is TEST.DETECTIONS_PER_IMAGE.

    Args:
        cfg: read are TEST.DETECTIONS_PER_IMAGE (negative: no limit) and MODEL.MASK_ON.
        dataset_name: registered in DatasetCatalog.
        output_dir: gets the converted truth and the predictions.
    """
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return DenseCOCOEvaluator(
        dataset_name,
        ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",),
        output_dir,
        max_detections=limit if limit >= 0 else _NO_LIMIT,
    )


def _find_truth(dataset_name: str, output_dir: Path) -> Path:
    """The COCO file of a data set: its own, else one made of it now."""
    converted = f"{dataset_name}_coco_format.json"
    own = MetadataCatalog.get(dataset_name).get("json_file")
    if own and Path(own).name != converted:  # that name is a conversion of another evaluator
        return Path(own)
    convert_to_coco_json(dataset_name, str(output_dir / converted), allow_cached=False)
    return output_dir / converted
