"""Damaged input of every kind: each ends in one clear error, and nothing is written.

`DAMAGES` lists them: what is wrong, which good data it is done to, and what the error says. The
text names the file, what was found and what was expected.
"""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builders
import cv2
import numpy as np
import pytest
import tifffile
from cellseg.cells.records import ImageRecord
from cellseg.datasets import registration
from cellseg.datasets.cache import Reading, cached_records
from cellseg.datasets.declarations import read_declarations, read_declared_records
from cellseg.errors import CellsegError, DatasetError, ImageReadError
from cellseg.images import read_image, read_label_image
from cellseg.io import FORMATS, read_records

CLASSES = ("round", "long")
ONE_CLASS = ("instance_masks", "dsb2018_table", "cellpose", "stardist", "outlines")
WRITABLE = sorted(name for name, format_ in FORMATS.items() if format_.write is not None)


def classes_of(format_name: str) -> tuple[str, ...]:
    return ("cell",) if format_name in ONE_CLASS else CLASSES


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        name: of the test.
        good: which good data it is done to: a format, "image", "labels", "declaration".
        spoil: does it, in the folder of the data.
        error: the exception, exactly.
        says: parts of its text.
    """

    name: str
    good: str
    spoil: Callable[[Path], object]
    error: type[CellsegError]
    says: tuple[str, ...]


def cut(name: str, share: float = 0.5) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def put(name: str, content: bytes | str) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def put_png(name: str, array: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: builders.write_png(folder / name, array)


def put_tiff(name: str, array: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: tifffile.imwrite(folder / name, array)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def copy(name: str, to: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder / name, folder / to)


def edit_json(name: str, edit: Callable[[Any], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text("utf-8"))
        edit(content)
        (folder / name).write_text(json.dumps(content), "utf-8")

    return spoil


def edit_row(name: str, **columns: str) -> Callable[[Path], object]:
    """Change the first row of a table."""

    def spoil(folder: Path) -> None:
        with (folder / name).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        rows[0].update(columns)
        with (folder / name).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    return spoil


def replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return spoil


def png_of_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100)))


def enlarge_tiff(folder: Path) -> None:
    tifffile.imwrite(folder / "image.tif", np.zeros((60, 80), np.uint8), compression="zlib")
    with tifffile.TiffFile(folder / "image.tif", mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages[0].tags[tag].overwrite(60_000)


def set_first(part: str, **values: Any) -> Callable[[Any], object]:
    return lambda content: content[part][0].update(values)


def use(**segmentation: Any) -> Callable[[Any], object]:
    return set_first("annotations", segmentation=segmentation)


def truncate_roi(folder: Path) -> None:
    """The zip file is whole, the first ROI in it is not."""
    path = folder / "s/rois/a.zip"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    first = next(iter(entries))
    entries[first] = entries[first][:30]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


LABELS = builders.touching().labels
MASK = "s/a/masks/000.png"
FLOATS = LABELS.astype(np.float32)
COCO = "s/annotations.json"
GEOJSON = "s/annotations/a.geojson"
READ, DATA = ImageReadError, DatasetError
UNREADABLE = "cannot be read as an image"

DAMAGES = [
    # One image file.
    Damage(
        "PNG truncated", "image", cut("image.png"), READ, ("image.png", UNREADABLE, "truncated")
    ),
    Damage("TIFF truncated", "image", cut("image.tif"), READ, ("image.tif", "truncated")),
    Damage(
        "JPEG truncated", "image", cut("image.jpg"), READ, ("image.jpg", UNREADABLE, "truncated")
    ),
    Damage("PNG of a few bytes", "image", cut("image.png", 0.02), READ, ("image.png", UNREADABLE)),
    Damage("no bytes", "image", put("image.png", b""), READ, ("image.png", "the file is empty")),
    Damage("text named .png", "image", put("image.png", "hello"), READ, ("image.png", UNREADABLE)),
    Damage("image missing", "image", remove("image.png"), READ, ("image.png", "No such file")),
    Damage(
        "NaN pixels",
        "image",
        put_tiff("image.tif", np.where(FLOATS > 0, np.nan, FLOATS)),
        READ,
        ("image.tif", "54 of 600 values are not finite"),
    ),
    Damage(
        "infinite pixels",
        "image",
        put_tiff("image.tif", np.where(LABELS == 1, np.inf, FLOATS).astype(np.float32)),
        READ,
        ("image.tif", "30 of 600 values are not finite"),
    ),
    Damage(
        "complex pixels",
        "image",
        put_tiff("image.tif", LABELS.astype(np.complex64)),
        READ,
        ("image.tif", "complex64", "expected integers or floats"),
    ),
    Damage(
        "PNG that is a decompression bomb",
        "image",
        put("image.png", png_of_header(300_000, 300_000)),
        READ,
        ("image.png", "90000000000"),
    ),
    Damage(
        "TIFF that is a decompression bomb", "image", enlarge_tiff, READ, ("image.tif", "large")
    ),
    # One label image file.
    Damage(
        "labels are floats", "labels", put_tiff("image.tif", FLOATS), READ, ("integers", "float32")
    ),
    Damage(
        "labels are RGB",
        "labels",
        put_png("image.png", np.dstack([LABELS.astype(np.uint8)] * 3)),
        READ,
        ("image.png", "a label image has one", "channel", "[20, 30, 3]"),
    ),
    # Label images.
    Damage(
        "labels are negative",
        "label_images",
        put_tiff("s/labels/a.tif", -LABELS.astype(np.int32)),
        DATA,
        ("s/labels/a.tif", "no negative values", "found -2"),
    ),
    Damage(
        "labels of another size",
        "label_images",
        put_tiff("s/labels/a.tif", LABELS.T),
        DATA,
        ("s/labels/a.tif", "is 20 x 30 (width x height), the image 30 x 20"),
    ),
    Damage(
        "label image truncated", "label_images", cut("s/labels/a.tif"), DATA, ("s/labels/a.tif",)
    ),
    Damage(
        "image without label image",
        "label_images",
        remove("s/labels/a.tif"),
        DATA,
        ("s/images/a.png", "no label image labels/a"),
    ),
    Damage(
        "label image without image",
        "label_images",
        remove("s/images/a.png"),
        DATA,
        ("s/labels/a.tif", "no image images/a.*"),
    ),
    Damage(
        "two images of one id",
        "label_images",
        copy("s/images/a.png", "s/images/a.bmp"),
        DATA,
        ("s/images/a.png", "same id as a.bmp"),
    ),
    Damage(
        "image of a dataset is text",
        "label_images",
        put("s/images/a.png", "hello"),
        DATA,
        ("s/images/a.png", UNREADABLE),
    ),
    Damage(
        "unknown class",
        "label_images",
        replace("s/classes/a.csv", "long", "lonk"),
        DATA,
        ("s/classes/a.csv", "unknown class 'lonk'; did you mean long?"),
    ),
    Damage(
        "classes without header",
        "label_images",
        put("s/classes/a.csv", "1,round\n2,long\n"),
        DATA,
        ("s/classes/a.csv", "expected a first line `label,class`"),
    ),
    Damage(
        "classes missing",
        "label_images",
        remove("s/classes/a.csv"),
        DATA,
        ("s/classes/a.csv", "No such file"),
    ),
    Damage(
        "label without class",
        "label_images",
        put("s/classes/a.csv", "label,class\n1,round\n"),
        DATA,
        ("s/classes/a.csv", "no class for labels [2]"),
    ),
    Damage(
        "class of a label that is not there",
        "label_images",
        put("s/classes/a.csv", "label,class\n1,round\n2,long\n7,long\n"),
        DATA,
        ("s/classes/a.csv", "labels [7] are not in the label image"),
    ),
    # One mask file per cell.
    Damage(
        "mask empty",
        "instance_masks",
        put_png(MASK, np.zeros((20, 30), np.uint8)),
        DATA,
        (MASK, "the mask is empty"),
    ),
    Damage(
        "mask of another size",
        "instance_masks",
        put_png(MASK, np.ones((30, 20), np.uint8)),
        DATA,
        (MASK, "the mask is 20 x 30 (width x height), the image 30 x 20"),
    ),
    Damage("mask truncated", "instance_masks", cut(MASK), DATA, (MASK, UNREADABLE)),
    Damage(
        "two images of one cell folder",
        "instance_masks",
        copy("s/a/images/a.png", "s/a/images/b.png"),
        DATA,
        ("s/a/images", "expected one image; found a.png, b.png"),
    ),
    Damage(
        "no folder of masks",
        "instance_masks",
        lambda folder: shutil.rmtree(folder / "s/a/masks"),
        DATA,
        ("s/a/masks", "no such folder"),
    ),
    # COCO JSON.
    Damage("COCO truncated", "coco_json", cut(COCO), DATA, (COCO, "cannot be read as JSON")),
    Damage(
        "COCO without annotations",
        "coco_json",
        edit_json(COCO, lambda content: content.pop("annotations")),
        DATA,
        (COCO, "expected an object with images, annotations, categories"),
    ),
    Damage(
        "COCO: unknown image",
        "coco_json",
        edit_json(COCO, set_first("annotations", image_id=77)),
        DATA,
        (COCO, "annotation 1: there is no image 77"),
    ),
    Damage(
        "COCO: unknown category",
        "coco_json",
        edit_json(COCO, set_first("annotations", category_id=77)),
        DATA,
        (COCO, "category_id 77 is not among the categories"),
    ),
    Damage(
        "COCO: category that is not declared",
        "coco_json",
        edit_json(COCO, set_first("categories", name="roundish")),
        DATA,
        (COCO, "unknown class 'roundish'; did you mean round?"),
    ),
    Damage(
        "COCO: image missing",
        "coco_json",
        remove("s/images/a.png"),
        DATA,
        (COCO, "s/images/a.png", "no such image"),
    ),
    Damage(
        "COCO: image of another size",
        "coco_json",
        edit_json(COCO, set_first("images", width=31)),
        DATA,
        ("s/images/a.png", "30 x 20", "31 x 20"),
    ),
    Damage(
        "COCO: two images of one id",
        "coco_json",
        edit_json(COCO, set_first("images", id=2)),
        DATA,
        (COCO, "ids [2] occur several times"),
    ),
    Damage(
        "COCO: RLE of another size",
        "coco_json",
        edit_json(COCO, use(size=[30, 20], counts=[0, 600])),
        DATA,
        (COCO, "a.png: annotation 1", "[30, 20]", "[20, 30]"),
    ),
    Damage(
        "COCO: runs that exceed the image",
        "coco_json",
        edit_json(COCO, use(size=[20, 30], counts=[10, 5, 9999])),
        DATA,
        (COCO, "a.png: annotation 1", "600 pixels has runs that add up to 10014"),
    ),
    Damage(
        "COCO: compressed runs that exceed the image",
        "coco_json",
        edit_json(COCO, use(size=[20, 30], counts="PPPPPPPP4")),
        DATA,
        (COCO, "a.png: annotation 1", "600 pixels has runs that add up to"),
    ),
    Damage(
        "COCO: runs that are no text of runs",
        "coco_json",
        edit_json(COCO, use(size=[20, 30], counts="größe")),
        DATA,
        (COCO, "a.png: annotation 1", "größe"),
    ),
    Damage(
        "COCO: polygon of two points",
        "coco_json",
        edit_json(COCO, set_first("annotations", segmentation=[[1, 1, 5, 5]])),
        DATA,
        (COCO, "a.png: annotation 1", "polygon"),
    ),
    Damage(
        "COCO: polygon with NaN",
        "coco_json",
        edit_json(COCO, set_first("annotations", segmentation=[[1, 1, 5, 5, float("nan"), 1]])),
        DATA,
        (COCO, "a.png", "a polygon has points that are not finite"),
    ),
    # Tables of run lengths.
    Damage(
        "odd number of run lengths",
        "sartorius_table",
        edit_row("s.csv", annotation="1 2 3"),
        DATA,
        ("s.csv", "line 2 (a): 3 numbers; expected pairs"),
    ),
    Damage(
        "runs beyond the image",
        "sartorius_table",
        edit_row("s.csv", annotation="599 3"),
        DATA,
        ("s.csv", "line 2 (a): run `599 3` goes beyond the last pixel, 600"),
    ),
    Damage(
        "runs beyond all integers",
        "sartorius_table",
        edit_row("s.csv", annotation=f"1 {2**63 - 1}"),
        DATA,
        ("s.csv", "line 2 (a)", "goes beyond the last pixel, 600"),
    ),
    Damage(
        "runs from pixel 0",
        "sartorius_table",
        edit_row("s.csv", annotation="0 3"),
        DATA,
        ("s.csv", "line 2 (a): run `0 3` starts before pixel 1"),
    ),
    Damage(
        "runs that overlap",
        "sartorius_table",
        edit_row("s.csv", annotation="1 5 3 5"),
        DATA,
        ("s.csv", "line 2 (a): run `3 5` overlaps the run before it"),
    ),
    Damage(
        "runs that are text",
        "sartorius_table",
        edit_row("s.csv", annotation="1 x"),
        DATA,
        ("s.csv", "line 2 (a): '1 x' is not `start length ...`"),
    ),
    Damage(
        "table without a column",
        "sartorius_table",
        replace("s.csv", "cell_type", "kind"),
        DATA,
        ("s.csv", "no column cell_type; expected id, annotation"),
    ),
    Damage(
        "table with an unknown id",
        "sartorius_table",
        edit_row("s.csv", id="x"),
        DATA,
        ("s.csv", "line 2: there is no image 'x'"),
    ),
    Damage(
        "table with an unknown class",
        "sartorius_table",
        edit_row("s.csv", cell_type="rund"),
        DATA,
        ("s.csv", "unknown class 'rund'; did you mean round?"),
    ),
    Damage(
        "table with another size",
        "sartorius_table",
        edit_row("s.csv", width="704"),
        DATA,
        ("s/a.png", "the image is 30 x 20", "704 x 20"),
    ),
    Damage("table cut off", "sartorius_table", cut("s.csv", 0.93), DATA, ("s.csv", "cut off?")),
    Damage(
        "DSB2018: odd number of run lengths",
        "dsb2018_table",
        edit_row("s_labels.csv", EncodedPixels="1"),
        DATA,
        ("s_labels.csv", "line 2 (a): 1 numbers; expected pairs"),
    ),
    # Outlines.
    Damage("GeoJSON truncated", "geojson", cut(GEOJSON), DATA, (GEOJSON, "no JSON")),
    Damage(
        "GeoJSON that is something else",
        "geojson",
        put(GEOJSON, '"hello"'),
        DATA,
        (GEOJSON, "expected a FeatureCollection"),
    ),
    Damage(
        "GeoJSON: geometry that is no area",
        "geojson",
        replace(GEOJSON, '"Polygon"', '"LineString"'),
        DATA,
        (GEOJSON, "a LineString is no area; expected a Polygon or MultiPolygon"),
    ),
    Damage(
        "GeoJSON: unknown class",
        "geojson",
        replace(GEOJSON, '"name":"round"', '"name":"rund"'),
        DATA,
        (GEOJSON, "unknown class 'rund'; did you mean round?"),
    ),
    Damage(
        "GeoJSON without image",
        "geojson",
        remove("s/images/a.png"),
        DATA,
        (GEOJSON, "no image images/a.*"),
    ),
    Damage(
        "ImageJ zip truncated",
        "imagej_rois",
        cut("s/rois/a.zip"),
        DATA,
        ("s/rois/a.zip", "no whole zip file"),
    ),
    Damage(
        "ImageJ ROI truncated",
        "imagej_rois",
        truncate_roi,
        DATA,
        ("s/rois/a.zip", "cannot be read as a ROI"),
    ),
    # Declarations.
    Damage(
        "declaration is no YAML",
        "declaration",
        put("d.yaml", "a: {b: ["),
        DATA,
        ("d.yaml", "cannot be read as YAML"),
    ),
    Damage(
        "declaration is binary",
        "declaration",
        put("d.yaml", b"\xff\xfe\x00"),
        DATA,
        ("d.yaml", "cannot be read as YAML"),
    ),
    Damage(
        "declaration is empty",
        "declaration",
        put("d.yaml", ""),
        DATA,
        ("d.yaml", "expected the name of a dataset"),
    ),
    Damage(
        "declaration with an unknown key",
        "declaration",
        replace("d.yaml", "root:", "rout:"),
        DATA,
        ("d.yaml", "cells.rout: unknown key; did you mean root?"),
    ),
    Damage(
        "declaration with a key twice",
        "declaration",
        replace("d.yaml", "  root: data", "  root: data\n  root: other"),
        DATA,
        ("d.yaml", "root stands there twice", "line 4"),
    ),
    Damage(
        "declaration of an unknown format",
        "declaration",
        replace("d.yaml", "label_images", "label_image"),
        DATA,
        ("d.yaml", "no dataset format 'label_image'; did you mean label_images?"),
    ),
    Damage(
        "shares above 1",
        "declaration",
        replace("d.yaml", "ids: [a]", "share: 1.5"),
        DATA,
        ("d.yaml", "cells.splits.train.share: found 1.5"),
    ),
    Damage(
        "id in two splits",
        "declaration",
        replace("d.yaml", "ids: [b]", "ids: [a]"),
        DATA,
        ("d.yaml", "cells_train", "val: 'a' is in train as well"),
    ),
    Damage(
        "id that does not exist",
        "declaration",
        replace("d.yaml", "ids: [b]", "ids: [bb]"),
        DATA,
        ("d.yaml", "val: no image for 'bb'; near names: b"),
    ),
    Damage(
        "group that does not match",
        "declaration",
        replace("d.yaml", "  root: data", "  root: data\n  group_by: '^(a)'"),
        DATA,
        ("d.yaml", "data: group_by '^(a)' finds no group in these ids (1)", "- b"),
    ),
    Damage(
        "root that does not exist",
        "declaration",
        replace("d.yaml", "root: data", "root: nowhere"),
        DATA,
        ("d.yaml", "nowhere/all: no such folder", "DETECTRON2_DATASETS"),
    ),
]
DECLARATION = """cells:
  format: label_images
  root: data
  splits: {train: {from: all, ids: [a]}, val: {from: all, ids: [b]}}
"""


def good_records(folder: Path, classes: tuple[str, ...]) -> list[ImageRecord]:
    """Image `a` with two touching cells, image `b` with one of a pixel."""
    scenes = {"a": builders.touching(), "b": builders.one_pixel()}
    builders.write_label_images(folder, "s", scenes)
    builders.write_classes(folder, "s", "a", ["round", "long"])
    builders.write_classes(folder, "s", "b", ["round"])
    return read_records("label_images", folder, "s", classes=classes)


def write_good(name: str, folder: Path) -> None:
    """Good data of one kind."""
    folder.mkdir()
    if name in ("image", "labels"):
        noise = np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)
        tifffile.imwrite(folder / "image.tif", noise)
        for suffix in ("png", "jpg"):
            assert cv2.imwrite(str(folder / f"image.{suffix}"), noise)
    elif name == "declaration":
        good_records(folder / "data", ("cell",))
        (folder / "data/s").rename(folder / "data/all")
        (folder / "d.yaml").write_text(DECLARATION)
    elif name == "instance_masks":
        builders.write_instance_masks(folder, "s", {"a": builders.touching()})
    else:
        records = good_records(folder.with_name(f"source_{name}"), classes_of(name))
        write = FORMATS[name].write
        assert write is not None
        write(records, folder, "s", classes_of(name), {})


def read_good(name: str, folder: Path, damaged: str = "") -> None:
    """Read what `write_good` wrote, or the one file of it that was damaged."""
    if name in ("image", "labels"):
        read = read_image if name == "image" else read_label_image
        for path in sorted(folder.iterdir()) if not damaged else [folder / damaged]:
            read(path)
    elif name == "declaration":
        for declaration in read_declarations(folder / "d.yaml"):
            assert len(read_declared_records(declaration, folder)) == 1
    else:
        reading = Reading(name, folder, "s", classes_of(name), {}, FORMATS[name].read)
        cached_records(reading, lambda: read_records(name, folder, "s", classes=classes_of(name)))


@pytest.fixture(scope="module")
def good_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the folder of good data of one kind; written once."""
    root = tmp_path_factory.mktemp("good")

    def get(name: str) -> Path:
        if name == "imagej_rois":
            pytest.importorskip("roifile", minversion="2026")
        folder = root / name
        if not folder.is_dir():
            write_good(name, folder)
        return folder

    return get


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes | None]:
    """All files and folders below one."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_there_are_enough_kinds_and_no_two_of_one_name() -> None:
    names = [damage.name for damage in DAMAGES]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", sorted({damage.good for damage in DAMAGES}))
def test_good_data_can_be_read(good_data: Callable[[str], Path], name: str) -> None:
    read_good(name, good_data(name))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damaged_input(
    damage: Damage, good_data: Callable[[str], Path], tmp_path: Path, cache_folder: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(good_data(damage.good), folder)
    before = contents(folder)
    damage.spoil(folder)
    spoilt = contents(folder)
    assert spoilt != before
    changed = [name for name in before if spoilt.get(name) != before[name]]
    with pytest.raises(CellsegError) as caught:
        read_good(damage.good, folder, changed[0] if changed else "")
    assert type(caught.value) is damage.error
    for part in damage.says:
        assert part in str(caught.value)
    assert contents(folder) == spoilt
    # What is good of a declaration may be kept; nothing is of data that cannot be read.
    assert damage.good == "declaration" or contents(cache_folder) == {}


def test_damaged_cache_is_no_error(
    good_data: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(good_data("label_images"), folder)
    read_good("label_images", folder)
    (file,) = (tmp_path / "cache/annotations").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with caplog.at_level(logging.WARNING):
        read_good("label_images", folder)
    assert f"{file}: the cache is damaged and made again" in caplog.text
    assert len(file.read_bytes()) == len(whole)


def write_to(name: str, source: Path, root: Path) -> None:
    if name == "imagej_rois":
        pytest.importorskip("roifile", minversion="2026")
    write = FORMATS[name].write
    assert write is not None
    write(good_records(source, classes_of(name)), root, "s", classes_of(name), {})


@pytest.mark.parametrize("name", WRITABLE)
def test_output_folder_that_is_not_empty(name: str, tmp_path: Path) -> None:
    (tmp_path / "out/s").mkdir(parents=True)
    (tmp_path / "out/s/precious.txt").write_text("x")
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match="is there already") as caught:
        write_to(name, tmp_path / "in", tmp_path / "out")
    assert str(tmp_path / "out/s") in str(caught.value)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", WRITABLE)
def test_disk_that_is_full(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []

    def copyfile(source: Any, target: Any, **_: Any) -> Any:
        Path(target).write_bytes(b"half")
        copied.append(str(target))
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return target

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(DatasetError, match="No space left on device") as caught:
        write_to(name, tmp_path / "in", tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)
    assert [path for path in contents(tmp_path / "out") if path != "s"] == []
    assert len(copied) == 2


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that gets full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [60, 120, 300])
@pytest.mark.parametrize("name", WRITABLE)
def test_disk_that_gets_full_at_any_place(name: str, size: int, tmp_path: Path) -> None:
    """Of images, of annotations, or not at all, where all files are smaller."""
    if name == "imagej_rois":
        pytest.importorskip("roifile", minversion="2026")
    write, classes = FORMATS[name].write, classes_of(name)
    assert write is not None
    records = good_records(tmp_path / "in", classes)
    said = ""
    try:
        with files_up_to(size):
            write(records, tmp_path / "out", "s", classes, {})
    except DatasetError as error:
        said = str(error)
    if said:
        assert str(tmp_path) in said
        assert "File too large" in said
        assert contents(tmp_path / "out") == {}
    else:
        assert size > 60
        assert len(read_records(name, tmp_path / "out", "s", classes=classes)) == 2


@pytest.mark.parametrize("name", WRITABLE)
def test_output_folder_that_is_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(DatasetError) as caught:
        write_to(name, tmp_path / "in", tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)
    assert (tmp_path / "out").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_image_that_goes_away_between_reading_and_copying(tmp_path: Path) -> None:
    records = good_records(tmp_path / "in", CLASSES)
    (tmp_path / "in/s/images/b.png").unlink()
    write = FORMATS["coco_json"].write
    assert write is not None
    with pytest.raises(DatasetError, match=r"images/b\.png: cannot be copied"):
        write(records, tmp_path / "out", "s", CLASSES, {})
    assert contents(tmp_path / "out") == {}


def test_declarations_register_nothing_when_one_is_damaged(tmp_path: Path) -> None:
    from detectron2.data import DatasetCatalog

    (tmp_path / "good.yaml").write_text("fine_x: {format: label_images, root: x, splits: [a]}")
    (tmp_path / "bad.yaml").write_text("fine_y: {format: label_images}")
    with pytest.raises(DatasetError, match=r"bad\.yaml"):
        registration.register_declarations([tmp_path / "good.yaml", tmp_path / "bad.yaml"])
    assert not [name for name in DatasetCatalog.list() if name.startswith("fine_")]
