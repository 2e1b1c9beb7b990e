"""The part of the Correct widget with its buttons, and the one that says what the keys do."""

from __future__ import annotations

from collections.abc import Sequence

from cellseg.corrections import Event
from cellseg.napari.correction_keys import describe_key, describe_keys
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QGroupBox,
    QLabel,
    QListWidget,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

BUTTONS = (
    ("previous", "◀ Previous"),
    ("next", "Next ▶"),
    ("accept", "Accept"),
    ("reject", "Reject"),
    ("merge", "Merge"),
    ("split", "Split"),
    ("new", "New cell"),
    ("accept view", "Accept all in view"),
    ("view done", "View is right"),
    ("image done", "Image is right"),
    ("undo", "Undo"),
    ("redo", "Redo"),
)
"""Action and words of each button, two in a row."""
LAST_EVENTS = 200
"""So many are listed; all of them are kept."""


class CorrectionControls(QGroupBox):
    """Buttons, classes, and what was done.

    Attributes:
        progress, said: how many cells are open; a sentence for the user.
        buttons: each by the name of its action.
        class_choice: the classes.
        history: what was done in the image, the last on top.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Cells", parent)
        self.progress, self.said = QLabel(), QLabel()
        self.said.setWordWrap(True)
        self.buttons = {name: QPushButton(words) for name, words in BUTTONS}
        self.class_choice, self.history = QComboBox(), QListWidget()
        self.history.setMaximumHeight(90)
        column, grid = QVBoxLayout(self), QGridLayout()
        column.addWidget(self.progress)
        for place, (name, button) in enumerate(self.buttons.items()):
            button.setToolTip(describe_key(name))
            grid.addWidget(button, place // 2, place % 2)
        column.addLayout(grid)
        for widget in (self.class_choice, self.said, self.history):
            column.addWidget(widget)

    def list_classes(self, names: Sequence[str]) -> None:
        """Offer classes, each with its key."""
        self.class_choice.clear()
        self.class_choice.addItems([f"{k}  {name}" for k, name in enumerate(names, 1)])

    def list_history(self, events: Sequence[Event]) -> None:
        """Show what was done, in the order in which it was."""
        self.history.clear()
        self.history.addItems(
            [f"{one.at}  {one.by}  {one.what}" for one in reversed(events[-LAST_EVENTS:])]
        )


class KeysBox(QGroupBox):
    """What the keys do; shown when it is ticked."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Keys, while the layer of cells is selected", parent)
        table = QWidget()
        grid = QGridLayout(table)
        for row, words in enumerate(describe_keys()):
            for place, word in enumerate(words):
                grid.addWidget(QLabel(word), row, place)
        QVBoxLayout(self).addWidget(table)
        self.setCheckable(True)
        self.toggled.connect(table.setVisible)
        self.setChecked(False)
