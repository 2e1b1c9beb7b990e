"""Each finding has a scene that brings about it and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import disc, rectangle, scene_of_masks, write_png
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.synthetic import make_cells
from cellseg.inspection.report import Inspection, inspect_splits
from cellseg.inspection.sources import Split, dict_to_record
from detectron2.structures import BoxMode
from inspection_scenes import kinds, make_record, texture

HW = (48, 64)
CELL = rectangle(HW, 10, 11, 22, 24)

MakeSplit = Callable[..., Split]
InspectOne = Callable[..., Inspection]


def test_a_good_image(inspect_one: InspectOne) -> None:
    inspection = inspect_one([CELL, rectangle(HW, 30, 30, 45, 41)])
    assert inspection.findings == ()
    assert not inspection.has_errors
    assert "Nothing found." in inspection.to_text()


HOLED = CELL & ~rectangle(HW, 14, 15, 17, 18)
PIECES = CELL | rectangle(HW, 40, 30, 47, 37)
GRID = [rectangle(HW, 8 * k, 8, 8 * k + 4, 16) for k in range(6)]


@pytest.mark.parametrize(
    ("masks", "severity", "kind", "text"),
    [
        ([CELL, np.zeros(HW, bool)], "error", "empty_mask", "1 cell without a pixel: 1"),
        ([CELL, disc(HW, 40, 30, 1)], "warning", "tiny", "1 cell under 10 px (least: 5): 1"),
        ([PIECES], "note", "pieces", "1 cell in several pieces (up to 2): 0"),
        ([HOLED], "note", "holes", "1 cell with holes (9 px): 0"),
        ([np.ones(HW, bool)], "warning", "fills_image", "1 cell of nearly the whole image"),
        ([CELL, rectangle(HW, 21, 20, 40, 33)], "note", "overlap", "4 px in several cells"),
        ([CELL, rectangle(HW, 10, 12, 21, 24)], "warning", "same_cell", "1 pair of cells"),
        ([], "note", "no_cells", "no cell is annotated"),
        (GRID, "warning", "coarse_masks", "grid of 4 px"),
    ],
)
def test_findings_about_cells(
    inspect_one: InspectOne, masks: list[np.ndarray], severity: str, kind: str, text: str
) -> None:
    inspection = inspect_one(masks)
    found = [finding for finding in inspection.findings if finding.kind == kind]
    accompanying = {
        "same_cell": {"overlap"},
        "no_cells": {"class_without_cells"},
        "pieces": {"binary_masks"},  # the only cell is in pieces
    }.get(kind, set())
    assert {finding.kind for finding in inspection.findings} == {kind} | accompanying
    assert [finding.severity for finding in found] == [severity]
    assert text in found[0].text
    assert inspection.has_errors == (severity == "error")


def test_a_cell_mostly_under_another(inspect_one: InspectOne) -> None:
    found = inspect_one([CELL, rectangle(HW, 16, 11, 33, 24)])
    assert kinds(found) == [("warning", "overlap")]


@pytest.mark.parametrize(
    ("image", "masks", "severity", "kind"),
    [
        (np.zeros(HW, np.uint8), [CELL], "error", "constant_image"),
        (np.zeros(HW, np.uint8), [], "warning", "constant_image"),
        ((texture(1) // 10).astype(np.uint8), [CELL], "note", "dim"),
        (np.where(CELL, 255, texture(1)).astype(np.uint8), [CELL], "note", "saturated"),
    ],
)
def test_findings_about_the_image(
    inspect_one: InspectOne, image: np.ndarray, masks: list[np.ndarray], severity: str, kind: str
) -> None:
    found = [f for f in inspect_one(masks, image).findings if f.kind == kind]
    assert [finding.severity for finding in found] == [severity]


def test_missing_unreadable_and_other_size(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    write_png(tmp_path / "small.png", texture(1, (20, 24)))
    records = [
        make_record(name, tmp_path / f"{name}.png", HW, [CELL])
        for name in ("gone", "broken", "small")
    ]
    inspection = inspect_splits([Split("s", ("cell",), tuple(records))])
    assert [(f.severity, f.kind, f.image_id) for f in inspection.findings] == [
        ("error", "image_missing", "gone"),
        ("error", "image_unreadable", "broken"),
        ("error", "size_mismatch", "small"),
    ]
    assert "24 x 20 (width x height), its annotations say 64 x 48" in inspection.findings[2].text


def test_box_outside_and_masks_that_do_not_fit(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", texture(1))
    good = bitmap_to_rle(CELL)
    shapes = [
        (good, [10.0, 11.0, 70.0, 24.0]),
        (bitmap_to_rle(np.ones((5, 5), bool)), [0.0, 0.0, 5.0, 5.0]),
        ({"size": list(HW), "counts": [1, 2]}, [0.0, 0.0, 5.0, 5.0]),
    ]
    entry = {
        "file_name": str(path), "height": HW[0], "width": HW[1], "image_id": "a",
        "annotations": [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "segmentation": shape}
            for shape, box in shapes
        ],
    }  # fmt: skip
    record, bad = dict_to_record(entry, ["cell"])
    inspection = inspect_splits([Split("s", ("cell",), (record,), bad_masks={0: bad})])
    assert kinds(inspection) == [("error", "bad_mask"), ("error", "box_outside")]
    assert inspection.findings[0].cells == (1, 2)
    assert inspection.findings[1].cells == (0,)


def labels_of_300(image_hw: tuple[int, int] = (152, 200)) -> np.ndarray:
    masks = [
        rectangle(image_hw, 10 * c + 1, 10 * r + 1, 10 * c + 6, 10 * r + 7)
        for r in range(15)
        for c in range(20)
    ]
    return scene_of_masks(masks, image_hw).labels


@pytest.mark.parametrize("how", ["clipped", "wrapped"])
def test_labels_that_did_not_fit_eight_bits(inspect_one: InspectOne, how: str) -> None:
    labels = labels_of_300()
    eight = np.minimum(labels, 255) if how == "clipped" else labels % 256
    masks = [eight == k for k in range(1, 256)]
    found = inspect_one(masks, texture(1, labels.shape)).findings
    assert [f.severity for f in found if f.kind == "clipped_labels"] == ["error"]


def test_255_whole_cells_are_fine(inspect_one: InspectOne) -> None:
    labels = labels_of_300()
    masks = [labels == k for k in range(1, 256)]
    assert kinds(inspect_one(masks, texture(1, labels.shape))) == []


TURNS = {
    "as it is": lambda a: a,
    "flipped": lambda a: a[:, ::-1],
    "turned": lambda a: np.rot90(a),
    "in colour": lambda a: np.repeat(a[..., None], 3, axis=2),
    "deeper": lambda a: a.astype(np.uint16),
}


@pytest.mark.parametrize("turn", TURNS)
def test_copies_between_and_within_splits(make_split: MakeSplit, turn: str) -> None:
    image = texture(1)
    copy = np.ascontiguousarray(TURNS[turn](image))
    mask = np.rot90(CELL) if turn == "turned" else CELL
    train = make_split("train", {"a": (image, [CELL]), "b": (texture(2), [CELL])})
    test = make_split("test", {"c": (copy, [mask])})
    assert kinds(inspect_splits([train, test])) == [("error", "duplicate_between_splits")]
    both = replace(train, records=(*train.records, *test.records))
    mixed = [("note", "mixed_types")] if turn == "deeper" else []
    assert kinds(inspect_splits([both])) == [("warning", "duplicate"), *mixed]


CHANGES = {
    "noise": lambda a: np.clip(a + np.random.default_rng(0).normal(0, 8, a.shape), 0, 255),
    "contrast": lambda a: a * 0.5 + 30,
    "smaller": lambda a: cv2.resize(a, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA),
    "uneven light": lambda a: a * np.linspace(0.5, 1.2, a.shape[1]),
    "moved by two pixels": lambda a: np.roll(a, 2, axis=1),
    "noise and turned": lambda a: np.rot90(a + np.random.default_rng(0).normal(0, 4, a.shape)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies(make_split: MakeSplit, change: str) -> None:
    image = texture(1, (96, 128))
    copy = np.ascontiguousarray(CHANGES[change](image)).astype(np.uint8)
    mask = rectangle(copy.shape, 3, 3, 20, 21)
    train = make_split("train", {"a": (image, [rectangle(image.shape, 3, 3, 20, 21)])})
    test = make_split("test", {"b": (copy, [mask])})
    inspection = inspect_splits([train, test])
    assert kinds(inspection) == [("warning", "near_duplicate_between_splits")]
    assert inspection.findings[0].image_id == "b"


def test_overlapping_views(make_split: MakeSplit) -> None:
    field = texture(3, (200, 300))
    mask = rectangle((200, 200), 3, 3, 20, 21)
    views = {"a": (field[:, :200], [mask]), "b": (field[:, 100:], [mask])}
    found = inspect_splits([make_split("s", views)]).duplicates
    assert [(pair.kind, round(pair.shared, 2)) for pair in found] == [("view", 0.5)]


@pytest.mark.parametrize("shift_px", [100, 140, 160])
def test_overlapping_views_of_cells(make_split: MakeSplit, shift_px: int) -> None:
    field = make_cells(3, (400, 200), num_cells=150).image
    mask = rectangle((200, 200), 3, 3, 20, 21)
    views = {"a": (field[:200], [mask]), "b": (field[shift_px : shift_px + 200], [mask])}
    found = inspect_splits([make_split("s", views)]).duplicates
    assert [pair.kind for pair in found] == ["view"]
    assert found[0].shared == pytest.approx(1 - shift_px / 200, abs=0.01)


def test_different_images_are_no_duplicates(make_split: MakeSplit) -> None:
    content = {str(seed): (texture(seed), [CELL]) for seed in range(12)}
    assert inspect_splits([make_split("s", content)]).duplicates == ()


def test_fields_of_the_same_kind_are_no_duplicates(make_split: MakeSplit) -> None:
    content = {str(seed): (make_cells(seed).image, []) for seed in range(40)}
    assert inspect_splits([make_split("s", content)]).duplicates == ()


def test_ids_in_two_splits(make_split: MakeSplit) -> None:
    train = make_split("train", {"a": (texture(1), [CELL])})
    same = make_split("test", {"a": (texture(1), [CELL])})
    assert kinds(inspect_splits([train, same])) == [
        ("error", "id_in_two_splits"),
        ("error", "duplicate_between_splits"),
    ]
    other = make_split("val", {"a": (texture(2), [CELL])})
    assert kinds(inspect_splits([train, other])) == [("note", "id_of_two_images")]
    twice = replace(train, records=train.records * 2)
    assert ("error", "id_twice") in kinds(inspect_splits([twice]))


def test_classes_without_cells_and_mixed_types(make_split: MakeSplit) -> None:
    content = {"a": (texture(1), [CELL]), "b": (texture(2, dtype=np.uint16), [CELL])}
    assert kinds(inspect_splits([make_split("s", content, classes=("round", "long"))])) == [
        ("warning", "class_without_cells"),
        ("note", "mixed_types"),
    ]


def test_a_split_that_cannot_be_read() -> None:
    inspection = inspect_splits([Split("s", ("cell",), (), ("a.png: truncated", "b.png: gone"))])
    assert [f.text for f in inspection.findings] == ["a.png: truncated", "b.png: gone"]
    assert kinds(inspection) == [("error", "unreadable")] * 2
    assert "unreadable (2)" in inspection.to_text()
