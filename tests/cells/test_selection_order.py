"""All steps from detections to cells, in their order, against a reference over full bitmaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import (
    LOOKING_AT_EVERYTHING,
    Candidates,
    DetectionThresholds,
    clean_detections,
    finish_cells,
    select_cells,
    select_detections,
    vote_over_image,
)
from cellseg.errors import ConfigError
from scipy import ndimage

HW = (16, 22)


def random_cells(rng: np.random.Generator) -> CellInstances:
    """Rectangles with holes and in pieces, some empty; many scores are equal."""
    number = int(rng.integers(0, 25))
    bitmaps = np.zeros((number, *HW), bool)
    for bitmap in bitmaps:
        row, col = rng.integers(0, HW[0]), rng.integers(0, HW[1])
        bitmap[row : row + rng.integers(0, 9), col : col + rng.integers(1, 9)] = True
        bitmap &= rng.random(HW) < rng.choice([0.7, 0.9, 1.0])
    return CellInstances.from_bitmaps(
        bitmaps, rng.integers(0, 12, number) / 12, rng.integers(0, 3, number)
    )


def random_thresholds(rng: np.random.Generator) -> DetectionThresholds:
    return DetectionThresholds(
        score=rng.choice([0.0, 0.1, 0.3], 3),
        mask_nms=rng.choice([0.0, 0.2, 0.5, 1.0], 3),
        min_area_px=rng.choice([0, 1, 6], 3),
        max_covered=rng.choice([0.25, 0.5, 1.0], 3),
        vote=str(rng.choice(["none", "image"])),
        largest_component=rng.choice([True, False], 3),
        fill_holes=rng.choice([True, False], 3),
        max_area_px=rng.choice([0, 25, 40], 3),
        border=rng.choice(["keep", "drop"], 3),
        exclusive=rng.choice([True, False], 3),
    )


def largest_piece(bitmap: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(bitmap, np.ones((3, 3)))
    if count == 0:
        return bitmap
    pieces = [labels == k + 1 for k in range(count)]
    return max(pieces, key=lambda piece: (piece.sum(), -piece.ravel().argmax()))


def reference(cells: CellInstances, thresholds: DetectionThresholds) -> dict[int, np.ndarray]:
    """Number of each cell to its bitmap, step by step and pixel by pixel."""

    def at(name: str, k: int) -> object:
        value = getattr(thresholds, name)
        return value[classes[k]] if isinstance(value, tuple) else value

    classes = cells.classes.tolist()
    if thresholds.vote == "image":
        votes = np.zeros(3)
        for score, number in zip(cells.scores, classes):
            votes[number] += score if score >= np.float32(min(thresholds.score)) else 0
        classes = [int(votes.argmax())] * len(cells) if votes.any() else classes
    by_score = sorted(range(len(cells)), key=lambda k: (-cells.scores[k], k))
    masks: dict[int, np.ndarray] = {}
    for k, bitmap in zip(by_score, cells.to_bitmaps()[by_score]):
        bitmap = largest_piece(bitmap) if at("largest_component", k) else bitmap
        bitmap = ndimage.binary_fill_holes(bitmap) if at("fill_holes", k) else bitmap
        fits = bitmap.sum() >= at("min_area_px", k)
        fits &= at("max_area_px", k) in (0, *range(int(bitmap.sum()), 1000))
        if cells.scores[k] >= np.float32(at("score", k)) and fits:
            masks[k] = bitmap
    kept: list[int] = []
    for k, mask in masks.items():
        others = [masks[j] for j in kept if classes[j] == classes[k]]
        shared = [int((mask & other).sum()) for other in others]
        ious = [s / max(1, (mask | other).sum()) for s, other in zip(shared, others)]
        piece = at("max_covered", k) < 1 and sum(shared) > at("max_covered", k) * mask.sum()
        if max(ious, default=0) <= at("mask_nms", k) and not piece:
            kept.append(k)
    edge = np.ones(HW, bool)
    edge[1:-1, 1:-1] = False
    kept = [k for k in kept if at("border", k) == "keep" or not (masks[k] & edge).any()]
    taken = np.zeros(HW, bool)
    found: dict[int, np.ndarray] = {}
    for k in kept:
        mask = masks[k]
        if at("exclusive", k):
            mask = mask & ~taken
            if at("largest_component", k) and not np.array_equal(mask, masks[k]):
                mask = largest_piece(mask)
            if mask.sum() < max(1, at("min_area_px", k)):
                continue
            taken |= mask
        found[k] = mask
    return dict(sorted(found.items()))


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    changed = dropped = 0
    for _ in range(100):
        cells, thresholds = random_cells(rng), random_thresholds(rng)
        expected = reference(cells, thresholds)
        voted = vote_over_image(cells, thresholds)
        found = finish_cells(voted, thresholds)
        assert found.numbers.tolist() == list(expected)
        bitmaps = found.cells.to_bitmaps()
        assert np.array_equal(bitmaps, np.array([*expected.values()], bool).reshape(-1, *HW))
        before = cells.to_bitmaps()[found.numbers]
        assert found.is_changed.tolist() == (before != bitmaps).any(axis=(1, 2)).tolist()
        selected = select_cells(cells, thresholds)
        assert selected.equals(found.cells)
        for name in ("boxes_xyxy", "scores", "classes", "is_crowd"):
            assert np.array_equal(getattr(selected, name), getattr(voted, name)[found.numbers])
        changed += int(found.is_changed.sum())
        dropped += len(cells) - len(selected)
    assert changed > 50
    assert dropped > 100


def test_detections_that_are_measured_already_give_the_same() -> None:
    rng = np.random.default_rng(7)
    for _ in range(100):
        cells, thresholds = random_cells(rng), replace(random_thresholds(rng), vote="none")
        clean, _ = clean_detections(cells, thresholds)
        candidates = Candidates.measure(clean, LOOKING_AT_EVERYTHING)
        numbers, new = select_detections(candidates, thresholds)
        found = finish_cells(cells, thresholds)
        assert numbers.tolist() == found.numbers.tolist()
        for crop, offset_rc, number in zip(found.cells.crops, found.cells.offsets_rc, numbers):
            if number in new:
                assert np.array_equal(new[number][0], crop)
                assert new[number][1] == tuple(offset_rc)


def test_cells_stay_what_they_are_when_selected_once_more() -> None:
    """All steps but the last: without pixels in two cells it has nothing to do."""
    rng = np.random.default_rng(8)
    for _ in range(100):
        cells = random_cells(rng)
        thresholds = replace(random_thresholds(rng), exclusive=False, vote="none")
        once = select_cells(cells, thresholds)
        assert select_cells(once, thresholds).equals(once)


def test_with_the_defaults_the_masks_are_the_same_objects() -> None:
    cells = random_cells(np.random.default_rng(9))
    kept = select_cells(cells, DetectionThresholds(score=0, mask_nms=0.9))
    assert {id(crop) for crop in kept.crops} <= {id(crop) for crop in cells.crops}
    runs = CellInstances.from_rles(cells.to_rles(), HW)
    assert select_cells(runs, DetectionThresholds())._crops is None


def bars(*spans: tuple[int, int], **more: list) -> CellInstances:
    """Cells in an image of three rows, in the middle one: half-open column spans."""
    bitmaps = np.zeros((len(spans), 3, 60), bool)
    for bitmap, (start, stop) in zip(bitmaps, spans):
        bitmap[1, start:stop] = True
    return CellInstances.from_bitmaps(bitmaps, **more)


def spans_of(cells: CellInstances) -> list[tuple[int, int]]:
    columns = [np.flatnonzero(bitmap[1]) for bitmap in cells.to_bitmaps()]
    return [(int(found[0]), int(found[-1]) + 1) for found in columns]


def test_a_cell_at_the_border_takes_its_piece_along_and_frees_its_pixels() -> None:
    cells = bars((0, 20), (5, 15), (18, 30), scores=[0.9, 0.8, 0.7])
    thresholds = DetectionThresholds(0, max_covered=0.5, exclusive=True)
    assert spans_of(select_cells(cells, thresholds)) == [(0, 20), (20, 30)]
    dropping = replace(thresholds, border="drop")
    assert spans_of(select_cells(cells, dropping)) == [(18, 30)]


def test_every_pixel_belongs_to_the_higher_score_and_at_equal_ones_to_the_lower_number() -> None:
    thresholds = DetectionThresholds(0, exclusive=True)
    cells = bars((5, 15), (10, 20), scores=[0.7, 0.9])
    assert spans_of(select_cells(cells, thresholds)) == [(5, 10), (10, 20)]
    cells = bars((5, 15), (10, 20), scores=[0.9, 0.9])
    assert spans_of(select_cells(cells, thresholds)) == [(5, 15), (15, 20)]


def test_what_is_left_of_a_cell_is_none_below_the_least_area_and_takes_no_pixel() -> None:
    cells = bars((5, 15), (13, 17), (14, 30), scores=[0.9, 0.8, 0.7])
    thresholds = DetectionThresholds(0, exclusive=True)
    assert spans_of(select_cells(cells, thresholds)) == [(5, 15), (15, 17), (17, 30)]
    least = replace(thresholds, min_area_px=3)
    assert spans_of(select_cells(cells, least)) == [(5, 15), (15, 30)]
    inside = bars((5, 15), (6, 9), (7, 7), scores=[0.9, 0.8, 0.7])
    assert spans_of(select_cells(inside, thresholds)) == [(5, 15)]


def test_a_cell_that_is_cut_in_two_keeps_its_largest_piece() -> None:
    cells = bars((10, 15), (5, 18), scores=[0.9, 0.8])
    thresholds = DetectionThresholds(0, exclusive=True)
    assert select_cells(cells, thresholds).areas_px.tolist() == [5, 8]
    one_piece = replace(thresholds, largest_component=True)
    assert spans_of(select_cells(cells, one_piece)) == [(10, 15), (5, 10)]


def test_classes_that_are_not_exclusive_lose_and_take_nothing() -> None:
    cells = bars((5, 15), (10, 20), (12, 25), scores=[0.9, 0.8, 0.7], classes=[0, 1, 0])
    found = select_cells(cells, DetectionThresholds(0, exclusive=[True, False]))
    assert spans_of(found) == [(5, 15), (10, 20), (15, 25)]
    found = select_cells(cells, DetectionThresholds(0, exclusive=True))
    assert spans_of(found) == [(5, 15), (15, 20), (20, 25)]


def test_areas_are_those_of_clean_masks() -> None:
    ring = np.zeros((1, 12, 12), bool)
    ring[0, 2:8, 2:8] = True
    ring[0, 3:7, 3:7] = False
    ring[0, 11, 11] = True
    cells = CellInstances.from_bitmaps(ring)
    assert cells.areas_px.tolist() == [21]
    found = {
        (piece, holes): select_cells(
            cells,
            DetectionThresholds(0, largest_component=piece, fill_holes=holes, min_area_px=36),
        ).areas_px.tolist()
        for piece in (False, True)
        for holes in (False, True)
    }
    assert found == {
        (False, False): [],
        (True, False): [],
        (False, True): [37],
        (True, True): [36],
    }
    exact = DetectionThresholds(0, max_area_px=21)
    assert len(select_cells(cells, exact)) == 1
    assert len(select_cells(cells, replace(exact, max_area_px=20))) == 0
    assert len(select_cells(cells, replace(exact, fill_holes=True))) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"largest_component": 1}, "largest component is 1; expected True or False, as one flag"),
        ({"fill_holes": [True, 0.5]}, r"filling of holes is \[True, 0.5\].*FILL_HOLES"),
        ({"fill_holes": []}, r"filling of holes is \[\]"),
        ({"border": "cut"}, "border cells is cut; expected one of keep, drop, as one word"),
        ({"border": ["keep", 1]}, "TEST.BORDER"),
        ({"max_area_px": -1}, "maximum area is -1; expected 0"),
        ({"exclusive": "yes"}, "one cell per pixel is yes"),
    ],
)
def test_refuses(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectionThresholds(**values)


def test_lists_need_one_value_per_class_and_some_area_has_to_fit() -> None:
    with pytest.raises(ConfigError, match=r"BORDER is \['drop'\], 1 words; expected one word, or"):
        DetectionThresholds(border=["drop"]).check_classes(2)
    with pytest.raises(ConfigError, match=r"EXCLUSIVE is \[True\], 1 flags"):
        DetectionThresholds(exclusive=[True]).check_classes(2)
    DetectionThresholds(min_area_px=[5, 30], max_area_px=[0, 30]).check_classes(2)
    with pytest.raises(ConfigError, match=r"MAX_AREA is 29 for class 1 .* MIN_AREA, 30"):
        DetectionThresholds(min_area_px=[5, 30], max_area_px=29).check_classes(2)
    cells = bars((0, 9), classes=[2])
    with pytest.raises(ConfigError, match="of class 2"):
        select_cells(cells, DetectionThresholds(border=["keep", "drop"]))


def test_in_words() -> None:
    everything = DetectionThresholds(
        [0.4, 0.65],
        0.5,
        0.3,
        30,
        0.5,
        "image",
        largest_component=True,
        fill_holes=[True, False],
        max_area_px=900,
        border=["drop", "keep"],
        exclusive=True,
    )
    assert everything.describe() == (
        "score >= 0.4/0.65, largest component yes, holes filled yes/no, area >= 30 px, "
        "area <= 900 px, mask NMS 0.3, covered <= 0.5, border drop/keep, "
        "one cell per pixel yes, type by vote over the image"
    )
