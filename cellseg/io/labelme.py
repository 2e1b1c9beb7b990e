"""labelme's JSON: polygons, circles and masks, a file per image, usually beside it.

    <root>/<split>/a.png, a.json                        or
    <root>/<split>/images/a.png, annotations/a.json

The class of a shape is its label; shapes of one label and one `group_id` are pieces of one cell.
Points are left out with a warning; rectangles and lines are errors. Read only.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import DatasetError
from cellseg.io.base import ALL_BUT_SCORES, CROWD, Problems, explain_entry
from cellseg.io.cell_file import CellFile
from cellseg.io.coco_content import as_whole
from cellseg.io.drawn_shapes import DrawnShapes, ellipse_ring
from cellseg.io.file_names import check_declared_size
from cellseg.io.outlines import Outline
from cellseg.io.per_image import format_of_files
from cellseg.json_text import read_json
from PIL import Image

Json = dict[str, Any]


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ("cell",),
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a labelme file, in the order of its shapes.

    Args:
        path: the file.
        image_hw: (height, width) of the image, pixels.
        classes: declared names.
        options: not used.

    Returns:
        The cells, or what is wrong with the shapes.

    Raises:
        DatasetError: the file is none of labelme's, or of an image of another size.
    """
    content = _read_json(path)
    size = as_whole(content.get("imageHeight")), as_whole(content.get("imageWidth"))
    check_declared_size(path, path, size, image_hw)
    shapes = DrawnShapes()
    groups: dict[tuple[str, Any], Outline] = {}
    for number, shape in enumerate(content["shapes"]):
        label = str(shape.get("label") or "") or None
        name = f"shape {number}" + (f" ({label})" if label else "")
        before = len(shapes.outlines)
        try:
            _add_shape(shapes, name, shape, label)
        except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
            shapes.problems.append(f"{name}: {explain_entry(error)}")
        _join_group(shapes, before, (label or "", shape.get("group_id")), groups)
    return shapes.to_cells(path, image_hw, classes, "its label")


def _read_json(path: Path) -> Json:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON: {error}") from error
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(one, dict) for one in shapes):
        raise DatasetError(f"{path}: expected labelme's object with a list of shapes")
    return content


def _join_group(
    shapes: DrawnShapes,
    before: int,
    key: tuple[str, Any],
    groups: dict[tuple[str, Any], Outline],
) -> None:
    """Put the rings of a shape to those of the first of its group, if it has one."""
    if key[1] is None or len(shapes.outlines) == before or shapes.outlines[-1].mask:
        return
    first = groups.setdefault(key, shapes.outlines[-1])
    if first is not shapes.outlines[-1]:
        joined = Outline(first.name, [*first.rings, *shapes.outlines.pop().rings], first.class_name)
        shapes.outlines[shapes.outlines.index(first)] = groups[key] = joined


def _add_shape(shapes: DrawnShapes, name: str, shape: Json, label: str | None) -> None:
    kind = shape.get("shape_type") or "polygon"
    points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
    if kind == "polygon":
        shapes.add_polygon(name, points, label)
    elif kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        shapes.add_polygon(name, ellipse_ring((points[0, 0], points[0, 1]), (radius,) * 2), label)
    elif kind == "mask":
        left, top = (int(number) for number in points[0])
        shapes.add_mask(name, _decode_mask(shape["mask"]), (top, left), label)
    elif kind == "rectangle":
        shapes.boxes.append(name)
    elif kind in ("point", "points"):
        shapes.points.append(name)
    else:
        shapes.problems.append(f"{name}: a {kind} is no area: delete it")


def _decode_mask(text: str) -> Any:
    """The pixels of a mask, a PNG in base64."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as picture:
            return np.asarray(picture.convert("L")) > 0
    except binascii.Error as error:
        raise ValueError(f"its mask is no base64: {error}") from error


def find_file_classes(path: Path, options: Mapping[str, Any]) -> set[str]:
    """Labels in a file."""
    return {str(one["label"]) for one in _read_json(path)["shapes"] if one.get("label")}


FORMAT = format_of_files(
    CellFile(
        kind="labelme file",
        folder="annotations",
        suffixes=(".json",),
        written_suffix=".json",
        read=read_image_cells,
        find_classes=find_file_classes,
        holds=ALL_BUT_SCORES - {CROWD},
    )
)
