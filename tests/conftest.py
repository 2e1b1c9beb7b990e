"""Shared by all tests: the engine, the marks, and where real data may be."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cellseg
import pytest
import torch
from cellseg import load_config
from detectron2.modeling import build_model

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if cellseg.engine_info().name == "embedded":
        return
    skip = pytest.mark.skip(reason="only for the embedded engine; an installed Detectron2 runs")
    for item in items:
        if item.get_closest_marker("embedded_only"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """Undo what a test's `setup_logger` does, or the next test's `caplog` stays empty."""
    loggers = [logging.getLogger(name) for name in ("cellseg", "detectron2", "fvcore")]
    before = [(one.propagate, one.level, list(one.handlers)) for one in loggers]
    yield
    for one, (propagate, level, handlers) in zip(loggers, before):
        one.propagate, one.level, one.handlers = propagate, level, handlers


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is cached below the tests' own folder, and not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_report_header() -> str:
    return f"engine: {cellseg.engine_info()}"


@pytest.fixture(scope="session")
def real_datasets() -> Path:
    """Folder with real cell images; tests that ask for it are skipped where it is missing."""
    candidates = [os.environ.get("DETECTRON2_DATASETS"), REPOSITORY.parent / "shared" / "datasets"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "dsb2018").is_dir():
            return Path(candidate).resolve()
    pytest.skip("no real datasets: set DETECTRON2_DATASETS to a folder that holds dsb2018/")


TINY_MODEL = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
}


@pytest.fixture(scope="session")
def tiny_model() -> list[str]:
    """KEY VALUE overrides that make any config of configs/ small enough for a test."""
    return [word for key, value in TINY_MODEL.items() for word in (key, str(value))]


@pytest.fixture
def tiny_training(tiny_model: list[str], tmp_path: Path) -> list[str]:
    """Overrides for a run of four iterations on synthetic cells into `tmp_path / "run"`."""
    return [
        *tiny_model,
        *("SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.STEPS", "()"),
        *("SOLVER.WARMUP_ITERS", "1", "CELLSEG.TEST.PICTURES", "2"),
        *("OUTPUT_DIR", str(tmp_path / "run")),
    ]


@pytest.fixture(scope="session")
def checkpoint_options(
    tiny_model: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """KEY VALUE pairs for configs/quick_start.yaml: a small model and a checkpoint of it.

    It is untrained, so it finds cells everywhere, at low scores.
    """
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
