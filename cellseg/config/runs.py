"""Where the config and the weights of a finished run lie."""

from __future__ import annotations

from pathlib import Path

from cellseg.config.files import CONFIG_FILE
from cellseg.errors import CheckpointError, ConfigError

BEST_FILE = "model_best.pth"
FINAL_FILE = "model_final.pth"
METRICS_FILE = "metrics.json"
"""Losses and metrics of a training, a line per iteration."""
LAST_FILE = "last_checkpoint"
"""Holds the name of the newest checkpoint of a training that has not ended."""


def find_run_config(run_dir: str | Path) -> Path:
    """The config that a training left in its OUTPUT_DIR.

    Raises:
        ConfigError: no such folder, or it is not the OUTPUT_DIR of a run.
    """
    folder = Path(run_dir)
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = "has no config.yaml" if folder.is_dir() else "is no folder"
        raise ConfigError(
            f"{folder} {what}; expected the OUTPUT_DIR of a run of `cellseg train`, which "
            "writes its config there"
        )
    return path


def find_run_weights(run_dir: str | Path) -> Path:
    """The checkpoint of a run to predict with.

    Returns:
        `model_best.pth` where the run chose one by a metric, else `model_final.pth`, else, of a
        training that has not ended, the newest.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(run_dir)
    for name in (BEST_FILE, FINAL_FILE, read_last_name(folder)):
        if name and (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: no checkpoint in it; expected {BEST_FILE} or {FINAL_FILE} of `cellseg train`"
    )


def read_last_name(run_dir: str | Path) -> str:
    """What `last_checkpoint` names; "" where there is no such file, or no name of a file in it."""
    try:
        name = (Path(run_dir) / LAST_FILE).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    is_name = len(name.encode()) < 256 and name.isprintable() and Path(name).name == name
    return name if is_name else ""
