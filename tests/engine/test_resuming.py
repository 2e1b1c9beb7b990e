"""Resuming in a folder whose checkpoint was made with another config."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.config.trained import ENTRY, TrainedConfig
from cellseg.engine import CellTrainer
from cellseg.engine.resuming import find_last_checkpoint, fit_trainer_state
from cellseg.errors import CheckpointError
from commands import REPOSITORY, Command
from detectron2.config import CfgNode

Configure = Callable[..., CfgNode]
QUICK_START = REPOSITORY / "configs/quick_start.yaml"


@pytest.fixture(scope="module")
def options(tiny_model: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a training of one iteration, which has been done."""
    folder = tmp_path_factory.mktemp("run")
    options = [
        *tiny_model,
        *("DATASETS.TEST", "()", "CELLSEG.TRAIN.SAMPLE_PICTURES", "0", "SOLVER.MAX_ITER", "1"),
        *("SOLVER.WARMUP_ITERS", "0", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"),
        *("SOLVER.STEPS", "()", "OUTPUT_DIR", str(folder)),
    ]
    trainer = CellTrainer(load_config(QUICK_START, options))
    trainer.resume_or_load(resume=False)
    trainer.train()
    return options


@pytest.fixture
def changed(options: list[str], tmp_path: Path) -> Configure:
    """The config of that training with other values, in a folder with its checkpoint."""
    source = Path(options[-1])
    for name in ("model_final.pth", "last_checkpoint"):
        (tmp_path / name).write_bytes((source / name).read_bytes())

    def change(*opts: str) -> CfgNode:
        return load_config(QUICK_START, [*options, "OUTPUT_DIR", str(tmp_path), *opts])

    return change


def resumed(cfg: CfgNode) -> CellTrainer:
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=True)
    return trainer


def test_a_checkpoint_of_a_training_carries_its_config(options: list[str]) -> None:
    path = Path(options[-1]) / "model_final.pth"
    trained = TrainedConfig.from_entry(torch.load(path, weights_only=True)[ENTRY])
    assert trained is not None
    assert trained.classes == ("cell",)
    assert trained.config["MODEL"]["PIXEL_MEAN"] == [64.0, 64.0, 64.0]


OTHER_CLASSES = [
    *("DATASETS.TRAIN", "('synthetic_types_train',)", "MODEL.ROI_HEADS.NUM_CLASSES", "3"),
]


def test_another_number_of_classes_is_one_clear_error(
    changed: Configure, options: list[str], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="NUM_CLASSES is 3; the weights were trained with 1"):
        resumed(changed(*OTHER_CLASSES))
    changed()
    (tmp_path / "config.yaml").write_text("SEED: 5")
    words = ["--config-file", QUICK_START, "--resume", *options, "OUTPUT_DIR", tmp_path]
    said = Command("train").main([*words, *OTHER_CLASSES])
    assert "NUM_CLASSES is 3" in str(said)
    assert f"MODEL.WEIGHTS {tmp_path / 'model_final.pth'}" in str(said)
    assert (tmp_path / "config.yaml").read_text() == "SEED: 5"


def test_another_width_is_one_clear_error(changed: Configure) -> None:
    with pytest.raises(CheckpointError, match=r"box_head\.fc1\.weight: \[64, 1568\] in the file"):
        resumed(changed("MODEL.ROI_BOX_HEAD.FC_DIM", "32"))


def test_with_another_optimizer_weights_and_iteration_are_kept(
    changed: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = changed("CELLSEG.SOLVER.OPTIMIZER", "SGD", "SOLVER.MAX_ITER", "2")
    with caplog.at_level(logging.INFO, "cellseg"):
        trainer = resumed(cfg)
    assert "The optimizer begins anew: another one is set" in caplog.text
    assert "CELLSEG.SOLVER.OPTIMIZER is 'SGD', was 'ADAMW'" in caplog.text
    assert trainer.start_iter == 1
    saved = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(saved[name], now) for name, now in trainer.model.state_dict().items())
    trainer.train()


def test_settings_of_the_optimizer_are_those_of_the_config(
    changed: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = resumed(changed("SOLVER.BASE_LR", "0.002", "SOLVER.WEIGHT_DECAY", "0.25"))
    groups = trainer.optimizer.param_groups
    assert {group["lr"] for group in groups} == {0.002}
    assert max(group["weight_decay"] for group in groups) == 0.25
    assert trainer.scheduler.base_lrs == [0.002] * len(groups)
    assert len(trainer.optimizer.state) > 0
    assert "begins anew" not in caplog.text


def test_the_same_config_gives_the_same_state_to_the_bit(changed: Configure) -> None:
    trainer = CellTrainer(changed())
    path = find_last_checkpoint(trainer.cfg.OUTPUT_DIR)
    assert path is not None
    saved = torch.load(path, weights_only=True)["trainer"]
    before = copy.deepcopy(saved)
    bases = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    fitted = fit_trainer_state(saved, trainer.optimizer, bases)
    assert (
        fitted["_trainer"]["optimizer"]["param_groups"]
        == (before["_trainer"]["optimizer"]["param_groups"])
    )
    assert fitted["_trainer"]["optimizer"]["state"] is saved["_trainer"]["optimizer"]["state"]
    assert fitted["hooks"]["LRScheduler"] == before["hooks"]["LRScheduler"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "note", [None, b"", b"\xff\xfe\x00", b"model_0000000.pth", b"../elsewhere.pth", b"gone\n\n"]
)
def test_where_the_note_names_no_whole_checkpoint_the_newest_is_taken(
    changed: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture, note: bytes | None
) -> None:
    cfg = changed()
    (tmp_path / "model_0000000.pth").write_bytes(b"PK\x03\x04 cut short")
    (tmp_path / "model_best.pth").write_bytes(b"weights alone")
    (tmp_path / "last_checkpoint").unlink()
    if note is not None:
        (tmp_path / "last_checkpoint").write_bytes(note)
    with caplog.at_level(logging.WARNING, "cellseg"):
        assert find_last_checkpoint(cfg.OUTPUT_DIR) == tmp_path / "model_final.pth"
    assert "Going on from model_final.pth, the newest whole checkpoint" in caplog.text


def test_a_flipped_bit_and_a_cut_file_are_seen(changed: Configure, tmp_path: Path) -> None:
    final = tmp_path / "model_final.pth"
    cfg, whole = changed(), final.read_bytes()
    flip_a_bit(final)
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*\n.*model_final.*damaged"):
        find_last_checkpoint(cfg.OUTPUT_DIR)
    final.write_bytes(whole[:-1000])
    with pytest.raises(CheckpointError, match="damaged, or no checkpoint"):
        resumed(cfg)
    final.write_bytes(whole)
    assert resumed(cfg).start_iter == 1


def test_weights_alone_and_nothing_at_all(changed: Configure, tmp_path: Path) -> None:
    cfg = changed()
    torch.save({"model": {}}, tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match="it holds weights alone, and no training"):
        find_last_checkpoint(cfg.OUTPUT_DIR)
    (tmp_path / "model_final.pth").unlink()
    with pytest.raises(CheckpointError, match="there is no such file"):
        find_last_checkpoint(cfg.OUTPUT_DIR)
    (tmp_path / "last_checkpoint").unlink()
    assert find_last_checkpoint(cfg.OUTPUT_DIR) is None
    assert find_last_checkpoint(tmp_path / "not made yet") is None
