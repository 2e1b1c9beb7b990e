"""The category-id rule: what is written, and what files without a companion mean."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from cell_records import content_of, make_record
from cellseg.cells.labels import bitmap_to_rle
from cellseg.errors import DatasetError
from cellseg.io.category_ids import (
    choose_category_ids,
    companion_of,
    find_classes_of_ids,
    parse_category_ids,
    write_companion,
)
from cellseg.io.coco_results import read_coco_results, write_coco_results

CLASSES = ("A", "B", "C")
FILE = Path("results.json")


def test_ids_that_are_written() -> None:
    assert choose_category_ids(3) == (1, 2, 3)
    assert choose_category_ids(2, {9: 1, 4: 0}) == (4, 9)
    assert choose_category_ids(2, {0: 0, 1: 1}) == (0, 1)
    assert choose_category_ids(2, {4: 0}) == (1, 2)  # no id for every class
    assert choose_category_ids(1, {4: 0, 5: 0}) == (1,)  # several ids of one class


@pytest.mark.parametrize(
    ("found", "own", "expected"),
    [
        ({0, 2}, None, {0: 0, 2: 2}),
        ({1, 3}, None, {1: 0, 3: 2}),
        (set(), None, {}),
        ({3, 9}, {3: 0, 9: 1, 12: 2}, {3: 0, 9: 1}),
        ({1, 2, 3}, {2: 0, 1: 1, 3: 2}, {1: 1, 2: 0, 3: 2}),
        ({0, 1}, {3: 0, 9: 1, 12: 2}, {0: 0, 1: 1}),
        ({1, 3}, {5: 0, 9: 1, 12: 2}, {1: 0, 3: 2}),
        ({2}, {7: 0, 9: 1, 2: 2}, {2: 2}),
    ],
)
def test_what_the_ids_in_a_file_say(
    found: set[int],
    own: dict[int, int] | None,
    expected: dict[int, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        numbers = find_classes_of_ids(FILE, found, CLASSES, own=own)
    assert {number: numbers[number] for number in found} == expected
    assert "category ids are" in caplog.text


@pytest.mark.parametrize(
    ("found", "own", "choices"),
    [
        ({1}, None, "from-0 or from-1"),
        ({1, 2}, None, "from-0 or from-1"),
        ({1, 2}, {1: 0, 2: 1, 3: 2}, "dataset (the data set's own) or from-0"),
        ({2}, {5: 0, 9: 1, 12: 2}, "from-0 or from-1"),
    ],
)
def test_what_they_leave_open_is_asked(
    found: set[int], own: dict[int, int] | None, choices: str
) -> None:
    with pytest.raises(DatasetError, match="can mean different classes") as caught:
        find_classes_of_ids(FILE, found, CLASSES, own=own)
    assert f"say with --category-ids how it counts: {choices}" in str(caught.value)
    assert find_classes_of_ids(FILE, found, CLASSES, own=own, asked="from-0")[2] == 2
    assert find_classes_of_ids(FILE, found, CLASSES, own=own, asked=[2, 1, 7]) == {2: 0, 1: 1, 7: 2}


def test_ids_of_no_class() -> None:
    with pytest.raises(DatasetError, match=r"category_id 4, expected 1 to 3 \(or 0 to 2\)"):
        find_classes_of_ids(FILE, {1, 4}, CLASSES)
    with pytest.raises(DatasetError, match=r"category_id 4 is none of \[5, 9, 12\]"):
        find_classes_of_ids(FILE, {5, 4}, CLASSES, own={5: 0, 9: 1, 12: 2})
    with pytest.raises(DatasetError, match=r"category_id 3 is none of \[0, 1, 2\]"):
        find_classes_of_ids(FILE, {3}, CLASSES, asked="from-0")
    with pytest.raises(DatasetError, match="has no category ids of its own"):
        find_classes_of_ids(FILE, {3}, CLASSES, asked="dataset")


def test_one_class_needs_no_question() -> None:
    assert find_classes_of_ids(FILE, {1, 77, None}, ["cell"]) == {1: 0, 77: 0, None: 0}


def test_words_of_the_command_line() -> None:
    assert parse_category_ids(None) is None
    assert parse_category_ids(["dataset"]) == "dataset"
    assert parse_category_ids(["3", "9"]) == [3, 9]
    with pytest.raises(DatasetError, match="--category-ids 3 x: expected from-0, from-1, dataset"):
        parse_category_ids(["3", "x"])


def test_the_companion_decides(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_companion(path, [1, 2], ["B", "A"])
    assert companion_of(path).name == "results.categories.json"
    assert find_classes_of_ids(path, {1}, ["A", "B"]) == {1: 1, 2: 0}
    with pytest.raises(DatasetError, match=r"its classes are B, A .*the data set has X, Y"):
        find_classes_of_ids(path, {1}, ["X", "Y"])
    write_companion(path, [1, 2], ["class_1", "class_2"])  # names that only count
    assert find_classes_of_ids(path, {1}, ["X", "Y"]) == {1: 0, 2: 1}
    companion_of(path).write_text("[]")
    with pytest.raises(DatasetError, match=r"results\.categories\.json: .*delete it"):
        find_classes_of_ids(path, {1}, ["X", "Y"])


@pytest.mark.parametrize("ids", [None, (5, 2, 9), (0, 1, 2)])
def test_written_and_read_again(tmp_path: Path, ids: tuple[int, ...] | None) -> None:
    """No detection of the first class: 0.1 shifted the others by one."""
    masks = np.random.default_rng(0).random((3, 20, 30)) < 0.3
    record = make_record("a", None, masks, classes=[1, 2, 1], scores=[0.5, 0.25, 0.1])
    path = tmp_path / "deep" / "results.json"
    write_coco_results([record], path, CLASSES, ids)
    (cells,) = read_coco_results(path, CLASSES).values()
    back = make_record("a", None, cells.to_bitmaps(), classes=cells.classes, scores=cells.scores)
    assert content_of(back) == content_of(record)
    assert isinstance(json.loads(path.read_text()), list)  # pycocotools loads it


def test_what_is_wrong_with_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rle = bitmap_to_rle(np.ones((2, 3), bool))
    good = {"image_id": 7, "category_id": 1, "score": 0.5, "segmentation": rle}
    for wrong, says in (
        ({"score": float("nan")}, "score nan, expected a number"),
        ({"category_id": None}, "category_id None, expected a whole number"),
        ({"segmentation": {"size": [2, 3], "counts": "~"}}, r"result 2 \(image '7'\)"),
    ):
        path.write_text(json.dumps([{**good, "image_id": 8}, good, {**good, **wrong}]))
        with pytest.raises(DatasetError, match=says):
            read_coco_results(path, ("A", "B"), category_ids="from-1")
    path.write_text(json.dumps([good]))
    with pytest.raises(DatasetError, match="images that the data set does not have"):
        read_coco_results(path, ["cell"], sizes_hw={"8": (2, 3)})
    assert read_coco_results(path, ["cell"], sizes_hw={"7": (2, 3)})["7"].areas_px.tolist() == [6]
