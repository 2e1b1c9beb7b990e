"""Sliders that choose among the detections of an image; the network is not asked again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from cellseg.cells.label_canvas import LabelCanvas
from cellseg.cells.selection import DetectionThresholds
from cellseg.inference.adjustable import LEAST_SCORE, AdjustableDetections
from cellseg.napari.background import errors_told
from cellseg.napari.layers import CLASS, COLOUR_BY, INDEX, SCORE, cells_to_features, colour_cells
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGroupBox, QLabel, QWidget
from superqt import QLabeledDoubleSlider, QLabeledRangeSlider

_WORDS = {"cell": "one cell from the next", "class": "class", "score": "score"}


@dataclass(frozen=True, eq=False)
class FoundCells:
    """Detections and the layer that shows the cells among them.

    Attributes:
        detections: of the image, or of the part that was looked at.
        thresholds: what the model's config says that is a cell.
        classes: names of the classes.
        canvas: the layer's label image.
        layer: what shows it.
        pixel_size_um: (height, width) of a pixel; None where it is not known.
    """

    detections: AdjustableDetections
    thresholds: DetectionThresholds
    classes: tuple[str, ...]
    canvas: LabelCanvas
    layer: Labels
    pixel_size_um: tuple[float, float] | None = None


class CellSliders(QGroupBox):
    """Score, mask, area and overlap as sliders, and how the cells look."""

    chosen = Signal(int)
    """Emitted with the number of cells whenever they were chosen anew."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Cells", parent)
        self._found: FoundCells | None = None
        self._moved: dict[str, Any] = {}
        self._soon = QTimer(self)  # one answer for all that was moved meanwhile
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.apply)
        self.score_slider = _slider(LEAST_SCORE, 1.0, "A cell has at least this score")
        self.mask_slider = _slider(
            0.05, 0.95, "A pixel is the cell's where the network is so sure of it"
        )
        self.overlap_slider = _slider(
            0.0, 1.0, "Of two cells that overlap more (IoU of their masks) the surer one is kept"
        )
        self.area_slider = QLabeledRangeSlider(Qt.Orientation.Horizontal)
        self.area_slider.setEdgeLabelMode(self.area_slider.EdgeLabelMode.LabelIsValue)
        self.area_slider.setHandleLabelPosition(self.area_slider.LabelPosition.NoLabel)
        self.area_slider.setToolTip("Smallest and largest area of a cell, in pixels")
        self.colour_by = QComboBox()
        for by in COLOUR_BY:
            self.colour_by.addItem(_WORDS[by], by)
        self.outlines = QCheckBox("outlines only")
        self.count = QLabel("")
        self.count.setWordWrap(True)
        self._lay_out()
        self._connect()
        self.setEnabled(False)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("score", self.score_slider)
        form.addRow("mask", self.mask_slider)
        form.addRow("area in px", self.area_slider)
        form.addRow("overlap", self.overlap_slider)
        form.addRow("colour", self.colour_by)
        form.addRow("", self.outlines)
        form.addRow(self.count)

    def _connect(self) -> None:
        self.score_slider.valueChanged.connect(lambda value: self._move(score=value))
        self.mask_slider.valueChanged.connect(lambda value: self._move(mask=value))
        self.overlap_slider.valueChanged.connect(lambda value: self._move(mask_nms=value))
        self.area_slider.valueChanged.connect(self._move_area)
        self.colour_by.currentIndexChanged.connect(self._colour)
        self.outlines.toggled.connect(self._outline)

    def take(self, found: FoundCells) -> None:
        """Work on what was found now; the sliders go to what the model's config says."""
        self._found, self._moved = None, {}
        own = found.thresholds
        areas = found.detections.measure(own).areas_px
        largest = int(areas.max(initial=1))
        self.score_slider.setValue(float(np.min(own.score)))
        self.mask_slider.setValue(float(np.min(own.mask)))
        self.overlap_slider.setValue(float(np.max(own.mask_nms)))
        self.area_slider.setRange(0, largest)
        highest = int(np.max(own.max_area_px)) or largest
        self.area_slider.setValue(
            (min(int(np.min(own.min_area_px)), largest), min(highest, largest))
        )
        self._found, self._moved = found, {}
        found.layer.events.paint.connect(self._let_go)
        self.setEnabled(True)
        self.apply()
        self._colour()
        self._outline()

    @property
    def found(self) -> FoundCells | None:
        """What the sliders act on; None before anything was found."""
        return self._found

    def thresholds(self) -> DetectionThresholds:
        """What the sliders say; one that was not moved says what the model's config does."""
        assert self._found is not None
        return replace(self._found.thresholds, **self._moved)

    def apply(self) -> None:
        """Choose anew and show what was chosen."""
        if self._found is None:
            return
        found = self._found
        with errors_told():
            cells, ids = found.detections.choose(self.thresholds())
            has_pixels = cells.areas_px > 0
            cells, ids = cells[has_pixels], ids[has_pixels]
            found.canvas.show(cells, ids)
            found.layer.features = cells_to_features(
                cells, found.classes, ids=ids, pixel_size_um=found.pixel_size_um
            )
            found.layer.refresh()
            number, fainter = len(cells), len(found.detections) - len(cells)
            self.count.setText(f"{number:,} cells; {fainter:,} other detections are left out")
            self.chosen.emit(number)

    def _move(self, **values: Any) -> None:
        if self._found is not None:
            self._moved.update(values)
            self._soon.start(0)

    def _move_area(self, span: tuple[int, int]) -> None:
        low, high = span
        no_limit = high >= self.area_slider.maximum()
        self._move(min_area_px=float(low), max_area_px=0.0 if no_limit else float(max(high, 1)))

    def _colour(self) -> None:
        """Colour all detections, so that nothing is to be coloured when other ones are chosen."""
        if self._found is None:
            return
        detected = self._found.detections.voted(self.thresholds())
        every = {
            INDEX: np.arange(1, len(detected) + 1),
            CLASS: np.asarray(self._found.classes, object)[detected.classes.numpy()],
            SCORE: detected.scores.float().numpy(),
        }
        colour_cells(self._found.layer, self.colour_by.currentData(), pd.DataFrame(every))

    def _outline(self) -> None:
        if self._found is not None:
            self._found.layer.contour = int(self.outlines.isChecked())

    def _let_go(self, event: Any = None) -> None:
        """What was painted is not drawn over: from here on the layer is the user's."""
        if self._found is None:
            return
        self._found.layer.events.paint.disconnect(self._let_go)
        self._found = None
        self.setEnabled(False)
        self.count.setText("The cells were painted in; the sliders leave them alone now.")


def _slider(low: float, high: float, tip: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setDecimals(2)
    slider.setToolTip(tip)
    return slider
