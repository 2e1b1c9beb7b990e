"""Pictures of what the network is given, before it is trained with it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.cells.drawing import Picture, draw_overlay, write_picture
from cellseg.cells.instances import CellInstances
from cellseg.engine.random_state import untouched_random_state
from detectron2.engine import HookBase
from detectron2.structures import PolygonMasks, polygons_to_bitmask
from torch.utils.data import IterableDataset

FOLDER = "samples"
_BOX_RGB = (235, 235, 235)
_VEIL = 64

logger = logging.getLogger(__name__)


class SamplePictures(HookBase):
    """Draws some training images, evenly spread over the training set, before training starts.

    They come through the trainer's own loader: as the network gets them, augmented and resized,
    with the outlines of their cells, and the cells' boxes; a grey veil lies over what is left out
    of the losses. No random number of the training is used up. To be used in the main process only.

    Args:
        count: how many images of the training set are drawn.
        folder: gets the pictures, `<number>_<image id>.png`.
        image_format: order of the channels, "BGR" or "RGB".
    """

    def __init__(self, count: int, folder: str | Path, image_format: str = "BGR") -> None:
        self._count = count
        self._folder = Path(folder)
        self._image_format = image_format

    def before_train(self) -> None:
        """Draw and write the pictures."""
        images = find_indexed(self.trainer.data_loader)
        if images is None:
            logger.info("The training loader has no images by number: none is drawn")
            return
        numbers = np.linspace(0, len(images), min(self._count, len(images)), endpoint=False)
        with untouched_random_state():
            for number in numbers.astype(int).tolist():
                sample = images[number]
                name = re.sub(r"[^\w.-]+", "_", str(sample.get("image_id", "")))
                picture = draw_sample(sample, self._image_format)
                write_picture(self._folder / f"{number}_{name}.png", picture)
        logger.info("Pictures of %d training images are in %s", len(numbers), self._folder)


def find_indexed(loader: Any) -> Any:
    """The innermost mapped dataset of a loader, which gives an image by its number; or None."""
    while loader is not None and not _is_indexed(loader):
        loader = getattr(loader, "dataset", None)
    return loader


def _is_indexed(dataset: Any) -> bool:
    # torch's iterable datasets inherit a `__getitem__` that only raises
    has_both = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return has_both and not isinstance(dataset, IterableDataset)


def draw_sample(sample: dict[str, Any], image_format: str = "BGR") -> Picture:
    """Draw what a mapper made of a training image.

    Args:
        sample: with "image", tensor [3, H, W], and "instances" with gt_boxes, maybe gt_masks and
            uncounted.
        image_format: order of the image's channels, "BGR" or "RGB".

    Returns:
        RGB uint8, enlarged if the image is small.
    """
    image = sample["image"].cpu().numpy().transpose(1, 2, 0)
    image = image[..., ::-1] if image_format == "BGR" else image
    height, width = image.shape[:2]
    instances = sample["instances"]
    cells = CellInstances.empty((height, width))
    if instances.has("gt_masks") and len(instances):
        cells = CellInstances.from_bitmaps(_to_bitmaps(instances.gt_masks, (height, width)))
    picture = np.ascontiguousarray(draw_overlay(image, cells))
    scale = picture.shape[0] // height
    if instances.has("uncounted"):
        veiled = instances.uncounted.mask.cpu().numpy().repeat(scale, 0).repeat(scale, 1)
        picture[veiled] = picture[veiled] // 2 + _VEIL
    for box in instances.gt_boxes.tensor.tolist():
        x0, y0, x1, y1 = (round(edge * scale) for edge in box)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), _BOX_RGB, 1)
    return picture


def _to_bitmaps(masks: Any, image_hw: tuple[int, int]) -> Any:
    if isinstance(masks, PolygonMasks):
        return np.stack([polygons_to_bitmask(each, *image_hw) for each in masks.polygons])
    return masks.tensor.cpu().numpy()
