"""The cells of an image after all that was done, and the way back: a replay of its journal.

Masks stay texts here, so that a replay of ten thousand events takes no longer than reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cellseg.cells.windows import Window
from cellseg.corrections.done_windows import area_of
from cellseg.corrections.events import (
    BEGIN,
    FOUND,
    REDO,
    UNDO,
    Cell,
    Change,
    Event,
    change_from_json,
)
from cellseg.corrections.journal import DamagedJournalError, Journal, Line

NAME, VERSION = "cellseg corrections of an image", 1


@dataclass
class ImageState:
    """What is known of the cells of an image.

    Attributes:
        image_hw: (height, width), pixels.
        cells: by id; no two share a pixel.
        done: windows in which all cells are right, disjoint.
        source: what found the cells; "" where nothing did.
        threshold: the score that a detection needed to be a cell.
        next_id: no cell has had it, nor a higher one.
        history: all events, undone ones and undoing too.
    """

    image_hw: tuple[int, int]
    cells: dict[int, Cell] = field(default_factory=dict)
    done: tuple[Window, ...] = ()
    source: str = ""
    threshold: float = 0.5
    next_id: int = 1
    history: list[Event] = field(default_factory=list)
    _back: list[Change] = field(default_factory=list)
    _forth: list[Change] = field(default_factory=list)

    def apply(self, event: Event, change: Change) -> None:
        """Do something new; what was undone before cannot be redone any more."""
        self._back.append(self._exchange(change))
        self._forth.clear()
        self.history.append(event)

    def step(self, event: Event) -> tuple[Change, Change]:
        """Undo or redo; what changed, and what changes it back.

        Raises:
            IndexError: there is nothing to be undone, or redone.
        """
        taken, given = (self._back, self._forth)[:: 1 if event.what == UNDO else -1]
        change = taken.pop()
        given.append(self._exchange(change))
        self.history.append(event._replace(cell_ids=tuple(sorted(change.cells))))
        return change, given[-1]

    def can(self, what: str) -> bool:
        """Whether there is something to "undo" or "redo"."""
        return bool(self._back if what == UNDO else self._forth)

    def _exchange(self, change: Change) -> Change:
        """Make a change; the one that takes it back."""
        inverse = Change(
            {one: self.cells.get(one) for one in change.cells},
            *(
                None if getattr(change, name) is None else getattr(self, name)
                for name in ("done", "source", "threshold")
            ),
        )
        for one, cell in change.cells.items():
            if cell is None:
                self.cells.pop(one, None)
            else:
                self.cells[one] = cell
        for name in ("done", "source", "threshold"):
            if getattr(change, name) is not None:
                setattr(self, name, getattr(change, name))
        self.next_id = max(self.next_id, max(change.cells, default=0) + 1)
        return inverse

    @property
    def ids(self) -> list[int]:
        """Of the cells, ascending."""
        return sorted(self.cells)

    @property
    def open_ids(self) -> list[int]:
        """Of the cells that nobody has looked at, ascending."""
        return sorted(one for one, cell in self.cells.items() if cell.state == FOUND)

    @property
    def is_done(self) -> bool:
        """Whether all of the image is right."""
        return area_of(self.done) == self.image_hw[0] * self.image_hw[1]

    @property
    def corrections(self) -> list[Event]:
        """The events that a person made."""
        return [event for event in self.history if event.what != BEGIN]


def replay(journal: Journal, lines: Sequence[Line], image_hw: tuple[int, int]) -> ImageState:
    """The state that a journal leads to.

    Args:
        journal: what they were read from.
        lines: all but the first, which says what the journal is.
        image_hw: (height, width) of the image, pixels.

    Raises:
        DamagedJournalError: a line is no event, or cannot come where it does.
    """
    state = ImageState(image_hw)
    for number, line in enumerate(lines, 2):
        try:
            event = Event(line["what"], line["by"], line["at"], ())
            if event.what in (UNDO, REDO):
                state.step(event)
                continue
            change = change_from_json(line, state.cells)
            state.apply(event._replace(cell_ids=tuple(sorted(change.cells))), change)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = f"no event that can follow ({type(error).__name__}: {error})"
            raise DamagedJournalError(journal, number, reason) from error
    return state
