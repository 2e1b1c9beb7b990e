"""The part of the Correct widget that opens a folder of corrections: which images, who, where."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

from cellseg.corrections import Added, CorrectionFolder
from cellseg.errors import CorrectionsInUseError
from cellseg.napari.background import errors_told
from cellseg.napari.open_corrections import corrections
from napari.layers import Image
from napari.utils.notifications import show_info
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

AUTHOR = "author"
"""Key of the settings under which the name of who corrects is remembered."""
SUFFIX = "_corrections"
DEFAULT_CLASSES = "nucleus"


def settings() -> QSettings:
    """What the plug-in remembers from one start of napari to the next."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "cellseg", "napari")


def corrections_beside(images: Path) -> Path:
    """Where corrections of a folder of images, or of one file, are kept if nobody says where."""
    name = images.name if images.is_dir() else images.stem
    return images.with_name(name + SUFFIX)


class CorrectionFolderBox(QGroupBox):
    """Opens the corrections of a folder of images, or of the selected layer's file.

    Attributes:
        images, kept_in, author, classes: the fields.
        open_button, look_button, layer_button: "Open", "Look only", "Selected layer".
        in_use: says who has the folder open; empty where nobody has.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__("Images", parent)
        self._viewer = viewer
        self.images, self.kept_in = QLineEdit(), QLineEdit()
        self.author = QLineEdit(str(settings().value(AUTHOR, "") or getpass.getuser()))
        self.classes = QLineEdit(DEFAULT_CLASSES)
        self.classes.setToolTip("names of the classes, with commas between; keys 1 to 9 give them")
        self.browse_button, self.layer_button = QPushButton("…"), QPushButton("Selected layer")
        self.open_button, self.look_button = QPushButton("Open"), QPushButton("Look only")
        self.in_use = QLabel()
        self.in_use.setWordWrap(True)
        self._lay_out()
        self.images.textChanged.connect(self._name_folder)
        self.browse_button.clicked.connect(self._browse)
        self.layer_button.clicked.connect(self._take_layer)
        self.open_button.clicked.connect(lambda: self.open())
        self.look_button.clicked.connect(lambda: self.open(read_only=True))
        self._tell_in_use("")

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        row = QHBoxLayout()
        for widget in (self.images, self.browse_button, self.layer_button):
            row.addWidget(widget)
        self.browse_button.setMaximumWidth(30)
        form.addRow("Images", row)
        form.addRow("Kept in", self.kept_in)
        form.addRow("Who corrects", self.author)
        form.addRow("Classes", self.classes)
        form.addRow(self.in_use)
        last = QHBoxLayout()
        last.addWidget(self.open_button)
        last.addWidget(self.look_button)
        form.addRow(last)

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of images", self.images.text())
        if chosen:
            self.images.setText(chosen)

    def _take_layer(self) -> None:
        layer = self._viewer.layers.selection.active
        if not isinstance(layer, Image):
            layer = next((one for one in self._viewer.layers if isinstance(one, Image)), None)
        if layer is not None and (path := path_of_layer(layer)):
            self.images.setText(path)

    def _name_folder(self, text: str) -> None:
        self.kept_in.setText(str(corrections_beside(Path(text))) if text else "")

    def class_names(self) -> tuple[str, ...]:
        """Those in the field."""
        names = (one.strip() for one in self.classes.text().split(","))
        return tuple(one for one in names if one)

    def open(self, *, read_only: bool = False) -> None:
        """Open the folder, or say who has it open."""
        settings().setValue(AUTHOR, self.author.text())
        self._tell_in_use("")
        corrections().close()
        with errors_told():
            try:
                folder = CorrectionFolder.open(
                    self.kept_in.text(),
                    classes=self.class_names(),
                    author=self.author.text(),
                    read_only=read_only,
                )
            except CorrectionsInUseError as error:
                self._tell_in_use(str(error))
                return
            try:
                if not read_only:
                    tell_passed_over(folder.add_images(self.images.text()))
            except BaseException:
                folder.close()
                raise
            corrections().take(folder, is_read_only=read_only)

    def _tell_in_use(self, text: str) -> None:
        self.in_use.setText(text)
        self.in_use.setVisible(bool(text))
        self.look_button.setVisible(bool(text))


def tell_passed_over(added: Added) -> None:
    """Say which files are no images, and why."""
    for one in added.passed_over:
        show_info(f"{one.path}: {one.reason}")


def path_of_layer(layer: Image) -> str:
    """The file that a layer was read from; "" where it is not known."""
    return str(layer.source.path or layer.metadata.get("path", ""))
