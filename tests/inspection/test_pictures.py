"""Plots and contact sheets: their sizes, their order, and that odd content does not stop them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from builders import disc, rectangle
from cellseg.inspection.contact_sheet import (
    COLUMNS,
    TILE_PX,
    draw_tile,
    order_images,
    write_contact_sheets,
)
from cellseg.inspection.report import inspect_splits
from cellseg.inspection.sources import Split
from inspection_scenes import make_record, texture

HW = (48, 64)
CELL = rectangle(HW, 10, 11, 22, 24)
RED = (255, 40, 40)
MakeSplit = Callable[..., Split]


def test_files_for_everything_odd(make_split: MakeSplit, tmp_path: Path) -> None:
    content = {
        "plain": (texture(1), [CELL]),
        "no cells, ü and spaces": (texture(2), []),
        "16 bit": (texture(3, dtype=np.uint16) * 100, [CELL]),
        "flat": (np.zeros(HW, np.uint8), []),
    }
    split = make_split("s_train", content)
    gone = make_record("gone", tmp_path / "gone.png", HW, [CELL])
    inspection = inspect_splits([split, Split("s_val", ("cell",), (gone,))])
    inspection.write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cells.csv",
        "contact_sheet_1.png",
        "findings.csv",
        "images.csv",
        "plots.png",
    ]
    page = cv2.imread(str(tmp_path / "out" / "contact_sheet_1.png"))
    assert page.shape[1] > COLUMNS * TILE_PX
    plots = cv2.imread(str(tmp_path / "out" / "plots.png"))
    assert plots.std() > 10


def test_nothing_to_draw(tmp_path: Path) -> None:
    inspection = inspect_splits([Split("s", ("cell",), (), ("a.png: truncated",))])
    inspection.write(tmp_path)
    assert not list(tmp_path.glob("contact_sheet*"))
    assert (tmp_path / "plots.png").is_file()


def test_pages_and_their_number(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split("s", {f"{k:02d}": (texture(k, (16, 20)), []) for k in range(23)})
    inspection = inspect_splits([split])
    pages = write_contact_sheets(tmp_path, inspection.images, inspection.findings)
    assert [page.name for page in pages] == ["contact_sheet_1.png", "contact_sheet_2.png"]
    assert len(write_contact_sheets(tmp_path, inspection.images, [], max_pages=1)) == 1


def test_worst_first_then_the_splits_take_turns(make_split: MakeSplit) -> None:
    a = make_split("a", {f"a{k}": (texture(k), [CELL]) for k in range(4)})
    b = make_split(
        "b", {"b0": (texture(10), [CELL]), "b1": (texture(11), [CELL, disc(HW, 40, 30, 1)])}
    )
    inspection = inspect_splits([a, b])
    by_image = {(f.split, f.image_id): [f] for f in inspection.findings}
    order = [image.record.image_id for image in order_images(inspection.images, by_image)]
    assert order[0] == "b1"
    assert set(order[1:3]) == {"a0", "b0"}
    assert sorted(order) == ["a0", "a1", "a2", "a3", "b0", "b1"]


def test_cells_of_a_finding_are_red(make_split: MakeSplit) -> None:
    tiny = rectangle(HW, 40, 30, 42, 33)
    inspection = inspect_splits([make_split("s", {"a": (texture(1), [CELL, tiny])})])

    def count_red(findings: list) -> int:
        tile = draw_tile(inspection.images[0], findings).astype(int)
        return int((np.abs(tile - RED).max(axis=2) < 20).sum())

    assert count_red([]) == 0
    assert count_red(list(inspection.findings)) > 20


def test_small_cells_are_shown_in_a_part_around_the_finding(make_split: MakeSplit) -> None:
    hw = (400, 800)
    masks = [rectangle(hw, x, y, x + 7, y + 6) for x in range(5, 780, 40) for y in (9, 350)]
    masks.append(rectangle(hw, 700, 200, 702, 203))
    inspection = inspect_splits([make_split("s", {"a": (texture(1, hw), masks)})])
    tile = draw_tile(inspection.images[0], list(inspection.findings)).astype(int)
    assert ((np.abs(tile - RED).max(axis=2) < 20).sum()) > 20
    rows, columns = np.nonzero(np.abs(tile - RED).max(axis=2) < 20)
    assert 100 < columns.mean() < 260
    assert 60 < rows.mean() < 240
