"""Stacks with annotations for each plane: label stacks, ROIs with positions, Cellpose's masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.datasets.annotation_files import read_annotations, write_annotations
from cellseg.datasets.dataset_dicts import record_to_dict
from cellseg.errors import DatasetError
from cellseg.images import ImageInput, read_image
from cellseg.inspection.sources import dict_to_record
from cellseg.io import read_records
from cellseg.io.conversion import SplitPlace, convert_split
from shared_cases import shared_case

roifile = pytest.importorskip("roifile")

HW = (12, 16)
SQUARE = np.array([(1, 1), (5, 1), (5, 5), (1, 5)], np.int32)


def write_stack(path: Path, pages: int, dtype: type = np.uint8) -> np.ndarray:
    stack = np.arange(pages * HW[0] * HW[1], dtype=np.uint32).reshape(pages, *HW).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TYX"})
    return stack


@pytest.fixture
def label_stack(tmp_path: Path) -> np.ndarray:
    """Three frames with one, no and two cells; gives the image."""
    labels = np.zeros((3, *HW), np.uint16)
    labels[0, 1:3, 1:4], labels[2, 5:8, 2:6], labels[2, 0, 0] = 5, 5, 9
    (tmp_path / "train/labels").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "train/labels/a.tif", labels, imagej=True, metadata={"axes": "TYX"})
    return write_stack(tmp_path / "train/images/a.tif", 3)


def test_label_images_of_a_time_lapse(tmp_path: Path, label_stack: np.ndarray) -> None:
    records = read_records("label_images", tmp_path, "train")
    assert [one.image_id for one in records] == ["a_t0", "a_t1", "a_t2"]
    assert [one.cells.areas_px.tolist() for one in records] == [[6], [], [12, 1]]
    assert [one.place.page for one in records] == [0, 1, 2]


def test_white_is_zero_of_a_label_stack_is_minded_once(tmp_path: Path) -> None:
    """What the file shows as black is background, in each plane as in a file of one."""
    labels = np.full((2, *HW), 255, np.uint8)
    labels[0, 1:3, 1:4], labels[1, 5:8, 2:6] = 0, 7
    write_stack(tmp_path / "train/images/a.tif", 2)
    path = tmp_path / "train/labels/a.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, labels, photometric="miniswhite", metadata={"axes": "TYX"})
    records = read_records("label_images", tmp_path, "train")
    assert [one.cells.areas_px.tolist() for one in records] == [[6], [12]]


def test_training_and_inspection_read_the_frame(tmp_path: Path, label_stack: np.ndarray) -> None:
    record = read_records("label_images", tmp_path, "train")[2]
    entry = record_to_dict(record, ("cell",))
    assert entry["page"] == 2
    image = ImageInput().read(entry["file_name"], entry["page"])
    assert np.array_equal(image, label_stack[2])
    assert dict_to_record(entry, ("cell",))[0].place.page == 2


def test_frames_come_back_from_the_cache(tmp_path: Path, label_stack: np.ndarray) -> None:
    records = read_records("label_images", tmp_path, "train")
    write_annotations(tmp_path / "kept.npz", records, tmp_path, {})
    assert read_annotations(tmp_path / "kept.npz", tmp_path)[1] == records


def test_converted_frames_are_images(tmp_path: Path, label_stack: np.ndarray) -> None:
    source = SplitPlace("label_images", tmp_path, "train")
    convert_split(source, SplitPlace("geojson", tmp_path / "out", "train"))
    for page in range(3):
        found = read_image(tmp_path / f"out/train/images/a_t{page}.tif")
        assert np.array_equal(found, label_stack[page])


def test_another_number_of_label_images(tmp_path: Path, label_stack: np.ndarray) -> None:
    write_stack(tmp_path / "train/images/a.tif", 2)
    with pytest.raises(DatasetError, match=r"labels.a\.tif: 3 label images; the image has 2"):
        read_records("label_images", tmp_path, "train")


def put_rois(path: Path, *positions: dict[str, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rois = []
    for number, position in enumerate(positions, 1):
        roi = roifile.ImagejRoi.frompoints(SQUARE + number, name=f"r{number}")
        for key, value in position.items():
            setattr(roi, key, value)
        rois.append(roi)
    roifile.roiwrite(path, rois, mode="w")


def test_rois_belong_to_the_frames_of_their_positions(tmp_path: Path) -> None:
    write_stack(tmp_path / "train/images/a.tif", 4)
    put_rois(tmp_path / "train/rois/a.zip", {"position": 1}, {"t_position": 3}, {"position": 3})
    records = read_records("imagej_rois", tmp_path, "train")
    assert [one.image_id for one in records] == ["a_t0", "a_t2"]  # the others have no ROI
    assert [len(one.cells) for one in records] == [1, 2]
    assert records[1].cells.boxes_xyxy.tolist() == [[3, 3, 7, 7], [4, 4, 8, 8]]


def test_rois_of_no_frame_are_named(tmp_path: Path) -> None:
    write_stack(tmp_path / "train/images/a.tif", 2)
    put_rois(tmp_path / "train/rois/a.zip", {"position": 1}, {"position": 3}, {})
    with pytest.raises(DatasetError) as caught:
        read_records("imagej_rois", tmp_path, "train")
    assert "a.zip: ROI r2: on slice 3; the image has 2 planes" in str(caught.value)
    assert "a.zip: ROI r3: on no slice" in str(caught.value)


def test_rois_of_several_slices_on_one_image(tmp_path: Path) -> None:
    write_stack(tmp_path / "train/images/a.tif", 1)
    put_rois(tmp_path / "train/rois/a.zip", {"position": 1}, {"position": 2})
    with pytest.raises(DatasetError, match=r"ROI r1 on slice 1; ROI r2 on slice 2.*one plane"):
        read_records("imagej_rois", tmp_path, "train")
    put_rois(tmp_path / "train/rois/a.zip", {"position": 2}, {"position": 2})
    (record,) = read_records("imagej_rois", tmp_path, "train")
    assert (record.image_id, len(record.cells)) == ("a", 2)


def test_time_lapse_of_a_user() -> None:
    records = read_records("label_images", shared_case("time_lapse"), "train")
    assert [one.image_id for one in records] == ["a_t0", "a_t1"]
    assert [one.cells.areas_px.tolist() for one in records] == [[253] * 4] * 2


def test_rois_on_two_slices_of_a_user() -> None:
    case = shared_case("rois_on_two_slices")
    with pytest.raises(DatasetError, match="ROI 0002: on slice 3; the image has 2 planes"):
        read_records("imagej_rois", case, "train")
