"""Training: the trainer and safe checkpoints."""

from cellseg.engine.checkpoints import AtomicWrites, remove_partial_files
from cellseg.engine.trainer import CellTrainer

__all__ = ["AtomicWrites", "CellTrainer", "remove_partial_files"]
