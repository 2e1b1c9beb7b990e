"""Kind 9: which one of hundreds it was, in words that are ours."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Trial
from kind_02_silent import PREDICT, TRAIN_FROM, cut, detection, labels, results, sides, write
from stock import TRAIN

Prepare = Callable[[Path], None]
LIBRARIES = ("weights_only", "torch.load", "PIL\\.", "BytesIO", "codec can't", "argument")
EVALUATE = ("evaluate", "--predictions", "results.json", "--ground-truth", "truth")
SIZE = [32, 32]


def many(change: dict[str, Any]) -> Prepare:
    """300 results, of which number 217 is wrong."""

    def prepare(folder: Path) -> None:
        entries = [detection(image_id="ab"[number % 2]) for number in range(300)]
        entries[217] |= change
        results(entries)(folder)

    return prepare


RESULTS = [
    Trial(9, f"300 results, one with {name}", EVALUATE, prepare=many(change), status=(1, 2),
          says=(r"results\.json", "217"), never=LIBRARIES)
    for name, change in (
        ("a score of NaN", {"score": float("nan")}),
        ("no score", {"score": None}),
        ("a mask of another size", {"segmentation": {"size": [33, 32], "counts": "0"}}),
        ("counts of null", {"segmentation": {"size": SIZE, "counts": None}}),
        ("counts of an object", {"segmentation": {"size": SIZE, "counts": {}}}),
        ("counts of fractions", {"segmentation": {"size": SIZE, "counts": [0.5, 1023.5]}}),
        ("counts in Chinese", {"segmentation": {"size": SIZE, "counts": "細胞"}}),
        ("counts of nothing", {"segmentation": {"size": SIZE, "counts": ""}}),
        ("counts that do not add up", {"segmentation": {"size": SIZE, "counts": [5, 6]}}),
        ("negative counts", {"segmentation": {"size": SIZE, "counts": [-5, 1029]}}),
        ("no segmentation", {"segmentation": None}),
        ("polygons", {"segmentation": [[1, 1, 5, 1, 5, 5]]}),
        ("a box of text", {"bbox": ["a"] * 4}),
        ("a box of three", {"bbox": [1, 2, 3]}),
    )
]  # fmt: skip


def coco(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    """200 annotations of 3 images; number 117 (id 217) is changed."""

    def prepare(folder: Path) -> None:
        content = {
            "images": [
                {"id": k, "file_name": f"i{k}.png", "height": 32, "width": 32} for k in range(3)
            ],
            "annotations": [
                {"id": 100 + k, "image_id": k % 3, "category_id": 1, "iscrowd": 0,
                 "segmentation": [[3, 3, 9, 3, 9, 9, 3, 9]]}
                for k in range(200)
            ],
            "categories": [{"id": 1, "name": "cell"}],
        }  # fmt: skip
        change(content["annotations"][117])  # type: ignore[index]
        for k in range(3):
            write(folder / f"set/train/images/i{k}.png", labels())
        (folder / "set/train/annotations.json").write_text(json.dumps(content))

    return prepare


COCO = [
    Trial(9, f"200 annotations, one with {name}", ("convert", "--from", "coco_json", "--input",
          "set", "--split", "train", "--to", "label_images", "--output", "out"),
          prepare=coco(lambda one, change=change: one.update(change)),  # type: ignore[misc]
          says=(r"annotation 217.*annotations\[117\]",), never=LIBRARIES)
    for name, change in (
        ("points of text", {"segmentation": [list("abcdef")]}),
        ("two points", {"segmentation": [[1, 2, 3, 4]]}),
        ("an odd number", {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}),
        ("a coordinate of NaN", {"segmentation": [[float("nan"), 2, 3, 4, 5, 6]]}),
        ("a number as its mask", {"segmentation": 5}),
        ("another category", {"category_id": 7}),
        ("a category of 1.5", {"category_id": 1.5}),
        ("another image", {"image_id": 77}),
        ("iscrowd of 3", {"iscrowd": 3}),
        ("counts of null", {"segmentation": {"size": SIZE, "counts": None}}),
    )
]  # fmt: skip


def converted(format_name: str, change: Callable[[Path], None]) -> Prepare:
    """The data set in another format, in `set`, with something changed."""

    def prepare(folder: Path) -> None:
        from cellseg.io import FORMATS, read_records

        records = read_records("label_images", folder / "data", "train")
        writer = FORMATS[format_name].write
        assert writer is not None
        writer(records, folder / "set", "train", ("cell",), {})
        change(folder / "set")

    return prepare


def first(place: Path, pattern: str) -> Path:
    return sorted(place.rglob(pattern))[0]


def edit_features(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        path = first(place, "*.geojson")
        content = json.loads(path.read_text())
        features = content["features"] if isinstance(content, dict) else content
        features = json.loads(json.dumps(features * 30))
        change(features[77])
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    return edit


def edit_rows(column: int, text: str) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        path = first(place, "*.csv")
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        rows[7][column] = text
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    return edit


def add_roi(place: Path) -> None:
    with zipfile.ZipFile(first(place, "*.zip"), "a") as archive:
        archive.writestr("bad_17.roi", b"Iout" + b"\xff" * 100)


def read(format_name: str) -> tuple[str, ...]:
    source = ("convert", "--from", format_name, "--input", "set", "--split", "train")
    return (*source, "--to", "coco_json", "--output", "out")


OTHERS = [
    *(
        Trial(9, f"GeoJSON of 120 features, one with {name}", read("geojson"), needs=("data",),
              prepare=converted("geojson", edit_features(
                  lambda one, change=change: one["geometry"].update(change))),  # type: ignore[misc]
              says=(r"cells_0\.geojson", "feature 78"), never=LIBRARIES)
        for name, change in (
            ("a coordinate of NaN", {"coordinates": [[[float("nan"), 1], [2, 2], [3, 1]]]}),
            ("a coordinate of 1e308", {"coordinates": [[[1e308, 1], [2, 2], [3, 1]]]}),
            ("a line", {"type": "LineString"}),
            ("deep lists", {"coordinates": [[[[[1]]]]]}),
            ("text", {"coordinates": "abc"}),
        )
    ),
    *(
        Trial(9, f"run lengths, a row with {name}", read("dsb2018_table"), needs=("data",),
              prepare=converted("dsb2018_table", edit_rows(1, text)),
              says=("csv", r"line \d+ \(cells_\d\)"), never=LIBRARIES)
        for name, text in (
            ("a negative start", "-5 3"),
            ("a start behind the last pixel", "99999999 3"),
            ("thirty digits", "9" * 30 + " 3"),
            ("an odd number", "5 3 1"),
            ("letters", "a b"),
        )
    ),
    Trial(9, "run lengths of an image that is not there", read("dsb2018_table"), needs=("data",),
          prepare=converted("dsb2018_table", edit_rows(0, "zz")), says=("line", "zz")),
    Trial(9, "a zip of ROIs, one damaged", read("imagej_rois"), needs=("data",),
          prepare=converted("imagej_rois", add_roi), says=(r"cells_0\.zip", "bad_17")),
]  # fmt: skip


def evil_weights(folder: Path) -> None:
    import os

    import torch

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("touch ran",)

    torch.save({"model": Evil()}, folder / "w.pth")


def spoilt(content: Callable[[bytes], bytes]) -> Prepare:
    def prepare(folder: Path) -> None:
        import torch

        torch.save({"model": {"a": torch.zeros(1000)}}, folder / "w.pth")
        path = folder / "w.pth"
        path.write_bytes(content(path.read_bytes()))

    return prepare


def not_run(folder: Path) -> str:
    return "the code ran" if (folder / "ran").exists() else ""


WEIGHTS = [
    *(
        Trial(9, f"weights: {name}", TRAIN_FROM, needs=("data",), prepare=prepare, says=said,
              never=LIBRARIES, holds=not_run)
        for name, prepare, said in (
            ("that run code", evil_weights, (r"w\.pth", "could run code")),
            ("of garbage", spoilt(lambda content: b"garbage" * 100), (r"w\.pth", "damaged")),
            ("cut off", spoilt(lambda content: content[:2000]), (r"w\.pth", "damaged")),
            ("of no byte", spoilt(lambda content: b""), (r"w\.pth", "damaged")),
            ("one bit over", spoilt(lambda c: c[:900] + b"\xff" * 40 + c[940:]), (r"w\.pth",)),
            ("a web page", spoilt(lambda content: b"<!DOCTYPE html><html>"), (r"w\.pth",)),
        )
    ),
    Trial(9, "weights that run code, predicted with", ("predict", "images", "-o", "out", "--model",
          "w.pth"), needs=("images",), prepare=evil_weights, says=(r"w\.pth", "could run code"),
          never=LIBRARIES, holds=not_run),
    Trial(9, "safetensors of garbage", (*TRAIN, "MODEL.WEIGHTS", "w.safetensors"), needs=("data",),
          prepare=lambda folder: (folder / "w.safetensors").write_bytes(b"\xff" * 99) and None,
          says=(r"w\.safetensors", "damaged"), never=LIBRARIES),
    Trial(9, "a folder as weights", TRAIN_FROM, needs=("data",),
          prepare=lambda folder: (folder / "w.pth").mkdir(), says=(r"w\.pth", "folder")),
]  # fmt: skip


def one_of_many(name: str, keep: float) -> Prepare:
    """Twelve images in `many`, of which one is cut off."""

    def prepare(folder: Path) -> None:
        for number in range(12):
            write(folder / "many" / f"i{number:02d}.png", labels())
        cut(name, keep)(folder)
        (folder / name).rename(folder / "many" / "i07.png")

    return prepare


IMAGES = [
    Trial(9, "twelve images, one cut off", (*PREDICT, "many"), needs=("bundle",),
          prepare=one_of_many("x.png", 0.4), says=(r"i07\.png", "11 of 12"), never=LIBRARIES),
    Trial(9, "twelve images, one a text", (*PREDICT, "many"), needs=("bundle",),
          prepare=lambda folder: (one_of_many("x.png", 1)(folder),
                                  (folder / "many/i07.png").write_text("hello"))[0],
          says=(r"i07\.png", "11 of 12", "docs/images.md"), never=LIBRARIES),
    Trial(9, "evaluate: one label image cut off", ("evaluate", "--predictions", "predicted",
          "--ground-truth", "truth"), prepare=lambda folder: (
              sides()(folder), cut("x.png", 0.4)(folder),
              (folder / "x.png").replace(folder / "predicted/b.png"))[0],
          status=(1, 2), says=(r"b: truth|predicted/b\.png",), never=LIBRARIES),
    Trial(9, "link: one frame cut off", ("link", "film", "-o", "out"), prepare=lambda folder: (
              [write(folder / f"film/f_{k}.png", labels()) for k in range(5)],
              cut("x.png", 0.4)(folder), (folder / "x.png").replace(folder / "film/f_3.png"))[2]
              and None, says=(r"f_3\.png",), never=LIBRARIES),
]  # fmt: skip

TRIALS = [*RESULTS, *COCO, *OTHERS, *WEIGHTS, *IMAGES]
