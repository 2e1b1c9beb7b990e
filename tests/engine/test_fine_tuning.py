"""Fine-tuning in processes of its own: what it sets, what can be seen, how it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cellseg
import pytest
import torch
import yaml
from cellseg import load_config
from cellseg.config.runs import METRICS_FILE
from cellseg.engine.fine_tuning import FineTuning
from cellseg.engine.fine_tuning_progress import (
    METRIC,
    Progress,
    compare_in_words,
    read_curves,
    read_metric,
)
from cellseg.engine.fine_tuning_settings import choose_settings, drop_lists_of_other_classes
from cellseg.errors import ConfigError, DatasetError, PluginError, TrainingError
from cellseg.modeling.building import build_model

DATA = {
    name: {
        "format": "synthetic",
        "image_hw": [64, 64],
        "splits": {"train": {"images": 2, "seed": 1}, "val": {"images": 1, "seed": 2}},
        "classes": classes,
    }
    for name, classes in {"tiny": ["cell"], "types": ["round", "flat"]}.items()
}


@pytest.fixture(scope="module")
def declaration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cells.yaml"
    path.write_text(yaml.safe_dump(DATA), "utf-8")
    return path


@pytest.fixture(scope="module")
def run_dir(tiny_model: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one class and a threshold for it, whose data set is not here any more."""
    folder = tmp_path_factory.mktemp("run")
    options = [*tiny_model, "INPUT.MIN_SIZE_TEST", "0", "CELLSEG.TEST.SCORE_THRESHOLD", "[0.1]"]
    cfg = load_config("quick_start.yaml", options)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    return folder


def wait_for_end(job: FineTuning) -> Progress:
    while not (seen := job.progress()).has_ended:
        time.sleep(0.1)
    return seen


@pytest.mark.slow
def test_a_model_is_measured_trained_and_measured_again(
    run_dir: Path, declaration: Path, tmp_path: Path
) -> None:
    job = FineTuning(
        run_dir, declaration, "tiny_train", "tiny_val", tmp_path / "new", minutes=0.02,
        opts=("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1),
    )  # fmt: skip
    assert job.progress() == Progress("new")
    job.start()
    assert job.progress().state == "measuring"
    seen = wait_for_end(job)
    assert seen.state == "done", seen.message
    assert seen.before == read_metric(tmp_path / "new/before/figures.json")
    assert seen.after == max(value for _, value in seen.metrics)
    assert seen.message == compare_in_words(seen.before, seen.after)
    assert seen.losses
    assert seen.model == tmp_path / "new"
    model = cellseg.load(seen.model)
    assert model.predictor.cfg.CELLSEG.TEST.SCORE_THRESHOLD == [0.1]
    with pytest.raises(TrainingError, match="holds a training"):
        FineTuning(run_dir, declaration, "tiny_train", "tiny_val", tmp_path / "new")


@pytest.mark.slow
def test_classes_that_the_model_does_not_know_are_learned_anew(
    run_dir: Path, declaration: Path, tmp_path: Path
) -> None:
    job = FineTuning(
        run_dir, declaration, "types_train", "types_val", tmp_path / "new", minutes=0.02,
        opts=("SOLVER.MAX_ITER", 1),
    )  # fmt: skip
    job.start()
    assert job.progress().state == "training"
    seen = wait_for_end(job)
    assert seen.state == "done", seen.message
    assert seen.before is None
    assert seen.message.endswith("the model before knew other classes.")
    model = cellseg.load(tmp_path / "new")
    assert model.predictor.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert model.predictor.cfg.CELLSEG.TEST.SCORE_THRESHOLD == 0.5  # not the list of one class


@pytest.mark.slow
def test_it_stops_when_asked_and_keeps_what_was_learned(
    run_dir: Path, declaration: Path, tmp_path: Path
) -> None:
    options = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 100_000)
    job = FineTuning(run_dir, declaration, "tiny_train", "", tmp_path / "new", opts=options)
    job.start()
    assert job.progress().state == "training"
    while not (tmp_path / "new/last_checkpoint").is_file():
        assert job.progress().state == "training"
        time.sleep(0.1)
    job.stop()
    seen = job.progress()
    assert (seen.state, seen.model) == ("stopped", tmp_path / "new")
    assert (seen.before, seen.after, seen.is_worse) == (None, None, False)
    cellseg.load(tmp_path / "new")
    job.stop()  # once more does nothing
    assert job.progress().state == "stopped"


def test_a_failure_is_told_in_the_training_s_own_words(
    run_dir: Path, declaration: Path, tmp_path: Path
) -> None:
    options = ("SOLVER.MAX_ITTER", 2)
    job = FineTuning(run_dir, declaration, "tiny_train", "", tmp_path / "new", opts=options)
    job.start()
    seen = wait_for_end(job)
    assert seen.state == "failed"
    assert "SOLVER.MAX_ITTER" in seen.message
    assert str(job.log_file) in seen.message
    assert seen.model is None


def test_what_cannot_be_used_is_told_before_anything_starts(
    run_dir: Path, declaration: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        FineTuning(tmp_path / "none", declaration, "tiny_train", "", tmp_path / "new")
    with pytest.raises(DatasetError, match="did you mean tiny_train"):
        FineTuning(run_dir, declaration, "tiny_trian", "", tmp_path / "new")
    with pytest.raises(DatasetError, match="declares no data set 'other_val'"):
        FineTuning(run_dir, declaration, "tiny_train", "other_val", tmp_path / "new")


def test_a_checkpoint_brings_no_code_by_way_of_its_config(
    run_dir: Path, declaration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config is written to a file; a plug-in that it names must not run because of that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("raise SystemExit('code of a stranger ran')", "utf-8")
    weights = torch.load(run_dir / "model_final.pth")
    config = yaml.safe_load((run_dir / "config.yaml").read_text("utf-8"))
    config["CELLSEG"]["PLUGINS"] = ["stranger"]
    carried = {"config": config, "version": cellseg.__version__}
    torch.save(weights | {"cellseg": carried}, tmp_path / "given.pth")
    with pytest.raises(PluginError, match="stranger"):
        FineTuning(tmp_path / "given.pth", declaration, "tiny_train", "", tmp_path / "new")


def settings_of(config: dict[str, Any], diameter_px: float) -> dict[str, Any]:
    return choose_settings(config, diameter_px, 2.0, "cpu")


def test_cells_of_another_size_are_brought_to_one_that_the_model_knows() -> None:
    known = {"INPUT": {"MIN_SIZE_TEST": 0}, "CELLSEG": {"TEST": {"KNOWN_DIAMETERS": [7, 26, 60]}}}
    near, far = settings_of(known, 30.0), settings_of(known, 104.0)
    assert near["CELLSEG"]["INPUT"]["SCALE"] == 1.0
    assert near["INPUT"]["CROP"]["SIZE"] == [128, 128]
    assert far["CELLSEG"]["INPUT"]["SCALE"] == 0.25
    assert far["INPUT"]["CROP"]["SIZE"] == [512, 512]  # as large for the network


def test_a_model_that_resizes_its_images_is_trained_as_it_was() -> None:
    assert settings_of({"INPUT": {"MIN_SIZE_TEST": 800}}, 30.0)["INPUT"] == {}
    assert settings_of({}, 30.0)["INPUT"] == {}  # the engine's default is 800


def test_values_per_class_of_other_classes_become_the_default() -> None:
    config = {
        "CELLSEG": {
            "TEST": {"SCORE_THRESHOLD": [0.3, 0.4], "MIN_AREA": [1, 2, 3], "MASK_NMS": 0.2},
            "CELL_TYPE": {"CLASS_WEIGHTS": []},
        }
    }
    assert drop_lists_of_other_classes(config, 2) == {"CELLSEG": {"TEST": {"MIN_AREA": 0}}}
    assert drop_lists_of_other_classes({}, 2) == {}


def test_curves_of_a_training_that_is_writing(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    assert read_curves(path) == ((), ())
    lines = [
        {"iteration": 19, "total_loss": 2.5},
        {"iteration": 39, "total_loss": float("nan"), METRIC: 0.25},
        {"iteration": 59, "total_loss": 1.5, METRIC: float("nan")},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text + '{"iteration": 79, "total_lo', "utf-8")
    assert read_curves(path) == (((19, 2.5), (59, 1.5)), ((39, 0.25),))


def test_a_worse_model_is_said_to_be_worse() -> None:
    assert compare_in_words(0.5, 0.25).startswith("Worse on the images held out: ap_dsb 0.250")
    assert compare_in_words(0.5, 0.5).startswith("No better")
    assert compare_in_words(None, 0.5).startswith("On the images held out: ap_dsb 0.500;")
    assert compare_in_words(None, None).startswith("No images were held out")
    assert Progress("done", before=0.5, after=0.25).is_worse
    assert not Progress("done", before=0.5, after=0.5).is_worse
