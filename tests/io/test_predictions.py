"""Predictions in every format that takes them: written, found again, converted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
from cell_records import contents_of, make_record
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import FORMATS, read_records, write_predictions
from cellseg.io.coco_results import write_coco_results
from cellseg.io.conversion import SplitPlace, convert_split
from cellseg.io.per_image import CellFile, format_of_files

HW = (20, 30)
CLASSES = ("round", "long")
HOLDERS = [name for name, one in FORMATS.items() if one.open_predictions]


def predicted(folder: Path) -> list[ImageRecord]:
    """Cells of two classes with scores, one of them without a pixel; an image without any."""
    masks = [*builders.overlapping(HW).masks, np.zeros(HW, bool), builders.with_hole(HW).masks[0]]
    paths = [builders.write_png(folder / f"{name}.png", np.zeros(HW, np.uint8)) for name in "ab"]
    how = {"classes": [1, 0, 0, 1], "scores": [0.9, 0.3, 0.2, 0.123456]}
    return [make_record("a", paths[0], masks, **how), make_record("b", paths[1], [], HW)]


def what_is_held(record: ImageRecord, name: str) -> ImageRecord:
    """The record less what the format cannot say, by hand."""
    holds, cells = FORMATS[name].holds, record.cells[record.cells.areas_px > 0]
    if "overlaps" not in holds and len(cells):
        masks = cells.to_bitmaps()
        masks[1] &= ~masks[0]  # the higher score keeps the pixel
        masks[2] &= ~(masks[0] | masks[1])
        cells = make_record("a", None, masks, classes=cells.classes, scores=cells.scores).cells
        cells = cells[cells.areas_px > 0]
    if "scores" not in holds:
        cells = cells.replace(scores=np.ones(len(cells)))
    return replace(record, cells=cells)


@pytest.mark.parametrize("name", ["geojson", "imagej_rois", "label_images", "instance_masks"])
def test_files_beside_which_the_images_are_a_dataset(tmp_path: Path, name: str) -> None:
    if name == "imagej_rois":
        pytest.importorskip("roifile", minversion="2026")
    records = predicted(tmp_path / "in")
    folder = tmp_path / "out"
    assert write_predictions(iter(records), folder, name, CLASSES) == 2
    assert not list(folder.rglob("a.png"))
    for record in records:
        place = (
            folder / "images" if name != "instance_masks" else folder / record.image_id / "images"
        )
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.image_path, place)
    back = read_records(name, tmp_path, "out", classes=CLASSES)
    expected = [what_is_held(record, name) for record in records]
    if name == "instance_masks":  # in the order of the classes
        expected = [
            replace(one, cells=one.cells[np.argsort(one.cells.classes, kind="stable")])
            for one in expected
        ]
    assert contents_of(back) == contents_of(expected)


@pytest.mark.parametrize("name", HOLDERS)
def test_every_format_takes_no_image_and_no_cell(tmp_path: Path, name: str) -> None:
    if name == "imagej_rois":
        pytest.importorskip("roifile", minversion="2026")
    assert write_predictions([], tmp_path / "none", name) == 0
    assert write_predictions([make_record("b", None, [], HW)], tmp_path / "one", name) == 1
    assert list((tmp_path / "one").rglob("*"))


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be written as synthetic; choose one of cellp"):
        write_predictions([], tmp_path, "synthetic")
    with pytest.raises(DatasetError, match="no dataset format 'geojsn'; did you mean geojson"):
        write_predictions([], tmp_path, "geojsn")
    with pytest.raises(DatasetError, match="stardist has no classes, 2 are declared"):
        write_predictions([], tmp_path, "stardist", CLASSES)
    strange = make_record("a/b", None, [], HW)
    with pytest.raises(DatasetError, match="'a/b' cannot be a file's name"):
        write_predictions([strange], tmp_path, "geojson")
    with pytest.raises(DatasetError, match="a cell of class 1"):
        write_predictions(predicted(tmp_path / "in"), tmp_path / "out", "geojson")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_results_to_outlines_and_back_with_their_scores(tmp_path: Path) -> None:
    """`--from coco_results`: with images a data set that reads back, without them files alone."""
    records = predicted(tmp_path / "images")
    write_coco_results(records, tmp_path / "found.json", CLASSES, (7, 3))
    source = SplitPlace("coco_results", tmp_path, "found.json")
    with_images = convert_split(source, SplitPlace("geojson", tmp_path / "new", "p"), strict=True)
    assert (with_images.num_images, with_images.num_cells) == (2, 3)
    assert (with_images.classes, with_images.losses) == (CLASSES, ())
    back = read_records("geojson", tmp_path / "new", "p", classes=CLASSES)
    assert contents_of(back) == contents_of([what_is_held(one, "geojson") for one in records])
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    alone = convert_split(source, SplitPlace("geojson", tmp_path / "alone", "p"))
    assert (alone.num_images, alone.num_cells, alone.with_images) == (1, 3, False)
    written = json.loads((tmp_path / "alone/p/annotations/a.geojson").read_text())
    scores = [one["properties"]["measurements"]["score"] for one in written["features"]]
    assert scores == [0.9, 0.3, 0.123456]
    losses = convert_split(source, SplitPlace("label_images", tmp_path / "l", "p")).losses
    assert losses[0].startswith("overlaps: ")
    assert losses[1] == "scores: those of the cells of 1 images are left out"


def test_a_plug_in_adds_a_format_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry of FORMATS is a data set, predictions and the target of a conversion."""

    def read_boxes(path, image_hw, classes, options):  # type: ignore[no-untyped-def]
        rows = [list(map(int, line.split())) for line in path.read_text().splitlines()]
        masks = [builders.rectangle(image_hw, *row[1:]) for row in rows]
        numbers = [row[0] for row in rows]
        return make_record("x", None, masks, image_hw, classes=numbers).cells

    def write_boxes(record, path, classes, options):  # type: ignore[no-untyped-def]
        boxes = record.cells.boxes_xyxy.astype(int).tolist()
        numbers = record.cells.classes.tolist()
        lines = (" ".join(map(str, (k, *box))) for k, box in zip(numbers, boxes))
        path.write_text("\n".join(lines))

    boxes = CellFile(
        kind="list of boxes",
        folder="boxes",
        suffixes=(".txt",),
        written_suffix=".txt",
        read=read_boxes,
        write=write_boxes,
    )
    monkeypatch.setitem(FORMATS, "boxes", format_of_files(boxes))
    masks = [builders.rectangle(HW, 2, 3, 7, 9), builders.rectangle(HW, 20, 1, 25, 4)]
    path = builders.write_png(tmp_path / "a.png", np.zeros(HW, np.uint8))
    record = make_record("a", path, masks, classes=[1, 0])
    write_predictions([record], tmp_path / "out", "boxes", CLASSES)
    assert (tmp_path / "out/boxes/a.txt").read_text() == "1 2 3 7 9\n0 20 1 25 4"
    write = FORMATS["coco_json"].write
    assert write is not None
    write([record], tmp_path, "coco", CLASSES, {})
    places = [SplitPlace("coco_json", tmp_path, "coco"), SplitPlace("boxes", tmp_path, "mine")]
    assert convert_split(*places, CLASSES, strict=True).num_cells == 2
    (back,) = read_records("boxes", tmp_path, "mine", classes=CLASSES)
    assert contents_of([back]) == contents_of([record])
    (tmp_path / "mine/boxes/a.txt").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: no list of boxes boxes/a\.txt"):
        read_records("boxes", tmp_path, "mine", classes=CLASSES)
