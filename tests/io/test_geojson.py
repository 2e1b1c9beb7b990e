"""QuPath's GeoJSON: exact there and back, in all its forms, and everything that can be wrong."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, boxes_of, names_of
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import geojson, read_records

Same = Callable[[list[ImageRecord], list[ImageRecord]], None]
CLASSES = ("round", "long")
SQUARE = [[2, 3], [6, 3], [6, 5], [2, 5], [2, 3]]


def read(root: Path, *classes: str, **options: Any) -> list[ImageRecord]:
    return geojson.FORMAT.read(root, "s", classes or ("cell",), options)


def feature(coordinates: Any = None, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    coordinates = [SQUARE] if coordinates is None else coordinates
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """Write one image of 20 x 30 pixels and its file of outlines."""
    builders.write_png(tmp_path / "s/images/a.png", np.zeros((20, 30), np.uint8))

    def write_one(content: Any) -> Path:
        path = tmp_path / "s/annotations/a.geojson"
        path.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(text.encode("latin-1"))
        return tmp_path

    return write_one


def test_scenes_there_and_back(
    tmp_path: Path, scene_records: list[ImageRecord], same: Same
) -> None:
    geojson.FORMAT.write(scene_records, tmp_path, "s", ("cell",), {})
    same(read(tmp_path), scene_records)


def test_classes_and_other_folders_there_and_back(
    tmp_path: Path, two_class_records: list[ImageRecord], same: Same
) -> None:
    folders = {"images": "raw", "annotations": "qupath"}
    geojson.FORMAT.write(two_class_records, tmp_path, "s", CLASSES, folders)
    same(read(tmp_path, *CLASSES, **folders), two_class_records)
    assert geojson.FORMAT.find_classes(tmp_path, "s", folders) == ("long", "round")


def test_regions_of_uncounted_cells(tmp_path: Path, crowd_record: ImageRecord, same: Same) -> None:
    geojson.FORMAT.write([crowd_record], tmp_path, "s", ("cell",), {})
    same(read(tmp_path), [crowd_record])


def test_what_is_written(tmp_path: Path, scene_records: list[ImageRecord]) -> None:
    for split in ("s", "again"):
        geojson.FORMAT.write(scene_records, tmp_path, split, ("cell",), {})
    texts = [(tmp_path / s / "annotations/with_hole.geojson").read_text() for s in ("s", "again")]
    assert texts[0] == texts[1]
    collection = json.loads(texts[0])
    assert collection["type"] == "FeatureCollection"
    ring, pixel = collection["features"]
    assert len({uuid.UUID(one["id"]) for one in (ring, pixel)}) == 2
    assert pixel["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "cell"},
    }
    square = [[8, 8], [9, 8], [9, 9], [8, 9], [8, 8]]  # closed, as GeoJSON asks
    assert pixel["geometry"] == {"type": "Polygon", "coordinates": [square]}
    assert [len(one) for one in ring["geometry"]["coordinates"]] == [5, 5]
    pieces = json.loads((tmp_path / "s/annotations/two_pieces.geojson").read_text())
    (cell,) = pieces["features"]
    assert cell["geometry"]["type"] == "MultiPolygon"
    assert [len(polygon) for polygon in cell["geometry"]["coordinates"]] == [1, 1]
    empty = json.loads((tmp_path / "s/annotations/no_cells.geojson").read_text())
    assert empty == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature()]},
        [feature()],
        feature(),
        [feature([[[*point, 0] for point in SQUARE]])],  # a third coordinate
        [feature([[SQUARE]], "MultiPolygon")],
        [feature([SQUARE[:-1]])],  # not closed
        [feature(), feature([], "Point"), {**feature(), "geometry": None}, feature([[]])],
        [{**feature(), "geometry": None, "properties": {"objectType": "root"}}, feature()],
        [{**feature(), "properties": {"childObjects": [feature()]}, "geometry": None}],
    ],
)
def test_forms_of_a_file(write: Callable[[Any], Path], content: Any) -> None:
    (record,) = read(write(content))
    expected = np.zeros((20, 30), bool)
    expected[3:5, 2:6] = True
    assert np.array_equal(bitmaps_of(record), [expected])
    assert boxes_of(record) == [(2, 3, 6, 5)]


@pytest.mark.parametrize(
    "classification",
    [{"name": "long", "color": [1, 2, 3]}, {"name": "long", "colorRGB": -1}, "long"],
)
def test_forms_of_a_classification(write: Callable[[Any], Path], classification: Any) -> None:
    root = write([feature(classification=classification)])
    assert names_of(read(root, *CLASSES)[0], CLASSES) == ["long"]
    assert names_of(read(root)[0], ["cell"]) == ["cell"]  # no classes declared: any will do


def test_derived_classes(write: Callable[[Any], Path]) -> None:
    root = write([feature(classification={"names": ["Tumor", "Positive"]})])
    assert read(root, "Tumor: Positive", "other")[0].cells.classes.tolist() == [0]
    assert geojson.FORMAT.find_classes(root, "s", {}) == ("Tumor: Positive",)


def test_nuclei_instead_of_cells(write: Callable[[Any], Path]) -> None:
    nucleus = [[3, 3], [4, 3], [4, 4], [3, 4]]
    cell = {**feature(), "nucleusGeometry": {"type": "Polygon", "coordinates": [nucleus]}}
    root = write([cell])
    assert boxes_of(read(root)[0])[0] == (2, 3, 6, 5)
    assert boxes_of(read(root, geometry="nucleusGeometry")[0]) == [(3, 3, 4, 4)]
    root = write([cell, feature()])
    with pytest.raises(DatasetError, match="feature 2: no nucleusGeometry; leave out"):
        read(root, geometry="nucleusGeometry")


def test_objects_of_some_types_only(write: Callable[[Any], Path]) -> None:
    region = feature([[[0, 0], [30, 0], [30, 20], [0, 20]]], objectType="annotation")
    region["properties"]["childObjects"] = [feature(objectType="detection")]
    root = write([region, feature([[5, 5]], "Point", objectType="annotation")])
    (record,) = read(root, objects=["cell", "detection"])
    assert boxes_of(record) == [(2, 3, 6, 5)]
    root = write([region, feature([[5, 5], [6, 6]], "LineString", objectType="annotation")])
    with pytest.raises(DatasetError, match=r"feature 3: a LineString is no area.*objects: \["):
        read(root)


def test_outlines_by_hand_are_cut_at_the_image(write: Callable[[Any], Path]) -> None:
    (record,) = read(write([feature([[[-4.5, 17.6], [3.4, 17.6], [3.4, 99], [-4.5, 99]]])]))
    assert boxes_of(record) == [(0, 18, 3, 20)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no JSON"),
        ('{"type": "FeatureCollection", "features": [', "no JSON"),
        ("\xff\xfe", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("null", "expected a FeatureCollection"),
        ("12", "expected a FeatureCollection"),
        ({"type": "FeatureCollection"}, "expected a FeatureCollection"),
        ({"type": "Topology"}, "entry 1: expected a Feature"),
        ([1], "entry 1: expected a Feature; found 1"),
        ([feature(), {"type": "Feature", "properties": [1]}], "entry 2: expected a Feature"),
        ([feature([1, 2], "Point")], r"points without any outline \(feature 1\)"),
        ([feature([[1, 2], [3, 4]], "LineString")], "feature 1: a LineString is no area"),
        ([{**feature(), "geometry": 3}], "geometry is 3; expected a Polygon"),
        ([{**feature(), "geometry": {}}], "a None is no area"),
        ([feature(7)], "is made of rings of points"),
        ([feature([[1, 2, 3, 4]])], "is made of rings of points"),
        ([feature([[["a", "b"]]])], "is made of rings of points"),
        ([feature([SQUARE], "MultiPolygon")], "is made of rings of points"),
        ([feature([[[0, 0], [float("nan"), 1], [1, 1]]])], "not finite"),
        ([feature(), feature([[[1, 1], [1.2, 1], [1.2, 1.2]]])], "feature 2: no pixel of the im"),
        ([{**feature([[[90, 90], [99, 90], [99, 99]]]), "id": "xyz"}], r"feature 1 \(id xyz\): no"),
    ],
)
def test_damaged_files(write: Callable[[Any], Path], content: Any, says: str) -> None:
    root = write(content)
    with pytest.raises(DatasetError, match=says) as caught:
        read(root)
    assert str(root / "s/annotations/a.geojson") in str(caught.value)


def test_classes_that_do_not_fit(write: Callable[[Any], Path]) -> None:
    root = write([feature(classification={"name": "lomg"}), feature()])
    with pytest.raises(DatasetError) as caught:
        read(root, *CLASSES)
    assert "unknown class 'lomg'; did you mean long?" in str(caught.value)
    assert "1 without a class (feature 2); with several classes declared" in str(caught.value)
    assert "problems (2)" in str(caught.value)


def test_files_without_partner(write: Callable[[Any], Path]) -> None:
    root = write([])
    builders.write_png(root / "s/images/b.png", np.zeros((2, 2), np.uint8))
    (root / "s/annotations/c.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"b\.png: no outlines annotations/b\.geojson or \.json"):
        read(root)
    (root / "s/images/b.png").unlink()
    with pytest.raises(DatasetError, match=r"c\.json: no image images/c\.\*"):
        read(root)


def test_nothing_is_written_over_or_half_written(
    tmp_path: Path, scene_records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is there already"):
        geojson.FORMAT.write(scene_records, tmp_path, "s", ("cell",), {})
    (record,) = (one for one in scene_records if one.image_id == "touching")
    strange = replace(record, cells=record.cells.replace(classes=[0, 1]))
    with pytest.raises(DatasetError, match=r"a cell of class 1 .*there are 1: other"):
        geojson.FORMAT.write([strange], tmp_path, "t", ("other",), {})
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "notes.txt"]


def test_real_label_images_there_and_back(tmp_path: Path, real_datasets: Path, same: Same) -> None:
    records = read_records("label_images", real_datasets / "dsb2018/fluo", "val")
    geojson.FORMAT.write(records, tmp_path, "s", ("cell",), {})
    assert sum(len(record.cells) for record in records) == 2_046
    same(read(tmp_path), records)


def test_a_real_field_of_many_cells(tmp_path: Path, real_datasets: Path, same: Same) -> None:
    records = read_records("label_images", real_datasets / "dsb2018/dense", "train")
    geojson.FORMAT.write(records, tmp_path, "s", ("cell",), {})
    assert sorted(len(record.cells) for record in records) == [699, 819, 935]
    same(read(tmp_path), records)
