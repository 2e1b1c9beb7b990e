"""Splits, merges, missed and spurious cells: by hand, and against the rules written out."""

from __future__ import annotations

import numpy as np
import pytest
import scoring_scenes as scenes
from cell_scenes import bars
from cellseg.cells.instances import CellInstances
from cellseg.evaluation import score
from cellseg.evaluation.comparison import compare
from cellseg.evaluation.error_kinds import KINDS, classify_errors


def kinds(true: CellInstances, pred: CellInstances) -> tuple[list[str], list[str], dict[str, int]]:
    found = classify_errors(compare(true, pred))
    names = [[KINDS[kind] for kind in side] for side in (found.true_kind, found.pred_kind)]
    return names[0], names[1], {kind: n for kind, n in found.counts.items() if n}


@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        ([(0, 10)], [(0, 10)], (["correct"], ["correct"], {"correct": 1})),
        ([(0, 10)], [(0, 6)], (["missed"], ["spurious"], {"missed": 1, "spurious": 1})),
        ([(0, 10)], [(0, 7)], (["correct"], ["correct"], {"correct": 1})),
        ([(0, 10)], [], (["missed"], [], {"missed": 1})),
        ([], [(0, 10)], ([], ["spurious"], {"spurious": 1})),
        ([(0, 10)], [(0, 5), (5, 10)], (["split"], ["split"] * 2, {"split": 1})),
        ([(0, 5), (5, 10)], [(0, 10)], (["merge"] * 2, ["merge"], {"merge": 1})),
        (
            [(0, 10), (10, 20)],
            [(0, 5), (5, 15), (15, 20)],
            (["catastrophe"] * 2, ["catastrophe"] * 3, {"catastrophe": 1}),
        ),
        # one pixel in a large cell: IoU 0.025, but wholly inside
        ([(0, 40)], [(0, 20), (20, 21)], (["split"], ["split"] * 2, {"split": 1})),
        # a small part beside a correct one is spurious
        (
            [(0, 40)],
            [(0, 30), (30, 34)],
            (["correct"], ["correct", "spurious"], {"correct": 1, "spurious": 1}),
        ),
        # IoU 1 / 19 and no half inside: not related
        (
            [(0, 10)],
            [(9, 19), (0, 5)],
            (["missed"], ["spurious"] * 2, {"missed": 1, "spurious": 2}),
        ),
    ],
)
def test_by_hand(true: list, pred: list, expected: tuple) -> None:
    assert kinds(bars(*true), bars(*pred)) == expected


def test_figures_add_up_over_images() -> None:
    true = [bars((0, 10)), bars((0, 5), (5, 10), (20, 25))]
    pred = [bars((0, 5), (5, 10)), bars((0, 10), (40, 44))]
    names = [f"errors_{kind}" for kind in KINDS]
    figures = score(true, pred, names)
    assert dict(zip(KINDS, figures.values())) == {
        "correct": 0,
        "missed": 1,
        "spurious": 1,
        "split": 1,
        "merge": 1,
        "catastrophe": 0,
    }


def expected_counts(true: np.ndarray, pred: np.ndarray) -> dict[str, int]:
    """The rules over bitmaps: edges between cells that are left, then a walk through each group."""
    nodes = [("t", i) for i in range(len(true))] + [("p", j) for j in range(len(pred))]
    edges: dict[tuple[str, int], set[tuple[str, int]]] = {node: set() for node in nodes}
    correct = set()
    iou = np.array([[(a & b).sum() / (a | b).sum() for b in pred] for a in true])
    iou = iou.reshape(len(true), len(pred))
    for i, j in np.argwhere(iou > 0.6):
        correct |= {("t", i), ("p", j)}
    for i, j in np.argwhere(iou > 0):
        inside = (true[i] & pred[j]).sum() / min(true[i].sum(), pred[j].sum())
        related = iou[i, j] >= 0.1 or (iou[i, j] <= 0.4 and inside > 0.5)
        if related and not {("t", i), ("p", j)} & correct:
            edges["t", i].add(("p", j))
            edges["p", j].add(("t", i))
    counts = dict.fromkeys(KINDS, 0) | {"correct": len(correct) // 2}
    left = set(nodes) - correct
    while left:
        group, waiting = set(), [left.pop()]
        while waiting:
            node = waiting.pop()
            group.add(node)
            waiting += edges[node] - group
        left -= group
        sides = [sum(side == which for side, _ in group) for which in "tp"]
        if min(sides) > 1:
            counts["catastrophe"] += 1
        elif sides[0] == 1 and sides[1] > 1:
            counts["split"] += 1
        elif sides[0] > 1:
            counts["merge"] += sides[1]
        else:
            counts["missed"] += sides[0]
            counts["spurious"] += sides[1]
    return counts


def test_random_scenes() -> None:
    total = dict.fromkeys(KINDS, 0)
    for seed in range(scenes.SCENES):
        true, pred = scenes.label_scene(seed)
        found = classify_errors(compare(true, pred))
        expected = expected_counts(scenes.to_bitmaps(true), scenes.to_bitmaps(pred))
        assert found.counts == expected, seed
        total = {kind: total[kind] + expected[kind] for kind in KINDS}
    assert min(total.values()) > 5, total
