"""COCO's datasets, which are known without being declared, and its panoptic annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    builtin,
    load_sem_seg,
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES, _get_builtin_metadata
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

NAMES = ("small", "small_separated", "small_stuffonly")


def test_categories_are_those_of_coco() -> None:
    assert [category["isthing"] for category in COCO_CATEGORIES] == [1] * 80 + [0] * 53
    by_id = {category["id"]: category for category in COCO_CATEGORIES}
    assert len(by_id) == 133
    assert by_id[1] == {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]}
    assert by_id[90]["name"] == "toothbrush"
    assert by_id[187]["name"] == "sky-other-merged"
    assert 12 not in by_id  # one of the gaps


def test_the_datasets_of_model_configs_are_known() -> None:
    meta = MetadataCatalog.get("coco_2017_val")
    assert meta.thing_classes[:2] == ["person", "bicycle"]
    assert meta.thing_dataset_id_to_contiguous_id[13] == 11  # 12 has no objects
    assert (meta.evaluator_type, len(meta.thing_colors)) == ("coco", 80)
    assert meta.json_file.endswith("coco/annotations/instances_val2017.json")
    assert meta.image_root.endswith("coco/val2017")
    assert set(builtin._PREDEFINED_SPLITS_COCO["coco"]) <= set(DatasetCatalog.list())
    hidden = MetadataCatalog.get("coco_2017_test-dev")
    assert hidden.json_file.endswith("image_info_test-dev2017.json")
    assert hidden.image_root.endswith("coco/test2017")


def test_a_dataset_is_read_only_when_asked_for() -> None:
    with pytest.raises(FileNotFoundError, match=r"instances_val2017_100\.json"):
        DatasetCatalog.get("coco_2017_val_100")


def test_stuff_is_numbered_after_all_things_as_one() -> None:
    meta = _get_builtin_metadata("coco_panoptic_separated")
    assert meta["stuff_classes"][:2] == ["things", "banner"]
    assert meta["stuff_classes"][-2:] == ["wall", "rug"]
    assert len(meta["stuff_classes"]) == len(meta["stuff_colors"]) == 54
    ids = meta["stuff_dataset_id_to_contiguous_id"]
    assert (ids[0], ids[92], ids[200]) == (0, 1, 53)
    assert len(meta["thing_classes"]) == 80


def test_things_and_stuff_in_one_list() -> None:
    meta = _get_builtin_metadata("coco_panoptic_standard")
    assert meta["thing_classes"] == meta["stuff_classes"]
    assert len(meta["thing_classes"]) == 133
    assert meta["thing_dataset_id_to_contiguous_id"][90] == 79
    assert meta["stuff_dataset_id_to_contiguous_id"][92] == 80
    assert meta["stuff_dataset_id_to_contiguous_id"].keys() == {
        c["id"] for c in COCO_CATEGORIES if not c["isthing"]
    }


def test_metadata_is_a_copy_and_unknown_families_are_refused() -> None:
    _get_builtin_metadata("coco")["thing_classes"].clear()
    assert len(_get_builtin_metadata("coco")["thing_classes"]) == 80
    with pytest.raises(KeyError, match="no_such"):
        _get_builtin_metadata("no_such")


def write(path: Path, content: object = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("" if content is None else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def folder(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / f"images/{name}.jpg")
        write(tmp_path / f"segments/{name}.png")
    for name in ("b", "c", "d"):
        write(tmp_path / f"stuff/{name}.png")
    yield tmp_path
    for name in NAMES:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def test_images_and_classes_are_paired_by_name(folder: Path) -> None:
    b = {
        "file_name": str(folder / "images/b.jpg"),
        "sem_seg_file_name": str(folder / "stuff/b.png"),
    }
    assert load_sem_seg(str(folder / "stuff"), str(folder / "images")) == [b]
    pairs = load_sem_seg(str(folder / "segments"), str(folder / "images"))
    assert [Path(pair["file_name"]).name for pair in pairs] == ["a.jpg", "b.jpg"]
    with pytest.raises(AssertionError, match="images"):
        load_sem_seg(str(folder / "images"), str(folder / "images"))


@pytest.mark.embedded_only
def test_as_many_files_of_other_names_are_no_pairs(folder: Path) -> None:
    (folder / "stuff/d.png").unlink()
    (pair,) = load_sem_seg(str(folder / "stuff"), str(folder / "images"))
    assert Path(pair["sem_seg_file_name"]).name == "b.png"


def test_panoptic_annotations(folder: Path) -> None:
    segments = [{"id": 7, "category_id": 44, "area": 3}, {"id": 8, "category_id": 92, "area": 5}]
    content = {
        "annotations": [
            {"image_id": 12, "file_name": f"{name}.png", "segments_info": segments}
            for name in ("a", "b")
        ]
    }
    file = write(folder / "panoptic.json", content)
    meta = _get_builtin_metadata("coco_panoptic_standard")
    register_coco_panoptic(
        "small", meta, str(folder / "images"), str(folder / "segments"), file, "things.json"
    )
    first, _ = DatasetCatalog.get("small")
    assert first == {
        "file_name": str(folder / "images/a.jpg"),
        "image_id": 12,
        "pan_seg_file_name": str(folder / "segments/a.png"),
        "segments_info": [
            {"id": 7, "category_id": 39, "area": 3, "isthing": True},
            {"id": 8, "category_id": 80, "area": 5, "isthing": False},
        ],
    }
    assert MetadataCatalog.get("small").evaluator_type == "coco_panoptic_seg"
    (folder / "images/a.jpg").unlink()
    with pytest.raises(AssertionError, match=r"a\.jpg"):
        DatasetCatalog.get("small")


def test_things_and_stuff_separated(folder: Path) -> None:
    box = {"id": 1, "image_id": 5, "category_id": 44, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    image = {"id": 5, "file_name": "b.jpg", "height": 9, "width": 8}
    categories = [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES[:80]]
    file = write(
        folder / "things.json", {"images": [image], "annotations": [box], "categories": categories}
    )
    register_coco_panoptic_separated(
        "small",
        _get_builtin_metadata("coco_panoptic_separated"),
        str(folder / "images"),
        str(folder / "segments"),
        "panoptic.json",
        str(folder / "stuff"),
        file,
    )
    (both,) = DatasetCatalog.get("small_separated")
    assert both["annotations"][0]["category_id"] == 39
    assert both["sem_seg_file_name"] == str(folder / "stuff/b.png")
    (stuff,) = DatasetCatalog.get("small_stuffonly")
    assert stuff.keys() == {"file_name", "sem_seg_file_name"}
    assert MetadataCatalog.get("small_stuffonly").evaluator_type == "sem_seg"
    with pytest.raises(KeyError, match=r"other\.jpg"):
        merge_to_panoptic([{"file_name": "other.jpg"}], [stuff])
