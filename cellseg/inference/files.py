"""Predict whole lists of image files, and leave what a person and other programs can open."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from cellseg.cells.drawing import draw_overlay, write_picture
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import CellsegError
from cellseg.images import IMAGE_SUFFIXES, read_image
from cellseg.io import open_predictions
from cellseg.io.coco_results import RESULTS_NAME, open_coco_results
from cellseg.io.label_images import write_label_image
from numpy.typing import NDArray
from tqdm import tqdm

OVERLAY_SUFFIX = "_overlay.png"
LABELS_SUFFIX = "_labels.tif"
RESULTS_FORMAT = "coco_results"

logger = logging.getLogger(__name__)


def find_images(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Resolve files, folders and glob patterns to image files.

    Args:
        inputs: a file of any name; a folder, for the image files in it (not below it) that are
            not results of an earlier prediction; or a pattern with `*`, `?`, `[...]` and `**`.

    Returns:
        Each file once, in the order of `inputs` and by name within a folder or pattern; and the
        inputs that gave nothing.
    """
    found: dict[Path, Path] = {}
    missing = []
    for name in inputs:
        paths = _resolve_input(name)
        if not paths:
            missing.append(name)
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values()), missing


def _resolve_input(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():  # before globbing: names may hold brackets
        return [path]
    if path.is_dir():
        files = [entry for entry in path.iterdir() if entry.is_file()]
        files = [entry for entry in files if entry.suffix.lower() in IMAGE_SUFFIXES]
        stems = {entry.stem for entry in files}
        return sorted(entry for entry in files if not _is_result(entry.name, stems))
    return sorted(Path(match) for match in glob.glob(name, recursive=True) if Path(match).is_file())


def _is_result(name: str, stems: set[str]) -> bool:
    """True for `x_overlay.png` and `x_labels.tif` beside an image of stem `x`."""
    return any(
        name.endswith(suffix) and name.removesuffix(suffix) in stems
        for suffix in (OVERLAY_SUFFIX, LABELS_SUFFIX)
    )


def output_stems(paths: Sequence[Path]) -> list[str]:
    """A name of its own for each file: its stem, and `_2`, `_3`, ... where stems are equal."""
    taken = {path.stem for path in paths}
    used: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 2
        while stem in used or (stem != path.stem and stem in taken):
            stem, number = f"{path.stem}_{number}", number + 1
        used.add(stem)
        stems.append(stem)
    return stems


def predict_files(
    predict: Callable[[NDArray[np.generic]], CellInstances],
    paths: Sequence[Path],
    output_dir: str | Path,
    *,
    read: Callable[[Path], NDArray[np.generic]] = read_image,
    classes: Sequence[str] = ("cell",),
    category_ids: Sequence[int] | None = None,
    formats: Sequence[str] = (),
) -> list[str]:
    """Predict each file and write its results; one that fails does not stop the rest.

    Writes `<stem>_overlay.png` (outlines in the image), `<stem>_labels.tif` (uint16 or uint32) and
    for all images together `coco_results.json`, whose image ids are the stems, and
    `coco_results.categories.json`, which says what its category ids mean. Each file appears only
    when it is complete, with the JSON last.

    Args:
        predict: gives the cells of an image with the file's own values, such as a
            `CellPredictor`.
        paths: image files; see `output_stems` for the names of their results.
        output_dir: the folder that results go to, made if needed.
        read: gives the image of a file, such as `CellPredictor.read_image`.
        classes: the model's class names, in the order of their numbers.
        category_ids: the category id of each class; by default 1 to C.
        formats: keys of `cellseg.io.FORMATS`, in which the cells are written as well.

    Returns:
        One line per file that failed: its path and the reason.
    """
    folder = Path(output_dir)
    problems: list[str] = []
    with ExitStack() as stack:
        results = open_coco_results(folder / RESULTS_NAME, classes, category_ids)
        write_results = stack.enter_context(results)
        others = dict.fromkeys(name for name in formats if name != RESULTS_FORMAT)
        opened = [open_predictions(folder, name, classes) for name in others]
        writers = [*map(stack.enter_context, opened), write_results]
        pairs = list(zip(paths, output_stems(paths)))
        for path, stem in tqdm(pairs, desc="predict", unit="image", disable=None):
            try:
                image = read(path)
                cells = predict(image)
                for write in writers:
                    write(ImageRecord(stem, cells, path))
            except CellsegError as error:
                problems.append(_with_file_name(path, error))
                logger.error("%s", problems[-1])
                continue
            write_picture(folder / f"{stem}{OVERLAY_SUFFIX}", draw_overlay(image, cells))
            write_label_image(cells, folder / f"{stem}{LABELS_SUFFIX}")
    return problems


def _with_file_name(path: Path, error: CellsegError) -> str:
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"
