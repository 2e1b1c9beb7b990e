"""COCO's results, written entry by entry, one to a line; image by image or all in one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import LabelError
from cellseg.files import write_whole
from cellseg.io.base import PredictionFile, WriteRecord
from cellseg.io.category_ids import choose_category_ids, write_companion
from cellseg.io.checks import cells_in_pieces

Json = dict[str, Any]


def cells_to_coco_results(
    image_id: str | int, cells: CellInstances, category_ids: Sequence[int] | None = None
) -> list[Json]:
    """One dict per cell, in the order of `cells`.

    Args:
        image_id: as in the annotation file that the results belong to.
        cells: the cells of that image; may be empty.
        category_ids: the id of each class; class + 1 by default.

    Returns:
        image_id, category_id, bbox (x, y, width, height in pixels), score, segmentation
        (compressed RLE).

    Raises:
        LabelError: a cell's class has no category id.
    """
    highest = int(cells.classes.max(initial=-1))
    if category_ids is None:
        category_ids = range(1, highest + 2)
    if highest >= len(category_ids):
        raise LabelError(
            f"image {image_id!r} has a cell of class {highest} (0-based), but there are "
            f"{len(category_ids)} category ids: {list(category_ids)}"
        )
    corners = cells.boxes_xyxy.astype(np.float64)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {
            "image_id": image_id,
            "category_id": int(category_ids[number]),
            "bbox": box,
            "score": score,
            "segmentation": rle,
        }
        for number, box, score, rle in zip(
            cells.classes.tolist(), boxes_xywh.tolist(), cells.scores.tolist(), cells.to_rles()
        )
    ]


@contextmanager
def open_coco_results(
    path: Path, classes: Sequence[str], category_ids: Sequence[int] | None = None
) -> Iterator[WriteRecord]:
    """Write a results file and its companion, both complete or not at all.

    Args:
        path: of the results; folders are made; replaced only when complete.
        classes: class names.
        category_ids: the id of each class; by default 1 to C.
    """
    ids = category_ids or choose_category_ids(len(classes))
    with open_result_lines(path, classes, ids) as add:

        def write(record: ImageRecord) -> None:
            for line in _lines_of(record, ids):
                add(line)

        yield write


def write_entries(
    path: Path, entries: Iterable[Json], classes: Sequence[str], category_ids: Sequence[int]
) -> None:
    """Write the entries that `cells_to_coco_results` gave, and what their category ids mean."""
    with open_result_lines(path, classes, category_ids) as add:
        for entry in entries:
            add(json.dumps(entry))


def _lines_of(record: ImageRecord, category_ids: Sequence[int]) -> Iterator[str]:
    for _, cells in cells_in_pieces(record):
        for entry in cells_to_coco_results(record.image_id, cells, category_ids):
            yield json.dumps(entry)


@contextmanager
def open_result_lines(
    path: Path, classes: Sequence[str], category_ids: Sequence[int]
) -> Iterator[Callable[[str], None]]:
    """As `open_coco_results`, for entries that are JSON already; a context whose value adds one.

    Args:
        path: of the results; folders are made; replaced only when complete.
        classes: class names.
        category_ids: the id of each class.
    """
    with write_whole(path) as partial:
        with partial.open("w", encoding="utf-8") as stream, _list_in(stream) as add:
            yield add
        write_companion(path, category_ids, classes)


@contextmanager
def _list_in(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """Give a function that adds an entry, which is JSON already."""
    between = "[\n"

    def add(entry: str) -> None:
        nonlocal between
        stream.write(between + entry)
        between = ",\n"

    yield add
    stream.write("[\n]\n" if between == "[\n" else "\n]\n")


def write_prediction_file(
    record: ImageRecord, paths: Sequence[Path], classes: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    """Write the results of one image, one entry to a line.

    Args:
        record: an image and its cells; all of them are written, with pixels or without.
        paths: the file.
        classes: class names.
        options: `category_ids`, the id of each class; by default 1 to C.
    """
    ids = options.get("category_ids") or choose_category_ids(len(classes))
    with paths[0].open("w", encoding="utf-8") as stream, _list_in(stream) as add:
        for line in _lines_of(record, ids):
            add(line)


PREDICTION = PredictionFile("_coco.json", write_prediction_file)


def write_coco_results(
    records: Iterable[ImageRecord],
    path: str | Path,
    classes: Sequence[str] = ("cell",),
    category_ids: Sequence[int] | None = None,
) -> None:
    """Write the cells of many images into one results file; see `open_coco_results`.

    Args:
        records: may be a generator, may be empty.
        path, classes, category_ids: as there.
    """
    with open_coco_results(Path(path), classes, category_ids) as write:
        for record in records:
            write(record)
