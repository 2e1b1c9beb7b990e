"""What the widgets Correct, Save as training data and Train have in common: the folder at hand."""

from __future__ import annotations

from functools import cache

from cellseg.corrections import CorrectionFolder, TrainingData
from qtpy.QtCore import QObject, Signal


class OpenCorrections(QObject):
    """The one folder of corrections that is open in this napari, and what was last saved of it.

    Attributes:
        folder: the folder; None where none is open.
        is_read_only: whether it was opened for looking only.
        training_data: what was last saved; None before.
        changed: emitted when another folder is open, or none.
        corrected: emitted after each correction.
        saved: emitted when training data were saved.
    """

    changed = Signal()
    corrected = Signal()
    saved = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.folder: CorrectionFolder | None = None
        self.is_read_only = False
        self.training_data: TrainingData | None = None

    def take(self, folder: CorrectionFolder, *, is_read_only: bool = False) -> None:
        """Have a folder open, in place of the one before, which is closed."""
        self.close()
        self.folder, self.is_read_only = folder, is_read_only
        self.changed.emit()

    def close(self) -> None:
        """Close the folder, so that another window can have it."""
        folder, self.folder = self.folder, None
        if folder is not None:
            self.changed.emit()
            folder.close()

    def keep(self, data: TrainingData) -> None:
        """Remember what was saved."""
        self.training_data = data
        self.saved.emit()


@cache
def corrections() -> OpenCorrections:
    """The folder of corrections that is at hand in this process."""
    return OpenCorrections()
