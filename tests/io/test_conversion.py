"""Every format into every other and back, and what is said where something is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, boxes_of, make_record
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.records import ImageRecord
from cellseg.cells.run_lengths import rles_to_runs
from cellseg.cells.runs import Runs
from cellseg.errors import DatasetError
from cellseg.io import FORMATS, find_format, read_records
from cellseg.io.conversion import (
    SplitPlace,
    compare_records,
    convert_split,
    count_shared_pixels,
    fit_records,
)

IMAGE_HW = (20, 30)
WRITABLE = sorted(name for name, one in FORMATS.items() if one.write)
PAIRS = [pair for pair in product(WRITABLE, repeat=2) if pair[0] != pair[1]]
TWO = ("large", "small")


def write_records(folder: Path, classes: tuple[str, ...], overlaps: bool) -> list[ImageRecord]:
    """Holes, a cell in a hole, pieces, borders, touching cells, one pixel, an empty image."""
    scenes = builders.all_scenes()
    names = ["no_cells", "on_border", "one_pixel", "touching", "two_pieces", "with_hole"]
    records = []
    for name in [*names, "overlapping"] if overlaps else names:
        path = builders.write_png(folder / f"{name}.png", scenes[name].image)
        masks = scenes[name].masks
        numbers = np.arange(len(masks)) % len(classes)
        records.append(make_record(name, path, masks, IMAGE_HW, classes=numbers))
    return records


def by_content(records: list[ImageRecord]) -> list[tuple[object, ...]]:
    """What has to be the same: ids, sizes, pixels and classes of cells, whatever their order."""
    return [
        (
            record.image_id,
            record.image_hw,
            record.image_path.read_bytes(),
            sorted(zip(map(bytes, bitmaps_of(record)), record.cells.classes.tolist())),
        )
        for record in sorted(records, key=lambda record: record.image_id)
    ]


def there_and_back(
    root: Path, records: list[ImageRecord], pair: tuple[str, str], classes: tuple[str, ...]
) -> list[ImageRecord]:
    """Write as the first format, convert to the second, convert back."""
    first, second = pair
    if "imagej_rois" in pair:
        pytest.importorskip("roifile", minversion="2026")
    places = [
        SplitPlace(first, root / "a", "train"),
        SplitPlace(second, root / "b", "train"),
        SplitPlace(first, root / "c", "train"),
    ]
    write = find_format(first).write
    assert write is not None
    write(records, places[0].root, "train", classes, {})
    for source, target in pairwise(places):
        convert_split(source, target, classes, strict=True)
    return read_records(first, places[2].root, "train", classes=classes)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair_there_and_back(tmp_path: Path, pair: tuple[str, str]) -> None:
    holds = find_format(pair[0]).holds & find_format(pair[1]).holds
    classes = TWO if "classes" in holds else ("cell",)
    records = write_records(tmp_path / "images", classes, overlaps="overlaps" in holds)
    if "empty images" not in holds:
        records = [record for record in records if len(record.cells)]
    back = there_and_back(tmp_path, records, pair, classes)
    assert by_content(back) == by_content(records)


def test_formats_that_hold_overlaps_and_classes() -> None:
    """What the documentation's table says."""
    hold_overlaps = {name for name in WRITABLE if "overlaps" in FORMATS[name].holds}
    assert {"coco_json", "dsb2018_table", "instance_masks", "sartorius_table"} <= hold_overlaps
    assert not {"label_images", "cellpose", "stardist"} & hold_overlaps
    hold_crowds = {name for name in WRITABLE if "crowd" in FORMATS[name].holds}
    assert {"coco_json"} <= hold_crowds
    assert not {"dsb2018_table", "instance_masks", "label_images", "sartorius_table"} & hold_crowds
    assert "classes" not in FORMATS["dsb2018_table"].holds


def record_with_everything(folder: Path) -> ImageRecord:
    """Two cells that share 16 pixels, one hidden behind them, and a crowd region."""
    first, second = builders.overlapping(IMAGE_HW).masks
    path = builders.write_png(folder / "a.png", builders.overlapping(IMAGE_HW).image)
    hidden = builders.rectangle(IMAGE_HW, 7, 7, 9, 9)
    crowd = builders.rectangle(IMAGE_HW, 20, 2, 28, 18)
    flags = [False, False, False, True]
    return make_record("a", path, [first, second, hidden, crowd], is_crowd=flags)


@pytest.mark.parametrize("name", ["geojson", "imagej_rois"])
def test_crowds_come_through(tmp_path: Path, name: str) -> None:
    if name == "imagej_rois":
        pytest.importorskip("roifile", minversion="2026")
    record = record_with_everything(tmp_path)
    back = there_and_back(tmp_path, [record], ("coco_json", name), ("cell",))
    assert compare_records([record], back) == []
    assert back[0].cells.is_crowd.tolist() == [False, False, False, True]


def test_what_a_label_image_cannot_hold(tmp_path: Path) -> None:
    record = record_with_everything(tmp_path)
    (fitted,), classes, losses = fit_records([record], ("cell",), FORMATS["label_images"])
    first, second = builders.overlapping(IMAGE_HW).masks
    assert np.array_equal(bitmaps_of(fitted), [first, second & ~first])
    assert boxes_of(fitted)[1] == (6, 6, 14, 14)
    assert classes == ("cell",)
    assert losses == [
        "crowd: 1 crowd regions are left out",
        "overlaps: 20 pixels of several cells go to the first of them, in 1 images: a; "
        "1 cells are hidden wholly and left out",
    ]


def test_nothing_is_lost_where_the_format_holds_it(tmp_path: Path) -> None:
    record = record_with_everything(tmp_path)
    fitted, _, losses = fit_records([record], ("cell",), FORMATS["coco_json"])
    assert (fitted, losses) == ([record], [])


def test_classes_and_empty_images(tmp_path: Path) -> None:
    records = write_records(tmp_path, TWO, overlaps=False)
    dsb2018 = FORMATS["dsb2018_table"]
    target = replace(dsb2018, holds=dsb2018.holds - {"classes", "empty images"})
    fitted, classes, losses = fit_records(records, TWO, target)
    assert classes == ("cell",)
    assert {number for record in fitted for number in record.cells.classes.tolist()} == {0}
    assert losses == [
        "classes: large, small become `cell`",
        "empty images: 1 images are left out: no_cells",
    ]


def test_shared_pixels_against_bitmaps() -> None:
    masks = np.random.default_rng(3).random((6, 17, 11)) < 0.2
    masks[5] = False
    runs = Runs(*rles_to_runs([bitmap_to_rle(mask) for mask in masks], (17, 11)))
    assert count_shared_pixels(runs) == masks.sum() - masks.any(axis=0).sum()
    assert count_shared_pixels(Runs(*rles_to_runs([], (17, 11)))) == 0


def test_strict_writes_nothing(tmp_path: Path) -> None:
    record = record_with_everything(tmp_path)
    source = SplitPlace("coco_json", tmp_path / "coco", "train")
    assert source.format.write is not None
    source.format.write([record], source.root, "train", ("cell",), {})
    target = SplitPlace("label_images", tmp_path / "labels", "train")
    with pytest.raises(DatasetError, match=r"cannot hold all of .*\(2\):\n.*crowd.*\n.*overlaps"):
        convert_split(source, target, strict=True)
    assert not target.root.exists()
    conversion = convert_split(source, target)
    assert (conversion.num_images, conversion.num_cells, len(conversion.losses)) == (1, 2, 2)


def test_classes_come_from_the_files(tmp_path: Path) -> None:
    records = write_records(tmp_path / "images", TWO, overlaps=False)
    source = SplitPlace("sartorius_table", tmp_path / "table", "train")
    assert source.format.write is not None
    source.format.write(records, source.root, "train", TWO, {})
    conversion = convert_split(source, SplitPlace("coco_json", tmp_path / "coco", "new"))
    assert conversion.classes == TWO
    assert conversion.losses == ()


def test_made_up_cells_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    source = SplitPlace("synthetic", Path(), {"images": 2, "seed": 1}, {"image_hw": [64, 64]})
    conversion = convert_split(source, SplitPlace("coco_json", tmp_path / "coco", "train"))
    assert (conversion.num_images, conversion.classes) == (2, ("cell",))


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    source = SplitPlace("coco_json", tmp_path, "train")
    synthetic = SplitPlace("synthetic", tmp_path, {"images": 1, "seed": 1})
    with pytest.raises(
        DatasetError, match=r"synthetic cannot be written; choose one of .*coco_json"
    ):
        convert_split(source, synthetic)
    with pytest.raises(DatasetError, match="colour: unknown option of coco_json; it has images"):
        convert_split(source, replace(source, options={"colour": 1}))
    with pytest.raises(DatasetError, match=r"options of the input.*\n.*images: found 1, expected"):
        convert_split(replace(source, options={"images": 1}), source)
    with pytest.raises(DatasetError, match="split: found 3, expected the name of a folder"):
        convert_split(source, replace(source, split=3))


def test_a_writer_that_is_not_exact_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = write_records(tmp_path / "images", ("cell",), overlaps=False)
    right = FORMATS["coco_json"]
    assert right.write is not None
    right.write(records, tmp_path, "train", ("cell",), {})

    def forget_a_cell(records, *rest):  # type: ignore[no-untyped-def]
        right.write([replace(one, cells=one.cells[1:]) for one in records], *rest)

    monkeypatch.setitem(FORMATS, "forgetful", replace(right, write=forget_a_cell))
    source = SplitPlace("coco_json", tmp_path, "train")
    with pytest.raises(DatasetError, match=r"reads back differently \(5\)"):
        convert_split(source, SplitPlace("forgetful", tmp_path, "new"))


def test_comparing_records(tmp_path: Path) -> None:
    record = record_with_everything(tmp_path)
    turned = replace(record, cells=record.cells[::-1])
    assert compare_records([record], [turned]) == []
    twice = replace(record, cells=record.cells[[0, 1, 2, 3, 0]])
    assert compare_records([record], [twice]) == [
        "a: 0 cells only in the first, 1 only in the second"
    ]
    other_id = replace(record, image_id="b")
    assert compare_records([record], [other_id]) == [
        "b: only in the second",
        "a: only in the first",
    ]
    other_size = make_record("a", None, np.zeros((0, 30, 20), bool))
    assert compare_records([record], [other_size]) == ["a: size (20, 30) and (30, 20)"]


def test_real_nuclei_through_all_formats(real_datasets: Path, tmp_path: Path) -> None:
    """875 nuclei with holes, overlaps and pieces, through all formats that hold overlaps."""
    source = SplitPlace("instance_masks", real_datasets / "dsb2018", "devtest")
    original = read_records("instance_masks", source.root, "devtest", classes=["nucleus"])
    pytest.importorskip("roifile", minversion="2026")
    exact = [name for name in WRITABLE if "overlaps" in FORMATS[name].holds]
    for name in exact:
        target = SplitPlace(name, tmp_path / name, "devtest")
        assert convert_split(source, target, ["nucleus"], strict=True).num_cells == 875
        source = target
    back = read_records(source.format_name, source.root, "devtest", classes=["nucleus"])
    assert compare_records(original, back) == []
