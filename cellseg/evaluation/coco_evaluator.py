"""COCO's AP of boxes and masks, as a Detectron2 evaluator for images with many cells."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.datasets.ground_truth import ImageKey
from cellseg.errors import DatasetError
from cellseg.evaluation.coco import COCO_SIZES, CocoEvaluation, CocoImage
from cellseg.evaluation.comparison import compare
from cellseg.files import write_whole
from cellseg.inference.detections import detections_to_cells
from cellseg.io.coco_results import cells_to_coco_results
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from numpy.typing import NDArray
from pycocotools.coco import COCO
from tabulate import tabulate

RESULTS_FILE = "coco_instances_results.json"
_NO_LIMIT = 1_000_000
_LEAST_LIMIT = 10  # COCOEvaluator looks at 1, 10 and the limit, and takes the highest

logger = logging.getLogger("cellseg.evaluation")


@dataclass(frozen=True, eq=False)
class _TrueImage:
    """The annotations of one image, crowd regions among them.

    Attributes:
        cells: with their classes.
        boxes_xywh: float64 [N, 4], as they were annotated.
        areas_px: float64 [N], as they were annotated.
    """

    cells: CellInstances
    boxes_xywh: NDArray[np.float64]
    areas_px: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _ImageResults:
    """What is kept of the detections of one image: entries of the results file, and pairs."""

    entries: list[dict[str, Any]]
    pairs: dict[str, CocoImage]


class DenseCOCOEvaluator(DatasetEvaluator):
    """Detectron2's COCOEvaluator for images with hundreds or thousands of cells.

    The same numbers, from `cellseg.evaluation.coco`: seconds where pycocotools takes minutes.
    Every task has every metric, NaN ("cannot be computed") where there is nothing to compute it
    from; Detectron2's leaves out a task when the data set has no annotation at all, when nothing
    was predicted, or when no image came.

    As Detectron2 does, the true cells are read from the COCO file of the data set if it has one
    (`json_file` in its metadata); otherwise they are converted to one in `output_dir`, anew every
    time: a cached file would outlive a change of the data set.

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
        self._dataset_name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._classes = list(self._metadata.get("thing_classes") or ())
        self._tasks = sorted(tasks)
        self._output_dir = Path(output_dir)
        self._max_detections = max(max_detections, _LEAST_LIMIT)
        self._distributed = distributed
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            self._truth = COCO(str(_find_truth(dataset_name, self._output_dir)))
        self.reset()

    @cached_property
    def _class_numbers(self) -> dict[int, int] | None:
        """Class number of each category id in the data set's files; None: they are the same."""
        return self._metadata.get("thing_dataset_id_to_contiguous_id")

    def reset(self) -> None:
        self._images: dict[ImageKey, _ImageResults] = {}

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
            entries = cells_to_coco_results(key, cells, self._category_ids(cells))
            if "segm" not in self._tasks:
                entries = [{k: v for k, v in one.items() if k != "segmentation"} for one in entries]
            self._images[key] = _ImageResults(entries, self._pair(self._true_image(key), cells))

    def _true_image(self, key: ImageKey) -> _TrueImage:
        """The annotations of one image."""
        image, annotations = self._truth.imgs[key], self._truth.imgToAnns[key]
        numbers = self._class_numbers
        categories = [one["category_id"] for one in annotations]
        return _TrueImage(
            CellInstances.from_rles(
                [self._truth.annToRLE(one) for one in annotations],
                (image["height"], image["width"]),
                classes=[numbers[k] for k in categories] if numbers else categories,
                is_crowd=[bool(one.get("iscrowd", 0)) for one in annotations],
            ),
            np.array([one["bbox"] for one in annotations], np.float64).reshape(-1, 4),
            np.array([one["area"] for one in annotations], np.float64),
        )

    def _to_cells(self, instances: Any) -> CellInstances:
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

    def _category_ids(self, cells: CellInstances) -> Sequence[int]:
        """The category id of each class in the results file: the data set's own."""
        count = max(len(self._classes), int(cells.classes.max(initial=-1)) + 1)
        if self._class_numbers is None:
            return range(count)
        ids = {number: category for category, number in self._class_numbers.items()}
        return [ids[number] for number in sorted(ids)]

    def _pair(self, true: _TrueImage, cells: CellInstances) -> dict[str, CocoImage]:
        """What COCO's evaluation of each task takes of an image."""
        image = compare(true.cells, cells)
        boxes = cells.boxes_xyxy.copy()
        boxes[:, 2:] -= boxes[:, :2]  # in float32, as Detectron2 does
        found = {"bbox": CocoImage.of_boxes(image, true.boxes_xywh, boxes.astype(np.float64))}
        if "segm" in self._tasks:
            found["segm"] = CocoImage.of_masks(image)
        return {task: replace(one, true_areas=true.areas_px) for task, one in found.items()}

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
        self._write_results(found)
        chosen = sorted(self._truth.imgs if img_ids is None else set(img_ids))
        nothing = not any(found[key].entries for key in chosen if key in found)
        results: OrderedDict[str, Any] = OrderedDict()
        for task in self._tasks:
            if nothing:
                results[task] = dict.fromkeys(self._names, float("nan"))
                continue
            images = [self._of_task(key, found, task) for key in chosen]
            results[task] = self._metrics(CocoEvaluation(images, num_classes=len(self._classes)))
            logger.info("COCO's metrics of %s:\n%s", task, _describe(results[task]))
        if nothing:
            logger.warning("COCO's metrics of %s: nothing was detected", self._dataset_name)
        return results

    def _write_results(self, found: Mapping[ImageKey, _ImageResults]) -> None:
        entries = [entry for image in found.values() for entry in image.entries]
        with write_whole(self._output_dir / RESULTS_FILE) as partial:
            partial.write_text(json.dumps(entries), encoding="utf-8")

    def _of_task(
        self, key: ImageKey, found: Mapping[ImageKey, _ImageResults], task: str
    ) -> CocoImage:
        if key in found:
            return found[key].pairs[task]
        true = self._true_image(key)
        return self._pair(true, CellInstances.empty(true.cells.image_hw))[task]

    @property
    def _names(self) -> list[str]:
        per_class = [f"AP-{name}" for name in self._classes] if len(self._classes) > 1 else []
        return ["AP", "AP50", "AP75", "APs", "APm", "APl", *per_class]

    def _metrics(self, evaluation: CocoEvaluation) -> dict[str, float]:
        limit = self._max_detections
        every = evaluation.numbers(limit)
        values = [every.ap, every.ap_at(0.5), every.ap_at(0.75)]
        values += [evaluation.numbers(limit, sizes).ap for sizes in COCO_SIZES.values()]
        values += [every.of_class(number).ap for number in range(len(self._classes))]
        return {name: 100 * value for name, value in zip(self._names, values)}


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


def _describe(metrics: Mapping[str, float]) -> str:
    """A table with one column per metric."""
    return tabulate([list(metrics.values())], list(metrics), tablefmt="pipe", floatfmt=".3f")
