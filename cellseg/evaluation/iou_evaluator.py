"""One-to-one matching of cells by mask IoU, as a Detectron2 evaluator."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import NAME, NAMES, VECTOR, checked
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.selection import DetectionThresholds
from cellseg.datasets.ground_truth import GroundTruth, ImageKey, image_key
from cellseg.errors import DatasetError, LabelError
from cellseg.evaluation.coco import CocoEvaluation, compare_boxes
from cellseg.evaluation.comparison import Comparison, compare
from cellseg.evaluation.confusion import (
    MATCHED_FROM_IOU,
    confusion_table,
    count_confusion,
    draw_confusion,
    write_confusion,
)
from cellseg.evaluation.metric_kinds import IOU_THRESHOLDS, FloatArray
from cellseg.evaluation.metrics import CELL_IOU_METRICS, cell_iou_names, name_at
from cellseg.evaluation.scorer import Scorer, read_ranked, split_ranked
from cellseg.files import write_whole
from cellseg.inference.detections import detections_to_cells
from cellseg.io.table_rows import CsvWriter
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

TASK = "cell_iou"
PER_IMAGE_FILE = "cell_iou_per_image.csv"
CONFUSION_FILE = "confusion.csv"

logger = logging.getLogger("cellseg.evaluation")


@dataclass(frozen=True)
class _ImageNumbers:
    """What is kept of one image; no masks.

    Attributes:
        rows: float64 [1 + C, W], the scorer's numbers of all classes, then of each.
        confusion: int64 [C + 1, C + 1].
        ranked: comparisons of all detections, by what is compared ("mask", "box").
    """

    rows: FloatArray
    confusion: IntArray
    ranked: dict[str, Comparison]


class CellIoUEvaluator(DatasetEvaluator):
    """Counts found, false and missed cells at several IoU thresholds.

    Predicted and true cells of an image are matched one to one by mask IoU >= t. Definitions and
    empty cases are those of `cellseg.evaluation.metrics`, regions of uncounted cells (`iscrowd`)
    are treated as `cellseg.evaluation.comparison` says; the metrics of the table lie in 0 to 1 and
    none is NaN. A data set without predictions scores 0 (1 if it has no true cells either).

    A cell only matches a cell of its own class. Metrics over all classes come from the summed
    counts of the classes (every cell weighs the same), so they differ from the mean of the
    "/<class>" metrics, which is what Kirillov et al. report as panoptic quality. "ap_dsb" counts
    every evaluated image; "ap_dsb/<class>" only those in which the class is true or predicted,
    because in a set of one cell type per image the others would all score 1.

    Only numbers are kept of an image, so memory does not grow with its masks. An image that comes
    twice (padding of a distributed sampler) counts once. Images that never come are left out, with
    a warning.

    Args:
        dataset_name: registered in DatasetCatalog, with masks (polygons or RLE) and thing_classes.
        score_threshold: detections below it are not cells.
        selection: which detections are cells, in place of `score_threshold`.
        thresholds: IoU thresholds in (0, 1]; a metric without one in its name is their mean.
        metrics: further metrics, names of `cellseg.evaluation.score`, over all cells and per class.
            COCO's rank all detections; the others see those that `selection` keeps.
        distributed: gather the numbers of all ranks; otherwise each rank scores its own images.
        output_dir: gets `cell_iou_per_image.csv`, one row per image, and where there are several
            classes `confusion.csv` and `confusion.png` (`cellseg.evaluation.confusion`); None
            writes nothing.

    Example:
        >>> evaluator = CellIoUEvaluator("dsb2018_fluo_val")  # doctest: +SKIP
        >>> inference_on_dataset(model, loader, evaluator)["cell_iou"]["f1@0.50"]  # doctest: +SKIP
    """

    @checked(dataset_name=NAME, thresholds=VECTOR, metrics=NAMES)
    def __init__(
        self,
        dataset_name: str,
        *,
        score_threshold: float = 0.5,
        selection: DetectionThresholds | None = None,
        thresholds: Sequence[float] = IOU_THRESHOLDS,
        metrics: Sequence[str] = (),
        distributed: bool = True,
        output_dir: str | Path | None = None,
    ) -> None:
        by_image, self._ranked = split_ranked(metrics)  # a wrong name fails now, not after a run
        self._names = cell_iou_names(thresholds)
        self._scorer = Scorer([*self._names, *by_image], thresholds)
        self._truth = GroundTruth.load(dataset_name)
        self._selection = selection or DetectionThresholds(score=score_threshold)
        self._thresholds = tuple(thresholds)
        self._metrics = tuple(metrics)
        self._distributed = distributed
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self.reset()

    def reset(self) -> None:
        self._images: dict[ImageKey, _ImageNumbers] = {}

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Compare the cells of some images with the true ones and keep the numbers.

        Args:
            inputs: dicts with the dataset's "image_id" ("file_name" where it has no ids).
            outputs: dicts with "instances", as Detectron2's models return them in evaluation.
        """
        for image, output in zip(inputs, outputs):
            key = image_key(image)
            lowest = 0.0 if self._ranked else self._selection.lowest_score
            try:
                cells = detections_to_cells(output["instances"], lowest)
            except LabelError as error:
                raise LabelError(f"image {key!r}: {error}") from error
            if key not in self._images:
                compared = self._compare(key, cells)
                self._images[key] = self._measure(compared, compared.keep(self._selection))

    def add_image(self, key: ImageKey, cells: CellInstances) -> None:
        """Take the cells of one image, whatever they come from; all of them count.

        Raises:
            DatasetError: the dataset has no such image, or the image has another size or the
                cells another class than it can have.
        """
        if key not in self._images:
            compared = self._compare(key, cells)
            self._images[key] = self._measure(compared, compared)

    def _compare(self, key: ImageKey, cells: CellInstances) -> Comparison:
        true = self._truth.cells(key)
        if cells.image_hw != true.image_hw:
            raise DatasetError(
                f"image {key!r} of {self._truth.dataset_name!r} is declared as (height, width) "
                f"{true.image_hw}, but the predicted masks are {cells.image_hw}"
            )
        num_classes = len(self._truth.classes)
        highest = max(true.classes.max(initial=0), cells.classes.max(initial=0))
        if highest >= num_classes:
            raise DatasetError(
                f"image {key!r} has a cell of class {highest}, but {self._truth.dataset_name!r} "
                f"has {num_classes} classes, numbered from 0: {', '.join(self._truth.classes)}"
            )
        return compare(true, cells)

    def _measure(self, everything: Comparison, kept: Comparison) -> _ImageNumbers:
        """The numbers of one image: of all detections for COCO's metrics, else of those kept."""
        num_classes = len(self._truth.classes)
        parts = [kept.within_classes, *(kept.of_class(k) for k in range(num_classes))]
        ranked = {}
        if self._ranked:
            boxes = compare_boxes(everything)
            ranked = {"mask": everything.without_masks, "box": boxes.without_masks}
        rows = self._scorer.measure_all(parts)
        return _ImageNumbers(rows, count_confusion(kept, num_classes), ranked)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics over all images that came.

        Returns:
            {"cell_iou": {name: value}}; empty on ranks other than 0 and where no image came.
        """
        images = self._gather()
        if not images:
            return {}
        rows = np.stack([image.rows for image in images.values()])
        metrics = self._table_metrics(rows)
        logger.info("%s", self._describe_table(metrics, len(images)))
        if len(self._truth.classes) > 1:
            self._report_confusion(np.sum([image.confusion for image in images.values()], axis=0))
        if self._metrics:
            chosen = self._chosen_metrics(rows, list(images.values()))
            logger.info("%s", self._describe_chosen(chosen))
            metrics |= chosen
        if self._output_dir is not None:
            path = self._output_dir / PER_IMAGE_FILE
            by_image = self._scorer.by_image(rows[:, 0], self._names)
            write_per_image(path, list(images), by_image, self._thresholds)
        return OrderedDict({TASK: metrics})

    def _gather(self) -> dict[ImageKey, _ImageNumbers]:
        """The images of all ranks in the dataset's order, on rank 0; elsewhere none."""
        parts = [self._images]
        if self._distributed:
            comm.synchronize()
            parts = comm.gather(self._images, dst=0)
            if not comm.is_main_process():
                return {}
        found = {key: image for part in parts for key, image in part.items()}
        if len(found) < len(self._truth.images):
            logger.warning(
                "%d of the %d images of %s came to the cell IoU evaluator; the others do not count",
                len(found),
                len(self._truth.images),
                self._truth.dataset_name,
            )
        return {key: found[key] for key in self._truth.images if key in found}

    def _table_metrics(self, rows: FloatArray) -> dict[str, float]:
        """The metrics of the table from rows [I, 1 + C, W]: over all classes, and of each."""
        metrics = self._scorer.combine(rows[:, 0], self._names)
        for number, name in enumerate(self._truth.classes, 1):
            each = self._scorer.by_image(rows[:, number], self._names)
            cells = [each[name_at(n, t)] for n in ("tp", "fp", "fn") for t in self._thresholds]
            present = np.sum(cells, axis=0) > 0
            values = self._scorer.combine(rows[present, number], self._names)
            metrics |= {f"{metric}/{name}": value for metric, value in values.items()}
        return metrics

    def _chosen_metrics(
        self, rows: FloatArray, images: Sequence[_ImageNumbers]
    ) -> dict[str, float]:
        """`metrics` over all cells, and "/<class>" where there are several classes."""
        classes = self._truth.classes if len(self._truth.classes) > 1 else ()
        found: dict[str, float] = {}
        for number, suffix in enumerate(("", *(f"/{name}" for name in classes))):
            values = self._scorer.combine(rows[:, number])
            values |= self._ranked_metrics(images, None if number == 0 else number - 1)
            found |= {f"{name}{suffix}": values[name] for name in self._metrics}
        return found

    def _ranked_metrics(
        self, images: Sequence[_ImageNumbers], number: int | None
    ) -> dict[str, float]:
        """COCO's metrics, of one class or over all."""

        @cache
        def evaluation_of(kind: str) -> CocoEvaluation:
            every = [image.ranked[kind] for image in images]
            return CocoEvaluation(every if number is None else [e.of_class(number) for e in every])

        return read_ranked(self._ranked, evaluation_of)

    def _report_confusion(self, table: IntArray) -> None:
        name, classes = self._truth.dataset_name, self._truth.classes
        logger.info(
            "Cell types on %s: true ones down, predicted ones across, matched at IoU >= %g\n%s",
            name,
            MATCHED_FROM_IOU,
            confusion_table(table, classes),
        )
        if self._output_dir is not None:
            path = self._output_dir / CONFUSION_FILE
            write_confusion(path, table, classes)
            draw_confusion(path.with_suffix(".png"), table, classes)

    def _describe_chosen(self, metrics: Mapping[str, float]) -> str:
        suffixes = [name for name in self._truth.classes if f"{self._metrics[0]}/{name}" in metrics]
        rows = [
            [name, metrics[name], *(metrics[f"{name}/{suffix}"] for suffix in suffixes)]
            for name in self._metrics
        ]
        title = f"Chosen metrics on {self._truth.dataset_name}"
        headers = ["metric", "all", *suffixes]
        return f"{title}\n{tabulate(rows, headers, tablefmt='pipe', floatfmt='.4f')}"

    def _describe_table(self, metrics: Mapping[str, float], num_images: int) -> str:
        classes = self._truth.classes if len(self._truth.classes) > 1 else ()
        rows = []
        for suffix in ("", *(f"/{name}" for name in classes)):
            label = suffix[1:] or "all"
            for t in self._thresholds:
                values = [metrics[name_at(name, t) + suffix] for name in CELL_IOU_METRICS]
                rows.append([label, f"{t:.2f}", *values[:-3], *map(int, values[-3:])])
            rows.append([label, "mean", metrics[f"ap_dsb{suffix}"]])
        title = (
            f"Cell IoU on {self._truth.dataset_name}: {num_images} images, "
            f"detections with {self._selection.describe()}"
        )
        headers = ["class", "IoU >=", *CELL_IOU_METRICS]
        return f"{title}\n{tabulate(rows, headers, tablefmt='pipe', floatfmt='.4f')}"


def write_per_image(
    path: Path,
    keys: Sequence[ImageKey],
    metrics: Mapping[str, FloatArray],
    thresholds: Sequence[float],
) -> None:
    """Write a CSV table with one row of metrics per image.

    Args:
        path: replaced only when complete.
        keys: I image ids.
        metrics: float64 [I] by name, those of `cell_iou_names`.
        thresholds: the IoU thresholds, of which the first counts the cells.
    """
    tp, fp, fn = (metrics[name_at(name, thresholds[0])] for name in ("tp", "fp", "fn"))
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = CsvWriter(file)
        table.writerow(["image_id", "true_cells", "predicted_cells", *metrics])
        for row, key in enumerate(keys):
            counts = [int(tp[row] + fn[row]), int(tp[row] + fp[row])]
            values = [f"{values[row]:.6g}" for values in metrics.values()]
            table.writerow([key, *counts, *values])
