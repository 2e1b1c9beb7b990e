"""COCO's JSON as VIA, Roboflow, CVAT and Label Studio write it, and messages that tell."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cellseg.errors import DatasetError
from cellseg.io import read_records
from cellseg.io.coco_json import find_classes
from shared_cases import shared_case

HW = (20, 30)
SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # 6 x 4 pixels


def put(file: Path, content: dict[str, Any], *images: str) -> Path:
    """Write an annotation file, and images of 30 x 20 below its folder; gives the root."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for name in images:
        builders.write_png(file.parent / name, np.zeros(HW, np.uint8))
    return file.parent.parent


def annotation(**more: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], **more}


def content(file_name: str = "a.png", *annotations: Any, **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": file_name, "height": 20, "width": 30}],
        "annotations": list(annotations or (annotation(),)),
        "categories": [{"id": 1, "name": "cell"}],
        **more,
    }


@pytest.mark.parametrize(
    "name", ["_annotations.coco.json", "instances_default.json", "result.json", "annotations.json"]
)
def test_names_that_programs_give_the_file(tmp_path: Path, name: str) -> None:
    root = put(tmp_path / "train" / name, content(), "a.png")  # the image beside the file
    (record,) = read_records("coco_json", root, "train")
    assert record.cells.areas_px.tolist() == [24]


def test_the_file_beside_the_missing_one_is_named(tmp_path: Path) -> None:
    root = put(tmp_path / "train" / "export_7.json", content(), "images/a.png")
    with pytest.raises(DatasetError, match=r"annotations\.json: No such.*there is export_7\.json"):
        read_records("coco_json", root, "train")


@pytest.mark.parametrize(
    "file_name",
    [
        r"C:\Users\me\plates\a.png",
        "/home/me/plates/a.png",
        "https://example.org/x/a.png?token=1",
        "/data/local-files/?d=plates/a.png",
        "plates/a.png",
    ],
)
def test_paths_of_other_computers_and_urls(tmp_path: Path, file_name: str) -> None:
    root = put(tmp_path / "train/annotations.json", content(file_name), "images/a.png")
    (record,) = read_records("coco_json", root, "train")
    assert record.image_id == "a"
    assert record.image_path == root / "train/images/a.png"


def test_folders_in_windows_paths_tell_images_apart(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": r"D:\all\day_1\a.png"},
        {"id": 2, "file_name": r"D:\all\day_2\a.png"},
    ]
    made = content(images=images)
    names = ("images/day_1/a.png", "images/day_2/a.png")
    root = put(tmp_path / "train/annotations.json", made, *names)
    records = read_records("coco_json", root, "train")
    assert [one.image_path for one in records] == [root / "train" / name for name in names]
    assert [len(one.cells) for one in records] == [1, 0]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_names_in_either_unicode_form(tmp_path: Path, on_disk: Any) -> None:
    forms = {form: unicodedata.normalize(form, "Zellgröße.png") for form in ("NFC", "NFD")}
    other = forms["NFD" if on_disk == "NFC" else "NFC"]
    made = content(other)
    root = put(tmp_path / "train/annotations.json", made, f"images/{forms[on_disk]}")
    (record,) = read_records("coco_json", root, "train")
    assert len(record.cells) == 1


def test_numbers_as_text(tmp_path: Path) -> None:
    images = [{"id": "1", "file_name": "a.png", "height": "20", "width": 30.0}]
    made = content("", annotation(image_id="1", category_id="1"), images=images)
    root = put(tmp_path / "train/annotations.json", made, "images/a.png")
    (record,) = read_records("coco_json", root, "train")
    assert record.cells.areas_px.tolist() == [24]
    made["images"][0]["height"] = "20 px"
    put(tmp_path / "train/annotations.json", made)
    with pytest.raises(DatasetError, match="has '20 px' as its height or width; expected a number"):
        read_records("coco_json", root, "train")


def test_what_stands_there_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    same = [annotation(), annotation(), annotation(segmentation=[[9, 9, 12, 9, 12, 12, 9, 12]])]
    made = content("a.png", *same, categories=[{"id": 1, "name": "cell"}] * 3)
    made["images"] *= 2
    root = put(tmp_path / "train/annotations.json", made, "images/a.png")
    (record,) = read_records("coco_json", root, "train")
    assert record.cells.areas_px.tolist() == [24, 9]
    assert "1 annotations stand there twice and are read once" in caplog.text


def test_one_id_for_two_categories(tmp_path: Path) -> None:
    made = content(categories=[{"id": 1, "name": "round"}, {"id": 1, "name": "long"}])
    root = put(tmp_path / "train/annotations.json", made, "images/a.png")
    with pytest.raises(DatasetError, match=r"ids \[1\] occur several times, 1 for round, long"):
        read_records("coco_json", root, "train")


def test_the_category_over_all_others_is_no_class(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "round", "supercategory": "cells"},
        {"id": 2, "name": "long", "supercategory": "cells"},
    ]
    root = put(tmp_path / "train/annotations.json", content(categories=categories), "images/a.png")
    assert find_classes(root, "train", {}) == ("round", "long")


def test_annotations_are_named_by_id_and_place(tmp_path: Path) -> None:
    many = [annotation(id=k) for k in range(100, 150)]
    many[30]["segmentation"] = [[1, 1, 2, 2]]
    many[31]["category_id"] = 1
    root = put(tmp_path / "train/annotations.json", content("a.png", *many), "images/a.png")
    with pytest.raises(DatasetError, match=r"annotation 130: a polygon .*\(annotations\[30\]\)"):
        read_records("coco_json", root, "train")


def test_boxes_are_said_once(tmp_path: Path) -> None:
    boxes = [annotation(id=k, segmentation=[], bbox=[1, 1, 4, 4]) for k in range(10, 200)]
    made = content("a.png", annotation(), *boxes)
    root = put(tmp_path / "train/annotations.json", made, "images/a.png")
    with pytest.raises(DatasetError) as caught:
        read_records("coco_json", root, "train")
    text = str(caught.value)
    assert "problems (1)" in text
    assert "190 of 191 annotations are boxes without a mask, the first in a.png" in text
    assert "annotation 10" in text
    assert "instance segmentation" in text


def test_another_program_s_json_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "train/annotations.json"
    for key, name in (("_via_img_metadata", "via"), ("shapes", "labelme"), ("features", "geojson")):
        put(file, {key: []})
        with pytest.raises(DatasetError, match=f"looks like the format {name}"):
            read_records("coco_json", tmp_path, "train")


def test_cases_of_users() -> None:
    (record,) = read_records("coco_json", shared_case("via_coco"), "train")
    assert record.cells.areas_px.tolist() == [256]
    with pytest.raises(DatasetError, match="1 of 1 annotations are boxes without a mask"):
        read_records("coco_json", shared_case("coco_boxes"), "train")
