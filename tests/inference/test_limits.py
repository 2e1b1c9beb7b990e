"""Limits that may have cost cells are told of once, with the key and the count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg.inference.limits import LimitWatch
from cellseg.inference.predictor import CellPredictor
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import nn

Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """The warnings so far."""
    return lambda: [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]


@pytest.fixture
def predictor(cfg: CfgNode) -> CellPredictor:
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 30, 40
    return CellPredictor(cfg)


def look(predictor: CellPredictor, objectness: float) -> None:
    """Two images, of which every anchor has this logit."""
    head: Any = predictor.model.proposal_generator.rpn_head
    nn.init.zeros_(head.objectness_logits.weight)
    nn.init.constant_(head.objectness_logits.bias, objectness)
    for _ in range(2):
        predictor(torch.randint(0, 255, (64, 64), dtype=torch.uint8).numpy())


def test_proposals_that_are_cut_off(predictor: CellPredictor, told: Told) -> None:
    look(predictor, 1.5)
    (message,) = (one for one in told() if "RPN" in one)
    assert "30 likely places of cells, as many as MODEL.RPN.POST_NMS_TOPK_TEST allows" in message
    assert "Set it higher" in message


def test_anchors_that_are_cut_off(predictor: CellPredictor, told: Told) -> None:
    look(predictor, 3.0)
    (message,) = (one for one in told() if "PRE_NMS" in one)
    # the finest level has stride 4 and three anchors for each place of 64 x 64 pixels
    assert "768 anchors" in message
    assert "MODEL.RPN.PRE_NMS_TOPK_TEST allows 40" in message


def test_proposals_that_are_no_cells_are_not_missed(predictor: CellPredictor, told: Told) -> None:
    look(predictor, -3.0)
    assert not [one for one in told() if "RPN" in one]


class Finder(nn.Module):
    """Gives as many detections as it is asked for."""

    def forward(self, counts: list[int]) -> list[dict[str, Instances]]:
        return [
            {"instances": Instances((8, 8), pred_boxes=Boxes(torch.zeros(count, 4)))}
            for count in counts
        ]


def test_an_evaluation_tells_once_of_detections_of_any_score(cfg: CfgNode, told: Told) -> None:
    cfg.TEST.DETECTIONS_PER_IMAGE = 3
    model, watch = Finder().eval(), LimitWatch(cfg)
    with watch.watching(model, outputs=True):
        model([0, 2])
        assert not told()
        model([3])
        model([3])
    (message,) = told()
    assert "3 detections, as many as TEST.DETECTIONS_PER_IMAGE allows" in message
    model([3])  # nobody watches any more
    assert len(told()) == 1


def test_no_limit_is_never_reached(cfg: CfgNode, told: Told, tmp_path: Path) -> None:
    cfg.TEST.DETECTIONS_PER_IMAGE = -1
    LimitWatch(cfg).see_detections(100_000)
    assert not told()
