"""VGG Image Annotator (VIA 1 and 2): its project, and its exports as JSON and CSV.

    <root>/<split>/via.json (or .csv), images/...

Polygons, circles and ellipses are cells. The class of one is a region attribute: the only one, or
the one that the option `attribute` names, or `class`, `label`, `type` or `name`. Points are left
out with a warning; rectangles and polylines are errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cellseg.errors import DatasetError
from cellseg.io.base import Option, explain_entry
from cellseg.io.drawn_shapes import DrawnShapes, ellipse_ring
from cellseg.io.one_file import DrawnImage, format_of_one_file
from cellseg.io.table_rows import read_rows
from cellseg.json_text import parse_json, read_json

Json = dict[str, Any]

_PROJECT = "_via_img_metadata"
_COLUMNS = ("filename", "region_count", "region_shape_attributes", "region_attributes")
_USUAL = ("class", "label", "type", "name")


def parse(file: Path, options: Mapping[str, Any]) -> list[DrawnImage]:
    """The images of a file; see `one_file.format_of_one_file`."""
    regions = _read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file)
    return [DrawnImage(name, _sort(own, options.get("attribute"))) for name, own in regions.items()]


def _read_json(file: Path) -> dict[str, list[Any]]:
    """The regions of each image."""
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON: {error}") from error
    entries = content.get(_PROJECT, content) if isinstance(content, dict) else content
    images = list(entries.values()) if isinstance(entries, dict) else entries
    if not isinstance(images, list) or not all(
        isinstance(one, dict) and isinstance(one.get("filename"), str) for one in images
    ):
        raise DatasetError(
            f"{file}: expected VIA's images, each with filename and regions; VIA's own export as "
            "COCO is the format coco_json"
        )
    found = {}
    for one in images:
        regions = one.get("regions") or []  # VIA 1 numbers them
        found[one["filename"]] = list(regions.values()) if isinstance(regions, dict) else regions
    return found


def _read_csv(file: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, rows in read_rows(file, _COLUMNS).items():
        regions = found.setdefault(name, [])
        for line, row in rows:
            try:
                shape = parse_json(row["region_shape_attributes"] or "{}")
                attributes = parse_json(row["region_attributes"] or "{}")
            except ValueError as error:
                raise DatasetError(f"{file}: line {line}: no JSON in it: {error}") from error
            if shape:
                regions.append({"shape_attributes": shape, "region_attributes": attributes})
    return found


def _sort(regions: Iterable[Any], attribute: str | None) -> DrawnShapes:
    shapes = DrawnShapes()
    for number, region in enumerate(regions):
        name = f"region {number}"
        try:
            shape, own = region["shape_attributes"], region.get("region_attributes") or {}
            _add_shape(shapes, name, shape, _class_of(own, attribute))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            shapes.problems.append(f"{name}: {explain_entry(error)}")
    return shapes


def _class_of(attributes: Json, attribute: str | None) -> str | None:
    keys = [attribute] if attribute else [key for key in _USUAL if key in attributes]
    if not attribute and len(attributes) == 1:
        keys = list(attributes)
    value = attributes.get(keys[0]) if keys else None
    if isinstance(value, dict):  # a checkbox: those that are ticked
        value = ", ".join(key for key, is_ticked in value.items() if is_ticked)
    return str(value).strip() or None if value is not None else None


def _add_shape(shapes: DrawnShapes, name: str, shape: Json, class_name: str | None) -> None:
    kind = shape["name"]
    if kind in ("polygon", "circle", "ellipse"):
        if kind == "polygon":
            points: Any = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
        else:
            radii = (shape["r"],) * 2 if kind == "circle" else (shape["rx"], shape["ry"])
            centre = float(shape["cx"]), float(shape["cy"])
            angle = float(shape.get("theta", 0))
            points = ellipse_ring(centre, (float(radii[0]), float(radii[1])), angle)
        shapes.add_polygon(name, points, class_name)
    elif kind == "rect":
        shapes.boxes.append(name)
    elif kind == "point":
        shapes.points.append(name)
    else:
        shapes.problems.append(f"{name}: a {kind} is no area: delete it")


FORMAT = format_of_one_file(
    parse,
    (".json", ".csv"),
    "a region attribute (the option `attribute` names it)",
    {
        "attribute": Option(
            "the name of a region attribute", lambda value: isinstance(value, str) and value != ""
        )
    },
)
