"""The part of the Correct widget that lists the images, and says which to look at next."""

from __future__ import annotations

from typing import Any

from cellseg.napari.open_corrections import corrections
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGroupBox,
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
        order: ids of the images as they are to be looked at; None for the order of the list.
        chosen: emitted with the id of the image that was clicked on.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Images of the folder", parent)
        self.order: list[str] | None = None
        self.table = QTreeWidget()
        self.table.setHeaderLabels(list(COLUMNS))
        self.table.setRootIsDecorated(False)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setMaximumHeight(150)
        QVBoxLayout(self).addWidget(self.table)
        self.table.itemClicked.connect(self._clicked)

    def list_images(self) -> None:
        """List them, with how far each is."""
        folder = corrections().folder
        rows = [] if folder is None else [_row(one) for one in folder.images]
        while self.table.topLevelItemCount() > len(rows):
            self.table.takeTopLevelItem(len(rows))
        for k, (image_id, words) in enumerate(rows):
            if k == self.table.topLevelItemCount():
                self.table.addTopLevelItem(QTreeWidgetItem())
            item = self._item(k)
            item.setData(0, _ID, image_id)
            for column, word in enumerate(words):
                item.setText(column, word)

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


def _row(status: Any) -> tuple[str, list[str]]:
    by = f"{status.corrected_by} {status.corrected_at}" if status.corrected_by else ""
    right = "all" if status.is_done else ""
    return status.image_id, [
        status.image_id,
        str(status.num_open),
        str(status.num_cells),
        right,
        by,
    ]
