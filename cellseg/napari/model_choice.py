"""The choice of a model: those that are found by name, or any folder or file."""

from __future__ import annotations

from pathlib import Path

from cellseg.napari.background import errors_told
from cellseg.shipped import DEFAULT_MODEL, named_bundles
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QWidget


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
        self.refresh()
        self.models.setCurrentText(DEFAULT_MODEL)
        self.models.currentIndexChanged.connect(lambda _: self.changed.emit(self.model()))

    def model(self) -> str:
        """Name or path of the model that is chosen; "" for none."""
        return str(self.models.currentData() or "")

    def refresh(self) -> None:
        """List what is found by name anew; the choice stays."""
        chosen = self.model()
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
        if self.models.findData(str(model)) < 0:
            self.models.addItem(Path(model).name, str(model))
            self.models.setItemData(self.models.count() - 1, str(model), 3)  # its tool tip
        self.models.setCurrentIndex(self.models.findData(str(model)))

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
