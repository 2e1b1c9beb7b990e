"""For cells of any shape: run lengths and outlines are the pixels, and the pixels are they."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.polygons import crop_to_rings, group_rings, ring_area, rings_to_crop
from cellseg.cells.run_lengths import rle_to_runs, rles_to_runs
from cellseg.errors import LabelError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_masks
from scipy import ndimage
from strategies import any_bitmaps, any_label_image, cells, shapes_hw


@given(any_bitmaps)
def test_bitmaps_come_back(masks: Any) -> None:
    found = CellInstances.from_bitmaps(masks)
    assert np.array_equal(found.to_bitmaps(), masks)
    assert found.areas_px.tolist() == masks.sum(axis=(1, 2)).tolist()


@given(any_bitmaps)
def test_run_lengths_are_those_of_pycocotools(masks: Any) -> None:
    rles = CellInstances.from_bitmaps(masks).to_rles()
    theirs = [coco_masks.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    assert [one["counts"] for one in rles] == [one["counts"].decode() for one in theirs]
    back = CellInstances.from_rles(rles, masks.shape[1:])
    assert np.array_equal(back.to_bitmaps(), masks)


@given(any_label_image)
def test_a_label_image_comes_back_but_for_the_gaps(labels: Any) -> None:
    found = CellInstances.from_label_image(labels)
    _, dense = np.unique(labels, return_inverse=True)
    expected = dense.reshape(labels.shape) + (0 not in labels)
    assert np.array_equal(found.to_label_image(by_score=False), expected)


@given(shapes_hw.flatmap(lambda hw: arrays(bool, hw)), st.tuples(*[st.integers(0, 9)] * 2))
def test_outlines_hold_the_pixels_and_nothing_else(mask: Any, offset_rc: tuple[int, int]) -> None:
    rings = crop_to_rings(mask, offset_rc)
    image_hw = tuple(np.add(mask.shape, offset_rc).tolist())
    crop, found_rc = rings_to_crop(rings, image_hw)
    whole = np.zeros(image_hw, bool)
    whole[found_rc[0] :, found_rc[1] :][: crop.shape[0], : crop.shape[1]] = crop
    assert np.array_equal(whole[offset_rc[0] :, offset_rc[1] :], mask)
    assert whole.sum() == mask.sum() == sum(map(ring_area, rings))
    assert len(group_rings(rings)) == ndimage.label(mask)[1]


numbers = st.integers(-3, 200) | st.sampled_from([2**31, 2**40, -(2**40)])
sizes = st.lists(st.integers(-2, 20) | st.sampled_from([2**31, 2**62]), min_size=0, max_size=3)
counts = st.text(max_size=12) | st.binary(max_size=12) | st.lists(numbers, max_size=8) | st.none()


@given(st.fixed_dictionaries({"size": sizes, "counts": counts}))
def test_an_rle_is_read_as_it_is_or_refused(rle: dict[str, Any]) -> None:
    try:
        starts, ends, height, width = rle_to_runs(rle)
    except LabelError:
        return
    assert [height, width] == rle["size"]
    assert (starts < ends).all()
    assert (ends[:-1] <= starts[1:]).all()
    if len(ends):
        assert 0 <= starts[0] < ends[-1] <= height * width


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_plain_run_lengths_are_those_of_pycocotools(lengths: list[int]) -> None:
    image_hw = (sum(lengths), 1)
    rle = {"size": list(image_hw), "counts": lengths}
    numbers, starts, ends = rles_to_runs([rle], image_hw)
    found = np.zeros(image_hw[0], bool)
    for start, end in zip(starts, ends):
        found[start:end] = True
    assert not numbers.any()
    theirs = coco_masks.decode(coco_masks.frPyObjects(rle, *image_hw))
    assert np.array_equal(found, theirs.ravel().astype(bool))


@given(cells(classes=3))
def test_the_order_by_position_is_that_of_first_pixels(found: CellInstances) -> None:
    ordered = found.sort_by_position()
    assert sorted(ordered.areas_px) == sorted(found.areas_px)
    first = [np.flatnonzero(mask)[0] for mask in ordered.to_bitmaps()]
    assert first == sorted(first)
    by_score = found.sort_by_score()
    assert (np.diff(by_score.scores) <= 0).all()
