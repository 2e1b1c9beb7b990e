"""Pictures of the first images of a dataset, prediction beside truth."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from cellseg.arguments import COUNT, NAME, checked
from cellseg.cells.drawing import draw_comparison, write_picture
from cellseg.cells.selection import DetectionThresholds
from cellseg.datasets.ground_truth import GroundTruth, ImageKey, image_key
from cellseg.evaluation.comparison import compare
from cellseg.images import read_image
from cellseg.inference.detections import detections_to_cells
from cellseg.rules import PATH
from detectron2.evaluation import DatasetEvaluator
from numpy.typing import NDArray

PICTURES_FOLDER = "pictures"

logger = logging.getLogger("cellseg.evaluation")


class PictureEvaluator(DatasetEvaluator):
    """Writes `<output_dir>/pictures/<image_id>.png`: true cells left, predicted cells right.

    Regions of uncounted cells, and detections that the crowd rule forgives, are not drawn.

    Args:
        dataset_name: registered in DatasetCatalog, with masks and thing_classes.
        output_dir: folder; made when the first picture is written.
        max_images: only the first so many images of the dataset are drawn, the same ones at
            every evaluation and on any number of ranks.
        score_threshold: detections below it are not drawn.
        selection: which detections are drawn, in place of `score_threshold`.
        read: file to image, such as `ImageInput.read`, for files of several pages or channels; of
                a plane of a stack it is given `page` as well.
    """

    @checked(dataset_name=NAME, output_dir=PATH, max_images=COUNT)
    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path,
        *,
        max_images: int = 8,
        score_threshold: float = 0.5,
        selection: DetectionThresholds | None = None,
        read: Callable[..., NDArray[Any]] = read_image,
    ) -> None:
        self._truth = GroundTruth.load(dataset_name)
        self._folder = Path(output_dir) / PICTURES_FOLDER
        self._drawn: set[ImageKey] = set(islice(self._truth.images, max_images))
        self._selection = selection or DetectionThresholds(score=score_threshold)
        self._read = read

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Draw those of the images that are among the first ones; see CellIoUEvaluator.process."""
        for image, output in zip(inputs, outputs):
            key = image_key(image)
            if key in self._drawn:
                cells = detections_to_cells(output["instances"], self._selection.lowest_score)
                compared = compare(self._truth.cells(key), cells).keep(self._selection).counted
                sides = (compared.true.cells, compared.pred.cells)
                of_page = {"page": image["page"]} if "page" in image else {}
                picture = draw_comparison(self._read(image["file_name"], **of_page), *sides)
                write_picture(self._folder / f"{_file_stem(key)}.png", picture)

    def evaluate(self) -> dict[str, Any]:
        """No metrics; says where the pictures are."""
        logger.info("Pictures of %s are in %s", self._truth.dataset_name, self._folder)
        return {}


def _file_stem(key: ImageKey) -> str:
    """The image id as a file name: no folders, no characters that a file system may refuse."""
    return re.sub(r"[^\w.-]+", "_", str(key))
