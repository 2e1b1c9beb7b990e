"""Label images in the folders of several programs, and mask files: written, read, refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import tifffile
from cell_records import boxes_of, content_of
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import FORMATS as ALL_FORMATS
from cellseg.io import instance_masks, label_images, read_records
from PIL import Image

Same = Callable[[list[ImageRecord], list[ImageRecord]], None]
CLASSES = ("round", "long")
NAMES = ("cellpose", "instance_masks", "label_images", "stardist")
FORMATS = {name: ALL_FORMATS[name] for name in NAMES}
OPTIONS = {
    "cellpose": {"mask_suffix": "_cp_masks"},
    "instance_masks": {"images": "raw", "masks": "truth"},
    "label_images": {"images": "raw", "labels": "truth"},
    "stardist": {"images": "raw", "masks": "truth"},
}


def write(name: str, records: list[ImageRecord], root: Path, *classes: str, **options: Any) -> None:
    writer = FORMATS[name].write
    assert writer is not None
    writer(records, root, "s", classes or ("cell",), options)


def read(name: str, root: Path, *classes: str, **options: Any) -> list[ImageRecord]:
    return FORMATS[name].read(root, "s", classes or ("cell",), options)


@pytest.fixture(scope="module")
def without_overlaps(scene_records: list[ImageRecord]) -> list[ImageRecord]:
    return [record for record in scene_records if record.image_id != "overlapping"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("custom", [False, True])
def test_scenes_there_and_back(
    tmp_path: Path, name: str, custom: bool, without_overlaps: list[ImageRecord], same: Same
) -> None:
    options = OPTIONS[name] if custom else {}
    assert set(options) <= set(FORMATS[name].options)
    write(name, without_overlaps, tmp_path, **options)
    same(read(name, tmp_path, **options), without_overlaps)


def test_overlaps_in_mask_files(
    tmp_path: Path, scene_records: list[ImageRecord], same: Same
) -> None:
    write("instance_masks", scene_records, tmp_path)
    same(read("instance_masks", tmp_path), scene_records)
    assert "overlaps" in instance_masks.FORMAT.holds


@pytest.mark.parametrize("name", ["cellpose", "label_images", "stardist"])
def test_of_overlapping_cells_the_first_keeps_the_pixel(
    tmp_path: Path, name: str, scene_records: list[ImageRecord]
) -> None:
    (record,) = (one for one in scene_records if one.image_id == "overlapping")
    write(name, [record], tmp_path)
    assert read(name, tmp_path)[0].cells.areas_px.tolist() == [64, 64 - 16]
    assert "overlaps" not in FORMATS[name].holds


def test_classes_of_label_images(
    tmp_path: Path, two_class_records: list[ImageRecord], same: Same
) -> None:
    records = [record for record in two_class_records if record.image_id != "overlapping"]
    write("label_images", records, tmp_path, *CLASSES)
    same(read("label_images", tmp_path, *CLASSES), records)
    assert label_images.find_classes(tmp_path, "s", {}) == ("long", "round")


def test_classes_of_a_cell_that_others_cover(
    tmp_path: Path, two_class_records: list[ImageRecord]
) -> None:
    (record,) = (one for one in two_class_records if one.image_id == "touching")
    write("label_images", [replace(record, cells=record.cells[[0, 0, 1]])], tmp_path, *CLASSES)
    (found,) = read("label_images", tmp_path, *CLASSES)
    assert content_of(found) == content_of(record)


def test_classes_of_mask_files(tmp_path: Path, two_class_records: list[ImageRecord]) -> None:
    write("instance_masks", two_class_records, tmp_path, *CLASSES)
    found = read("instance_masks", tmp_path, *CLASSES)
    for one, other in zip(found, two_class_records, strict=True):
        by_class = other.cells[np.argsort(other.cells.classes, kind="stable")]
        assert content_of(one) == content_of(replace(other, cells=by_class))
    assert instance_masks.find_classes(tmp_path, "s", {}) == ("long", "round")
    with pytest.raises(DatasetError, match="class 'a/b' cannot be the name of a folder"):
        write("instance_masks", [], tmp_path / "new", "a/b", "c")


@pytest.mark.parametrize("name", FORMATS)
def test_regions_of_uncounted_cells_are_left_out(
    tmp_path: Path, name: str, crowd_record: ImageRecord
) -> None:
    write(name, [crowd_record], tmp_path)
    (found,) = read(name, tmp_path)
    assert content_of(found) == content_of(replace(crowd_record, cells=crowd_record.cells[:1]))
    assert "crowd" not in FORMATS[name].holds


@pytest.mark.parametrize("name", ["cellpose", "stardist"])
def test_formats_without_classes(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=rf"{name} has no classes, 2 are declared \(round, long"):
        read(name, tmp_path, *CLASSES)
    assert "classes" not in FORMATS[name].holds


@pytest.mark.parametrize(
    ("name", "place"),
    [("cellpose", "a_masks"), ("label_images", "labels/a"), ("stardist", "masks/a")],
)
def test_labels_of_32_bits_with_large_gaps(tmp_path: Path, name: str, place: str) -> None:
    labels = np.zeros((20, 30), np.uint32)
    labels[2:4, 2:4], labels[9:12, 9], labels[19, 29] = 70_001, 5, 2**32 - 1
    images = tmp_path / "s" / ("" if name == "cellpose" else "images")
    builders.write_png(images / "a.png", np.zeros((20, 30), np.uint8))
    (tmp_path / "s" / place).parent.mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / "s" / f"{place}.tif", labels)
    (record,) = read(name, tmp_path)
    assert boxes_of(record) == [
        (9, 9, 10, 12),
        (2, 2, 4, 4),
        (29, 19, 30, 20),
    ]


def test_label_k_plus_1_is_cell_k(tmp_path: Path) -> None:
    labels = builders.labels_beyond_uint16()
    builders.write_png(tmp_path / "in/images/a.png", np.zeros(labels.shape, np.uint8))
    (tmp_path / "in/labels").mkdir()
    tifffile.imwrite(tmp_path / "in/labels/a.tif", labels)
    (record,) = read_records("label_images", tmp_path, "in")
    backwards = replace(record, cells=record.cells[::-1])
    write("stardist", [backwards], tmp_path)
    written = tifffile.imread(tmp_path / "s/masks/a.tif")
    assert written.dtype == np.uint32
    assert np.array_equal(written, 66_001 - labels)
    write("cellpose", [replace(record, cells=record.cells[:300])], tmp_path / "few")
    assert tifffile.imread(tmp_path / "few/s/a_masks.tif").dtype == np.uint16


def test_a_folder_that_cellpose_has_worked_in(tmp_path: Path) -> None:
    scene = builders.touching()
    folder = tmp_path / "s"
    builders.write_png(folder / "a_img.png", scene.image)
    Image.fromarray(scene.image).save(folder.joinpath("b.jpg"))
    builders.write_png(folder / "a_masks.png", scene.labels)
    tifffile.imwrite(folder / "b_masks.tif", scene.labels)
    for name in ("a_flows.tif", "a_cp_masks.png", "b_cp_output.png", "a_cp_outlines.png"):
        (folder / name).write_bytes(b"another format")
    for name in ("a_seg.npy", "a_cp_outlines.txt", ".b_masks.png"):
        (folder / name).write_bytes(b"no image")
    records = read("cellpose", tmp_path)
    assert [(record.image_id, len(record.cells)) for record in records] == [("a", 2), ("b", 2)]
    assert [record.image_path.name for record in records] == ["a_img.png", "b.jpg"]
    builders.write_png(folder / "a_cp_masks.png", scene.labels * 0)
    builders.write_png(folder / "b_cp_masks.png", scene.labels * 0)
    predicted = read("cellpose", tmp_path, mask_suffix="_cp_masks")
    assert [len(record.cells) for record in predicted] == [0, 0]


def test_everything_wrong_with_cellposes_folder_in_one_message(tmp_path: Path) -> None:
    scene = builders.touching()
    folder = tmp_path / "s"
    for name in ("a.png", "b_masks.png", "c.png", "c_img.png", "c_masks.png"):
        builders.write_png(folder / name, scene.labels.astype(np.uint8))
    with pytest.raises(DatasetError) as caught:
        read("cellpose", tmp_path)
    text = str(caught.value)
    assert "problems (3)" in text
    assert f"{folder / 'a.png'}: no label image a_masks.png or .tif" in text
    assert f"{folder / 'b_masks.png'}: no image b.* or b_img.*" in text
    assert f"{folder / 'c_img.png'}: same id as c.png" in text
    (tmp_path / "empty/s").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no images in it"):
        read("cellpose", tmp_path / "empty")


def test_damaged_label_images(tmp_path: Path) -> None:
    scene = builders.touching()
    for name in ("a", "b", "c"):
        builders.write_png(tmp_path / f"s/images/{name}.png", scene.image)
    builders.write_png(tmp_path / "s/masks/a.png", scene.labels.T)
    tifffile.imwrite(tmp_path / "s/masks/b.tif", scene.labels / np.float32(2))
    (tmp_path / "s/masks/c.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError) as caught:
        read("stardist", tmp_path)
    text = str(caught.value)
    assert "masks/a.png: the label image is 20 x 30 (width x height), the image 30 x 20" in text
    assert "masks/b.tif: a label image has whole numbers; found float32 with 0.5" in text
    assert "masks/c.png: cannot be read as an image" in text


@pytest.mark.parametrize("image_id", ["a_masks", "a_img", "a_flows"])
def test_ids_that_mean_something_to_cellpose(
    tmp_path: Path, image_id: str, scene_records: list[ImageRecord]
) -> None:
    with pytest.raises(DatasetError, match=f"'{image_id}' ends in .*rename the image"):
        write("cellpose", [replace(scene_records[0], image_id=image_id)], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_written_over_or_half_written(
    tmp_path: Path, name: str, scene_records: list[ImageRecord]
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is there already"):
        write(name, scene_records, tmp_path)
    (record,) = (one for one in scene_records if one.image_id == "touching")
    masks = np.append(record.cells.to_bitmaps(), np.zeros((1, 20, 30), bool), axis=0)
    pixelless = replace(record, cells=CellInstances.from_bitmaps(masks))
    for records, says in (
        ([record, record], "occur.* twice"),
        ([replace(record, image_id="a/b")], "cannot be a file's name"),
        ([replace(record, image_path=tmp_path / "absent.png")], "cannot be copied"),
        ([pixelless], "cell 3 has no pixel"),
    ):
        with pytest.raises(DatasetError, match=says):
            write(name, records, tmp_path / "new")
        assert list(tmp_path.glob("new/*")) == []
    strange = replace(record, cells=record.cells.replace(classes=[0, 1]))
    with pytest.raises(DatasetError, match=r"touching.png: a cell of class 1 .*are 1: other"):
        write(name, [strange], tmp_path / "new", "other")


def test_real_mask_files_there_and_back(tmp_path: Path, real_datasets: Path, same: Same) -> None:
    records = read_records("instance_masks", real_datasets / "dsb2018", "val")[:3]
    write("instance_masks", records, tmp_path)
    same(read("instance_masks", tmp_path), records)
