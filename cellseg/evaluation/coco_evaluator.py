"""COCO's AP for images with many cells: Detectron2's evaluator, set up so that its figures hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg.evaluation.coco_matching import sparse_coco_matching
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

_AP_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_NO_LIMIT = 1_000_000


class DenseCOCOEvaluator(COCOEvaluator):
    """COCOEvaluator that returns the same figures whatever came.

    Detectron2's leaves out a task when the dataset has no annotation at all, when nothing was
    predicted, or when no image came. Here every task has every figure, NaN ("cannot be
    computed", as Detectron2 itself says it) where there is nothing to compute it from. Images with
    thousands of cells take seconds rather than minutes (`sparse_coco_matching`).

    Args:
        dataset_name: registered in DatasetCatalog; image ids may be strings.
        tasks: "bbox", "segm" or both.
        options: of COCOEvaluator.
    """

    def __init__(self, dataset_name: str, tasks: Sequence[str], **options: Any) -> None:
        super().__init__(dataset_name, tasks=tuple(tasks), **options)
        classes = MetadataCatalog.get(dataset_name).get("thing_classes") or ()
        per_class = [f"AP-{name}" for name in classes] if len(classes) > 1 else []
        self._expected = {task: [*_AP_FIGURES, *per_class] for task in tasks}

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> OrderedDict[str, Any]:
        """COCO figures in 0 to 100 by task; empty on ranks other than 0."""
        with sparse_coco_matching():
            results = OrderedDict(super().evaluate(img_ids))
        if not comm.is_main_process():
            return results
        for task, names in self._expected.items():
            results[task] = dict.fromkeys(names, float("nan")) | results.get(task, {})
        return results


def build_coco_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | Path
) -> DenseCOCOEvaluator:
    """COCO's evaluator at the number of detections that the model may give.

    By itself Detectron2 evaluates at most 100 detections per image, whatever the model gives;
    here it is TEST.DETECTIONS_PER_IMAGE. The true cells are converted to COCO's format anew every
    time: Detectron2's cached file would outlive a change of the dataset.

    Args:
        cfg: read are TEST.DETECTIONS_PER_IMAGE (negative: no limit) and MODEL.MASK_ON.
        dataset_name: registered in DatasetCatalog.
        output_dir: gets the converted truth and the predictions.
    """
    _forget_converted_truth(dataset_name)
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return DenseCOCOEvaluator(
        dataset_name,
        ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",),
        output_dir=str(output_dir),
        max_dets_per_image=limit if limit >= 0 else _NO_LIMIT,
        allow_cached_coco=False,
    )


def _forget_converted_truth(dataset_name: str) -> None:
    """Undo Detectron2's note in the metadata of where an earlier evaluator put its conversion.

    It may be in another run's output folder, or gone. A json_file that belongs to the dataset
    stays.
    """
    metadata = MetadataCatalog.get(dataset_name)
    json_file = metadata.get("json_file")
    if json_file and Path(json_file).name == f"{dataset_name}_coco_format.json":
        del metadata.json_file
