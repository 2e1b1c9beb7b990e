"""Records as one compact file: a NumPy archive of columns, without pickle.

Runs of pixels, boxes, scores, classes and crowd flags of all cells of all images stand one after
the other; 74,000 cells are read in a fraction of a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.cells.runs import Runs
from cellseg.limits import open_zip
from numpy.typing import NDArray

FORMAT_VERSION = 3

_PER_CELL = ("num_runs", "boxes_xyxy", "scores", "classes", "is_crowd")


def write_annotations(
    path: Path, records: Sequence[ImageRecord], root: Path, note: dict[str, Any]
) -> None:
    """Write records, with image paths relative to `root` where they are below it.

    Args:
        path: file to write, `.npz`.
        records: may be empty.
        root: folder of the dataset.
        note: goes into the file's header, as JSON.

    Raises:
        OSError: the disk refuses.
        ValueError: a record without an image, or an image of 2^31 pixels or more.
    """
    if any(record.image_path is None for record in records):
        raise ValueError("a record without an image")
    if any(np.prod(record.image_hw) > np.iinfo(np.int32).max for record in records):
        raise ValueError("an image of 2^31 pixels or more")
    cells = [record.cells for record in records]
    header = {
        "version": FORMAT_VERSION,
        "note": note,
        "ids": [record.image_id for record in records],
        "places": [asdict(record.place) for record in records],
        "paths": [_path_below(record.image_path, root) for record in records if record.image_path],
    }
    num_runs = [np.bincount(one.runs.cells, minlength=len(one)) for one in cells]
    text = np.frombuffer(json.dumps(header).encode("utf-8"), np.uint8)
    with path.open("wb") as stream:
        np.savez(
            stream,
            header=text,
            image_hw=np.array([record.image_hw for record in records], np.int64).reshape(-1, 2),
            num_cells=np.array([len(one) for one in cells], np.int64),
            num_runs=_join(num_runs, np.int32),
            starts=_join([one.runs.starts for one in cells], np.int32),
            ends=_join([one.runs.ends for one in cells], np.int32),
            boxes_xyxy=_join([one.boxes_xyxy.ravel() for one in cells], np.float32).reshape(-1, 4),
            scores=_join([one.scores for one in cells], np.float32),
            classes=_join([one.classes for one in cells], np.int32),
            is_crowd=_join([one.is_crowd for one in cells], np.bool_),
        )


def _path_below(path: Path, root: Path) -> str:
    """Relative to the root, or the path itself where that is elsewhere."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path.absolute())


def _join(columns: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(column.astype(dtype) for column in columns)])


def read_annotations(path: Path, root: Path) -> tuple[dict[str, Any], list[ImageRecord]]:
    """The note and the records of a file that `write_annotations` wrote.

    Args:
        path: the file.
        root: folder of the dataset, which the image paths are below.

    Raises:
        Exception: of any kind, where the file is damaged or of another version.
    """
    with open_zip(path), np.load(path, allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    header = json.loads(columns["header"].tobytes().decode("utf-8"))
    if header["version"] != FORMAT_VERSION:
        raise ValueError(f"version {header['version']}, expected {FORMAT_VERSION}")
    return header["note"], [
        ImageRecord(image_id, cells, root / name, PlaceInFile.from_json(place))
        for image_id, name, place, cells in zip(
            header["ids"], header["paths"], header["places"], _split_cells(columns), strict=True
        )
    ]


def _split_cells(columns: dict[str, NDArray[Any]]) -> list[CellInstances]:
    """The cells of each image from the columns of all."""
    num_cells, num_runs = columns["num_cells"], columns["num_runs"]
    lengths = {len(columns[name]) for name in _PER_CELL}
    if lengths != {int(num_cells.sum())}:
        raise ValueError(f"columns of {sorted(lengths)} rows for {num_cells.sum()} cells")
    starts, ends = columns["starts"].astype(np.int64), columns["ends"].astype(np.int64)
    if {len(starts), len(ends)} != {int(num_runs.sum())}:
        raise ValueError(f"{len(starts)} and {len(ends)} runs; expected {num_runs.sum()}")
    last_cell = np.cumsum(num_cells)
    last_run = np.r_[0, np.cumsum(num_runs, dtype=np.int64)]
    first_cell = last_cell - num_cells
    places = zip(columns["image_hw"].tolist(), first_cell.tolist(), last_cell.tolist(), strict=True)
    found = []
    for image_hw, begin, end in places:
        own = slice(int(last_run[begin]), int(last_run[end]))
        numbers = np.repeat(np.arange(end - begin), num_runs[begin:end])
        cells = CellInstances.from_runs(
            Runs(numbers, starts[own], ends[own]),
            end - begin,
            (image_hw[0], image_hw[1]),
            **{name: columns[name][begin:end] for name in _PER_CELL[1:]},
        )
        found.append(cells)
    return found
