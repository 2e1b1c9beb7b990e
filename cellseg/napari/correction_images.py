"""The part of the Correct widget that lists the images, and says which to look at next."""

from __future__ import annotations

import cellseg
from cellseg.cells.records import PlaceInFile
from cellseg.corrections import CorrectionFolder, ImageStatus
from cellseg.corrections.entries import ImageEntry
from cellseg.inference.suggestions import Suggestion, suggest_images
from cellseg.napari.background import Progress, run_in_background
from cellseg.napari.open_corrections import corrections
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

COLUMNS = ("image", "open", "cells", "right", "corrected")
_ID = Qt.ItemDataRole.UserRole


class CorrectionImages(QGroupBox):
    """The images of the open folder; a click opens one.

    Attributes:
        table: one row per image.
        next_button, stop_button: ask a model which images to annotate next, and end that.
        order: ids of the images as they are to be looked at; None where no model was asked.
        chosen: emitted with the id of the image that was clicked on.
        ordered: emitted when a model has said in which order to look at them.
    """

    chosen = Signal(str)
    ordered = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Images of the folder", parent)
        self.order: list[str] | None = None
        self.reasons: dict[str, str] = {}
        self._progress: Progress | None = None
        self.next_button, self.stop_button = QPushButton("What next?"), QPushButton("Stop")
        self.stop_button.setEnabled(False)
        self.said = QLabel()
        self.next_button.setToolTip("put the images in the order in which they teach a model most")
        self.table = QTreeWidget()
        self.table.setHeaderLabels(list(COLUMNS))
        self.table.setRootIsDecorated(False)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setMaximumHeight(150)
        if (header := self.table.header()) is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        column, row = QVBoxLayout(self), QHBoxLayout()
        column.addWidget(self.table)
        row.addWidget(self.next_button)
        row.addWidget(self.stop_button)
        row.addWidget(self.said, 1)
        column.addLayout(row)
        self.table.itemClicked.connect(self._clicked)
        self.stop_button.clicked.connect(self.stop)

    def forget_order(self) -> None:
        """List the images as they were added, as those of another folder."""
        self.order, self.reasons = None, {}

    def order_images(self, model: str) -> None:
        """Ask a model, in a thread, which images to annotate next.

        Args:
            model: its name.
        """
        folder = corrections().folder
        if folder is None:
            return
        entries = folder.entries
        self.next_button.setEnabled(False)
        self.stop_button.setEnabled(True)
        self.said.setText("looks at all images, in several views of each")
        progress = self._progress = Progress(self)
        progress.changed.connect(self._show_progress)
        files = sorted({one.path for one in entries})
        run_in_background(
            lambda: suggest_images(cellseg.load(model), files, progress=progress.tell),
            done=lambda found: self._take_order(folder, entries, found),
            finished=self._end_order,
            owner=self,
        )

    def _take_order(
        self, folder: CorrectionFolder, entries: list[ImageEntry], found: list[Suggestion]
    ) -> None:
        if corrections().folder is not folder:
            return
        # Of an image in tiles the first one decides; what could not be looked at comes last.
        names = {(one.path.resolve(), _plane(one.place)): one.image_id for one in entries}
        keys = [(one.path.resolve(), _plane(one.place)) for one in found]
        reasons = [(names[key], one.reason) for key, one in zip(keys, found) if key in names]
        self.reasons = dict(reversed(reasons))
        self.order = list(dict.fromkeys([name for name, _ in reasons] + list(names.values())))
        self.list_images()
        self.ordered.emit()

    def stop(self) -> None:
        """Ask no more; the order stays as it was."""
        self.stop_button.setEnabled(False)
        if self._progress is not None:
            self._progress.stop()

    def _show_progress(self, done: int, total: int) -> None:
        at = min(done + 1, total)
        self.said.setText(f"looks at {at} of {total} images, in several views of each")

    def _end_order(self) -> None:
        self._progress = None
        self.next_button.setEnabled(True)
        self.stop_button.setEnabled(False)
        self.said.setText("")

    def list_images(self) -> None:
        """List them, with how far each is."""
        folder = corrections().folder
        statuses = {} if folder is None else {one.image_id: one for one in folder.images}
        rows = [_row(statuses[one]) for one in self.order or statuses]
        while self.table.topLevelItemCount() > len(rows):
            self.table.takeTopLevelItem(len(rows))
        for k, (image_id, words) in enumerate(rows):
            if k == self.table.topLevelItemCount():
                self.table.addTopLevelItem(QTreeWidgetItem())
            item = self._item(k)
            item.setData(0, _ID, image_id)
            for column, word in enumerate(words):
                item.setText(column, word)
            item.setToolTip(0, self.reasons.get(image_id, image_id))

    def show_chosen(self, image_id: str) -> None:
        """Mark the row of an image."""
        for k in range(self.table.topLevelItemCount()):
            item = self._item(k)
            if item.data(0, _ID) == image_id:
                self.table.setCurrentItem(item)

    def _item(self, row: int) -> QTreeWidgetItem:
        item = self.table.topLevelItem(row)
        assert item is not None
        return item

    def _clicked(self, item: QTreeWidgetItem, column: int) -> None:
        self.chosen.emit(item.data(0, _ID))


def _plane(place: PlaceInFile) -> tuple[object, str]:
    return place.position, place.scene


def _row(status: ImageStatus) -> tuple[str, list[str]]:
    by = f"{status.corrected_by} {status.corrected_at}" if status.corrected_by else ""
    right = "all" if status.is_done else ""
    return status.image_id, [
        status.image_id,
        str(status.num_open),
        str(status.num_cells),
        right,
        by,
    ]
