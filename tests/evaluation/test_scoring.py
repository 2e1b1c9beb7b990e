"""`score` against arithmetic over full bitmaps that is written out here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import scoring_scenes as scenes
from cell_scenes import bars
from cellseg.cells.instances import CellInstances
from cellseg.cells.overlaps import find_label_overlaps
from cellseg.errors import LabelError
from cellseg.evaluation import (
    class_confusion,
    confidence_intervals,
    iou_matrix,
    score,
)
from cellseg.evaluation.metrics import METRICS
from scipy.optimize import linear_sum_assignment

THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
BY_IMAGE = [name for name, metric in METRICS.items() if not metric.ranked]
COCO_NAMES = [name for name, metric in METRICS.items() if metric.ranked]
SHARES = [
    name
    for name in BY_IMAGE
    if name not in ("tp", "fp", "fn", "count_error") and not name.startswith("errors_")
]


def bitmap_iou(true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(IoU, intersection) of every pair, float [N, M]."""
    shared = np.array([[(a & b).sum() for b in pred] for a in true]).reshape(len(true), len(pred))
    union = np.array([[(a | b).sum() for b in pred] for a in true]).reshape(shared.shape)
    return shared / np.maximum(union, 1), shared


def assign(iou: np.ndarray, threshold: float, strict: bool) -> list[float]:
    """IoU of the pairs of the largest matching with the most IoU."""
    passes = (iou > threshold) if strict else (iou >= threshold)
    gain = passes * (1 + iou / (2 * max(1, *iou.shape)))
    return [float(iou[i, j]) for i, j in zip(*linear_sum_assignment(-gain)) if passes[i, j]]


def take_greedily(iou: np.ndarray, threshold: float, scores: Sequence[float]) -> list[float]:
    free, found = set(range(len(iou))), []
    for j in sorted(range(iou.shape[1]), key=lambda j: -scores[j]):
        able = [i for i in sorted(free) if iou[i, j] >= threshold]
        if able:
            best = max(able, key=lambda i: iou[i, j])
            free.discard(best)
            found.append(float(iou[best, j]))
    return found


def share(part: float, whole: float, nothing: bool) -> float:
    return 1.0 if nothing else (part / whole if whole else 0.0)


def ratios(found: Sequence[float], true: int, pred: int) -> dict[str, float]:
    """Every ratio by name from the matched IoU and the numbers of cells."""
    tp, nothing = len(found), true + pred == 0
    f1 = share(2 * tp, true + pred, nothing)
    matched = share(sum(found), tp, nothing)
    return {
        "precision": share(tp, pred, nothing),
        "recall": share(tp, true, nothing),
        "f1": f1,
        "rq": f1,
        "accuracy": share(tp, true + pred - tp, nothing),
        "mean_matched_score": matched,
        "sq": matched,
        "mean_true_score": share(sum(found), true, nothing),
        "pq": f1 * matched,
    }


class Scored:
    """A data set's matches by brute force."""

    def __init__(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], scores=None) -> None:
        self.sizes = [(len(true), len(pred)) for true, pred in pairs]
        self.iou = [bitmap_iou(*pair)[0] for pair in pairs]
        self.scores = scores or [np.ones(len(pred)) for _, pred in pairs]

    def matches(self, threshold: float, how: str = "optimal") -> list[list[float]]:
        if how == "greedy":
            return [take_greedily(*each) for each in zip(self.iou, [threshold] * 999, self.scores)]
        return [assign(iou, threshold, how == "strict") for iou in self.iou]

    def pooled(self, name: str, threshold: float, how: str = "optimal") -> float:
        found = list(itertools.chain(*self.matches(threshold, how)))
        return ratios(found, *(sum(side) for side in zip(*self.sizes)))[name]

    def by_image(self, name: str, threshold: float, how: str = "optimal") -> float:
        each = [
            ratios(found, *n)[name] for found, n in zip(self.matches(threshold, how), self.sizes)
        ]
        return sum(each) / len(each)

    def expected(self, threshold: float) -> dict[str, float]:
        names = list(ratios([], 0, 0))
        found = self.matches(threshold)
        tp = sum(map(len, found))
        return {
            **{name: self.pooled(name, threshold) for name in names},
            **{f"{name}_by_image": self.by_image(name, threshold) for name in names},
            "mean_iou": self.pooled("mean_matched_score", threshold),
            "ap_dsb": self.by_image("accuracy", threshold),
            "ap_cellpose": self.by_image("accuracy", threshold),
            "ap_dsb_greedy": self.by_image("accuracy", threshold, "greedy"),
            "f1_greedy": self.pooled("f1", threshold, "greedy"),
            "score_dsb2018": self.by_image("accuracy", threshold, "strict"),
            "score_sartorius": self.by_image("accuracy", threshold, "strict"),
            "tp": tp,
            "fp": sum(pred for _, pred in self.sizes) - tp,
            "fn": sum(true for true, _ in self.sizes) - tp,
        }


def check_thresholds(true: list, pred: list, scored: Scored) -> None:
    at_each = [scored.expected(threshold) for threshold in THRESHOLDS]
    for t in (0, 3, 9):
        expected = {f"{name}@{THRESHOLDS[t]:.2f}": value for name, value in at_each[t].items()}
        assert score(true, pred, list(expected)) == pytest.approx(expected, abs=1e-9)
    mean = {name: sum(each[name] for each in at_each) / 10 for name in at_each[0]}
    assert score(true, pred, list(mean)) == pytest.approx(mean, abs=1e-9)
    assert set(mean) == {name for name in BY_IMAGE if METRICS[name].at_threshold}


@pytest.mark.parametrize("first", range(0, scenes.SCENES, 10))
def test_label_images_at_every_threshold(first: int) -> None:
    pairs = [scenes.label_scene(seed) for seed in range(first, first + 10)]
    true, pred = map(list, zip(*pairs))
    scored = Scored([(scenes.to_bitmaps(a), scenes.to_bitmaps(b)) for a, b in pairs])
    check_thresholds(true, pred, scored)


@pytest.mark.parametrize("first", range(0, scenes.SCENES, 10))
def test_overlapping_instances_at_every_threshold(first: int) -> None:
    pairs = [scenes.instance_scene(seed) for seed in range(first, first + 10)]
    true, pred = map(list, zip(*pairs))
    bitmaps = [(a.to_bitmaps(), b.to_bitmaps()) for a, b in pairs]
    check_thresholds(true, pred, Scored(bitmaps, [b.scores for b in pred]))


def aji(true: np.ndarray, pred: np.ndarray) -> float:
    iou, shared = bitmap_iou(true, pred)
    if not len(true) and not len(pred):
        return 1.0
    inside, outside, used = 0, 0, set()
    for i, cell in enumerate(true):
        j = int(np.argmax(iou[i])) if len(pred) else 0
        if len(pred) and iou[i, j] > 0:
            inside += shared[i, j]
            outside += (cell | pred[j]).sum()
            used.add(j)
        else:
            outside += cell.sum()
    return inside / (outside + sum(cell.sum() for j, cell in enumerate(pred) if j not in used))


def aji_plus(true: np.ndarray, pred: np.ndarray) -> float:
    if not len(true) and not len(pred):
        return 1.0
    iou, shared = bitmap_iou(true, pred)
    chosen = [(i, j) for i, j in zip(*linear_sum_assignment(-iou)) if iou[i, j] > 0]
    total = sum(cell.sum() for cell in (*true, *pred))
    both = sum(shared[i, j] for i, j in chosen)
    return both / (total - both)


def seg(true: np.ndarray, pred: np.ndarray) -> list[float]:
    iou, shared = bitmap_iou(true, pred)
    return [
        max([iou[i, j] for j in range(len(pred)) if 2 * shared[i, j] > cell.sum()], default=0.0)
        for i, cell in enumerate(true)
    ]


def edge_points(labels: np.ndarray) -> list[tuple[int, int]]:
    padded = np.pad(labels, 1, mode="edge")
    return [
        (row, col)
        for row, col in np.argwhere(labels)
        if any(
            padded[row + 1 + dr, col + 1 + dc] != labels[row, col]
            for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
    ]


def boundary_f1(true: list[np.ndarray], pred: list[np.ndarray]) -> float:
    counts = np.zeros(4)
    for pair in zip(true, pred):
        points = [np.array(edge_points(labels)).reshape(-1, 2) for labels in pair]
        for k, (mine, other) in enumerate((points, points[::-1])):
            distance = np.linalg.norm(mine[:, None] - other[None], axis=2)
            near = (distance <= 2).any(axis=1).sum() if len(other) else 0
            counts[2 * k : 2 * k + 2] += len(mine), near
    recall, precision = counts[1] / counts[0], counts[3] / counts[2]
    return 2 * recall * precision / (recall + precision)


@pytest.mark.parametrize("first", range(0, scenes.SCENES, 20))
def test_pixel_metrics_of_label_images(first: int) -> None:
    pairs = [scenes.label_scene(seed) for seed in range(first, first + 20)]
    true, pred = map(list, zip(*pairs))
    bitmaps = [(scenes.to_bitmaps(a), scenes.to_bitmaps(b)) for a, b in pairs]
    both = sum(((a > 0) & (b > 0)).sum() for a, b in pairs)
    areas = [sum((side > 0).sum() for side in sides) for sides in (true, pred)]
    cells = list(itertools.chain(*(seg(*pair) for pair in bitmaps)))
    expected = {
        "aji": np.mean([aji(*pair) for pair in bitmaps]),
        "aji_plus": np.mean([aji_plus(*pair) for pair in bitmaps]),
        "seg_ctc": np.mean(cells),
        "dice_foreground": 2 * both / sum(areas),
        "jaccard_foreground": both / (sum(areas) - both),
        "boundary_f1": boundary_f1(true, pred),
        "count_error": np.mean([abs(len(a) - len(b)) for a, b in bitmaps]),
    }
    assert score(true, pred, list(expected)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("first", range(0, scenes.SCENES, 20))
def test_pixel_metrics_of_overlapping_instances(first: int) -> None:
    pairs = [scenes.instance_scene(seed) for seed in range(first, first + 20)]
    true, pred = map(list, zip(*pairs))
    bitmaps = [(a.to_bitmaps(), b.to_bitmaps()) for a, b in pairs]
    covers = [tuple(side.any(axis=0) for side in pair) for pair in bitmaps]
    both = sum((a & b).sum() for a, b in covers)
    area = sum(a.sum() + b.sum() for a, b in covers)
    expected = {
        "aji": np.mean([aji(*pair) for pair in bitmaps]),
        "seg_ctc": np.mean(list(itertools.chain(*(seg(*pair) for pair in bitmaps)))),
        "dice_foreground": 2 * both / area,
    }
    assert score(true, pred, list(expected)) == pytest.approx(expected, abs=1e-9)


def test_by_hand() -> None:
    """Four true bars: found, found half, split in two, missed; and one spurious."""
    true = bars((0, 10), (10, 20), (20, 30), (40, 45))
    pred = bars((0, 10), (14, 20), (20, 24), (24, 30), (50, 58))
    # IoU 1, 0.6, 0.4 and 0.6, none
    figures = score([true], [pred], ["tp@0.50", "fp@0.50", "fn@0.50", "pq@0.50", "pq@0.7"])
    assert figures["tp@0.50"] == 3
    assert (figures["fp@0.50"], figures["fn@0.50"]) == (2, 1)
    assert figures["pq@0.50"] == pytest.approx((1 + 0.6 + 0.6) / (3 + 1 + 0.5))
    assert figures["pq@0.7"] == pytest.approx(1 / (1 + 2 + 1.5))
    pixels = score([true], [pred], ["aji", "seg_ctc", "dice_foreground", "count_error"])
    assert pixels["aji"] == pytest.approx(22 / (30 + 5 + 4 + 8))
    assert pixels["seg_ctc"] == pytest.approx((1 + 0.6 + 0.6 + 0) / 4)
    assert pixels["dice_foreground"] == pytest.approx(2 * 26 / (35 + 34))
    assert pixels["count_error"] == 1


def test_aji_plus_prefers_more_iou_to_more_pairs() -> None:
    true, pred = bars((0, 10), (10, 12)), bars((0, 11), (5, 6))
    # one to one: (0-0: 10/11) alone beats (0-1: 1/10) with (1-0: 1/12)
    assert score([true], [pred], ["aji_plus"])["aji_plus"] == pytest.approx(10 / (11 + 2 + 1))


def test_exactly_at_the_threshold() -> None:
    true, pred = bars((0, 10)), bars((0, 5))
    names = ["ap_dsb@0.50", "ap_cellpose@0.50", "score_dsb2018@0.50", "score_sartorius@0.50"]
    assert list(score([true], [pred], names).values()) == [1, 1, 0, 0]


def test_greedy_and_optimal_differ() -> None:
    """The best-scored detection takes the cell that the other one needs."""
    true = bars((0, 10), (10, 16))
    pred = bars((2, 14), (0, 6))
    cells = CellInstances.from_crops(
        pred.crops, pred.offsets_rc, pred.image_hw, scores=[0.9, 0.8], classes=[0, 0]
    )
    # (0, 0): 8 / 14, (1, 0): 4 / 14, (0, 1): 6 / 10
    figures = score([true], [cells], ["f1@0.25", "f1_greedy@0.25"])
    assert figures == {"f1@0.25": 1.0, "f1_greedy@0.25": 0.5}


@pytest.mark.parametrize("seed", range(10))
def test_perfect_is_exactly_one(seed: int) -> None:
    labels = [scenes.label_scene(k)[0] for k in range(seed * 10 + 1, seed * 10 + 4)]
    cells = [scenes.instance_scene(k)[0] for k in range(seed * 10, seed * 10 + 5)]
    for images in (labels, cells):
        figures = score(images, images, [*SHARES, *COCO_NAMES])
        wrong = {
            k: v for k, v in figures.items() if v != 1 and not (math.isnan(v) and "_coco" in k)
        }
        assert wrong == {"afnr_livecell": 0}
        zeros = [
            "fp",
            "fn",
            "count_error",
            *(f"errors_{k}" for k in ("missed", "spurious", "split")),
        ]
        assert set(score(images, images, zeros).values()) == {0}


def test_predictions_without_cells() -> None:
    labels = [scenes.label_scene(k)[0] for k in (1, 2, 3)]
    nothing = [np.zeros_like(each) for each in labels]
    assert set(score(labels, nothing, SHARES).values()) == {0}
    assert set(score(nothing, labels, SHARES).values()) == {0}
    assert set(score(nothing, nothing, SHARES).values()) == {1}
    figures = score(labels, nothing, ["fn@0.50", "fp@0.50", "errors_missed", "ap_coco_mask"])
    cells = sum(len(scenes.to_bitmaps(each)) for each in labels)
    assert list(figures.values()) == [cells, 0, cells, 0]
    assert math.isnan(score(nothing, labels, ["ap_coco_mask"])["ap_coco_mask"])


def test_no_images() -> None:
    figures = score([], [], [*BY_IMAGE, *COCO_NAMES])
    for name, value in figures.items():
        if name in SHARES:
            assert value == 1, name
        elif name in BY_IMAGE:
            assert value == 0, name
        else:
            assert math.isnan(value), name
    assert confidence_intervals([], [], ["f1"], samples=3) == {"f1": (1, 1)}


@pytest.mark.parametrize("seed", range(20))
def test_order_and_labels_play_no_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [scenes.label_scene(k) for k in range(seed, seed + 4)]
    true, pred = map(list, zip(*pairs))
    order = rng.permutation(4)
    renumbered = [[scenes.renumber(rng, side[k]) for k in order] for side in (true, pred)]
    before = score(true, pred, [*BY_IMAGE, "f1@0.50"])
    assert score(*renumbered, [*BY_IMAGE, "f1@0.50"]) == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_order_of_instances_plays_no_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, pred = scenes.instance_scene(seed + 300, num_classes=2)
    shuffled = [each[rng.permutation(len(each))] for each in (true, pred)]
    names = [name for name in BY_IMAGE if "greedy" not in name and "boundary" not in name]
    before = score([true], [pred], names)
    assert score([shuffled[0]], [shuffled[1]], names) == pytest.approx(
        before, abs=1e-12, nan_ok=True
    )


def test_classes() -> None:
    spans = ((0, 10), (10, 20), (20, 30))
    cells = bars(*spans)
    true, pred = (
        CellInstances.from_crops(cells.crops, cells.offsets_rc, cells.image_hw, classes=classes)
        for classes in ([0, 0, 1], [0, 1, 1])
    )
    names = ["f1@0.50", "ap_coco_mask", "recall@0.50"]
    apart = score([true], [pred], names)
    assert apart["f1@0.50"] == pytest.approx(2 / 3)
    # class 0: precision 1 up to recall 0.5 (51 of 101 points); class 1: of two with one score
    # the first is wrong
    assert apart["ap_coco_mask"] == pytest.approx((51 / 101 + 0.5) / 2)
    assert set(score([true], [pred], names, match_classes=False).values()) == {1}
    assert class_confusion([true], [pred]).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    table = class_confusion([true[:2]], [pred[1:]], num_classes=3)
    assert table.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_iou_matrix_of_both_kinds() -> None:
    true, pred = scenes.label_scene(5)
    expected = bitmap_iou(scenes.to_bitmaps(true), scenes.to_bitmaps(pred))[0]
    np.testing.assert_array_equal(iou_matrix(true, pred), expected)
    cells = [CellInstances.from_label_image(labels) for labels in (true, pred)]
    np.testing.assert_array_equal(iou_matrix(*cells), expected)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_integer_types_of_label_images(dtype: type) -> None:
    true, pred = np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 1]])
    assert iou_matrix(true.astype(dtype), pred.astype(dtype)).tolist() == [[0.5]]


@pytest.mark.parametrize("high", [2**40, 2**63])
def test_large_labels(high: int) -> None:
    true = np.array([[high, high, 7, 0]], np.uint64)
    pred = np.array([[high, 0, 7, 7]], np.uint64)
    overlaps, true_areas, pred_areas = find_label_overlaps(true, pred)
    assert overlaps.to_matrix().tolist() == [[0.5, 0], [0, 0.5]]
    assert (true_areas.tolist(), pred_areas.tolist()) == ([1, 2], [2, 1])


def test_more_cells_than_the_table_holds() -> None:
    labels = np.arange(1, 90001, dtype=np.uint32).reshape(300, 300)
    moved = np.roll(labels, 1, axis=1)
    moved[:, 0] = 0
    overlaps, _, _ = find_label_overlaps(labels, moved)
    assert len(overlaps.iou) == 300 * 299
    assert (overlaps.iou == 1).all()
    assert score([labels], [moved], ["recall@0.50"]) == {"recall@0.50": pytest.approx(299 / 300)}


def test_intervals() -> None:
    pairs = [scenes.label_scene(seed) for seed in range(1, 12)]
    true, pred = map(list, zip(*pairs))
    names = ["f1@0.50", "ap_dsb", "seg_ctc"]
    figures = score(true, pred, names)
    intervals = confidence_intervals(true, pred, names, samples=300)
    assert intervals == confidence_intervals(true, pred, names, samples=300)
    narrow = confidence_intervals(true, pred, names, samples=300, level=0.5)
    for name, (low, high) in intervals.items():
        assert low < figures[name] < high
        assert low < narrow[name][0] < narrow[name][1] < high
    assert confidence_intervals(true, true, ["f1"], samples=20) == {"f1": (1, 1)}


def test_intervals_are_the_percentiles_of_redrawn_images() -> None:
    pairs = [scenes.label_scene(seed) for seed in (1, 2, 3)]
    true, pred = map(list, zip(*pairs))
    drawn = np.random.default_rng(4).integers(0, 3, (50, 3))
    values = [
        score([true[k] for k in one], [pred[k] for k in one], ["f1@0.50"])["f1@0.50"]
        for one in drawn
    ]
    found = confidence_intervals(true, pred, ["f1@0.50"], samples=50, seed=4, level=0.9)
    assert found["f1@0.50"] == pytest.approx(tuple(np.percentile(values, [5, 95])))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f2@0.50", "did you mean .*f1"),
        ("ap_coco_msk", "ap_coco_mask"),
        ("ap", "did you mean"),
        ("zzz", "there are accuracy, "),
        ("f1@1.5", "in \\(0, 1\\]"),
        ("f1@half", "in \\(0, 1\\]"),
        ("aji@0.50", "aji takes none"),
        ("ap_coco_mask@0.52", "0.50, 0.55"),
        ("ar_coco_mask@0.5", "number of detections"),
        ("ar_coco_box@0", "number of detections"),
    ],
)
def test_unknown_names(name: str, text: str) -> None:
    with pytest.raises(LabelError, match=text):
        score([], [], [name])


@pytest.mark.parametrize("metrics", [["f1"], ["ap_coco_mask"]])
def test_sides_of_different_lengths(metrics: list[str]) -> None:
    with pytest.raises(LabelError, match="1 images and predictions of 2"):
        score([np.zeros((2, 2), int)], [np.zeros((2, 2), int)] * 2, metrics)


def test_images_that_do_not_compare() -> None:
    good = np.zeros((2, 2), int)
    for wrong, text in (
        (np.zeros((2, 3), int), r"image 1: .*\[2, 2\] and \[2, 3\]"),
        (np.zeros((2, 2)), "image 1: .*float64"),
        (np.full((2, 2), -1), "image 1: .*negative"),
        (np.zeros((2, 2, 3), int), r"image 1: .*\[H, W\]"),
        (CellInstances.empty((2, 2)), "image 1: .*ndarray and CellInstances"),
    ):
        with pytest.raises(LabelError, match=text):
            score([good, good], [good, wrong])
    with pytest.raises(LabelError, match=r"image 0: .*same size"):
        score([CellInstances.empty((2, 2))], [CellInstances.empty((3, 2))])


def test_wrong_intervals() -> None:
    with pytest.raises(LabelError, match="level"):
        confidence_intervals([], [], level=95)
    with pytest.raises(LabelError, match="samples"):
        confidence_intervals([], [], samples=0)
    with pytest.raises(LabelError, match="no interval"):
        confidence_intervals([], [], ["ap_coco_mask"])
