"""Plugins > cellseg > Find cells: a model looks at an image, sliders choose among what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from cellseg.cells.label_canvas import LabelCanvas
from cellseg.cells.windows import Window
from cellseg.engine.loading import AdjustableModel, load_adjustable, load_config_of_model
from cellseg.errors import InputValueError
from cellseg.inference.adjustable import AdjustableDetections, detect_softly
from cellseg.inference.detections import SoftDetections
from cellseg.napari.background import LayerChoice, Progress, errors_told, run_in_background
from cellseg.napari.cell_sliders import CellSliders, FoundCells
from cellseg.napari.layers import METADATA, current_plane, pixel_size_um, placed_like
from cellseg.napari.model_choice import ModelChoice
from cellseg.napari.planes import layers_to_plane, window_in_view, window_of_shape
from napari.layers import Image, Shapes
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    import napari

WHOLE, VIEW, RECTANGLE = "the whole image", "what is in view", "a drawn rectangle"
AS_IT_IS, AUTOMATIC, GIVEN = "as it is", "automatic", "in pixels"
RECTANGLES = "where to look"
"""Name of the layer that rectangles are drawn in."""


class FindCells(QWidget):
    """The widget.

    Args:
        napari_viewer: the window that it is in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._loaded: tuple[str, AdjustableModel] | None = None
        self._progress: Progress | None = None
        self.model = ModelChoice()
        self.channels: list[LayerChoice] = []
        self.diameter = QComboBox()
        self.diameter.addItems([AS_IT_IS, AUTOMATIC, GIVEN])
        self.diameter_px = QDoubleSpinBox()
        self.diameter_px.setRange(2, 2000)
        self.diameter_px.setValue(30)
        self.diameter_px.setSuffix(" px")
        self.no_diameter = QLabel("the model does not say how large the cells are that it knows")
        self.no_diameter.setWordWrap(True)
        self.where = QComboBox()
        self.where.addItems([WHOLE, VIEW, RECTANGLE])
        self.find_button = QPushButton("Find cells")
        self.stop_button = QPushButton("Stop")
        self.bar = QProgressBar()
        self.said = QLabel("")
        self.said.setWordWrap(True)
        self.sliders = CellSliders()
        self._lay_out()
        self.model.changed.connect(self._take_model)
        self.diameter.currentTextChanged.connect(self._show_diameter)
        self.where.currentTextChanged.connect(self._offer_rectangles)
        self.find_button.clicked.connect(self._start)
        self.stop_button.clicked.connect(self._stop)
        self._take_model(self.model.model())
        self._show_work(False)

    def _lay_out(self) -> None:
        diameter = QHBoxLayout()
        diameter.addWidget(self.diameter, 1)
        diameter.addWidget(self.diameter_px)
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.addRow("model", self.model)
        self.form.addRow("diameter", diameter)
        self.form.addRow("", self.no_diameter)
        self.form.addRow("look at", self.where)
        buttons = QHBoxLayout()
        buttons.addWidget(self.find_button, 1)
        buttons.addWidget(self.stop_button)
        column = QVBoxLayout(self)
        column.addLayout(self.form)
        column.addLayout(buttons)
        column.addWidget(self.bar)
        column.addWidget(self.said)
        column.addWidget(self.sliders)
        column.addStretch(1)

    def _take_model(self, name: str) -> None:
        """Ask for the channels that a model takes, and for diameters if it knows any."""
        wanted: Sequence[Any] = ()
        known: Sequence[float] = ()
        with errors_told():
            cfg = load_config_of_model(name)
            wanted, known = cfg.CELLSEG.INPUT.CHANNELS, cfg.CELLSEG.TEST.KNOWN_DIAMETERS
        self._ask_for_channels([f"channel {one}" for one in wanted] or ["image"])
        self.diameter.setEnabled(bool(known))
        self.no_diameter.setVisible(not known)
        size = (
            f"Of the cells that the model knows: {known[0]:g} to {known[2]:g} px" if known else ""
        )
        self.diameter.setToolTip(size)
        if not known:
            self.diameter.setCurrentText(AS_IT_IS)
        self._show_diameter()

    def _ask_for_channels(self, names: list[str]) -> None:
        for choice in self.channels:
            choice.disconnect_viewer()
            self.form.removeRow(choice)
        self.channels = [LayerChoice(self._viewer, Image) for _ in names]
        for number, (name, choice) in enumerate(zip(names, self.channels)):
            self.form.insertRow(1 + number, name, choice)
            # The layers lie in the order of the file's channels.
            choice.setCurrentIndex(min(number, choice.count() - 1))
            for k in range(choice.count()):
                if name.removeprefix("channel ") in choice.itemText(k).split():
                    choice.setCurrentIndex(k)

    def _show_diameter(self) -> None:
        self.diameter_px.setVisible(self.diameter.currentText() == GIVEN)

    def _offer_rectangles(self, where: str) -> None:
        if where != RECTANGLE or self._rectangles() is not None:
            return
        image = self.channels[0].layer()
        placed = placed_like(image) if image is not None else {}
        shapes = self._viewer.add_shapes(
            name=RECTANGLES,
            ndim=2,
            edge_color="yellow",
            face_color="transparent",
            edge_width=2,
            **placed,
        )
        shapes.mode = "add_rectangle"
        self.said.setText("Draw a rectangle on the image, then press Find cells.")

    def _rectangles(self) -> Shapes | None:
        """The layer that rectangles are drawn in: the selected one of its kind, else the last."""
        found = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        active = self._viewer.layers.selection.active
        return active if active in found else (found[-1] if found else None)

    def _window(self, image: Image) -> Window | None:
        if self.where.currentText() == VIEW:
            return window_in_view(image)
        if self.where.currentText() == RECTANGLE:
            shapes = self._rectangles()
            if shapes is None or not len(shapes.data):
                raise InputValueError("no rectangle is drawn; draw one, or look at the whole image")
            number = max(shapes.selected_data, default=len(shapes.data) - 1)
            return window_of_shape(shapes.data[number], shapes, image)
        return None

    def _diameter(self) -> str | float:
        given: dict[str, str | float] = {AS_IT_IS: "", AUTOMATIC: "auto"}
        given[GIVEN] = self.diameter_px.value()
        return given[self.diameter.currentText()]

    def _start(self) -> None:
        with errors_told():
            layers = [choice.layer() for choice in self.channels]
            if None in layers:
                raise InputValueError("there is no image; open one, or drop it into the window")
            image = layers[0]
            at = current_plane(image, self._viewer.dims.point)
            plane = layers_to_plane(layers, at)
            window = self._window(image) or Window(0, 0, *plane.image_hw)
            name, diameter, loaded = self.model.model(), self._diameter(), self._loaded
            progress = self._progress = Progress(self)

            def work() -> tuple[AdjustableModel, SoftDetections]:
                is_same = loaded is not None and loaded[0] == name
                model = loaded[1] if loaded is not None and is_same else load_adjustable(name)
                looking = model.model.with_diameter(diameter)
                return model, detect_softly(looking, plane, window=window, progress=progress.tell)

            def done(outcome: tuple[AdjustableModel, SoftDetections]) -> None:
                self._loaded = name, outcome[0]
                self._show(outcome[0], outcome[1], image, at, window)

            progress.changed.connect(self._show_progress)
            self._show_work(True)
            run_in_background(work, done=done, finished=lambda: self._show_work(False), owner=self)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self.said.setText("Stopping…")

    def _show_progress(self, done: int, total: int) -> None:
        # Of a single tile nobody knows how far it is: the bar runs to and fro.
        self.bar.setRange(0, total if total > 1 else 0)
        self.bar.setValue(done)
        if total > 1:
            self.said.setText(f"{done} of {total} tiles")

    def _show_work(self, is_going_on: bool) -> None:
        self.find_button.setEnabled(not is_going_on)
        self.stop_button.setEnabled(is_going_on)
        self.bar.setVisible(is_going_on)
        self.bar.setRange(0, 0)
        words = "Loading the model and looking at the image…" if is_going_on else ""
        self.said.setText(words)

    def _show(
        self,
        model: AdjustableModel,
        soft: SoftDetections,
        image: Image,
        at: tuple[int, ...],
        window: Window,
    ) -> None:
        """A layer with the cells, where they lie in the image, and sliders for it."""
        canvas = LabelCanvas(window.hw, max(len(soft), 1))
        layer = self._viewer.add_labels(
            canvas.labels[(np.newaxis,) * len(at)],
            name=f"cells of {image.name}",
            metadata={METADATA: {"classes": model.classes, "model": self.model.model()}},
            **placed_like(image, (window.top, window.left), at),
        )
        self.sliders.take(
            FoundCells(
                AdjustableDetections(soft),
                model.thresholds,
                model.classes,
                canvas,
                layer,
                pixel_size_um(image),
            )
        )

    def closeEvent(self, event: Any) -> None:
        """Nobody waits for cells any more."""
        self._stop()
        super().closeEvent(event)
