"""docs/optimizer.md: its config loads, its command runs, and a saved iteration is repeated."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.cli import parse_command
from cellseg.engine.non_finite import StepInputs, random_state, stop_training
from cellseg.engine.trainer import CellTrainer
from cellseg.errors import TrainingError
from detectron2.utils.events import EventStorage
from pages import Page

PAGE = Page("docs/optimizer.md")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    PAGE.write_files(tmp_path)
    return tmp_path


def test_the_config_loads_and_the_commands_take_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    node = load_config("careful.yaml").CELLSEG.SOLVER
    assert (node.ACCUMULATE, node.LAYER_DECAY) == (4, 0.8)
    assert node.FREEZE[1] == ["backbone.bottom_up.stem", -1]
    training, command = PAGE.commands
    by_time = load_config("careful.yaml", training.split()[4:])
    assert by_time.CELLSEG.SOLVER.MAX_MINUTES == 30
    assert command == "cellseg find-lr --config-file careful.yaml"
    found = parse_command("find-lr", command.split()[2:])
    assert (found.lowest, found.highest, found.iterations) == (1e-6, 1.0, 100)


def test_a_saved_iteration_gives_the_same_losses_again(
    project: Path,
    tiny_training: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    tiny = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40")
    opts = [*tiny_training, *tiny, "OUTPUT_DIR", "output"]
    cfg = load_config("configs/quick_start.yaml", opts)
    Path("output").mkdir()
    Path("output/config.yaml").write_text(cfg.dump())
    model = CellTrainer.build_model(cfg)
    batch = next(iter(CellTrainer.build_train_loader(cfg)))
    inputs = StepInputs(2, [batch], random_state(torch.device("cpu")), None)
    with EventStorage(), torch.no_grad():
        losses = {name: float(loss) for name, loss in model(batch).items()}
    with pytest.raises(TrainingError):
        stop_training(inputs, model, "as a test", losses=losses, output_dir="output")
    capsys.readouterr()
    runpy.run_path("look.py")
    said = capsys.readouterr().out.splitlines()[-1]
    assert ast.literal_eval(said) == [losses]
