"""CVAT's own XML ("CVAT for images 1.1"): polygons, masks and ellipses, one file for all images.

    <root>/<split>/annotations.xml, images/...

Each shape is a cell of the class of its label. Points are left out with a warning; boxes, polylines
and the tracks of a video are errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cellseg.errors import DatasetError
from cellseg.io.coco_content import as_whole
from cellseg.io.drawn_shapes import DrawnShapes, ellipse_ring, runs_to_crop
from cellseg.io.one_file import DrawnImage, format_of_one_file

_NOT_SHAPES = ("tag", "attribute")


def parse(file: Path, options: Mapping[str, Any]) -> list[DrawnImage]:
    """The images of a file; see `one_file.format_of_one_file`."""
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, LookupError, ValueError, ElementTree.ParseError) as error:
        raise DatasetError(f"{file}: cannot be read as XML: {error}") from error
    if root.tag != "annotations":
        raise DatasetError(f"{file}: expected CVAT's <annotations>; found <{root.tag}>")
    if root.find("track") is not None:
        raise DatasetError(
            f"{file}: tracks of a video, whose frames are no files: in CVAT, export the task as "
            '"CVAT for images" with "save images"'
        )
    return [_read_image(image) for image in root.iter("image")]


def _read_image(image: ElementTree.Element) -> DrawnImage:
    shapes = DrawnShapes()
    for number, shape in enumerate((one for one in image if one.tag not in _NOT_SHAPES), 1):
        name = f"{shape.tag} {number} of image {image.get('id')}"
        try:
            _add_shape(shapes, name, shape)
        except (KeyError, TypeError, ValueError, DatasetError) as error:
            shapes.problems.append(f"{name}: cannot be read: {error}")
    size = as_whole(image.get("height")), as_whole(image.get("width"))
    return DrawnImage(image.get("name", ""), shapes, size)


def _add_shape(shapes: DrawnShapes, name: str, shape: ElementTree.Element) -> None:
    found, label = shape.attrib, shape.get("label")
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in found["points"].split(";")]
        shapes.add_polygon(name, points, label)
    elif shape.tag == "mask":
        counts = [int(count) for count in found["rle"].split(",")]
        crop = runs_to_crop(counts, (int(found["height"]), int(found["width"])))
        shapes.add_mask(name, crop, (int(found["top"]), int(found["left"])), label)
    elif shape.tag == "ellipse":
        numbers = [float(found[key]) for key in ("cx", "cy", "rx", "ry")]
        angle = math.radians(float(found.get("rotation", 0)))
        ring = ellipse_ring((numbers[0], numbers[1]), (numbers[2], numbers[3]), angle)
        shapes.add_polygon(name, ring, label)
    elif shape.tag == "box":
        shapes.boxes.append(name)
    elif shape.tag == "points":
        shapes.points.append(name)
    else:
        shapes.problems.append(f"{name}: a {shape.tag} is no area: delete it")


FORMAT = format_of_one_file(parse, (".xml",), "its label")
