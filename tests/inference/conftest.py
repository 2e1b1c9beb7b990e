"""A small model with a checkpoint: untrained, so it finds cells everywhere, at low scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cellseg import load_config
from detectron2.config import CfgNode
from detectron2.modeling import build_model

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def checkpoint_options(
    tiny_model: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """KEY VALUE pairs for configs/quick_start.yaml that name a checkpoint which fits."""
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    options = [
        *tiny_model,
        *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
        *("MODEL.WEIGHTS", str(path), "TEST.DETECTIONS_PER_IMAGE", "20"),
        *("CELLSEG.TEST.SCORE_THRESHOLD", "0.0", "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"),
    ]
    torch.manual_seed(0)
    model = build_model(load_config(REPOSITORY / "configs/quick_start.yaml", options))
    torch.save({"model": model.state_dict()}, path)
    return options


@pytest.fixture
def cfg(checkpoint_options: list[str]) -> CfgNode:
    return load_config(REPOSITORY / "configs/quick_start.yaml", checkpoint_options)
