"""The widget Train: fine-tunes a model on what was corrected, and shows how it goes."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

from cellseg.engine.fine_tuning import FineTuning
from cellseg.engine.fine_tuning_progress import METRIC, Progress
from cellseg.napari.background import errors_told
from cellseg.napari.curves import CurvesCanvas
from cellseg.napari.model_choice import ModelChoice, known_models
from cellseg.napari.open_corrections import corrections
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QWidget,
)

POLL_MS = 500
MODELS = "models"


class TrainWidget(QWidget):
    """Trains in a process of its own; the new model is in the list of models when it is done.

    Args:
        napari_viewer: napari's viewer.

    Attributes:
        data, model, minutes, output_dir: what to train on, from what, how long, where to.
        keys: keys of the config that win over what is chosen.
        start_button, stop_button: begin and end it.
        state, verdict: what it does; in the end, whether the new model is better.
        curves: of loss and metric.
        job: the training; None before the first.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.job: FineTuning | None = None
        self._window: QWidget | None = None
        self.data, self.model, self.minutes = QLabel(), ModelChoice(), QDoubleSpinBox()
        self.output_dir, self.keys = QLineEdit(), QLineEdit()
        self.keys.setPlaceholderText("none; KEY VALUE pairs, as of cellseg train")
        self.start_button, self.stop_button = QPushButton("Train"), QPushButton("Stop")
        self.state, self.verdict = QLabel(), QLabel()
        self.curves = CurvesCanvas()
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._lay_out()
        self._timer.timeout.connect(self.poll)
        self.start_button.clicked.connect(self.start)
        self.stop_button.clicked.connect(self.stop)
        corrections().saved.connect(self._data_saved)
        if (application := QApplication.instance()) is not None:
            application.aboutToQuit.connect(self.stop)
        self._data_saved()

    def _lay_out(self) -> None:
        self.minutes.setRange(0.1, 24 * 60)
        self.minutes.setValue(2.0)
        self.minutes.setSuffix(" min")
        for label in (self.data, self.state, self.verdict):
            label.setWordWrap(True)
        self.verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        form, row = QFormLayout(self), QHBoxLayout()
        row.addWidget(self.start_button)
        row.addWidget(self.stop_button)
        form.addRow("Trains on", self.data)
        form.addRow("Starts from", self.model)
        form.addRow("For", self.minutes)
        form.addRow("New model", self.output_dir)
        form.addRow("Keys", self.keys)
        form.addRow(row)
        for widget in (self.state, self.curves, self.verdict):
            form.addRow(widget)

    @property
    def is_running(self) -> bool:
        """Whether a training is under way."""
        return self.job is not None and not self.job.progress().has_ended

    def _data_saved(self) -> None:
        data = corrections().training_data
        self.start_button.setEnabled(data is not None and not self.is_running)
        self.stop_button.setEnabled(self.is_running)
        if data is None:
            self.data.setText("nothing yet: save training data first")
            return
        self.data.setText(f"{data.num_images} images, {data.num_cells} cells of {data.declaration}")
        self._name_output()

    def _name_output(self) -> None:
        data = corrections().training_data
        if data is not None:
            stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
            # beside the data, which make room when they are saved again
            self.output_dir.setText(str(data.declaration.parent.with_name(MODELS) / stamp))

    def start(self) -> None:
        """Begin to train."""
        data = corrections().training_data
        if data is None or self.is_running:
            return
        self.verdict.setText("")
        with errors_told():
            self.job = FineTuning(
                self.model.model(),
                data.declaration,
                data.train,
                data.val,
                self.output_dir.text(),
                minutes=self.minutes.value(),
                opts=tuple(shlex.split(self.keys.text())),
            )
            self.job.start()
            self._timer.start()
            self.poll()

    def stop(self) -> None:
        """End the training; returns when its process is gone. What it has learned is kept."""
        if self.job is not None and self.is_running:
            self.job.stop()
            self.poll()

    def poll(self) -> None:
        """Look how far it is."""
        if self.job is None:
            return
        progress = self.job.progress()
        self.start_button.setEnabled(progress.has_ended)
        self.stop_button.setEnabled(not progress.has_ended)
        self.state.setText(describe(progress))
        self.curves.show_curves(progress.losses, progress.metrics, METRIC.rpartition("/")[2])
        if progress.has_ended and self._timer.isActive():
            self._timer.stop()
            self.verdict.setText(progress.message)
            self._name_output()
            if progress.model is not None:
                known_models().add(progress.model)

    # Closing napari

    def showEvent(self, event: QShowEvent) -> None:
        """Watch for napari's window to be closed."""
        super().showEvent(event)
        if self._window is not self.window():
            self._window = self.window()
            self._window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask before a training ends with napari."""
        closes = event.type() == QEvent.Type.Close
        if not (closes and watched is self._window and self.is_running):
            return super().eventFilter(watched, event)
        asked = QMessageBox.question(
            self, "A training is running", "Stop the training, and close napari?"
        )
        if asked == QMessageBox.StandardButton.Yes:
            self.stop()
            return super().eventFilter(watched, event)
        event.ignore()
        return True


def describe(progress: Progress) -> str:
    """What a training does, in words."""
    done = f"{round(100 * progress.share)} % of its time"
    at = f", iteration {progress.losses[-1][0]}" if progress.losses else ""
    before = "" if progress.before is None else f"; before: {progress.before:.3f}"
    return {
        "measuring": "looks how good the model is on the images held out",
        "training": f"trains: {done}{at}{before}",
        "done": f"done{before}",
        "stopped": f"stopped{at}",
    }.get(progress.state, progress.state)
