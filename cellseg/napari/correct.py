"""The widget Correct: through the cells of many images, from the least certain to the surest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from cellseg.corrections import CorrectedImage
from cellseg.napari.background import errors_told
from cellseg.napari.correction_controls import CorrectionControls, KeysBox
from cellseg.napari.correction_folder_box import CorrectionFolderBox
from cellseg.napari.correction_images import CorrectionImages
from cellseg.napari.correction_keys import NUM_CLASS_KEYS, bind_keys
from cellseg.napari.correction_layer import CorrectionLayer
from cellseg.napari.correction_source import CellSource
from cellseg.napari.open_corrections import corrections
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget


class CorrectWidget(QWidget):
    """Look at what a model found, cell by cell, and mend it; each change is kept at once.

    Args:
        napari_viewer: napari's viewer.

    Attributes:
        folder_box, images, source: the parts above the buttons.
        buttons: each by the name of its action.
        shown: the image that is looked at; None where there is none.
        controls, progress, said, class_choice: what is shown, and what is chosen from.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self.shown: CorrectionLayer | None = None
        self._queue: list[Any] = []
        self._at = -1
        self.folder_box = CorrectionFolderBox(napari_viewer)
        self.images = CorrectionImages()
        self.source = CellSource(napari_viewer)
        self.controls = CorrectionControls()
        self.buttons, self.class_choice = self.controls.buttons, self.controls.class_choice
        self.progress, self.said = self.controls.progress, self.controls.said
        self.actions_by_name = self._name_actions()
        self._lay_out()
        self._connect()
        self._folder_changed()

    def _name_actions(self) -> dict[str, Callable[[], None]]:
        named: dict[str, Callable[[], None]] = {
            "next": self.go_next,
            "previous": partial(self.go_next, -1),
            "accept": self.accept,
            "accept view": self.accept_view,
            "reject": self.reject,
            "merge": self.merge,
            "split": lambda: self._on_layer(CorrectionLayer.start_split),
            "new": lambda: self._on_layer(CorrectionLayer.start_new),
            "view done": lambda: self._do(lambda image, layer: image.mark_done(layer.view())),
            "image done": lambda: self._do(lambda image, layer: image.mark_done()),
            "undo": lambda: self._step("undo"),
            "redo": lambda: self._step("redo"),
        }
        for k in range(NUM_CLASS_KEYS):
            named[f"class {k + 1}"] = partial(self.set_class, k)
        return named

    def _lay_out(self) -> None:
        parts, area = QWidget(), QScrollArea()
        column = QVBoxLayout(parts)
        for part in (self.folder_box, self.images, self.source, self.controls, KeysBox()):
            column.addWidget(part)
        column.addStretch()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setMinimumWidth(parts.minimumSizeHint().width())
        area.setWidget(parts)
        around = QVBoxLayout(self)
        around.setContentsMargins(0, 0, 0, 0)
        around.addWidget(area)

    def _connect(self) -> None:
        for name, button in self.buttons.items():
            button.clicked.connect(partial(self._pressed, name))
        corrections().changed.connect(self._folder_changed)
        self.images.chosen.connect(self.open_image)
        self.images.next_button.clicked.connect(self._ask_what_next)
        self.images.ordered.connect(self._take_order)
        self.source.begun.connect(self._cells_came)
        self.class_choice.activated.connect(self.set_class)

    def _pressed(self, name: str, checked: bool = False) -> None:
        self.actions_by_name[name]()
        if self.shown is not None and name != "split":
            self._viewer.layers.selection.active = self.shown.layer

    # The folder and its images

    def _folder_changed(self) -> None:
        self._close_image()
        folder = corrections().folder
        names = () if folder is None else folder.classes
        self.controls.list_classes(names)
        self.images.forget_order()
        self.images.list_images()
        self.renew_queue()
        if folder is not None and folder.images:
            self.open_image(folder.images[0].image_id)
            self.go_next()

    def renew_queue(self) -> None:
        """Put all open cells of the folder in order anew."""
        folder, order = corrections().folder, self.images.order
        if folder is None:
            self._queue = []
        elif order is None:
            self._queue = list(folder.queue())
        else:  # image by image, as they teach most
            self._queue = [item for one in order for item in folder.queue([one])]
        self._at = -1
        self._tell_progress()

    def open_image(self, image_id: str) -> None:
        """Show an image and its cells, in place of the one before."""
        folder = corrections().folder
        if folder is None or image_id == self._shown_id():
            return
        shown = self.shown or self._make_layer(folder.classes)
        with errors_told():
            if shown.open(folder.image(image_id)):
                bind_keys(shown.layer, self.actions_by_name)
            self.shown, self.source.image = shown, shown.image
        self.images.show_chosen(self._shown_id())
        self._tell_progress()

    def _shown_id(self) -> str:
        there = self.shown is not None and self.shown.is_there
        return self.shown.image.image_id if self.shown is not None and there else ""

    def _make_layer(self, classes: Sequence[str]) -> CorrectionLayer:
        shown = CorrectionLayer(self._viewer, classes, read_only=corrections().is_read_only)
        shown.new_class = max(0, self.class_choice.currentIndex())
        shown.changed.connect(self._corrected)
        shown.told.connect(self.said.setText)
        return shown

    def _close_image(self) -> None:
        shown, self.shown = self.shown, None
        self.source.image = None
        if shown is not None:
            shown.close()

    def _cells_came(self, image_id: str) -> None:
        """A model, or a layer, has given an image its cells."""
        if self.shown is not None and self.shown.image.image_id == image_id:
            self.shown.redraw()
        self.images.list_images()
        self.renew_queue()
        self.go_next()

    # The queue

    def _ask_what_next(self) -> None:
        self.images.order_images(self.source.model.model())

    def _take_order(self) -> None:
        self.renew_queue()
        self.go_next()

    def go_next(self, step: int = 1) -> None:
        """Go to the next open cell of the queue, or back to the one before."""
        at = self._at + step
        while 0 <= at < len(self._queue) and not self._is_open(at):
            at += step
        if not 0 <= at < len(self._queue):
            self.said.setText("no open cell is left" if step > 0 else "this is the first one")
            return
        self._at = at
        item = self._queue[at]
        self.open_image(item.image_id)
        if self.shown is not None:
            self.shown.go_to(item.cell_id)
            self._tell_progress()

    def _go_on(self) -> None:
        """Go on when the cell that was gone to is looked at; stay when it was another one."""
        if not (0 <= self._at < len(self._queue) and self._is_open(self._at)):
            self.go_next()

    def _is_open(self, at: int) -> bool:
        folder, item = corrections().folder, self._queue[at]
        left = [] if folder is None else folder.queue([item.image_id])
        return item.cell_id in {one.cell_id for one in left}

    def _tell_progress(self) -> None:
        folder = corrections().folder
        if folder is None:
            self.progress.setText("no folder is open")
        else:
            left = sum(one.num_open for one in folder.images)
            self.progress.setText(f"{left} of {max(left, len(self._queue))} open")
        self.controls.list_history([] if self.shown is None else self.shown.image.history)

    # Corrections

    def _corrected(self) -> None:
        self.said.setText("")
        self.images.list_images()
        self._tell_progress()
        corrections().corrected.emit()

    def _on_layer(self, work: Callable[[CorrectionLayer], None]) -> None:
        if self.shown is not None and not self.shown.is_read_only:
            work(self.shown)
        else:
            self.said.setText("open a folder of images first, and not only to look at it")

    def _do(self, work: Callable[[CorrectedImage, CorrectionLayer], Any]) -> None:
        self._on_layer(lambda layer: layer.correct(lambda image: work(image, layer)))

    def accept(self) -> None:
        """The chosen cells are right."""
        self._do(lambda image, layer: image.accept(layer.chosen))
        self._go_on()

    def accept_view(self) -> None:
        """All open cells in the view are right."""
        self._do(
            lambda image, layer: image.accept(np.intersect1d(layer.ids_in_view(), image.open_ids))
        )

    def reject(self) -> None:
        """The chosen cells are none."""
        self._do(lambda image, layer: image.reject(layer.chosen))
        self._go_on()

    def merge(self) -> None:
        """The chosen cells are one."""

        def work(layer: CorrectionLayer) -> None:
            if len(layer.chosen) < 2:
                self.said.setText("choose two cells or more: click one, Shift + click the others")
                return
            one = layer.correct(lambda image: image.merge(layer.chosen))
            if one is not None:
                layer.choose([one])

        self._on_layer(work)

    def set_class(self, number: int) -> None:
        """The chosen cells are of a class, 0-based, and so will be those that are drawn."""
        if number >= self.class_choice.count():
            self.said.setText(f"there is no class {number + 1}")
            return
        self.class_choice.setCurrentIndex(number)
        if self.shown is not None:
            self.shown.new_class = number
            if self.shown.chosen:
                self._do(lambda image, layer: image.set_class(layer.chosen, number))

    def _step(self, name: str) -> None:
        def work(layer: CorrectionLayer) -> None:
            if layer.correct(lambda image: getattr(image, name)()):
                touched = np.intersect1d(layer.image.history[-1].cell_ids, layer.image.ids)
                layer.choose(touched.tolist())
            else:
                self.said.setText(f"there is nothing to {name}")

        self._on_layer(work)
