"""Label Studio's JSON and JSON-MIN: polygons, ellipses and brush masks of all tasks.

    <root>/<split>/project-1.json, images/...

Images are found by their names, with or without the eight letters that an upload puts before them.
Of a task that several people have annotated the first annotation is read, which is said; skipped
ones never are. Key points are left out with a warning; rectangles are errors.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import DatasetError
from cellseg.io.base import explain_entry
from cellseg.io.coco_content import as_whole
from cellseg.io.drawn_shapes import DrawnShapes, ellipse_ring
from cellseg.io.one_file import DrawnImage, format_of_one_file
from cellseg.json_text import read_json
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Json = dict[str, Any]


def parse(file: Path, options: Mapping[str, Any]) -> list[DrawnImage]:
    """The images of a file; see `one_file.format_of_one_file`."""
    try:
        tasks = read_json(file)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DatasetError(
            f"{file}: expected Label Studio's list of tasks; its export as COCO is the format "
            "coco_json"
        )
    return [_read_task(file, number, task) for number, task in enumerate(tasks)]


def _read_task(file: Path, number: int, task: Json) -> DrawnImage:
    where = f"task {task.get('id', number)}"
    shapes, size = DrawnShapes(), (None, None)
    for place, region in enumerate(_regions_of(file, where, task)):
        name = f"{where}, region {region.get('id', place)}"
        try:
            size = as_whole(region["original_height"]), as_whole(region["original_width"])
            _add_region(shapes, name, region, size)
        except (KeyError, TypeError, ValueError, IndexError, DatasetError) as error:
            shapes.problems.append(f"{name}: {explain_entry(error)}")
    return DrawnImage(_image_of(file, where, task), shapes, size)


def _image_of(file: Path, where: str, task: Json) -> str:
    """The image's name: the data's `image`, or its only text."""
    data = task.get("data", task)
    texts = [value for value in data.values() if isinstance(value, str) and "." in value]
    name = data.get("image") or task.get("file_upload") or (texts[0] if texts else "")
    if not isinstance(name, str) or not name:
        raise DatasetError(f"{file}: {where}: no image in its data")
    return name


def _regions_of(file: Path, where: str, task: Json) -> Iterator[Json]:
    """The drawn regions of a task; of JSON-MIN every list of objects with a size."""
    if "annotations" in task:
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        if len(done) > 1:
            logger.warning("%s: %s has %d annotations; the first is read", file, where, len(done))
        results = done[0].get("result", []) if done else []
    else:
        lists = [value for value in task.values() if isinstance(value, list)]
        results = [one for value in lists for one in value]
    for one in results:
        if isinstance(one, dict) and "original_width" in one:
            yield one


def _add_region(shapes: DrawnShapes, name: str, region: Json, size_hw: tuple[Any, Any]) -> None:
    value = region.get("value", region)  # JSON-MIN has no value
    kinds = [key for key in value if key.endswith("labels")]
    kind = str(region.get("type") or (kinds[0] if kinds else ""))
    labels = value.get(kinds[0]) if kinds else None
    class_name = str(labels[0]) if labels else None
    height, width = size_hw
    scale = np.array([width, height], np.float64) / 100  # values are per cent
    if kind.startswith("polygon"):
        shapes.add_polygon(name, np.asarray(value["points"], np.float64) * scale, class_name)
    elif kind.startswith("brush"):
        mask = decode_brush(bytes(value["rle"]), (height, width))
        shapes.add_mask(name, mask > 0, (0, 0), class_name)
    elif kind.startswith("ellipse"):
        centre = np.array([value["x"], value["y"]]) * scale
        radii = np.array([value["radiusX"], value["radiusY"]]) * scale
        angle = math.radians(value.get("rotation", 0))
        ring = ellipse_ring((centre[0], centre[1]), (radii[0], radii[1]), angle)
        shapes.add_polygon(name, ring, class_name)
    elif kind.startswith("rectangle"):
        shapes.boxes.append(name)
    elif kind.startswith("keypoint"):
        shapes.points.append(name)


def decode_brush(packed: bytes, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The alpha of a brush mask, uint8 [H, W].

    Label Studio packs the RGBA picture by the scheme of the JavaScript package `@thi.ng/rle-pack`,
    a stream of bits: 32 for the number of values, 5 for the bits of a value less 1, four times 4
    for the bits of a length less 1; then blocks: 1 bit says whether one value is repeated, 2 which
    of the four widths the length has, then the length less 1, then one value or as many.

    Raises:
        DatasetError: the stream ends too early, or is of another size.
    """
    bits = _Bits(packed)
    count = bits.read(32)
    if count != 4 * image_hw[0] * image_hw[1]:
        raise DatasetError(
            f"a brush mask of {count} values; an image of {image_hw[1]} x {image_hw[0]} has "
            f"{4 * image_hw[0] * image_hw[1]} (RGBA)"
        )
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        is_repeated = bits.read(1)
        end = place + 1 + bits.read(length_bits[bits.read(2)])
        if is_repeated:
            values[place:end] = bits.read(value_bits)
        else:
            values[place:end] = [bits.read(value_bits) for _ in range(end - place)][: count - place]
        place = end
    return values[3::4].reshape(image_hw)


class _Bits:
    """Reads numbers of some bits each, the highest bit first."""

    def __init__(self, packed: bytes) -> None:
        self.packed, self.place = packed, 0

    def read(self, width: int) -> int:
        begin, end = self.place // 8, -(-(self.place + width) // 8)
        if end > len(self.packed):
            raise DatasetError("a brush mask that is cut off")
        number = int.from_bytes(self.packed[begin:end], "big")
        self.place += width
        return (number >> (8 * end - self.place)) & ((1 << width) - 1)


FORMAT = format_of_one_file(parse, (".json",), "its label")
