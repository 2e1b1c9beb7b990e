"""COCO's annotation files, in both directions."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    convert_to_coco_json,
    load_coco_json,
    register_coco_instances,
)
from detectron2.data.datasets import register_coco as old_place
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

NAME = "json_test_cells"
SQUARE = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]


@pytest.fixture(autouse=True)
def _forget_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)  # for caplog
    yield
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


def bitmap() -> np.ndarray:
    cells = np.zeros((8, 10), np.uint8)
    cells[1:4, 1:5] = 1
    cells[2, 2] = 0
    return np.asfortranarray(cells)


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's lists of run lengths, counted one by one in column order."""
    counts, value = [0], 0
    for pixel in mask.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def coco_annotation(annotation_id: int, image_id: int, **more: Any) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 20,
        "bbox": [1.0, 1.0, 4.0, 3.0],
        "area": 12.0,
        "iscrowd": 0,
        "segmentation": [SQUARE],
        **more,
    }


def write(path: Path, *annotations: dict[str, Any], **more: Any) -> str:
    content = {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 8, "width": 10},
            {"id": 3, "file_name": "a.png", "height": 8, "width": 10},
        ],
        "categories": [{"id": 30, "name": "debris"}, {"id": 20, "name": "cell"}],
        "annotations": list(annotations),
        **more,
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    return tmp_path / "cells.json"


# ---- reading --------------------------------------------------------------------------------


def test_images_come_by_ascending_id(json_file: Path) -> None:
    path = write(json_file, coco_annotation(1, 7), coco_annotation(2, 7, category_id=30))
    first, second = load_coco_json(path, "/images")
    assert first == {
        "file_name": "/images/a.png",
        "height": 8,
        "width": 10,
        "image_id": 3,
        "annotations": [],
    }
    assert second["file_name"] == "/images/b.png"
    assert second["annotations"][0] == {
        "iscrowd": 0,
        "bbox": [1.0, 1.0, 4.0, 3.0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 20,
        "segmentation": [SQUARE],
    }
    assert [each["category_id"] for each in second["annotations"]] == [20, 30]


def test_categories_become_contiguous(json_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(json_file, coco_annotation(1, 7), coco_annotation(2, 7, category_id=30))
    with caplog.at_level(logging.WARNING):
        images = load_coco_json(path, "", NAME)
    assert [each["category_id"] for each in images[1]["annotations"]] == [0, 1]
    metadata = MetadataCatalog.get(NAME)
    assert metadata.thing_classes == ["cell", "debris"]
    assert metadata.thing_dataset_id_to_contiguous_id == {20: 0, 30: 1}
    assert "mapping" in caplog.text or "mapped" in caplog.text


def test_an_annotation_of_an_unknown_category(json_file: Path) -> None:
    path = write(json_file, coco_annotation(1, 7, category_id=99))
    assert load_coco_json(path, "")[1]["annotations"][0]["category_id"] == 99
    with pytest.raises(KeyError, match="99"):
        load_coco_json(path, "", NAME)


@pytest.mark.parametrize("compress", [True, False])
def test_run_lengths(json_file: Path, compress: bool) -> None:
    rle = mask_util.encode(bitmap()) if compress else uncompressed(bitmap())
    if compress:
        rle["counts"] = rle["counts"].decode()
    images = load_coco_json(write(json_file, coco_annotation(1, 7, segmentation=rle)), "")
    read = images[1]["annotations"][0]["segmentation"]
    assert np.array_equal(mask_util.decode(read), bitmap())


def test_polygons_that_are_none(json_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd, line = [*SQUARE, 1.0], [1.0, 1.0, 2.0, 2.0]
    path = write(
        json_file,
        coco_annotation(1, 7, segmentation=[odd, SQUARE, line]),
        coco_annotation(2, 7, segmentation=[line, odd]),
        coco_annotation(3, 7, segmentation=[]),
    )
    with caplog.at_level(logging.WARNING):
        kept = load_coco_json(path, "")[1]["annotations"]
    assert [each.get("segmentation") for each in kept] == [[SQUARE], None]
    assert "1 instances" in caplog.text


def test_further_keys_and_keypoints(json_file: Path) -> None:
    path = write(json_file, coco_annotation(1, 7, stage="G1", keypoints=[3, 4, 2, 0, 0, 0]))
    read = load_coco_json(path, "", extra_annotation_keys=["stage", "absent"])[1]["annotations"][0]
    assert read["stage"] == "G1"
    assert "absent" not in read
    assert read["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]


def test_a_file_without_annotations(json_file: Path) -> None:
    path = write(json_file)
    content = json.loads(json_file.read_text())
    del content["annotations"]
    json_file.write_text(json.dumps(content))
    assert [each["annotations"] for each in load_coco_json(path, "", NAME)] == [[], []]


def test_files_that_cannot_be_right(json_file: Path) -> None:
    with pytest.raises(AssertionError, match="unique"):
        load_coco_json(write(json_file, coco_annotation(1, 7), coco_annotation(1, 3)), "")
    with pytest.raises(ValueError, match="bbox"):
        load_coco_json(write(json_file, coco_annotation(1, 7, bbox=[])), "")
    with pytest.raises(AssertionError, match="ignore"):
        load_coco_json(write(json_file, coco_annotation(1, 7, ignore=1)), "")


def test_annotations_without_an_image(json_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(json_file, coco_annotation(1, 7), coco_annotation(2, 99))
    with caplog.at_level(logging.WARNING):
        images = load_coco_json(path, "")
    assert [len(each["annotations"]) for each in images] == [0, 1]
    assert "2 annotations" in caplog.text


def test_registering_a_file(json_file: Path) -> None:
    write(json_file, coco_annotation(1, 7))
    register_coco_instances(NAME, {"source": "a microscope"}, str(json_file), Path("/images"))
    metadata = MetadataCatalog.get(NAME)
    assert (metadata.evaluator_type, metadata.source) == ("coco", "a microscope")
    assert (metadata.json_file, metadata.image_root) == (str(json_file), Path("/images"))
    assert not hasattr(metadata, "thing_classes")
    assert DatasetCatalog.get(NAME)[0]["file_name"] == "/images/a.png"
    assert metadata.thing_classes == ["cell", "debris"]
    assert old_place.register_coco_instances is register_coco_instances
    with pytest.raises(AssertionError):
        register_coco_instances(3, {}, str(json_file), "/images")
    with pytest.raises(AssertionError):
        register_coco_instances("other", {}, None, "/images")


# ---- writing --------------------------------------------------------------------------------


def annotation(**more: Any) -> dict[str, Any]:
    return {"bbox": [1, 1, 5, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, **more}


def register(*annotations: dict[str, Any], **metadata: Any) -> None:
    image = {"file_name": "a.png", "height": 8, "width": 10, "image_id": "a"}
    images = [{**image, "annotations": list(annotations)}, {**image, "image_id": "b"}]
    DatasetCatalog.register(NAME, lambda: images)
    MetadataCatalog.get(NAME).set(thing_classes=["cell", "debris"], **metadata)


def test_what_is_written() -> None:
    register(annotation(), annotation(category_id=1, iscrowd=1, segmentation=[SQUARE]))
    content = convert_to_coco_dict(NAME)
    assert content["images"] == [
        {"id": "a", "width": 10, "height": 8, "file_name": "a.png"},
        {"id": "b", "width": 10, "height": 8, "file_name": "a.png"},
    ]
    assert content["categories"] == [{"id": 0, "name": "cell"}, {"id": 1, "name": "debris"}]
    assert content["annotations"] == [
        {
            "id": 1,
            "image_id": "a",
            "bbox": [1, 1, 4, 3],
            "area": 12.0,
            "iscrowd": 0,
            "category_id": 0,
        },
        {
            "id": 2,
            "image_id": "a",
            "bbox": [1, 1, 4, 3],
            "area": 12.0,
            "iscrowd": 1,
            "category_id": 1,
            "segmentation": [SQUARE],
        },
    ]


def test_categories_are_mapped_back() -> None:
    register(annotation(category_id=1), thing_dataset_id_to_contiguous_id={20: 0, 30: 1})
    content = convert_to_coco_dict(NAME)
    assert [each["id"] for each in content["categories"]] == [20, 30]
    assert content["annotations"][0]["category_id"] == 30


def test_run_lengths_are_written() -> None:
    rle = mask_util.encode(bitmap())
    register(annotation(segmentation=rle))
    written = convert_to_coco_dict(NAME)["annotations"][0]
    assert written["area"] == 11
    assert isinstance(written["segmentation"]["counts"], str)
    assert np.array_equal(mask_util.decode(written["segmentation"]), bitmap())
    json.dumps(written)


@pytest.mark.embedded_only
def test_other_segmentations_that_can_be_written() -> None:
    register(
        annotation(segmentation=uncompressed(bitmap())),
        annotation(segmentation=[np.array(SQUARE)]),
    )
    first, second = convert_to_coco_dict(NAME)["annotations"]
    assert np.array_equal(mask_util.decode(first["segmentation"]), bitmap())
    assert first["area"] == 11
    assert second["segmentation"] == [SQUARE]
    json.dumps([first, second])


def test_segmentations_that_cannot_be_written() -> None:
    register(annotation(segmentation=bitmap()))
    with pytest.raises(TypeError):
        convert_to_coco_dict(NAME)


def test_boxes_that_are_written() -> None:
    register(
        annotation(bbox=np.array([1.0, 1.0, 5.0, 4.0])),
        annotation(bbox=[2.0, 3.0, 4.00049, 5.0], bbox_mode=BoxMode.XYWH_ABS),
        annotation(bbox=[5, 5, 4, 2, 30], bbox_mode=BoxMode.XYWHA_ABS),
    )
    written = convert_to_coco_dict(NAME)["annotations"]
    assert [each["bbox"] for each in written] == [[1, 1, 4, 3], [2, 3, 4, 5], [5, 5, 4, 2, 30]]
    assert [each["area"] for each in written] == pytest.approx([12, 20.00245, 8])


def test_boxes_that_cannot_be_written() -> None:
    register(annotation(bbox=[1, 2, 3]))
    with pytest.raises(ValueError, match="3"):
        convert_to_coco_dict(NAME)


def test_keypoints_are_written() -> None:
    register(annotation(keypoints=[3.5, 4.5, 2, 0.5, 0.5, 0]))
    written = convert_to_coco_dict(NAME)["annotations"][0]
    assert written["keypoints"] == [3, 4, 2, 0, 0, 0]
    assert written["num_keypoints"] == 1


def test_nothing_to_annotate() -> None:
    register()
    assert "annotations" not in convert_to_coco_dict(NAME)


def test_there_and_back(tmp_path: Path) -> None:
    rle = mask_util.encode(bitmap())
    register(annotation(segmentation=rle), annotation(segmentation=[SQUARE]))
    path = str(tmp_path / "sub" / "cells.json")
    convert_to_coco_json(NAME, path)
    image = load_coco_json(path, "")[0]
    first, second = image["annotations"]
    assert np.array_equal(mask_util.decode(first["segmentation"]), bitmap())
    assert second["segmentation"] == [SQUARE]
    assert first["bbox"] == [1, 1, 4, 3]
    assert len(COCO(path).anns) == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_from_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    register(annotation())
    path = tmp_path / "cells.json"
    path.write_text("{}")
    with caplog.at_level(logging.WARNING):
        convert_to_coco_json(NAME, str(path), allow_cached=True)
    assert path.read_text() == "{}"
    assert str(path) in caplog.text
    convert_to_coco_json(NAME, str(path), allow_cached=False)
    assert len(json.loads(path.read_text())["annotations"]) == 1


def test_a_failed_conversion_leaves_no_file(tmp_path: Path) -> None:
    register(annotation(extra=1), annotation(bbox=[1, 2, 3]))
    with pytest.raises(ValueError, match="3"):
        convert_to_coco_json(NAME, str(tmp_path / "cells.json"))
    assert not (tmp_path / "cells.json").exists()


@pytest.mark.embedded_only
def test_a_file_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(annotation())
    monkeypatch.chdir(tmp_path)
    convert_to_coco_json(NAME, "cells.json")
    assert (tmp_path / "cells.json").exists()
