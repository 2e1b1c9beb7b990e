"""QuPath's GeoJSON: the outline of each cell as a polygon, one file per image.

    <root>/<split>/images/<id>.png                png, jpg, tif or bmp
    <root>/<split>/annotations/<id>.geojson       or .json, .geojson.gz, .json.gz

A file is a FeatureCollection, or the bare list of features or single feature that QuPath writes
too; objects inside objects are read as well. A pixel belongs to a cell if its centre lies inside
the outline; what reaches beyond the image is cut. The class of a cell is the name of its
classification; where one class is declared, cells without classification are of it. Points, which
are counts or marks, are left out with a warning; lines are errors.

    geometry: nucleusGeometry       the outlines of nuclei instead of those of cells
    objects: [cell, detection]      only objects of these types; others (regions drawn around
                                    cells, say) are left out. By default every object is a cell

An image without cells has a collection without features. Outlines are written along the pixels'
edges, holes and pieces included, so that they are read back exactly. A data set's cells are written
as annotations, predicted ones as detections with the measurements `score` and `label`, the plane of
their image where the file has several, and a colour for each class. `.geojson.gz` is what QuPath
reads as well.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import DatasetError
from cellseg.io.base import EVERYTHING, Option, Problems
from cellseg.io.cell_file import CellFile, prediction_of
from cellseg.io.geojson_writing import (
    CROWD,
    SCORE,
    Json,
    write_image_cells,
    write_predicted_cells,
)
from cellseg.io.outlines import Outline, outlines_to_cells
from cellseg.io.per_image import format_of_files
from cellseg.json_text import parse_json
from cellseg.limits import gunzip

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
GEOMETRIES = ("geometry", "nucleusGeometry")
POINTS = ("Point", "MultiPoint")

logger = logging.getLogger(__name__)


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ("cell",),
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a GeoJSON file, in the order of its features.

    Args:
        path: the file.
        image_hw: (height, width) of the image, pixels.
        classes: declared names.
        options: `geometry` and `objects`.

    Returns:
        The cells, or what is wrong with the features.

    Raises:
        DatasetError: the file is no GeoJSON.
    """
    options = options or {}
    key = options.get("geometry", "geometry")
    problems, outlines, points = Problems(), [], []
    for name, feature in _read_features(path, options.get("objects")):
        if _is_point(feature.get(key)):
            points.append(name)
            continue
        try:
            rings = _rings(feature, key)
            outlines += [_make_outline(name, feature, rings)] if rings else []
        except DatasetError as error:
            problems.append(f"{path}: {name}: {error}")
    if points and not (outlines or problems):
        return Problems([f"{path}: points without any outline ({points[0]}); they are no cells"])
    if points:
        logger.warning("%s: points are no cells and left out: %s", path, ", ".join(points))
    return outlines_to_cells(
        path, image_hw, outlines, classes, where_from="its classification", problems=problems
    )


def _is_point(geometry: Any) -> bool:
    """Whether it is a point with coordinates; an empty geometry is none of anything."""
    return (
        isinstance(geometry, dict)
        and geometry.get("type") in POINTS
        and geometry.get("coordinates") != []
    )


def _read_features(path: Path, objects: Sequence[str] | None) -> Iterator[tuple[str, Json]]:
    """Names for messages and features of a file, of the wanted types."""
    try:
        data = path.read_bytes()
        content = parse_json(gunzip(data) if path.suffix.lower() == ".gz" else data)
    except (EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: no whole gzip file: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path}: no JSON: {error}") from error
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    features = [content] if isinstance(content, dict) else content
    if not isinstance(features, list):
        raise DatasetError(f"{path}: expected a FeatureCollection with a list of features")
    for number, feature in enumerate(_walk(features), 1):
        if not _is_feature(feature):
            raise DatasetError(f"{path}: entry {number}: expected a Feature; found {feature!s:.60}")
        kind = feature["properties"].get("objectType")
        if kind != "root" and (objects is None or kind in objects):
            identifier = feature.get("id")
            yield f"feature {number}" + (f" (id {identifier})" if identifier else ""), feature


def _walk(features: Sequence[Any]) -> Iterator[Any]:
    """Features and the features inside them, without a feature's properties being null."""
    waiting = list(reversed(features))
    while waiting:
        feature = waiting.pop()
        if isinstance(feature, dict):
            feature = {**feature, "properties": feature.get("properties") or {}}
        yield feature
        if _is_feature(feature):
            inside = feature["properties"].get("childObjects")
            waiting += reversed(inside) if isinstance(inside, list) else ()


def _is_feature(feature: Any) -> bool:
    return (
        isinstance(feature, dict)
        and feature.get("type") == "Feature"
        and isinstance(feature.get("properties"), dict)
    )


def _rings(feature: Json, key: str) -> list[Any]:
    """Rings of a feature's polygons; none if it is empty."""
    geometry = feature.get(key)
    if key != "geometry" and geometry is None:
        raise DatasetError(f"no {key}; leave out `geometry: {key}`, or the objects without one")
    if geometry is None:
        return []
    if not isinstance(geometry, dict):
        raise DatasetError(f"{key} is {geometry!s:.60}; expected a Polygon or MultiPolygon")
    kind: Any = geometry.get("type")
    coordinates: Any = geometry.get("coordinates")
    if coordinates == []:
        return []
    if kind not in ("Polygon", "MultiPolygon"):
        raise DatasetError(
            f"a {kind} is no area; expected a Polygon or MultiPolygon: delete the object, or name "
            "the types of objects that are cells, as in `objects: [cell, detection]`"
        )
    try:
        polygons: list[Any] = [coordinates] if kind == "Polygon" else list(coordinates)
        return [_points(ring) for polygon in polygons for ring in polygon if len(ring)]
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"a {kind} is made of rings of points (x, y); found {coordinates!s:.80}"
        ) from error


def _points(ring: Any) -> Any:
    """Points (x, y); a third coordinate is dropped."""
    points = np.asarray(ring, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError("no list of points")
    return points[:, :2]


def _make_outline(name: str, feature: Json, rings: Sequence[Any]) -> Outline:
    properties = feature["properties"]
    metadata = properties.get("metadata")
    is_crowd = isinstance(metadata, dict) and metadata.get(CROWD) == "true"
    return Outline(name, rings, _class_of(properties), is_crowd, _score_of(properties))


def _score_of(properties: Json) -> float:
    """The measurement `score`, 1 where there is none; older files have a list of measurements."""
    measurements = properties.get("measurements")
    if isinstance(measurements, list):
        pairs = [one for one in measurements if isinstance(one, dict)]
        measurements = {one.get("name"): one.get("value") for one in pairs}
    score = measurements.get(SCORE, 1.0) if isinstance(measurements, dict) else 1.0
    if not isinstance(score, (int, float)) or not np.isfinite(score):
        raise DatasetError(f"the measurement `{SCORE}` is {score!r}, expected a number")
    return float(score)


def _class_of(properties: Json) -> str | None:
    """Name of the classification in the forms that QuPath had over time."""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        parts = classification.get("names")
        named = ": ".join(map(str, parts)) if isinstance(parts, list) else None
        classification = classification.get("name") or named
    return str(classification).strip() or None if classification is not None else None


def find_file_classes(path: Path, options: Mapping[str, Any]) -> set[str]:
    """Names of all classifications in a file."""
    features = _read_features(path, options.get("objects"))
    return {name for _, feature in features if (name := _class_of(feature["properties"]))}


GEOJSON_FILE = CellFile(
    kind="outlines",
    folder="annotations",
    suffixes=SUFFIXES,
    written_suffix=SUFFIXES[0],
    read=read_image_cells,
    write=write_image_cells,
    write_prediction=write_predicted_cells,
    prediction_suffix=SUFFIXES[0],
    find_classes=find_file_classes,
    options={
        "geometry": Option(" or ".join(GEOMETRIES), lambda value: value in GEOMETRIES),
        "objects": Option(
            "a list of types of objects, such as [cell, detection]",
            lambda value: (
                isinstance(value, list)
                and all(isinstance(one, str) for one in value)
                and value != []
            ),
        ),
    },
    holds=EVERYTHING,
)
FORMAT = format_of_files(GEOJSON_FILE)
COMPRESSED_PREDICTION = prediction_of(replace(GEOJSON_FILE, prediction_suffix=".geojson.gz"))
