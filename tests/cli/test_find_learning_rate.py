"""tools/find_learning_rate.py, called as a function."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import REPOSITORY, Command

CONFIG = str(REPOSITORY / "configs/quick_start.yaml")
main = Command("find-lr").main


def test_a_config_gets_a_rate_and_no_weights(
    tiny_training: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40")
    frozen = ("CELLSEG.SOLVER.FREEZE", "[['backbone.bottom_up', -1]]", "SEED", "3")
    sweep = ("--iterations", "12", "--lowest", "1e-4", "--highest", "10")
    assert main(["--config-file", CONFIG, *sweep, *tiny_training, *tiny, *frozen]) == 0
    said = capsys.readouterr().out
    assert "\nSOLVER:\n  BASE_LR: " in said
    assert "Frozen for ever: backbone.bottom_up" in said
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == ["run/learning_rate/rates.csv", "run/learning_rate/rates.png"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--iterations", "1"], "ConfigError: expected 0 < --lowest"),
        (["MODEL.WEIGHTS", "no.pth"], "CheckpointError: no.pth"),
    ],
)
def test_errors_are_said_in_one_line(words: list[str], text: str) -> None:
    message = main(["--config-file", CONFIG, *words])
    assert isinstance(message, str)
    assert message.startswith(text)
