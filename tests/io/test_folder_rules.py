"""What is in a folder of a data set: one rule for every format."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import FORMATS, base, read_records
from cellseg.io.base import ids_of_images
from cellseg.io.segmentations import find_label_files, read_segmentations
from PIL import Image

WRITABLE = sorted(
    name for name, one in FORMATS.items() if one.write and name not in ("ome_zarr", "imagej_rois")
)
LABELS = np.zeros((12, 14), np.uint16)
LABELS[2:6, 3:9], LABELS[8:11, 1:5] = 1, 2


@pytest.fixture(autouse=True)
def _say_everything_again() -> None:
    base._warn_once.cache_clear()


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, LABELS * 100, metadata=None)


def write_labels(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, LABELS, metadata=None)


def image_of(root: Path) -> Path:
    """Any image of a written split, whatever its layout."""
    return next(path for path in sorted((root / "train").rglob("*.png")) if "mask" not in str(path))


@pytest.mark.parametrize("name", WRITABLE)
def test_hidden_files_are_not_there(
    name: str, scene_records: list[ImageRecord], tmp_path: Path
) -> None:
    records = [one for one in scene_records if len(one.cells)][:2]
    FORMATS[name].write(records, tmp_path, "train", ("cell",), {})  # type: ignore[misc]
    before = read_records(name, tmp_path, "train")
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        for hidden in ("._a.png", "._a.tif", ".DS_Store", "Thumbs.db"):
            (folder / hidden).write_bytes(b"Mac OS X")
    assert read_records(name, tmp_path, "train") == before


@pytest.mark.parametrize("name", WRITABLE)
def test_an_image_behind_a_broken_link_is_an_error(
    name: str, scene_records: list[ImageRecord], tmp_path: Path
) -> None:
    records = [one for one in scene_records if len(one.cells)][:2]
    FORMATS[name].write(records, tmp_path, "train", ("cell",), {})  # type: ignore[misc]
    image = image_of(tmp_path)
    image.unlink()
    image.symlink_to("gone.png")
    with pytest.raises(DatasetError, match=r"\.png: a link to gone\.png, which is not there"):
        read_records(name, tmp_path, "train")


@pytest.mark.parametrize("name", WRITABLE)
def test_folders_behind_links_are_read(
    name: str, scene_records: list[ImageRecord], tmp_path: Path
) -> None:
    records = [one for one in scene_records if len(one.cells)][:2]
    FORMATS[name].write(records, tmp_path, "train", ("cell",), {})  # type: ignore[misc]
    before = [one.image_id for one in read_records(name, tmp_path, "train")]
    folder = image_of(tmp_path).parent
    folder = folder.parent if name in ("instance_masks", "dsb2018_table") else folder
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert [one.image_id for one in read_records(name, tmp_path, "train")] == before


def test_images_behind_a_linked_folder_are_found_by_name(tmp_path: Path) -> None:
    write_images(tmp_path / "disk", "a.tif")
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "day_1").symlink_to(tmp_path / "disk")
    entry = {"id": 1, "file_name": "a.tif", "height": 12, "width": 14}
    content = {"images": [entry], "annotations": [], "categories": []}
    (tmp_path / "set" / "annotations.json").write_text(json.dumps(content))
    (record,) = read_records("coco_json", tmp_path, "set")
    assert record.image_path == tmp_path / "set" / "images" / "day_1" / "a.tif"


@pytest.mark.parametrize("label", ["a.tif", "a.ome.tif", "a.npy", "a.bmp"])
@pytest.mark.parametrize("image", ["a.ome.tif", "a.tif"])
def test_names_of_ome_pair(tmp_path: Path, image: str, label: str) -> None:
    write_images(tmp_path / "train/images", image)
    (tmp_path / "train/labels").mkdir()
    if label.endswith(".npy"):
        np.save(tmp_path / "train/labels" / label, LABELS)
    elif label.endswith(".bmp"):
        Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "train/labels" / label)
    else:
        write_labels(tmp_path / "train/labels", label)
    (record,) = read_records("label_images", tmp_path, "train")
    assert (record.image_id, len(record.cells)) == ("a", 2)


def test_names_of_ome_in_other_formats(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "a_img.ome.tif")
    write_labels(tmp_path / "train", "a_masks.ome.tif")
    (record,) = read_records("cellpose", tmp_path, "train")
    assert (record.image_id, len(record.cells)) == ("a", 2)
    write_images(tmp_path / "test/images", "b.ome.tif")
    features = {"type": "FeatureCollection", "features": []}
    for name in ("b.geojson", "b.ome.geojson"):
        (tmp_path / "test/annotations").mkdir(exist_ok=True)
        (tmp_path / "test/annotations" / name).write_text(json.dumps(features))
        (record,) = read_records("geojson", tmp_path, "test")
        assert record.image_id == "b"
        (tmp_path / "test/annotations" / name).unlink()


def test_what_is_no_image_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "train/images", "a.tif", "deeper/b.tif")
    write_labels(tmp_path / "train/labels", "a.tif")
    (tmp_path / "train/images/c.mrxs").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            read_records("label_images", tmp_path, "train")
    (said,) = [one.getMessage() for one in caplog.records]
    assert "2 files passed over: c.mrxs (OpenSlide alone" in said
    assert "deeper (a folder; files are looked for beside it and not in it)" in said


def test_every_image_of_a_json_has_an_id_of_its_own(tmp_path: Path) -> None:
    names = ["a.png", "a.tif", "day_1/a.tif", "day_2/a.tif", "day_1_a.tif"]
    images = []
    for number, name in enumerate(names, 1):
        path = tmp_path / "train/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((LABELS * 50 + number).astype(np.uint8)).save(path)
        images.append({"id": number, "file_name": name, "height": 12, "width": 14})
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "train/annotations.json").write_text(json.dumps(content))
    records = read_records("coco_json", tmp_path, "train")
    found = {one.image_id: str(one.image_path.relative_to(tmp_path)) for one in records}  # type: ignore[union-attr]
    assert found == {
        "a_png": "train/images/a.png",
        "a_tif": "train/images/a.tif",
        "day_1_a_tif": "train/images/day_1/a.tif",
        "day_2_a": "train/images/day_2/a.tif",
        "day_1_a_tif_2": "train/images/day_1_a.tif",
    }
    FORMATS["label_images"].write(records, tmp_path, "copy", ("cell",), {})  # type: ignore[misc]
    again = read_records("label_images", tmp_path, "copy")
    assert [one.image_id for one in again] == sorted(found)


def test_ids_of_images() -> None:
    assert ids_of_images([]) == []
    assert ids_of_images(["x/a.png", "y/b.ome.tif"]) == ["a", "b"]
    assert ids_of_images(["../a.png", "/a.png"]) == ["a_png", "a_png_2"]


def test_one_file_twice_in_a_json_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path / "train/images", "a.tif")
    entries = [{"id": k, "file_name": "a.tif"} for k in (1, 2)]
    content = {"images": entries, "annotations": [], "categories": []}
    (tmp_path / "train/annotations.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"a\.tif: several of the images are this file"):
        read_records("coco_json", tmp_path, "train")


def names_of(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_label_files(folder)]


def test_label_images_with_and_without_an_ending(tmp_path: Path) -> None:
    write_labels(tmp_path, "a_cp_masks.tif", "b.tif", "c_labels.ome.tif", "day_1/a.tif")
    found = read_segmentations(tmp_path, "labels")
    assert sorted(found.by_id) == ["a", "b", "c", "day_1/a"]


def test_images_beside_label_images_are_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_labels(tmp_path, "a.tif", "a_masks.tif", "a_flows.tif", "a_cp_output.png", "b.tif")
    with caplog.at_level(logging.WARNING):
        assert names_of(tmp_path) == ["a_masks.tif"]
    assert "b.tif (an image without a label image beside it)" in caplog.text


def test_overlays_are_no_label_images(tmp_path: Path) -> None:
    write_labels(tmp_path, "a_labels.tif", "a_overlay.png", "b.tif", "a_overlay_2.tif")
    assert names_of(tmp_path) == ["a_labels.tif", "a_overlay_2.tif", "b.tif"]


def test_two_label_images_of_one_image(tmp_path: Path) -> None:
    write_labels(tmp_path, "a_labels.tif", "a_masks.png")
    with pytest.raises(DatasetError, match=r"of a: a_labels\.tif and a_masks\.png; leave one"):
        read_segmentations(tmp_path, "labels")


def test_hidden_and_broken_label_images(tmp_path: Path) -> None:
    write_labels(tmp_path, "a.tif", "._a.tif")
    assert names_of(tmp_path) == ["a.tif"]
    (tmp_path / "b.tif").symlink_to("gone.tif")
    with pytest.raises(DatasetError, match=r"b\.tif: a link to gone\.tif, which is not there"):
        find_label_files(tmp_path)


def test_predictions_in_sub_folders_get_their_images_back(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "day_1/a.tif", "day_2/a.tif")
    (tmp_path / "found.json").write_text("[]")
    records = read_records("coco_results", tmp_path, "found.json")
    assert [one.image_id for one in records] == ["day_1_a", "day_2_a"]


def test_annotations_beside_their_images_are_no_surprise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "train", "a.tif", "b.tif")
    write_labels(tmp_path / "train", "a_masks.tif")
    np.save(tmp_path / "train/b_seg.npy", {"masks": LABELS}, allow_pickle=True)  # type: ignore[arg-type]
    (tmp_path / "train/notes.docx").touch()
    records = read_records("cellpose", tmp_path, "train")
    assert [len(one.cells) for one in records] == [2, 2]
    assert "notes.docx" in caplog.text
    assert "_seg.npy" not in caplog.text
    assert "b.tif" not in caplog.text
