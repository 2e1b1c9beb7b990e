"""The widget Save as training data: what was corrected becomes a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellseg.corrections import TrainingData
from cellseg.napari.background import errors_told
from cellseg.napari.open_corrections import corrections
from napari.utils.notifications import show_info
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)

FOLDER = "training_data"


class SaveTrainingDataWidget(QWidget):
    """Saves the open folder of corrections as a data set that `cellseg train` takes.

    Args:
        napari_viewer: napari's viewer.

    Attributes:
        out, held_out: where to, and which share of the images is kept for measuring.
        summary: what there is to be saved.
        save_button: saves it.
        result: what was saved, and the commands that go on with it.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.out, self.held_out = QLineEdit(), QDoubleSpinBox()
        self.held_out.setRange(0.0, 0.9)
        self.held_out.setSingleStep(0.05)
        self.held_out.setValue(0.2)
        self.held_out.setToolTip("of the images: not trained on, but measured with")
        self.browse_button, self.save_button = QPushButton("…"), QPushButton("Save")
        self.summary, self.result = QLabel(), QPlainTextEdit()
        self.summary.setWordWrap(True)
        self.result.setReadOnly(True)
        self._lay_out()
        self.browse_button.clicked.connect(self._browse)
        self.save_button.clicked.connect(self.save)
        corrections().changed.connect(self._folder_changed)
        corrections().corrected.connect(self.summarize)
        self._folder_changed()

    def _lay_out(self) -> None:
        form, row = QFormLayout(self), QHBoxLayout()
        row.addWidget(self.out)
        row.addWidget(self.browse_button)
        self.browse_button.setMaximumWidth(30)
        form.addRow("Save to", row)
        form.addRow("Share held out", self.held_out)
        form.addRow(self.summary)
        form.addRow(self.save_button)
        form.addRow(self.result)

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Where to save", self.out.text())
        if chosen:
            self.out.setText(str(Path(chosen) / FOLDER))

    def _folder_changed(self) -> None:
        folder = corrections().folder
        if folder is not None:
            self.out.setText(str(folder.root / FOLDER))
        self.summarize()

    def summarize(self) -> None:
        """Say what there is to be saved."""
        folder = corrections().folder
        self.save_button.setEnabled(folder is not None)
        if folder is None:
            self.summary.setText("Open a folder in the widget Correct first.")
            return
        images = [one for one in folder.images if one.corrected_at]
        cells = sum(one.num_cells - one.num_open for one in images)
        windows = sum(len(folder.image(one.image_id).done_windows) for one in images)
        left = sum(one.num_open for one in folder.images)
        self.summary.setText(
            f"{len(images)} of {len(folder.images)} images with corrections: {cells} cells that "
            f"were looked at, {windows} windows or images marked as right. {left} cells that "
            "nobody has looked at and what lies outside the windows are left out of the training."
        )

    def save(self) -> None:
        """Save it; until it is saved nothing can be corrected."""
        folder = corrections().folder
        if folder is None:
            return
        QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
        try:
            with errors_told():
                out, held_out = self.out.text(), self.held_out.value()
                self._saved(folder.save_training_data(out, held_out=held_out))
        finally:
            QApplication.restoreOverrideCursor()

    def _saved(self, data: TrainingData) -> None:
        self.result.setPlainText(
            f"{data.num_images} images, {data.num_cells} cells: {data.declaration}\n\n"
            f"cellseg inspect {data.declaration}\n"
            f"cellseg train --config-file {data.declaration}\n"
        )
        show_info(f"saved: {data.declaration}")
        corrections().keep(data)
