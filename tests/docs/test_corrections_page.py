"""docs/corrections.md: its example runs, and its files are those that are written."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
from cellseg.cells.synthetic import make_cells
from cellseg.corrections.events import STATES
from pages import REPOSITORY, Page

PATH = "docs/corrections.md"
TEXT = (REPOSITORY / PATH).read_text("utf-8")


def test_the_states_of_cells() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == STATES


def test_the_example(tmp_path: Path) -> None:
    page = Page(PATH)
    page.write_files(tmp_path)
    for folder in ("my_images", "found"):
        (tmp_path / folder).mkdir()
    for number in range(2):
        scene = make_cells(number, (128, 128))
        cv2.imwrite(str(tmp_path / "my_images" / f"field_{number}.png"), scene.image)
        cv2.imwrite(str(tmp_path / "found" / f"field_{number}_labels.tif"), scene.labels)
    (command,) = page.commands
    said = page.run(command, tmp_path)
    assert "corrected_by='Ada'" in said
    assert "training/mended/declaration.yaml 1 " in said
    files = {path.name for path in (tmp_path / "mended").rglob("*")}
    assert files == {"corrections.jsonl", "images", "000001_field_0.jsonl", "000002_field_1.jsonl"}
    saved = {path.name for path in (tmp_path / "training" / "mended").iterdir()}
    assert saved == {"declaration.yaml", "train", "corrections.json"}
