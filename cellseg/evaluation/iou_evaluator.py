"""One-to-one matching of cells by mask IoU, as a Detectron2 evaluator."""

from __future__ import annotations

import csv
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.datasets.ground_truth import GroundTruth, ImageKey, image_key
from cellseg.errors import DatasetError, LabelError
from cellseg.evaluation.cell_types import (
    MATCHED_FROM_IOU,
    cell_type_confusion,
    confusion_table,
    draw_confusion,
    write_confusion,
)
from cellseg.evaluation.metrics import (
    IOU_THRESHOLDS,
    POOLED_FIGURES,
    MatchCounts,
    count_matches_by_class,
    figure_name,
    present_images,
    summarize_counts,
)
from cellseg.evaluation.scoring import cells_of_class, is_ranked, score
from cellseg.files import write_whole
from cellseg.inference.detections import detections_to_cells
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

TASK = "cell_iou"
PER_IMAGE_FILE = "cell_iou_per_image.csv"
CONFUSION_FILE = "confusion.csv"

logger = logging.getLogger("cellseg.evaluation")


class CellIoUEvaluator(DatasetEvaluator):
    """Counts found, false and missed cells at several IoU thresholds.

    Predicted and true cells of an image are matched one to one by mask IoU >= t. Definitions and
    empty cases are those of `cellseg.evaluation.metrics`; all figures lie in 0 to 1 and none is
    NaN. A data set without predictions scores 0 (1 if it has no true cells either).

    A cell only matches a cell of its own class. Figures over all classes come from the summed
    counts of the classes (every cell weighs the same), so they differ from the mean of the
    "/<class>" figures, which is what Kirillov et al. report as panoptic quality. "ap_dsb" counts
    every evaluated image; "ap_dsb/<class>" only those in which the class is true or predicted,
    because in a set of one cell type per image the others would all score 1.

    Annotations with `iscrowd` are neither true cells, nor are detections inside them false (in
    `metrics` they are). Only per-image counts are kept, so memory does not grow with the number of
    cells; with `metrics`, the cells' crops too, never full bitmaps. An image
    that comes twice (padding of a distributed sampler) counts once. Images that never come are
    left out, with a warning.

    Args:
        dataset_name: registered in DatasetCatalog, with masks (polygons or RLE) and thing_classes.
        score_threshold: detections below it are not cells.
        selection: which detections are cells, in place of `score_threshold`.
        thresholds: IoU thresholds in (0, 1].
        metrics: further figures, names of `cellseg.evaluation.score`, over all cells and per class.
            COCO's rank all detections; the others see those that pass the score threshold.
        distributed: gather the counts of all ranks; otherwise each rank scores its own images.
        output_dir: gets `cell_iou_per_image.csv`, one row per image, and where there are several
            classes `confusion.csv` and `confusion.png` (`cellseg.evaluation.cell_types`); None
            writes nothing.

    Example:
        >>> evaluator = CellIoUEvaluator("dsb2018_fluo_val")  # doctest: +SKIP
        >>> inference_on_dataset(model, loader, evaluator)["cell_iou"]["f1@0.50"]  # doctest: +SKIP
    """

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
        score([], [], metrics)  # a wrong name fails now and not after the first evaluation
        self._truth = GroundTruth.load(dataset_name)
        self._selection = selection or DetectionThresholds(score=score_threshold)
        self._thresholds = tuple(thresholds)
        self._metrics = tuple(metrics)
        self._distributed = distributed
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self.reset()

    def reset(self) -> None:
        self._counts: dict[ImageKey, MatchCounts] = {}
        self._confusion: dict[ImageKey, IntArray] = {}
        self._cells: dict[ImageKey, CellInstances] = {}

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Match the cells of some images and keep the counts.

        Args:
            inputs: dicts with the dataset's "image_id" ("file_name" where it has no ids).
            outputs: dicts with "instances", as Detectron2's models return them in evaluation.
        """
        for image, output in zip(inputs, outputs):
            lowest = 0.0 if self._metrics else self._selection.lowest_score
            try:
                cells = detections_to_cells(output["instances"], lowest)
            except LabelError as error:
                raise LabelError(f"image {image_key(image)!r}: {error}") from error
            key = image_key(image)
            if self._metrics:
                self._cells.setdefault(key, cells)
            self.add_image(key, select_cells(cells, self._selection))

    def add_image(self, key: ImageKey, cells: CellInstances) -> None:
        """Match the cells of one image, whatever they come from; no score threshold is applied.

        Raises:
            DatasetError: the dataset has no such image, or the image has another size or the
                cells another class than it can have.
        """
        if key in self._counts:
            return
        if self._metrics:
            self._cells.setdefault(key, cells)
        every = self._truth.cells(key)
        true, crowd = every.counted, every.crowds
        self._check(key, true, cells)
        self._counts[key] = count_matches_by_class(
            true, cells, len(self._truth.classes), self._thresholds, crowd=crowd
        )
        if len(self._truth.classes) > 1:
            self._confusion[key] = cell_type_confusion(
                true, cells, len(self._truth.classes), crowd=crowd
            )

    def _check(self, key: ImageKey, true: CellInstances, cells: CellInstances) -> None:
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

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Figures over all images that came.

        Returns:
            {"cell_iou": {name: value}}; empty on ranks other than 0 and where no image came.
        """
        counts_by_image, cells_by_image, confusion_by_image = self._gather()
        if not counts_by_image:
            return {}
        counts = MatchCounts.stack(list(counts_by_image.values()))
        figures = self._figures(counts)
        logger.info("%s", self._table(figures, len(counts_by_image)))
        if confusion_by_image:
            self._report_confusion(np.sum(list(confusion_by_image.values()), axis=0))
        if self._metrics:
            chosen = self._chosen_figures(cells_by_image)
            logger.info("%s", self._table_of_chosen(chosen))
            figures |= chosen
        if self._output_dir is not None:
            path = self._output_dir / PER_IMAGE_FILE
            write_per_image(path, list(counts_by_image), counts.sum(axis=1), self._thresholds)
        return OrderedDict({TASK: figures})

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

    def _gather(
        self,
    ) -> tuple[
        dict[ImageKey, MatchCounts], dict[ImageKey, CellInstances], dict[ImageKey, IntArray]
    ]:
        """Counts [C, T], cells and confusion by image, on rank 0; elsewhere nothing.

        They are in the dataset's order.
        """
        parts = [(self._counts, self._cells, self._confusion)]
        if self._distributed:
            comm.synchronize()
            parts = comm.gather(parts[0], dst=0)
            if not comm.is_main_process():
                return {}, {}, {}
        counts, cells, confusion = (
            {key: value for part in side for key, value in part.items()} for side in zip(*parts)
        )
        if len(counts) < len(self._truth.images):
            logger.warning(
                "%d of the %d images of %s came to the cell IoU evaluator; the others do not count",
                len(counts),
                len(self._truth.images),
                self._truth.dataset_name,
            )
        known = [key for key in self._truth.images if key in counts]
        return (
            {key: counts[key] for key in known},
            {key: cells[key] for key in known if key in cells},
            {key: confusion[key] for key in known if key in confusion},
        )

    def _chosen_figures(self, cells_by_image: dict[ImageKey, CellInstances]) -> dict[str, float]:
        """Figures of `metrics` over all cells, and "/<class>" where there are several classes."""
        true = [self._truth.cells(key).counted for key in cells_by_image]
        every = list(cells_by_image.values())
        figures = self._score(true, every)
        if len(self._truth.classes) > 1:
            for number, name in enumerate(self._truth.classes):
                sides = [
                    [cells_of_class(cells, number) for cells in side] for side in (true, every)
                ]
                scores = self._score(*sides)
                figures |= {f"{metric}/{name}": value for metric, value in scores.items()}
        return figures

    def _score(
        self, true: Sequence[CellInstances], pred: Sequence[CellInstances]
    ) -> dict[str, float]:
        ranked = [name for name in self._metrics if is_ranked(name)]
        others = [name for name in self._metrics if not is_ranked(name)]
        shown = [select_cells(cells, self._selection) for cells in pred]
        return score(true, pred, ranked) | score(true, shown, others)

    def _table_of_chosen(self, figures: dict[str, float]) -> str:
        suffixes = [name for name in self._truth.classes if f"{self._metrics[0]}/{name}" in figures]
        rows = [
            [name, figures[name], *(figures[f"{name}/{suffix}"] for suffix in suffixes)]
            for name in self._metrics
        ]
        title = f"Chosen figures on {self._truth.dataset_name}"
        headers = ["figure", "all", *suffixes]
        return f"{title}\n{tabulate(rows, headers, tablefmt='pipe', floatfmt='.4f')}"

    def _figures(self, counts: MatchCounts) -> dict[str, float]:
        figures = summarize_counts(counts.sum(axis=1), self._thresholds)
        for number, name in enumerate(self._truth.classes):
            of_class = counts[:, number]
            of_class = of_class[present_images(of_class)]
            figures |= summarize_counts(of_class, self._thresholds, suffix=f"/{name}")
        return figures

    def _table(self, figures: dict[str, float], num_images: int) -> str:
        columns = ["ap_dsb", *POOLED_FIGURES, "tp", "fp", "fn"]
        classes = self._truth.classes if len(self._truth.classes) > 1 else ()
        rows = []
        for suffix in ("", *(f"/{name}" for name in classes)):
            label = suffix[1:] or "all"
            for t in self._thresholds:
                values = [figures[figure_name(name, t) + suffix] for name in columns]
                rows.append([label, f"{t:.2f}", *values[:-3], *map(int, values[-3:])])
            rows.append([label, "mean", figures[f"ap_dsb{suffix}"]])
        title = (
            f"Cell IoU on {self._truth.dataset_name}: {num_images} images, "
            f"detections with {self._selection.describe()}"
        )
        headers = ["class", "IoU >=", *columns]
        return f"{title}\n{tabulate(rows, headers, tablefmt='pipe', floatfmt='.4f')}"


def write_per_image(
    path: Path, keys: Sequence[ImageKey], counts: MatchCounts, thresholds: Sequence[float]
) -> None:
    """Write a CSV table with one row of figures per image.

    Args:
        path: replaced only when complete.
        keys: I image ids.
        counts: shape [I, T].
        thresholds: the T thresholds.
    """
    rows = [
        {
            "image_id": key,
            "true_cells": counts.tp[row, 0] + counts.fn[row, 0],
            "predicted_cells": counts.tp[row, 0] + counts.fp[row, 0],
            **{
                name: f"{value:.6g}"
                for name, value in summarize_counts(counts[row : row + 1], thresholds).items()
            },
        }
        for row, key in enumerate(keys)
    ]
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
