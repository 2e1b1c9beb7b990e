"""Kind 8: names with escape codes, line breaks and formulas, in terminal, log, tables and pages."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

from harness import Trial
from kind_03_outputs import INSPECT, both
from stock import write_data

ESCAPES = "cell\x1b]0;owned\x07\x1b[31m"
BREAK = "a\nERROR: all is lost"
BIDI = "cell\u202egnp.fdp\u2066"
FORMULAS = ('=HYPERLINK("http:x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "'=1", "\uff1d1")
NEVER = ("\x1b", "\x07", "\u202e", "\u2066", r"^ERROR: all is lost")
NAMES = {"escape codes": ESCAPES, "a line break": BREAK, "marks of direction": BIDI}


def rename(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "images/cells_0.png").rename(folder / "images" / f"{name}.png")


def rename_data(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for path in folder.glob("data/train/*/cells_0.png"):
            path.rename(path.with_name(f"{name}.png"))

    return prepare


def spoil(name: str, folder_name: str = "images") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / folder_name).mkdir(exist_ok=True)
        (folder / folder_name / f"{name}.png").write_bytes(b"no image")

    return prepare


def texts_are_clean(folder: Path) -> str:
    """No file of text that was written has a control character, or a cell that is a formula."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".csv", ".html", ".json", ".jsonl", ".txt", ".log") and path.is_file():
            if "images" in path.relative_to(folder).parts[:1]:
                continue
            text = path.read_text("utf-8")
            controls = "[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]"
            found = re.search(controls, text.replace("\r\n", ""))
            if found:
                return f"{path.name!a} holds {found[0]!a}"
            if path.suffix == ".csv" and (cell := find_formula(path)):
                return f"{path.name!a} has the cell {cell!a}"
    return ""


def find_formula(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            for cell in row:
                if re.match("[=+\\-@\t\r\uff1d]", cell) and not re.fullmatch(r"-?[\d.e+-]+", cell):
                    return cell
    return ""


def classes_of(name: str) -> Callable[[Path], None]:
    """Annotations whose class and image have somebody else's names."""

    def prepare(folder: Path) -> None:
        path = folder / "results/truth.json"
        content = json.loads(path.read_text("utf-8"))
        content["categories"][0]["name"] = name
        content["images"][0]["file_name"] = f"{name}.png"
        path.write_text(json.dumps(content), "utf-8")

    return prepare


def masks_with_formula(folder: Path) -> None:
    write_data(folder / "sums", {"train": 2})
    for path in folder.glob("sums/train/*/cells_0.png"):
        path.rename(path.with_name("=1+1.png"))


SAVE = ("--save", "labels,table,csv-rle,sartorius,coco,geojson")
TRIALS = [
    *(
        Trial(
            8,
            f"predict an image with {what} in its name",
            ("predict", "images", "-o", "out", *SAVE),
            needs=("images",),
            status=(0,),
            prepare=rename(name),
            never=NEVER,
            holds=texts_are_clean,
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"predict a damaged image with {what} in its name",
            ("predict", "images", "-o", "out", *SAVE),
            needs=("images",),
            status=(1,),
            prepare=spoil(name),
            never=NEVER,
            holds=texts_are_clean,
            says=("2 of 3 images done",),
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"predict an image that is missing, with {what} in its name",
            ("predict", f"{name}.png", "images", "-o", "out"),
            needs=("images",),
            status=(1,),
            never=NEVER,
            says=("no image found",),
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"predict to a folder with {what} in its name",
            ("predict", "images", "-o", name, "--save", "labels"),
            needs=("images",),
            status=(0,),
            never=NEVER,
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"{command} what is missing, with {what} in its name",
            (*words, name),
            never=NEVER,
            needs=("results",),
        )
        for what, name in NAMES.items()
        for command, words in (
            ("report on", ("report",)),
            ("inspect", ("inspect",)),
            ("tune", ("tune",)),
            ("link", ("link",)),
            ("bundle", ("bundle", "--name", "x")),
            ("train with", ("train", "--config-file")),
            ("preview", ("preview", "--output", "x.png", "--config-file")),
            ("evaluate", ("evaluate", "--ground-truth", "results/results.json", "--predictions")),
            ("predict with", ("predict", "results", "-o", "out", "--model")),
            (
                "convert",
                (
                    "convert",
                    "--from",
                    "coco_json",
                    "--input",
                    ".",
                    "--to",
                    "label_images",
                    "--output",
                    "out",
                    "--split",
                ),
            ),
        )
    ),
    *(
        Trial(
            8,
            f"inspect data with {what} in a name",
            (*INSPECT, "--output", "out"),
            needs=("data",),
            status=(0, 1),
            prepare=rename_data(name),
            never=NEVER,
            holds=texts_are_clean,
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"inspect data with a damaged image with {what} in its name",
            INSPECT,
            needs=("data",),
            status=(1,),
            never=NEVER,
            prepare=both(rename_data(name), spoil(name, "data/train/images")),
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"convert annotations with {what} in names",
            (
                "convert",
                "--from",
                "coco_json",
                "--input",
                "results",
                "--split",
                "truth.json",
                "--to",
                "label_images",
                "--output",
                "out",
            ),
            needs=("results", "images"),
            prepare=classes_of(name),
            never=NEVER,
        )
        for what, name in NAMES.items()
    ),
    *(
        Trial(
            8,
            f"link label images with {what} in their names",
            ("link", "data/train/labels"),
            needs=("data",),
            status=(0, 1, 2),
            prepare=rename_data(name),
            never=NEVER,
        )
        for what, name in NAMES.items()
    ),
    Trial(
        8,
        "predict images called like formulas",
        ("predict", "images", "-o", "out", *SAVE),
        needs=("images",),
        status=(0,),
        holds=texts_are_clean,
        prepare=lambda folder: [
            (folder / "images" / f"{name.replace('/', '_')}.png").write_bytes(
                (folder / "images/cells_1.png").read_bytes()
            )
            for name in FORMULAS
        ],
    ),
    Trial(
        8,
        "inspect images called like formulas",
        (*INSPECT, "--output", "out"),
        needs=("data",),
        status=(0, 1),
        prepare=rename_data("=1+1"),
        holds=texts_are_clean,
    ),
    Trial(
        8,
        "evaluate --per-image of images called like formulas",
        (
            "evaluate",
            "--predictions",
            "data/train/labels",
            "--ground-truth",
            "data/train/labels",
            "--per-image",
            "t.csv",
        ),
        needs=("data",),
        status=(0,),
        prepare=rename_data("=1+1"),
        holds=lambda folder: (
            texts_are_clean(folder)
            or ("" if "'=1+1," in (folder / "t.csv").read_text() else "no such row")
        ),
    ),
    *(
        Trial(
            8,
            f"convert an image called like a formula to {target} and back",
            status=(0,),
            prepare=masks_with_formula,
            holds=texts_are_clean,
            code=f"""
from cellseg.cli import main
assert main(["convert", "--from", "label_images", "--input", "sums", "--split", "train",
             "--to", "{target}", "--output", "new"]) == 0
raise SystemExit(main(["convert", "--from", "{target}", "--input", "new", "--split", "train",
                       "--to", "label_images", "--output", "back"]))
""",
        )
        for target in ("sartorius_table", "dsb2018_table", "run_length_csv", "coco_json")
    ),
    Trial(
        8,
        "names of formulas are read from tables as they were",
        status=(0,),
        code="""
from pathlib import Path
from cellseg.io.table_rows import read_rows
from cellseg.io.tables import read_text_rows, write_rows
import cellseg.io.tables as tables
names = ["=1+1", "+1", "-1", "-x", "@a", "'=1", "''-x", "'a", "a", "\\uff1d1"]
path = Path("t.csv")
write_rows(path, [{"image": name, "cells": 1} for name in names])
found = [row["image"] for row in read_text_rows(path, ["image"])]
assert found == names, found
assert list(read_rows(path, ["image"])) == names
""",
    ),
]
