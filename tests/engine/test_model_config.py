"""The config of a trained model, where its training's data are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.engine.loading import load_config_of_model
from cellseg.errors import ConfigError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that names a declaration which is gone, and a metric on its data."""
    folder = tmp_path / "run"
    folder.mkdir()
    text = load_config("quick_start.yaml", ["SOLVER.MAX_ITER", 7]).dump()
    assert "DECLARATIONS: []" in text
    text = text.replace("DECLARATIONS: []", "DECLARATIONS: [mine/gone.yaml]")
    text = text.replace("synthetic_val", "gone_val").replace("synthetic_train", "gone_train")
    text = text.replace("BEST_METRIC: ''", "BEST_METRIC: cell_iou/ap_dsb")
    (folder / "config.yaml").write_text(text)
    (folder / "model_final.pth").touch()
    return folder


def test_predicting_needs_no_data_of_the_training(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    cfg = load_config_of_model(run)
    assert (7, str(run / "model_final.pth")) == (cfg.SOLVER.MAX_ITER, cfg.MODEL.WEIGHTS)
    assert not cfg.CELLSEG.DATASETS.DECLARATIONS
    assert not cfg.DATASETS.TEST
    assert cfg.CELLSEG.TRAIN.BEST_METRIC == ""


@pytest.mark.parametrize("value", ["3", "{DATASETS: 3}", "{DATASETS: {DECLARATIONS: 3}}"])
def test_a_config_of_another_shape_is_said_in_words(value: str, run: Path) -> None:
    (run / "config.yaml").write_text(f"CELLSEG: {value}")
    with pytest.raises(ConfigError):
        load_config_of_model(run)
