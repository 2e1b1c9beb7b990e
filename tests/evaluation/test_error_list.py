"""Error by error: each kind once, its cells and place counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.evaluation.comparison import compare
from cellseg.evaluation.error_kinds import classify_errors
from cellseg.evaluation.error_list import ERROR_SENTENCES, count_kinds, list_errors

Bars = list[tuple[int, int]]


def bars(ends: Bars, classes: list[int] | None = None, rows: tuple[int, int] = (0, 4)):
    """Cells of some columns each, in an image of 10 x 60."""
    crops = [np.ones((rows[1] - rows[0], stop - start), bool) for start, stop in ends]
    offsets = [(rows[0], start) for start, _ in ends]
    return CellInstances.from_crops(crops, offsets, (10, 60), classes=classes)


@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        ([(0, 10)], [(0, 10)], []),
        ([(0, 10)], [], [("missed", [0], [], 0, [0, 0, 10, 4])]),
        ([], [(5, 10)], [("spurious", [], [0], 0, [5, 0, 10, 4])]),
        ([(0, 10)], [(4, 14)], [("outline", [0], [0], 6 / 14, [0, 0, 14, 4])]),
        ([(0, 10)], [(0, 4), (4, 10)], [("split", [0], [0, 1], 0.6, [0, 0, 10, 4])]),
        ([(0, 5), (5, 10)], [(0, 10)], [("merge", [0, 1], [0], 0.5, [0, 0, 10, 4])]),
        (
            [(0, 10), (10, 20)],
            [(0, 5), (5, 15), (15, 20)],
            [("catastrophe", [0, 1], [0, 1, 2], 0.5, [0, 0, 20, 4])],
        ),
        (
            [(0, 10), (20, 30)],
            [(0, 10), (40, 50)],
            [("missed", [1], [], 0, [20, 0, 30, 4]), ("spurious", [], [1], 0, [40, 0, 50, 4])],
        ),
        ([], [], []),
    ],
)
def test_each_kind_with_its_cells_and_place(true: Bars, pred: Bars, expected: list) -> None:
    found = list_errors(compare(bars(true), bars(pred)))
    assert [(e.kind, e.true.tolist(), e.pred.tolist()) for e in found] == [e[:3] for e in expected]
    for error, (*_, iou, box) in zip(found, expected):
        assert error.iou == pytest.approx(iou)
        assert error.box_xyxy.tolist() == box


def test_classes_of_pairs_of_the_right_outline() -> None:
    true, pred = bars([(0, 10), (20, 30)], [0, 1]), bars([(0, 9), (20, 30)], [1, 1])
    (error,) = list_errors(compare(true, pred))
    assert (error.kind, error.true.tolist(), error.pred.tolist()) == ("confused", [0], [0])
    assert error.iou == pytest.approx(0.9)
    assert list_errors(compare(true, pred).without_classes) == []


def test_from_top_to_bottom_and_counted() -> None:
    true = CellInstances.concatenate([bars([(0, 5)], rows=(6, 9)), bars([(30, 35)])], (10, 60))
    found = list_errors(compare(true, bars([(50, 55), (40, 45)])))
    assert [(error.kind, error.box_xyxy[0]) for error in found] == [
        ("missed", 30),
        ("spurious", 40),
        ("spurious", 50),
        ("missed", 0),
    ]
    counts = count_kinds(found)
    assert tuple(counts) == tuple(ERROR_SENTENCES)
    assert (counts["missed"], counts["spurious"], sum(counts.values())) == (2, 2, 4)


def test_crowd_regions_forgive() -> None:
    crowd = bars([(20, 60)]).replace(is_crowd=[True])
    true = CellInstances.concatenate([crowd, bars([(0, 10)])], (10, 60))
    image = compare(true, bars([(30, 35), (0, 10)]))
    assert list_errors(image.counted) == []


def test_as_many_as_the_counts_of_deepcell() -> None:
    """Random fields; a wrong outline is a missed and a spurious cell to the counts."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        ends = [np.sort(rng.choice(60, 12, replace=False)).reshape(-1, 2) for _ in range(2)]
        true, pred = (bars([(int(a), int(b)) for a, b in side]) for side in ends)
        image = compare(true, pred)
        listed, counted = count_kinds(list_errors(image)), classify_errors(image).counts
        for kind in ("split", "merge", "catastrophe"):
            assert listed[kind] == counted[kind]
        for kind in ("missed", "spurious"):
            assert listed[kind] + listed["outline"] == counted[kind]
