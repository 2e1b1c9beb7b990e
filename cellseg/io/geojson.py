"""QuPath's GeoJSON: the outline of each cell as a polygon, one file per image.

    <root>/<split>/images/<id>.png                png, jpg, tif or bmp
    <root>/<split>/annotations/<id>.geojson       or .json

A file is a FeatureCollection, or the bare list of features or single feature that QuPath writes
too; objects inside objects are read as well. A pixel belongs to a cell if its centre lies inside
the outline; what reaches beyond the image is cut. The class of a cell is the name of its
classification; where one class is declared, cells without classification are of it.

    geometry: nucleusGeometry       the outlines of nuclei instead of those of cells
    objects: [cell, detection]      only objects of these types; others (regions drawn around
                                    cells, say) are left out. By default every object is a cell

An image without cells has a collection without features. Outlines are written along the pixels'
edges, holes and pieces included, so that they are read back exactly.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.polygons import crops_to_rings, group_rings
from cellseg.cells.run_lengths import IntArray
from cellseg.errors import DatasetError, ImageReadError
from cellseg.images import read_image_hw
from cellseg.io.base import (
    FOLDER_NAME,
    DatasetFormat,
    Option,
    Problems,
    copy_images,
    find_split_folder,
    list_files,
    new_split_folder,
    read_all,
)
from cellseg.io.outlines import Outline, outlines_to_record
from cellseg.io.per_image import Pair, decode_cells, find_pairs
from cellseg.io.records import CellAnnotation, CellRecord

SUFFIXES = (".geojson", ".json")
GEOMETRIES = ("geometry", "nucleusGeometry")
CROWD = "crowd"

Json = dict[str, Any]


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    folder = find_split_folder(root, split)
    pairs = find_pairs(folder, *_folders(options), SUFFIXES, "outlines")
    return read_all(pairs, partial(_read_pair, classes=classes, options=options), folder)


def _folders(options: Mapping[str, Any]) -> tuple[str, str]:
    return options.get("images", "images"), options.get("annotations", "annotations")


def _read_pair(
    pair: Pair, classes: tuple[str, ...], options: Mapping[str, Any]
) -> CellRecord | Problems:
    try:
        image_hw = read_image_hw(pair.image)
        features = list(_read_features(pair.annotation, options.get("objects")))
    except (ImageReadError, DatasetError) as error:
        return Problems([str(error)])
    problems, outlines = Problems(), []
    for name, feature in features:
        try:
            rings = _rings(feature, options.get("geometry", "geometry"))
        except DatasetError as error:
            problems.append(f"{pair.annotation}: {name}: {error}")
        else:
            outlines += [_make_outline(name, feature, rings)] if rings else []
    return outlines_to_record(
        pair, image_hw, outlines, classes, where_from="its classification", problems=problems
    )


def _read_features(path: Path, objects: Sequence[str] | None) -> Iterator[tuple[str, Json]]:
    """Names for messages and features of a file, of the wanted types."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: no JSON: {error or 'nested too deeply'}") from error
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
    metadata = feature["properties"].get("metadata")
    is_crowd = isinstance(metadata, dict) and metadata.get(CROWD) == "true"
    return Outline(name, rings, _class_of(feature["properties"]), is_crowd)


def _class_of(properties: Json) -> str | None:
    """Name of the classification in the forms that QuPath had over time."""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        parts = classification.get("names")
        named = ": ".join(map(str, parts)) if isinstance(parts, list) else None
        classification = classification.get("name") or named
    return str(classification).strip() or None if classification is not None else None


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of all classifications in a split, sorted; may be none."""
    folder = find_split_folder(find_split_folder(root, split), _folders(options)[1])
    found = {
        _class_of(feature["properties"])
        for path in list_files(folder, SUFFIXES)
        for _, feature in _read_features(path, options.get("objects"))
    }
    return tuple(sorted(name for name in found if name))


def write_split(
    records: Sequence[CellRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split; see `DatasetFormat.write`."""
    images, annotations = _folders(options)
    with new_split_folder(root, split) as folder:
        copy_images(records, folder / images)
        (folder / annotations).mkdir(exist_ok=True)
        for record in records:
            path = folder / annotations / f"{record.image_id}.geojson"
            path.write_text(_to_text(record, classes), encoding="utf-8")


def _to_text(record: CellRecord, classes: tuple[str, ...]) -> str:
    """A FeatureCollection, one feature to a line."""
    outlines = crops_to_rings(*decode_cells(record, classes))
    lines = [
        json.dumps(_to_feature(record.image_id, number, cell, rings), separators=(",", ":"))
        for number, (cell, rings) in enumerate(zip(record.cells, outlines), 1)
    ]
    return '{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}\n"


def _to_feature(
    image_id: str, number: int, cell: CellAnnotation, rings: Sequence[IntArray]
) -> Json:
    polygons = [
        [[*ring.tolist(), ring[0].tolist()] for ring in piece] for piece in group_rings(rings)
    ]
    single = len(polygons) == 1
    properties: Json = {
        "objectType": "annotation",  # what QuPath lets its users edit
        "classification": {"name": cell.class_name},
    }
    if cell.is_crowd:
        properties["metadata"] = {CROWD: "true"}
    return {
        "type": "Feature",
        # QuPath wants UUIDs; these are the same whenever the same cells are written.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"cellseg/{image_id}/{number}")),
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        },
        "properties": properties,
    }


FORMAT = DatasetFormat(
    read_split,
    options={
        "images": FOLDER_NAME,
        "annotations": FOLDER_NAME,
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
    write=write_split,
    find_classes=find_classes,
)
