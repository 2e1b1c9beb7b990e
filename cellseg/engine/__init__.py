"""Training: the trainer and safe checkpoints; `setup.load_config` puts everything together.

Names are loaded on first use: whoever loads a config to predict does not load the trainer.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "AtomicWrites": "cellseg.engine.checkpoints",
    "CellTrainer": "cellseg.engine.trainer",
    "remove_partial_files": "cellseg.engine.checkpoints",
}

__all__ = ["AtomicWrites", "CellTrainer", "remove_partial_files"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'cellseg.engine' has no attribute {name!r}")
