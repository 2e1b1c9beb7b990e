"""Semantic segmentation as two folders of pictures: images, and the class of each pixel."""

from __future__ import annotations

import logging
import os

from detectron2.utils.file_io import PathManager

from .._require import require

__all__ = ["load_sem_seg"]


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, str]]:
    """Pair images with pictures of their classes by name; neither is opened.

    Args:
        gt_root: folder of the pictures whose values are classes.
        image_root: folder of the images.
        gt_ext, image_ext: how names in either folder end; others are passed over.

    Returns:
        Per pair, by name, a dict with "file_name" and "sem_seg_file_name". What has no partner is
        left out, with a warning.

    Raises:
        AssertionError: no picture of classes in `gt_root`.
    """
    images, classes = _by_name(image_root, image_ext), _by_name(gt_root, gt_ext)
    require(bool(classes), f"No file ends in '{gt_ext}' in {gt_root}.")
    logger = logging.getLogger(__name__)
    pairs = sorted(images.keys() & classes.keys())
    if not len(pairs) == len(images) == len(classes):
        logger.warning(
            f"{image_root} has {len(images)} images and {gt_root} {len(classes)} pictures of "
            f"classes: the {len(pairs)} of equal names are used."
        )
    logger.info(f"Found {len(pairs)} images with semantic segmentation in {image_root}")
    return [{"file_name": images[name], "sem_seg_file_name": classes[name]} for name in pairs]


def _by_name(folder: str, ending: str) -> dict[str, str]:
    files = [file for file in PathManager.ls(folder) if file.endswith(ending)]
    return {os.path.splitext(file)[0]: os.path.join(folder, file) for file in files}
