"""QuPath's GeoJSON, written feature by feature; `cellseg.io.geojson` says what is in it."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cellseg.cells.drawing import class_colour
from cellseg.cells.instances import CellInstances
from cellseg.cells.polygons import crops_to_rings, group_rings
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.cells.run_lengths import IntArray
from cellseg.io.checks import cells_with_labels
from cellseg.io.outlines import score_to_text
from cellseg.names import printable
from numpy.typing import NDArray

CROWD, SCORE, LABEL = "crowd", "score", "label"  # names in a feature's properties
GZIP_LEVEL = 6

Json = dict[str, Any]


def write_image_cells(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the cells of one image as annotations, which is what QuPath lets its users edit.

    Args:
        record: an image and its cells, each with a pixel.
        path: the file; its folder is there. Compressed if it ends in .gz.
        classes: class names.
        options: not used; every outline is written as `geometry`.
    """
    _write_collection(record, path, classes, _annotation)


def write_predicted_cells(
    record: ImageRecord, path: Path, classes: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    """Write the predicted cells of one image as detections, with label and score as measurements.

    Arguments as in `write_image_cells`.
    """
    _write_collection(record, path, classes, _detection)


def _write_collection(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...],
    properties_of: Callable[[int, CellInstances, int, tuple[str, ...]], Json],
) -> None:
    """A FeatureCollection, feature by feature, each in a line of its own."""
    with _open_text(path) as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        between = "\n"
        for labels, cells in cells_with_labels(record, classes):
            outlines = crops_to_rings(cells.crops, cells.offsets_rc)
            for k, (label, rings) in enumerate(zip(labels, outlines)):
                feature = {
                    "type": "Feature",
                    # QuPath wants UUIDs; these are the same whenever the same cells are written.
                    "id": str(
                        uuid.uuid5(
                            uuid.NAMESPACE_URL, f"cellseg/{printable(record.image_id)}/{label}"
                        )
                    ),
                    "geometry": _geometry(rings, record.place),
                    "properties": properties_of(label, cells, k, classes),
                }
                text = json.dumps(feature, separators=(",", ":"), allow_nan=False)
                stream.write(between + text)
                between = ",\n"
        stream.write("\n]}\n")


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """A text file to write; compressed, without a date in it, where its name ends in .gz."""
    if path.suffix != ".gz":
        with path.open("w", encoding="utf-8") as stream:
            yield stream
        return
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as stream,
    ):
        yield stream


def _geometry(rings: Sequence[IntArray], place: PlaceInFile) -> Json:
    """Polygons in the pixels of the file's finest level, which is what QuPath shows."""
    pieces: list[list[NDArray[Any]]] = group_rings(rings)
    if place.downsample != 1:
        pieces = [[(ring * place.downsample).round(3) for ring in piece] for piece in pieces]
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in piece] for piece in pieces]
    single = len(polygons) == 1
    geometry: Json = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
    }
    numbers = {axis.lower(): number for axis, number in place.position}
    if numbers.keys() & {"c", "z", "t"}:
        # QuPath's plane counts from 0; channel -1 stands for all of them.
        planes = {axis: numbers.get(axis, 0) for axis in "zt"}
        geometry["plane"] = {"c": numbers.get("c", -1), **planes}
    return geometry


def _annotation(label: int, cells: CellInstances, k: int, classes: tuple[str, ...]) -> Json:
    """What a data set says of cell `k` of these."""
    properties: Json = {
        "objectType": "annotation",
        "classification": {"name": classes[cells.classes[k]]},
    }
    if cells.is_crowd[k]:
        properties["metadata"] = {CROWD: "true"}
    if cells.scores[k] != 1:
        properties["measurements"] = {SCORE: _score_number(cells, k)}
    return properties


def _detection(label: int, cells: CellInstances, k: int, classes: tuple[str, ...]) -> Json:
    """What a prediction says of cell `k` of these."""
    number = int(cells.classes[k])
    properties: Json = {
        "objectType": "detection",
        "classification": {"name": classes[number], "color": list(class_colour(number))},
        "isLocked": False,
        "measurements": {SCORE: _score_number(cells, k), LABEL: label},
    }
    if cells.is_crowd[k]:
        properties["metadata"] = {CROWD: "true"}
    return properties


def _score_number(cells: CellInstances, k: int) -> float:
    return float(score_to_text(cells.scores[k]))
