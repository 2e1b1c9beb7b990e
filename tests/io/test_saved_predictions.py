"""Predictions saved image by image: names, files, what is replaced, and each format read back."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import builders
import numpy as np
import pytest
import tifffile
from cell_records import BatchedRecord, bitmaps_of, make_record
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import CellsegError, DatasetError
from cellseg.io import FORMATS, ome_zarr_writing, read_records
from cellseg.io.base import PredictionFile
from cellseg.io.coco_results import read_coco_results
from cellseg.io.predictions import (
    SAVE_NAMES,
    Saved,
    check_saved,
    describe_losses,
    find_saved,
    is_per_image,
    prediction_files,
    save_names,
    write_image_prediction,
)
from pycocotools import mask as coco_mask

pytest.importorskip("roifile", minversion="2026")
pytest.importorskip("zarr", minversion="3")

HW = (20, 30)
CLASSES = ("round", "long")


def predicted(image_id: str = "plate1/a_t3") -> ImageRecord:
    """By position: a square, one that overlaps it, nothing, a ring, the pixel in it, two pieces."""
    ring = builders.rectangle(HW, 18, 4, 25, 11) & ~builders.rectangle(HW, 20, 6, 23, 9)
    pixel = builders.rectangle(HW, 21, 7, 22, 8)
    pieces = builders.rectangle(HW, 2, 16, 5, 18) | builders.rectangle(HW, 9, 16, 12, 19)
    masks = [*builders.overlapping(HW).masks, np.zeros(HW, bool), ring, pixel, pieces]
    how = {"classes": [1, 0, 0, 1, 0, 1], "scores": [0.9, 0.3, 0.2, 0.123456, 1, 0.5]}
    return make_record(image_id, None, masks, **how)


def with_pixels(record: ImageRecord) -> CellInstances:
    return record.cells[record.cells.areas_px > 0]


PER_IMAGE = [name for name in save_names() if is_per_image(name)]
FILES = {
    "labels": ["a_t3_labels.tif", "a_t3_labels.csv"],
    "coco": ["a_t3_coco.json"],
    "rois": ["a_t3_rois.zip"],
    "geojson": ["a_t3.geojson"],
    "geojson.gz": ["a_t3.geojson.gz"],
    "zarr": ["a_t3.ome.zarr"],
    "zarr-0.5": ["a_t3.ome.zarr"],
    "csv-rle": ["a_t3_rle.csv"],
    "outlines": ["a_t3_outlines.txt"],
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_named_after_the_image_in_its_sub_folder(tmp_path: Path, name: str) -> None:
    expected = [tmp_path / "plate1" / one for one in FILES[name]]
    assert prediction_files(tmp_path, "plate1/a_t3", name, CLASSES) == expected
    assert write_image_prediction(predicted(), tmp_path, name, CLASSES) == expected
    assert sorted((tmp_path / "plate1").iterdir()) == sorted(expected)


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", FILES)
def test_batches_give_the_same_bytes_and_an_older_file_is_replaced(
    tmp_path: Path, name: str
) -> None:
    """No writer asks for all cells at once; labels go on through the batches."""
    write_image_prediction(predicted(), tmp_path / "whole", name, CLASSES)
    other = make_record("plate1/a_t3", None, [builders.rectangle(HW, 0, 0, 30, 20)])
    write_image_prediction(other, tmp_path / "pieces", name, CLASSES)
    batched: Any = BatchedRecord(predicted(), 2)
    write_image_prediction(batched, tmp_path / "pieces", name, CLASSES)
    assert bytes_below(tmp_path / "pieces") == bytes_below(tmp_path / "whole")


@pytest.mark.parametrize("name", PER_IMAGE)
def test_no_cells(tmp_path: Path, name: str) -> None:
    record = make_record("a", None, [], HW)
    for path in write_image_prediction(record, tmp_path, name):
        assert path.exists()


@pytest.mark.parametrize("name", FILES)
def test_an_error_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    """The fourth cell has a class without a name: a batch has been written by then."""
    write_image_prediction(predicted(), tmp_path, name, CLASSES)
    before = bytes_below(tmp_path)
    strange = predicted()
    strange = replace(strange, cells=strange.cells.replace(classes=[0, 0, 0, 2, 0, 0]))
    batched: Any = BatchedRecord(strange, 2)
    with pytest.raises(CellsegError, match="class 2"):
        write_image_prediction(batched, tmp_path, name, CLASSES)
    assert bytes_below(tmp_path) == before


def test_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(SAVE_NAMES, "full", Saved("geojson", PredictionFile(".x", fail)))
    with pytest.raises(DatasetError, match=r"a\.x: cannot be written: No space left on device"):
        write_image_prediction(make_record("a", None, [], HW), tmp_path, "full")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "image_id", ["", "/etc/a", "../a", "a/../../b", "a//b", "a/", ".a", "a/.b", "..", "a\\..\\b"]
)
def test_ids_that_lead_elsewhere(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(DatasetError, match="cannot be the name of a file of results"):
        prediction_files(tmp_path, image_id, "labels")


def test_names(tmp_path: Path) -> None:
    assert set(save_names()) >= {*SAVE_NAMES, "dsb2018_table", "cellpose", "instance_masks"}
    assert not {"synthetic", "coco_json", "label_images", "imagej_rois"} & set(save_names())
    assert find_saved("label_images") == find_saved("labels")
    assert not is_per_image("dsb2018_table")
    with pytest.raises(DatasetError, match="dsb2018_table holds all images in one file"):
        find_saved("dsb2018_table")
    with pytest.raises(DatasetError, match="cannot be saved as 'roi'; did you mean rois"):
        is_per_image("roi")
    with pytest.raises(DatasetError, match="cannot be saved as synthetic; choose one of labels"):
        is_per_image("synthetic")
    check_saved("labels", CLASSES)
    check_saved("dsb2018_table", ("cell",))
    with pytest.raises(DatasetError, match="stardist has no classes, 2 are declared"):
        check_saved("stardist", CLASSES)


def test_what_is_lost() -> None:
    overlaps = "overlaps (the cell with the higher score keeps the pixel)"
    assert describe_losses("geojson", CLASSES) == ""
    assert describe_losses("labels") == f"labels cannot hold {overlaps}, scores"
    assert describe_losses("zarr", CLASSES) == f"zarr cannot hold {overlaps}"
    assert describe_losses("coco") == "coco cannot hold images without cells"
    assert describe_losses("outlines") == "outlines cannot hold scores"
    assert describe_losses("cellpose", CLASSES).endswith(", classes, scores")


def test_a_plug_in_is_saved_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer is given cells with pixels, and need not know of batches."""
    from cellseg.io.per_image import CellFile, format_of_files

    def write(record, path, classes, options):  # type: ignore[no-untyped-def]
        path.write_text(f"{len(record.cells)} {options}")

    file = CellFile("count", "counts", (".txt",), ".txt", read=None, write=write)  # type: ignore
    monkeypatch.setitem(FORMATS, "counted", format_of_files(file))
    assert "counted" in save_names()
    (path,) = write_image_prediction(predicted(), tmp_path, "counted", CLASSES, image=None)
    assert path == tmp_path / "plate1/a_t3_counts.txt"
    assert path.read_text() == "5 {'image': None}"
    with pytest.raises(DatasetError, match="a cell of class 1"):
        write_image_prediction(predicted(), tmp_path, "counted")


class ManyCells:
    """A record whose cells, squares of 3 x 3 pixels, are made batch by batch."""

    image_id, image_path, place = "a", None, PlaceInFile()

    def __init__(self, num_cells: int) -> None:
        self.num_cells, self.image_hw = num_cells, (4 * num_cells // 100, 400)

    def batches(self) -> Iterator[CellInstances]:
        for start in range(0, self.num_cells, 200):
            rows, columns = np.divmod(np.arange(start, start + 200), 100)
            offsets_rc = np.stack([4 * rows, 4 * columns], axis=1)
            yield CellInstances.from_crops([np.ones((3, 3), bool)] * 200, offsets_rc, self.image_hw)


@pytest.mark.parametrize("name", ["geojson", "geojson.gz", "coco", "csv-rle", "outlines", "zarr"])
def test_memory_does_not_grow_with_the_number_of_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ome_zarr_writing, "CHUNK_PX", 32)
    peaks = []
    write_image_prediction(cast(Any, ManyCells(200)), tmp_path, name)  # imports, caches
    for num_cells in (2000, 10_000):
        tracemalloc.start()
        write_image_prediction(cast(Any, ManyCells(num_cells)), tmp_path, name)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# Label images


def test_label_image_read_by_others(tmp_path: Path) -> None:
    """Cell k has label k + 1, also behind a cell without a pixel; of overlaps the higher score."""
    image, pillow = pytest.importorskip("cv2"), pytest.importorskip("PIL.Image")
    place = PlaceInFile((), "", (0.5, 0.25))
    record = replace(predicted("a"), place=place)
    path, table = write_image_prediction(record, tmp_path, "labels", CLASSES)
    labels = tifffile.imread(path)
    expected = np.zeros(HW, np.uint16)
    for k in (5, 2, 3, 1, 0):  # disjoint but for the first two, of which 0 has the higher score
        expected[record.cells.to_bitmaps()[k]] = k + 1
    expected[7, 21] = 5
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, expected)
    assert np.array_equal(image.imread(str(path), image.IMREAD_UNCHANGED), expected)
    assert np.array_equal(np.asarray(pillow.open(path)), expected)
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream))
    names = ["long", "round", "long", "round", "long"]
    assert rows == [["label", "class"], *map(list, zip("12456", names))]


def test_label_image_says_what_imagej_reads(tmp_path: Path) -> None:
    record = replace(predicted("a"), place=PlaceInFile((), "", (0.5, 0.25)))
    with tifffile.TiffFile(write_image_prediction(record, tmp_path, "labels")[0]) as file:
        assert file.is_imagej
        metadata = file.imagej_metadata
        assert (metadata["unit"], metadata["min"], metadata["max"]) == ("micron", 0, 6)
        tags = file.pages[0].tags
        assert tags["XResolution"].value == (4, 1)  # pixels per micron
        assert tags["YResolution"].value == (2, 1)
    unknown = write_image_prediction(predicted("b"), tmp_path, "labels")[0]
    with tifffile.TiffFile(unknown) as file:
        assert "unit" not in file.imagej_metadata


def test_label_image_of_more_than_16_bits(tmp_path: Path) -> None:
    image, pillow = pytest.importorskip("cv2"), pytest.importorskip("PIL.Image")
    labels = builders.labels_beyond_uint16()
    record = ImageRecord("a", CellInstances.from_label_image(labels))
    (path,) = write_image_prediction(record, tmp_path, "labels")
    assert tifffile.imread(path).dtype == np.uint32
    assert np.array_equal(tifffile.imread(path), labels)
    assert np.array_equal(image.imread(str(path), image.IMREAD_UNCHANGED), labels)
    assert np.array_equal(np.asarray(pillow.open(path)), labels)


# COCO


def test_coco_of_one_image_read_by_pycocotools(tmp_path: Path) -> None:
    """All detections are in it, those without a pixel too; an entry to a line."""
    record = predicted("p/c")
    (path,) = write_image_prediction(record, tmp_path, "coco", CLASSES, category_ids=[7, 3])
    entries = json.loads(path.read_text())
    assert [one["image_id"] for one in entries] == ["p/c"] * 6
    assert [one["category_id"] for one in entries] == [3, 7, 7, 3, 7, 3]
    for entry, mask in zip(entries, record.cells.to_bitmaps(), strict=True):
        assert np.array_equal(coco_mask.decode(entry["segmentation"]), mask)
    found = read_coco_results(path, CLASSES, category_ids=[7, 3])
    assert found["p/c"].equals(record.cells)
    lines = path.read_text().splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == entries


# ImageJ


def covered_px(path: list[np.ndarray], image_hw: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres an odd number of rings surround, by rays to the right, one by one."""
    mask = np.zeros(image_hw, bool)
    for row, col in np.ndindex(*image_hw):
        x, y = col + 0.5, row + 0.5
        for ring in path:
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0)):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    mask[row, col] ^= True
    return mask


def test_rois_cover_the_masks_and_are_named_by_their_labels(tmp_path: Path) -> None:
    import roifile

    record = replace(predicted("a"), place=PlaceInFile((("T", 4),)))
    rois = roifile.roiread(write_image_prediction(record, tmp_path, "rois", CLASSES)[0])
    assert [roi.name for roi in rois] == ["1", "2", "4", "5", "6"]
    for roi in rois:
        rings = roi.coordinates(multi=True) if roi.composite else [roi.coordinates()]
        assert np.array_equal(covered_px(rings, HW), record.cells.to_bitmaps()[int(roi.name) - 1])
        assert (roi.position, roi.t_position, roi.z_position, roi.c_position) == (5, 5, 0, 0)
    assert [roi.group for roi in rois] == [2, 1, 2, 1, 2]
    assert rois[2].properties == {"qupath.object.classification": "long", "score": 0.123456}


def test_roi_positions_in_a_hyperstack(tmp_path: Path) -> None:
    import roifile

    mask = builders.rectangle(HW, 1, 1, 3, 3)
    for place, position in (((), (0, 0, 0, 0)), ((("T", 1), ("Z", 6)), (0, 0, 7, 2))):
        record = replace(make_record("a", None, [mask]), place=PlaceInFile(place))
        (path,) = write_image_prediction(record, tmp_path, "rois")
        roi = roifile.ImagejRoi.fromfile(path)
        roi = roi[0] if isinstance(roi, list) else roi
        found = (roi.position, roi.c_position, roi.z_position, roi.t_position)
        assert found == position


def test_thousands_of_rois(tmp_path: Path) -> None:
    import roifile

    labels = np.arange(1, 5001).reshape(50, 100).repeat(2, 0).repeat(2, 1)
    record = ImageRecord("a", CellInstances.from_label_image(labels))
    rois = roifile.roiread(write_image_prediction(record, tmp_path, "rois")[0])
    assert [int(roi.name) for roi in rois] == list(range(1, 5001))
    assert (rois[4999].left, rois[4999].top, rois[4999].right, rois[4999].bottom) == (
        198, 98, 200, 100,
    )  # fmt: skip


# QuPath


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("name", ["geojson", "geojson.gz"])
def test_detections_of_qupath(tmp_path: Path, name: str) -> None:
    import uuid

    shapely = pytest.importorskip("shapely")
    record = replace(predicted("a"), place=PlaceInFile((("Z", 3), ("T", 1))))
    (path,) = write_image_prediction(record, tmp_path, name, CLASSES)
    data = path.read_bytes()
    text = (gzip.decompress(data) if name.endswith("gz") else data).decode("utf-8")
    content = json.loads(text, parse_constant=no_constant)
    assert content["type"] == "FeatureCollection"
    features = content["features"]
    assert len({uuid.UUID(one["id"]) for one in features}) == 5
    assert [one["properties"]["measurements"] for one in features] == [
        {"score": 0.9, "label": 1},
        {"score": 0.3, "label": 2},
        {"score": 0.123456, "label": 4},
        {"score": 1.0, "label": 5},
        {"score": 0.5, "label": 6},
    ]
    colours = {}
    for one in features:
        properties = one["properties"]
        assert one["type"] == "Feature"
        assert properties["objectType"] == "detection"
        assert properties["isLocked"] is False
        assert one["geometry"]["plane"] == {"c": -1, "z": 3, "t": 1}
        colours[properties["classification"]["name"]] = properties["classification"]["color"]
        for polygon in as_polygons(one["geometry"]):
            assert all(ring[0] == ring[-1] and len(ring) > 4 for ring in polygon)
        geometry = shapely.geometry.shape(one["geometry"])
        assert geometry.is_valid
        mask = record.cells.to_bitmaps()[properties["measurements"]["label"] - 1]
        assert geometry.area == mask.sum()
        rows, cols = np.indices(HW)
        inside = shapely.contains_xy(geometry, cols + 0.5, rows + 0.5)
        assert np.array_equal(inside, mask)
    assert set(colours) == set(CLASSES)
    assert colours["round"] != colours["long"]
    assert all(
        len(rgb) == 3 and all(0 <= value <= 255 for value in rgb) for rgb in colours.values()
    )


def test_outlines_on_a_coarser_level_of_a_slide_are_in_pixels_of_the_finest(tmp_path: Path) -> None:
    """QuPath shows level 0, whatever level the cells were found on; here one of 4.0005 : 1."""
    record = make_record("a", None, [builders.rectangle(HW, 2, 3, 7, 9)])
    record = replace(record, place=PlaceInFile(downsample=4.0005))
    (path,) = write_image_prediction(record, tmp_path, "geojson")
    (feature,) = json.loads(path.read_text())["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert ring == [[8.001, 12.002], [28.004, 12.002], [28.004, 36.004], [8.001, 36.004], ring[0]]


def as_polygons(geometry: dict[str, Any]) -> list[Any]:
    several = geometry["type"] == "MultiPolygon"
    return geometry["coordinates"] if several else [geometry["coordinates"]]


def test_ids_of_qupath_are_those_of_image_and_label(tmp_path: Path) -> None:
    ids = []
    for image_id in ("a", "a", "b"):
        (path,) = write_image_prediction(predicted(image_id), tmp_path, "geojson", CLASSES)
        ids.append([one["id"] for one in json.loads(path.read_text())["features"]])
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
    assert "plane" not in json.loads(path.read_text())["features"][0]["geometry"]


@pytest.mark.parametrize(
    ("name", "format_name", "folder"),
    [
        ("geojson", "geojson", "annotations"),
        ("geojson.gz", "geojson", "annotations"),
        ("rois", "imagej_rois", "rois"),
        ("csv-rle", "run_length_csv", "run_lengths"),
        ("outlines", "outlines", "outlines"),
    ],
)
def test_beside_images_they_are_a_data_set(
    tmp_path: Path, name: str, format_name: str, folder: str
) -> None:
    record = predicted("a")
    (path,) = write_image_prediction(record, tmp_path, name, CLASSES)
    builders.write_png(tmp_path / "s/images/a.png", np.zeros(HW, np.uint8))
    (tmp_path / "s" / folder).mkdir()
    shutil.move(
        path, tmp_path / "s" / folder / path.name.replace("_" + folder, "").replace("_rle", "")
    )
    classes = ("cell",) if name == "outlines" else CLASSES
    (back,) = read_records(format_name, tmp_path, "s", classes=classes)
    expected = with_pixels(record)
    assert np.array_equal(bitmaps_of(back), expected.to_bitmaps())
    if name != "outlines":
        assert back.cells.classes.tolist() == expected.classes.tolist()
        assert back.cells.scores.tolist() == expected.scores.tolist()


# Run lengths and outlines


def test_run_lengths_by_hand(tmp_path: Path) -> None:
    """Column by column from 1: in 3 x 4 pixels, rows 0-1 of columns 0-1, and column 2."""
    masks = np.zeros((2, 3, 4), bool)
    masks[0, :2, :2] = True
    masks[1, :, 2] = True
    record = make_record("p/a", None, masks, classes=[1, 0], scores=[0.25, 1])
    (path,) = write_image_prediction(record, tmp_path, "csv-rle", CLASSES)
    assert path.read_text().splitlines() == [
        "image_id,label,class,score,height,width,rle",
        "p/a,1,long,0.25,3,4,1 2 4 2",
        "p/a,2,round,1.0,3,4,7 3",
    ]


def test_outlines_are_what_cellposes_macro_reads(tmp_path: Path) -> None:
    """Its macro splits lines at commas and makes a polygon of every pair of whole numbers."""
    record = predicted("a")
    (path,) = write_image_prediction(record, tmp_path, "outlines", CLASSES)
    lines = path.read_text().splitlines()
    assert lines[0] == "2,2,10,2,10,10,2,10"
    for line, mask in zip(lines, with_pixels(record).to_bitmaps(), strict=True):
        numbers = [int(word) for word in line.rstrip().split(",")]
        ring = np.stack([numbers[::2], numbers[1::2]], axis=1)
        assert np.array_equal(covered_px([ring], HW), mask)


# Cases of others


@pytest.fixture
def cases() -> Path:
    """Small inputs with one trait of a real file each; beside the checkout, where there are any."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def test_rois_on_two_slices_are_named(cases: Path) -> None:
    with pytest.raises(DatasetError, match=r"ROI 0002: on slice 3; the image has 2 planes"):
        read_records("imagej_rois", cases / "rois_on_two_slices", "train")


def test_a_point_among_polygons_is_left_out_and_named(
    cases: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (record,) = read_records("geojson", cases / "qupath_points", "train")
    assert record.cells.areas_px.tolist() == [256]
    assert "points are no cells and left out: feature 2 (id 0000" in caplog.text
