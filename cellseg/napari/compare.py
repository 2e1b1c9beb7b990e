"""The widget Compare: two layers of labels, what is wrong with one by the other, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.errors import LabelError
from cellseg.evaluation.error_list import (
    CONFUSED,
    ERROR_SENTENCES,
    ERROR_WORDS,
    count_kinds,
)
from cellseg.napari.background import LayerChoice, run_in_background, tell_error
from cellseg.napari.compared_layers import Compared, Place, check_layers, compare_layers, frozen
from napari import Viewer
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

COLOURS = {
    "missed": "#d55e00",
    "spurious": "#0072b2",
    "merge": "#cc79a7",
    "split": "#f0e442",
    "catastrophe": "#e69f00",
    "outline": "#56b4e9",
    CONFUSED: "#009e73",
}
"""Of each kind of error; also told apart by those who see colours otherwise (Okabe and Ito)."""
ACROSS_PX = 200
"""How large, on the screen, an error is that is gone to."""
PLACING = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
KIND, INDEX = "error", "index"


class CompareWidget(QWidget):
    """Compares two layers of labels.

    Args:
        viewer: napari's viewer.

    Attributes:
        truth, prediction: the choices of the two layers.
        button: starts the comparison.
        told: what it found, or why it could not.
        legend: the colours of the errors, and how many there are.
        metrics: table of the metrics.
        errors: table of the errors; a row that is clicked is gone to.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Labels | None = None
        self._places: list[Place] = []
        self.truth, self.prediction = LayerChoice(viewer, Labels), LayerChoice(viewer, Labels)
        self.button, self.told, self.legend = QPushButton("Compare"), QLabel(), QLabel()
        self.metrics, self.errors = make_table(), make_table()
        self.errors.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.errors.setSortingEnabled(True)
        self.told.setWordWrap(True)
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self._lay_out()
        if self.prediction.count() > 1:
            self.prediction.setCurrentIndex(1)
        self.button.clicked.connect(self.compare)
        self.errors.currentItemChanged.connect(lambda item, _: self._go_to(item))
        self.errors.itemClicked.connect(self._go_to)  # once more, after a look elsewhere

    def _lay_out(self) -> None:
        layout, choices = QVBoxLayout(self), QFormLayout()
        choices.addRow("truth", self.truth)
        choices.addRow("prediction", self.prediction)
        layout.addLayout(choices)
        for widget in (self.button, self.told, self.legend, self.metrics, self.errors):
            layout.addWidget(widget)
        layout.setStretch(layout.count() - 1, 1)

    def compare(self) -> None:
        """Compare the two layers, in a thread; what is wrong with them is told."""
        truth, prediction = self.truth.layer(), self.prediction.layer()
        try:
            check_layers(truth, prediction)
        except LabelError as error:
            self._tell(error)
            return
        sides = frozen(truth), frozen(prediction)
        self.button.setEnabled(False)
        self.told.setText("comparing ...")
        run_in_background(
            lambda: compare_layers(*sides),
            done=lambda compared: self._show(compared, truth, prediction.name),
            failed=self._tell,
            finished=lambda: self.button.setEnabled(True),
        )

    def _tell(self, error: BaseException) -> None:
        self.told.setText(str(error))
        tell_error(error)

    def _show(self, compared: Compared, truth: Labels, name: str) -> None:
        self._places = compared.places
        counts = count_kinds([place.error for place in compared.places])
        self.told.setText(f"{sum(counts.values())} errors in {name!r}")
        if "per_class" not in compared.found:
            del counts[CONFUSED]
        self.legend.setText(describe_counts(counts))
        fill_table(self.metrics, *metric_rows(compared.found))
        self.errors.setSortingEnabled(False)  # rows would move while they are filled
        fill_table(self.errors, *error_rows(compared.places))
        self.errors.setSortingEnabled(True)
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        placing = {each: getattr(truth, each) for each in PLACING}
        self._layer = self._viewer.add_labels(
            compared.labels,
            name=f"errors of {name}",
            features=error_features(compared.places),
            colormap=error_colours(compared.places),
            opacity=0.6,
            **placing,
        )

    def _go_to(self, item: QTableWidgetItem | None) -> None:
        """Show the error of a row: its plane, and its cells in the middle."""
        layer = self._layer
        if item is None or layer is None or layer not in self._viewer.layers:
            return
        number = item.data(Qt.ItemDataRole.UserRole)
        place = self._places[number]
        left, top, right, bottom = place.error.box_xyxy.tolist()
        ends = [
            np.array(layer.data_to_world((*place.plane, *corner)))
            for corner in ((top - 0.5, left - 0.5), (bottom - 0.5, right - 0.5))
        ]
        axes = range(self._viewer.dims.ndim - layer.ndim, self._viewer.dims.ndim - 2)
        for axis, value in zip(axes, ends[0]):
            self._viewer.dims.set_point(axis, value)
        self._viewer.camera.center = tuple((ends[0] + ends[1])[-2:] / 2)
        self._viewer.camera.zoom = ACROSS_PX / float(np.abs(ends[1] - ends[0])[-2:].max())
        layer.selected_label = number + 1

    def closeEvent(self, event: Any) -> None:
        """Follow the viewer's layers no longer."""
        self.truth.disconnect_viewer()
        self.prediction.disconnect_viewer()
        super().closeEvent(event)


def make_table() -> QTableWidget:
    """A table to look at."""
    table = QTableWidget()
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.verticalHeader().setVisible(False)
    table.horizontalHeader().setStretchLastSection(True)
    return table


def fill_table(table: QTableWidget, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Put rows into a table; each item knows the row's number.

    Args:
        table: what was in it goes.
        head: names of the columns.
        rows: texts and numbers; numbers are sorted as such.
    """
    table.clear()
    table.setColumnCount(len(head))
    table.setRowCount(len(rows))
    table.setHorizontalHeaderLabels(list(head))
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            item = QTableWidgetItem()
            item.setData(Qt.ItemDataRole.DisplayRole, value)
            item.setData(Qt.ItemDataRole.UserRole, row)
            table.setItem(row, column, item)
    table.resizeColumnsToContents()


def metric_rows(found: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of the table of metrics: the value over all cells, and that of each class."""
    per_class = found.get("per_class", {})
    rows = [
        [name, f"{value:.4f}", *(f"{values[name]:.4f}" for values in per_class.values())]
        for name, value in found["metrics"].items()
    ]
    return ["metric", "all", *per_class], rows


def error_rows(places: Sequence[Place]) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of the table of errors; the plane only where there are several."""
    has_planes = any(place.plane for place in places)
    rows = []
    for place in places:
        left, top, right, bottom = place.error.box_xyxy.tolist()
        labels = [" ".join(map(str, side)) for side in (place.true, place.pred)]
        rows.append(
            [
                ERROR_WORDS[place.error.kind],
                *([" ".join(map(str, place.plane))] if has_planes else []),
                int((top + bottom) / 2),
                int((left + right) / 2),
                *labels,
                round(place.error.iou, 2),
            ]
        )
    plane = ["plane"] if has_planes else []
    return ["error", *plane, "row", "column", "true cells", "predicted", "IoU"], rows


def error_features(places: Sequence[Place]) -> dict[str, list[Any]]:
    """What is shown of an error under the cursor."""
    return {
        INDEX: [*range(1, len(places) + 1)],
        KIND: [ERROR_WORDS[place.error.kind] for place in places],
        "iou": [round(place.error.iou, 2) for place in places],
    }


def error_colours(places: Sequence[Place]) -> DirectLabelColormap:
    """The colour of each error, by its kind."""
    table: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    table |= {k: COLOURS[place.error.kind] for k, place in enumerate(places, 1)}
    return DirectLabelColormap(color_dict=table)


def describe_counts(counts: dict[str, int]) -> str:
    """The legend: a square of each kind's colour, its name, how many there are; rich text."""
    return "<br>".join(
        f'<span title="{ERROR_SENTENCES[kind]}"><span style="color:{COLOURS[kind]}">&#9632;</span> '
        f"{ERROR_WORDS[kind]}: {count}</span>"
        for kind, count in counts.items()
    )
