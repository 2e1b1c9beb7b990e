"""The part of the Correct widget that gives images their cells: a model's, or a layer's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectedImage, CorrectionFolder
from cellseg.engine.loading import AdjustableModel, load_adjustable
from cellseg.errors import CorrectionError
from cellseg.inference.adjustable import LEAST_SCORE, AdjustableDetections, detect_softly
from cellseg.napari.background import LayerChoice, Progress, errors_told, run_in_background
from cellseg.napari.correction_layer import OF_CORRECTIONS
from cellseg.napari.layers import layer_to_cells
from cellseg.napari.model_choice import ModelChoice
from cellseg.napari.open_corrections import corrections
from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)


class Found(NamedTuple):
    """What a model has found in an image.

    Attributes:
        model: it, to be used again.
        cells: what is a cell.
        candidates: detections below the threshold.
    """

    model: AdjustableModel
    cells: CellInstances
    candidates: CellInstances


class CellSource(QGroupBox):
    """Begins images with the cells that a model finds, or with those of a layer.

    Attributes:
        image: the image that is looked at.
        model, all_images: which model; for all images without cells, or this one.
        find_button, stop_button: begin and end it.
        layer_choice, take_button: the layer whose cells are taken.
        said: how far it is.
        begun: emitted with the id of an image that has got its cells.
    """

    begun = Signal(str)

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__("Cells to begin with", parent)
        self.image: CorrectedImage | None = None
        self.model = ModelChoice()
        self.all_images = QCheckBox("in all images without cells")
        self.find_button, self.stop_button = QPushButton("Find cells"), QPushButton("Stop")
        self.stop_button.setEnabled(False)
        self._loaded: tuple[str, AdjustableModel] | None = None
        self._progress: Progress | None = None
        self._is_stopped = False
        self.layer_choice = LayerChoice(viewer, Labels)
        self.take_button = QPushButton("Take those of the layer")
        self.said = QLabel()
        column = QVBoxLayout(self)
        for widgets in (
            (self.model,),
            (self.all_images, self.find_button, self.stop_button),
            (self.layer_choice, self.take_button),
            (self.said,),
        ):
            row = QHBoxLayout()
            for widget in widgets:
                row.addWidget(widget)
            column.addLayout(row)
        self.find_button.clicked.connect(self.find_cells)
        self.stop_button.clicked.connect(self.stop)
        self.take_button.clicked.connect(self.take_layer)

    def find_cells(self) -> None:
        """Find cells with the model, in a thread, one image after the other."""
        folder, image = corrections().folder, self.image
        if folder is None or image is None:
            return
        wanted = [image.image_id]
        if self.all_images.isChecked():
            wanted += [one.image_id for one in folder.images if not one.num_cells]
        self._is_stopped = False
        self._find_in(list(dict.fromkeys(wanted)))

    def _find_in(self, wanted: list[str]) -> None:
        """Find cells in the first of the images, and when that is done, in the others."""
        folder = corrections().folder
        is_going_on = bool(wanted) and folder is not None and not self._is_stopped
        self.find_button.setEnabled(not is_going_on)
        self.stop_button.setEnabled(is_going_on)
        if not is_going_on or folder is None:
            self.said.setText("")
            return
        (image_id, *rest), name = wanted, self.model.model()
        self.said.setText(f"{image_id}: looking for cells; {len(rest)} images to go")
        progress = self._progress = Progress(self)
        loaded = self._loaded[1] if self._loaded and self._loaded[0] == name else None
        run_in_background(
            partial(find_cells, loaded or name, folder.image(image_id), progress),
            done=partial(self._found, folder, image_id, name),
            finished=lambda: self._find_in(rest),
            owner=self,
        )

    def stop(self) -> None:
        """Find no more cells."""
        self._is_stopped = True
        if self._progress is not None:
            self._progress.stop()

    def _found(self, folder: CorrectionFolder, image_id: str, name: str, found: Found) -> None:
        self._loaded = name, found.model
        if corrections().folder is folder:
            image = folder.image(image_id)
            known = [place_class(one, folder.classes) for one in enumerate(found.model.classes)]
            cells, candidates = (
                one.replace(classes=np.array(known)[one.classes])
                for one in (found.cells, found.candidates)
            )
            self._begin(image, cells, name)
            image.keep_candidates(candidates)

    def take_layer(self) -> None:
        """Begin the image that is looked at with the cells of a layer."""
        layer = self.layer_choice.layer()
        folder = corrections().folder
        if layer is None or self.image is None or folder is None:
            return
        with errors_told():
            if layer.metadata.get(OF_CORRECTIONS):
                raise CorrectionError(f"layer {layer.name!r} shows the cells that are corrected")
            cells = layer_to_cells(layer, classes=folder.classes).cells
            self._begin(self.image, cells, f"layer {layer.name}")

    def _begin(self, image: CorrectedImage, cells: CellInstances, source: str) -> None:
        image.begin(cells, source, replace=True)
        self.begun.emit(image.image_id)


def find_cells(model: AdjustableModel | str, image: CorrectedImage, progress: Progress) -> Found:
    """What a model finds in an image.

    Args:
        model: it, or its name.
        image: its plane is read.
        progress: ends the work when it is stopped.
    """
    loaded = load_adjustable(model) if isinstance(model, str) else model
    channels = loaded.model.predictor.input_choices["channels"]
    with image.open_plane(channels) as plane:
        soft = detect_softly(loaded.model, plane, progress=progress.tell)
    detections = AdjustableDetections(soft)
    chosen = detections.choose(loaded.thresholds)
    likely = detections.choose(replace(loaded.thresholds, score=LEAST_SCORE))
    return Found(loaded, chosen.cells, likely.cells[~np.isin(likely.ids, chosen.ids)])


def place_class(one: tuple[int, str], classes: tuple[str, ...]) -> int:
    """The place of a model's class among those of the corrections: by its name, else its number.

    Args:
        one: number and name.
        classes: names of those of the corrections.

    Raises:
        CorrectionError: there are not so many.
    """
    number, name = one
    if name in classes:
        return classes.index(name)
    if number >= len(classes):
        raise CorrectionError(
            f"the model's class {name!r} is none of the corrections' classes {', '.join(classes)}; "
            "open the folder with it named behind them"
        )
    return number
