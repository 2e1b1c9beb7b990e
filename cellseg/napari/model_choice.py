"""The choice of a model: those that are found by name, or any folder or file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cellseg.napari.background import errors_told
from cellseg.shipped import DEFAULT_MODEL, named_bundles
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QWidget


class KnownModels(QObject):
    """Models that were trained since napari was started.

    Attributes:
        paths: their folders.
        added: emitted with that of one that has come; every `ModelChoice` then offers it.
    """

    added = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    def add(self, model: str | Path) -> None:
        """Offer one more, wherever a model is chosen."""
        if str(model) not in self.paths:
            self.paths.append(str(model))
            self.added.emit(str(model))


@cache
def known_models() -> KnownModels:
    """Those of this napari."""
    return KnownModels()


class ModelChoice(QWidget):
    """A list of models, and a button that takes a run's folder, a bundle or a checkpoint into it.

    Attributes:
        changed: emitted with the name or path of the model that is chosen now; "" for none.
    """

    changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.models = QComboBox()
        self.models.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.models.setMinimumContentsLength(10)
        self.browse_folder = QPushButton("Folder…")
        self.browse_folder.setToolTip("The folder of a training, or of a model bundle")
        self.browse_file = QPushButton("File…")
        self.browse_file.setToolTip("A model bundle (.zip) or a checkpoint (.pth)")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.models, 1)
        row.addWidget(self.browse_folder)
        row.addWidget(self.browse_file)
        self.browse_folder.clicked.connect(self._ask_folder)
        self.browse_file.clicked.connect(self._ask_file)
        known_models().added.connect(self._offer)
        self.refresh()
        self.models.setCurrentText(DEFAULT_MODEL)
        self.models.currentIndexChanged.connect(lambda _: self.changed.emit(self.model()))

    def model(self) -> str:
        """Name or path of the model that is chosen; "" for none."""
        return str(self.models.currentData() or "")

    def refresh(self) -> None:
        """List what is found by name anew; the choice stays."""
        chosen = self.model()
        for path in known_models().paths:
            self._offer(path)
        with errors_told():
            for name in sorted(named_bundles()):
                if self.models.findData(name) < 0:
                    self.models.addItem(name, name)
        if chosen:
            self.models.setCurrentIndex(self.models.findData(chosen))

    def choose(self, model: str | Path) -> None:
        """Choose a model, which comes into the list if it is not there.

        Args:
            model: a name, or the path of a bundle, of a training's folder or of a checkpoint.
        """
        self._offer(str(model))
        self.models.setCurrentIndex(self.models.findData(str(model)))

    def _offer(self, path: str) -> None:
        if self.models.findData(path) < 0:
            self.models.addItem(Path(path).name, path)
            self.models.setItemData(self.models.count() - 1, path, 3)  # its tool tip

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a training or of a model bundle")
        if folder:
            self.choose(folder)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Model bundle or checkpoint", "", "Models (*.zip *.pth);;All files (*)"
        )
        if path:
            self.choose(path)
