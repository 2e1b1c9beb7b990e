"""Loading registered datasets, with what a training set is checked for."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch.utils.data as torchdata
from detectron2.utils.logger import log_first_n
from tabulate import tabulate
from termcolor import colored

from ._require import left_out, require
from .catalog import DatasetCatalog, MetadataCatalog
from .detection_utils import check_metadata_consistency

__all__ = [
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
]

logger = logging.getLogger(__name__)

_HISTOGRAM_PAIRS_PER_ROW = 3
_LONGEST_CLASS_NAME = 13


def filter_images_with_only_crowd_annotations(
    dataset_dicts: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The images that have an annotation which is not a crowd."""
    return _keep_images(
        dataset_dicts,
        lambda image: any(not each.get("iscrowd", 0) for each in image["annotations"]),
        "no usable annotations",
    )


def filter_images_with_few_keypoints(
    dataset_dicts: Sequence[dict[str, Any]], min_keypoints_per_image: int
) -> list[dict[str, Any]]:
    """The images with at least that many visible keypoints."""

    def count_visible(image: dict[str, Any]) -> int:
        flags = (each.get("keypoints", ())[2::3] for each in image["annotations"])
        return sum(flag > 0 for flag in itertools.chain.from_iterable(flags))

    return _keep_images(
        dataset_dicts,
        lambda image: count_visible(image) >= min_keypoints_per_image,
        f"fewer than {min_keypoints_per_image} keypoints",
    )


def _keep_images(
    images: Sequence[dict[str, Any]], is_good: Callable[[dict[str, Any]], bool], fault: str
) -> list[dict[str, Any]]:
    kept = [image for image in images if is_good(image)]
    logger.info(f"Left out {len(images) - len(kept)} images with {fault}; {len(kept)} stay.")
    return kept


def print_instances_class_histogram(
    dataset_dicts: Iterable[dict[str, Any]], class_names: Sequence[str]
) -> None:
    """Log how many instances each class has, crowds not counted.

    Raises:
        AssertionError: a category_id is not in [0, number of classes).
    """
    ids = [
        annotation["category_id"]
        for image in dataset_dicts
        for annotation in image["annotations"]
        if not annotation.get("iscrowd", 0)
    ]
    wrong = {i for i in ids if not 0 <= i < len(class_names)}
    require(not wrong, f"Invalid category_id {wrong}: there are {len(class_names)} classes.")
    counts = np.bincount(np.asarray(ids, dtype=np.int64), minlength=len(class_names)).tolist()
    pairs = [(_shortened(name), count) for name, count in zip(class_names, counts)]
    per_row = min(_HISTOGRAM_PAIRS_PER_ROW, len(pairs))
    rows = [sum(pairs[i : i + per_row], ()) for i in range(0, len(pairs), max(per_row, 1))]
    if len(pairs) > 1:
        rows.append(("total", sum(counts)))
    table = tabulate(
        rows,
        headers=("category", "#instances") * per_row,
        tablefmt="pipe",
        stralign="center",
        numalign="left",
    )
    message = f"Instances of all {len(pairs)} categories:\n{colored(table, 'cyan')}"
    log_first_n(logging.INFO, message, key="message")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_CLASS_NAME else f"{name[: _LONGEST_CLASS_NAME - 2]}.."


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> Any:
    """Load registered datasets and put them behind each other.

    Args:
        names: one name or several.
        filter_empty: leave out images without annotations other than crowds.
        min_keypoints: leave out images with fewer visible keypoints.
        proposal_files: not part of this engine.
        check_consistency: insist on equal "thing_classes", and log a histogram of them.

    Returns:
        A list of dicts in Detectron2's dataset format; or, where datasets are registered as
        `torch.utils.data.Dataset`, that one or the concatenation of several.
    """
    if proposal_files is not None:
        raise left_out("MODEL.LOAD_PROPOSALS")
    names = [names] if isinstance(names, str) else list(names)
    require(len(names) > 0, "No dataset is named: see DATASETS.TRAIN and DATASETS.TEST.")
    loaded = {name: DatasetCatalog.get(name) for name in names}
    if isinstance(loaded[names[0]], torchdata.Dataset):
        parts = [loaded[name] for name in names]
        return parts[0] if len(parts) == 1 else torchdata.ConcatDataset(parts)
    for name, images in loaded.items():
        require(len(images) > 0, f"Dataset '{name}' is empty!")
    images = list(itertools.chain.from_iterable(loaded[name] for name in names))
    if "annotations" not in images[0]:
        return images

    if filter_empty:
        images = filter_images_with_only_crowd_annotations(images)
    if min_keypoints > 0:
        images = filter_images_with_few_keypoints(images, min_keypoints)
    if check_consistency and all(hasattr(MetadataCatalog.get(n), "thing_classes") for n in names):
        check_metadata_consistency("thing_classes", names)
        print_instances_class_histogram(images, MetadataCatalog.get(names[0]).thing_classes)
    require(len(images) > 0, f"No usable image is left in {', '.join(names)}.")
    return images
