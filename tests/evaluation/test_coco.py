"""COCO's average precision and recall against pycocotools' own, crowd regions included."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
import scoring_scenes as scenes
from cell_scenes import bars
from cellseg.cells.instances import CellInstances
from cellseg.evaluation import Comparisons, compare, score
from cellseg.evaluation.coco import (
    COCO_SIZES,
    EVERY_SIZE,
    LIVECELL_SIZES,
    MAX_DETECTIONS,
    CocoNumbers,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Pairs = list[tuple[CellInstances, CellInstances]]
LIMITS = [100, 500, 2000]


def annotations(cells: CellInstances, image_id: int, with_scores: bool, kind: str) -> list[dict]:
    found = []
    for k, rle in enumerate(cells.to_rles()):
        x0, y0, x1, y1 = cells.boxes_xyxy[k].astype(float).tolist()
        one = {
            "image_id": image_id,
            "category_id": int(cells.classes[k]) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": int(cells.is_crowd[k]),
        }
        if with_scores:
            one["score"] = float(cells.scores[k])
        if kind == "mask" or not with_scores:
            one["segmentation"] = rle
        if with_scores and kind == "mask":
            del one["bbox"]  # otherwise the size of a result is its box's
        found.append({**one, "area": int(cells.areas_px[k])})
    return found


def peer(
    pairs: Pairs,
    kind: str,
    sizes_px: dict[str, tuple[float, float]],
    limits: list[int],
    classes: int,
) -> COCOeval:
    true = [one for n, (t, _) in enumerate(pairs, 1) for one in annotations(t, n, False, kind)]
    pred = [one for n, (_, p) in enumerate(pairs, 1) for one in annotations(p, n, True, kind)]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": n, "height": t.image_hw[0], "width": t.image_hw[1]}
            for n, (t, _) in enumerate(pairs, 1)
        ],
        "annotations": [{"id": n, **one} for n, one in enumerate(true, 1)],
        "categories": [{"id": n + 1, "name": str(n)} for n in range(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(pred), "segm" if kind == "mask" else "bbox")
        evaluation.params.maxDets = limits
        evaluation.params.areaRng = [list(bounds) for bounds in sizes_px.values()]
        evaluation.params.areaRngLbl = list(sizes_px)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def check_equal(found: CocoNumbers, evaluation: COCOeval, size: int, limit: int) -> None:
    for mine, name in ((found.precision, "precision"), (found.recall, "recall")):
        theirs = evaluation.eval[name][..., size, limit]
        assert np.all(theirs[..., mine.shape[-1] :] == -1)  # classes that never occur
        theirs = theirs[..., : mine.shape[-1]]
        np.testing.assert_allclose(mine, np.where(theirs == -1, np.nan, theirs), rtol=0, atol=1e-9)
    known = evaluation.eval["precision"][..., size, limit]
    known = known[known > -1]
    assert found.ap == pytest.approx(
        known.mean() if known.size else math.nan, abs=1e-9, nan_ok=True
    )


def check_data_set(
    pairs: Pairs, kind: str, sizes_px: dict, limits: list[int], classes: int
) -> None:
    if not any(len(pred) for _, pred in pairs):
        return  # pycocotools cannot load an empty list of results
    evaluation = peer(pairs, kind, sizes_px, limits, classes)
    mine = Comparisons([compare(*pair) for pair in pairs]).coco(kind)
    for size, bounds in enumerate(sizes_px.values()):
        for number, limit in enumerate(limits):
            check_equal(mine.numbers(limit, bounds), evaluation, size, number)


def numbers(
    pairs: Pairs,
    kind: str = "mask",
    max_detections: int = MAX_DETECTIONS,
    sizes_px: tuple[float, float] = EVERY_SIZE,
) -> CocoNumbers:
    return (
        Comparisons([compare(*pair) for pair in pairs]).coco(kind).numbers(max_detections, sizes_px)
    )


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize("first", range(0, scenes.SCENES, 5))
def test_random_scenes(first: int, kind: str) -> None:
    """Three classes, ties in scores, images without cells or detections; limits that bite."""
    pairs = [scenes.instance_scene(seed, num_classes=3) for seed in range(first, first + 5)]
    sizes_px = {"all": EVERY_SIZE, "small": (0, 16), "medium": (16, 36), "large": (36, 1e10)}
    check_data_set(pairs, kind, sizes_px, [1, 3, 100], 3)


def with_crowds(cells: CellInstances, seed: int) -> CellInstances:
    """The same, of which some are regions of uncounted cells, and one large such region."""
    rng = np.random.default_rng(seed)
    height, width = cells.image_hw
    region = np.zeros((1, height, width), bool)
    region[0, : height // 2, : rng.integers(width)] = True
    masks = np.concatenate([cells.to_bitmaps(), region])
    order = rng.permutation(len(masks))
    found = CellInstances.from_bitmaps(
        masks[order], classes=np.append(cells.classes, rng.integers(0, 3))[order]
    )
    return found.replace(is_crowd=(rng.random(len(masks)) < 0.2)[order] | (order == len(cells)))


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize("first", range(0, scenes.SCENES, 5))
def test_random_scenes_with_crowd_regions(first: int, kind: str) -> None:
    """Detections in a crowd are ignored, and one that is ignored anyway may lie in several."""
    pairs = [scenes.instance_scene(seed, num_classes=3) for seed in range(first, first + 5)]
    pairs = [(with_crowds(true, seed), pred) for seed, (true, pred) in enumerate(pairs, first)]
    sizes_px = {"all": EVERY_SIZE, "small": (0, 16), "medium": (16, 36), "large": (36, 1e10)}
    check_data_set(pairs, kind, sizes_px, [1, 3, 100], 3)


def crowded(seed: int, cells: int, side: int) -> tuple[CellInstances, CellInstances]:
    """Cells of 4 to 110 px across that overlap, and as many detections of them and of nothing."""
    rng = np.random.default_rng(seed)
    sides = []
    lengths = np.where(rng.random(cells) < 0.03, 105, rng.integers(4, 45, cells))
    corners = rng.integers(0, side, (cells, 2))
    for move in (0, 3):
        crops, offsets = [], []
        for length, corner in zip(lengths, corners):
            start = np.clip(corner + rng.integers(-move, move + 1, 2), 0, side - 1)
            high, wide = np.minimum(length + rng.integers(-move, move + 1, 2) // 2, side - start)
            crops.append(np.ones((max(1, high), max(1, wide)), bool))
            offsets.append(start)
        scores = np.round(rng.random(cells), 2)
        classes = (rng.random(cells) < 0.1).astype(int)
        sides.append(
            CellInstances.from_crops(crops, offsets, (side, side), scores=scores, classes=classes)
        )
    order = rng.permutation(cells)
    return sides[0], CellInstances.from_crops(
        [sides[1].crops[k] for k in order],
        sides[1].offsets_rc[order],
        (side, side),
        scores=sides[1].scores[order],
        classes=np.where(rng.random(cells) < 0.1, 1 - sides[0].classes, sides[0].classes)[order],
    )


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_more_than_a_hundred_and_both_size_bins(kind: str) -> None:
    pairs = [crowded(1, 620, 500), crowded(2, 60, 300), crowded(3, 0, 50)]
    sizes_px = {"all": EVERY_SIZE, **COCO_SIZES}
    if kind == "mask":
        sizes_px |= {f"{name}_livecell": bounds for name, bounds in LIVECELL_SIZES.items()}
    check_data_set(pairs, kind, sizes_px, LIMITS, 2)
    true, pred = map(list, zip(*pairs))
    names = [f"{what}_coco_{kind}" for what in ("ap", "ar")]
    names += [f"{name}_{size}" for name in names for size in sizes_px if size != "all"]
    values = score(true, pred, names)
    assert len(set(values.values())) == len(names)
    assert all(0 < value < 1 for value in values.values())
    for name, value in values.items():
        size = name.split(kind)[1].removeprefix("_")
        found = numbers(pairs, kind=kind, sizes_px=sizes_px[size or "all"])
        assert value == (found.ap if name.startswith("ap") else found.ar)


def test_limits_thresholds_and_false_negatives_by_name() -> None:
    pairs = [crowded(4, 900, 400)]
    true, pred = map(list, zip(*pairs))
    by_limit = score(true, pred, [f"ar_coco_mask@{limit}" for limit in LIMITS])
    assert list(by_limit.values()) == [numbers(pairs, max_detections=limit).ar for limit in LIMITS]
    assert by_limit["ar_coco_mask@100"] < by_limit["ar_coco_mask@500"]
    found = numbers(pairs)
    values = score(true, pred, ["ap_coco_mask@0.50", "ap_coco_mask@0.7", "afnr_livecell"])
    assert values["ap_coco_mask@0.50"] == np.mean(found.precision[0])
    assert values["ap_coco_mask@0.7"] == np.mean(found.precision[4])
    assert values["afnr_livecell"] == pytest.approx(1 - found.recall.mean())


def test_by_hand() -> None:
    true = bars((0, 10), (20, 30))
    pred = bars((0, 10), (40, 50), (20, 26))
    cells = CellInstances.from_crops(
        pred.crops, pred.offsets_rc, pred.image_hw, scores=[0.9, 0.8, 0.7]
    )
    found = numbers([(true, cells)])
    # at 0.50, 0.55, 0.60: right, wrong, right; above: right, wrong, wrong
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert found.ap == pytest.approx((3 * both + 7 * one) / 10)
    assert found.ar == pytest.approx((3 * 1 + 7 * 0.5) / 10)
    assert found.ap_at(0.5) == pytest.approx(both)


def test_nothing() -> None:
    empty = CellInstances.empty((5, 5))
    cell = CellInstances.from_bitmaps(np.ones((1, 5, 5)))
    found = numbers([(empty, cell)])
    assert math.isnan(found.ap)
    assert math.isnan(found.ar)
    assert numbers([(bars((0, 3)), CellInstances.empty((1, 60)))]).ap == 0
    assert math.isnan(numbers([]).ap)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="mask or box"):
        numbers([], kind="keypoints")
