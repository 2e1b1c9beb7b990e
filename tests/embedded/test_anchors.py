"""Anchors, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator


def test_cell_anchors_keep_the_area_and_have_the_ratio_height_to_width() -> None:
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0, 4.0], strides=[4])
    found = generator.generate_cell_anchors((8, 16), (1.0, 4.0))
    expected = [[-4, -4, 4, 4], [-2, -8, 2, 8], [-8, -8, 8, 8], [-4, -16, 4, 16]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_grid_runs_along_rows_and_anchors_vary_fastest(offset: float) -> None:
    generator = DefaultAnchorGenerator(
        sizes=[[4, 8]], aspect_ratios=[[1.0]], strides=[10], offset=offset
    )
    (boxes,) = generator([torch.zeros(1, 7, 2, 3)])
    expected = []
    for row in range(2):
        for col in range(3):
            for half in (2, 4):
                x, y = (col + offset) * 10, (row + offset) * 10
                expected.append([x - half, y - half, x + half, y + half])
    assert boxes.tensor.dtype == torch.float32
    assert boxes.tensor.tolist() == expected


def test_one_list_per_map_or_one_for_all() -> None:
    generator = DefaultAnchorGenerator(
        sizes=[[4], [8, 16]], aspect_ratios=[0.5, 1.0, 2.0], strides=[4, 8]
    )
    assert generator.num_anchors == [3, 6]
    assert generator.num_cell_anchors == [3, 6]
    assert generator.box_dim == 4
    fine, coarse = generator([torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)])
    assert (len(fine), len(coarse)) == (48, 24)
    shared = DefaultAnchorGenerator(sizes=[[4, 8]], aspect_ratios=[[1.0]], strides=[4, 8])
    assert shared.num_anchors == [2, 2]


def test_anchors_are_not_saved_but_follow_the_model() -> None:
    generator = DefaultAnchorGenerator(sizes=[[4]], aspect_ratios=[[1.0]], strides=[4])
    assert not generator.state_dict()
    assert len(generator.cell_anchors) == 1
    moved = generator.double()([torch.zeros(1, 1, 1, 1)])[0].tensor
    assert moved.tolist() == [[0.0, 0.0, 4.0, 4.0]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": [[4], [8], [16]]},
        {"sizes": []},
        {"sizes": 4},
        {"aspect_ratios": [[1.0], [1.0], [1.0]]},
        {"offset": 1.0},
        {"offset": -0.1},
    ],
)
def test_arguments_that_do_not_fit(wrong: dict[str, Any]) -> None:
    good = {"sizes": [[4]], "aspect_ratios": [[1.0]], "strides": [4, 8]}
    DefaultAnchorGenerator(**good)
    with pytest.raises((AssertionError, ValueError)):
        DefaultAnchorGenerator(**{**good, **wrong})


def test_anchors_from_config() -> None:
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=4), ShapeSpec(stride=8)])
    fine, coarse = generator([torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)])
    assert fine.tensor.tolist() == [[-2, -2, 6, 6]]
    assert coarse.tensor.tolist() == [[-4, -4, 12, 12]]
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "NoSuchGenerator"
    with pytest.raises(KeyError):
        build_anchor_generator(cfg, [])
