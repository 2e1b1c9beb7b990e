"""Corrections of the cells that a model has found: kept on disk, undone, and trained on.

Needs neither a window nor a screen; `cellseg.napari` is one that uses it. docs/corrections.md
explains the files.
"""

from __future__ import annotations

from cellseg.corrections.adding import Added
from cellseg.corrections.events import ACCEPTED, DRAWN, FOUND, Event
from cellseg.corrections.folder import CorrectionFolder
from cellseg.corrections.image import CorrectedImage
from cellseg.corrections.repainting import Repainted
from cellseg.corrections.summaries import CellQueue, ImageStatus, QueueItem
from cellseg.corrections.training_data import TrainingData

__all__ = [
    "ACCEPTED",
    "DRAWN",
    "FOUND",
    "Added",
    "CellQueue",
    "CorrectedImage",
    "CorrectionFolder",
    "Event",
    "ImageStatus",
    "QueueItem",
    "Repainted",
    "TrainingData",
]
