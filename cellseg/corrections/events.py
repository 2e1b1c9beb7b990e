"""What a correction changes: the cells of an image before and after, as a line of its journal says.

    {"n": 3, "what": "merge", "by": "Ada", "at": "2030-01-01T12:00:00Z",
     "cells": {"4": {"class": 0, "state": "accepted", "mask": "a5b2..."}, "7": null}}

A line says what comes of it, cell by cell, and not how: a journal means the same whatever becomes
of the code that splits and merges. Of a cell that was there before only what changes is said; null
is a cell that is gone. A mask is COCO's compressed run lengths over the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from cellseg.cells.windows import Window

FOUND, ACCEPTED, DRAWN = "found", "accepted", "drawn"
STATES = (FOUND, ACCEPTED, DRAWN)

BEGIN, UNDO, REDO = "begin", "undo", "redo"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell at one time.

    Attributes:
        class_number: 0-based.
        score: of the model that found it; 1 where a person drew it.
        state: "found" by a model and not looked at; "accepted", as it is or changed; "drawn".
        mask: COCO's compressed run lengths over the whole image, a text.
    """

    class_number: int
    score: float
    state: str
    mask: str

    def __post_init__(self) -> None:
        is_cell = (
            isinstance(self.class_number, int)
            and isinstance(self.score, (int, float))
            and isinstance(self.mask, str)
            and self.state in STATES
        )
        if not is_cell or self.class_number < 0:
            raise ValueError(f"a cell of class {self.class_number!r} that is {self.state!r}")


_KEYS = {"class": "class_number", "score": "score", "state": "state", "mask": "mask"}


@dataclass(frozen=True)
class Change:
    """What is different after an event.

    Attributes:
        cells: each touched cell by its id; None where it is gone.
        done: the windows in which all cells are right, disjoint; None where they stay.
        source: what found the cells; None where that stays.
        threshold: the score that a detection needed; None where that stays.
    """

    cells: Mapping[int, Cell | None] = field(default_factory=dict)
    done: tuple[Window, ...] | None = None
    source: str | None = None
    threshold: float | None = None


class Event(NamedTuple):
    """What was done, who did it and when.

    Attributes:
        what: "begin", "accept", "reject", "merge", "split", "set_class", "draw", "repaint",
            "add_candidate", "mark_done", "undo" or "redo".
        by: who.
        at: ISO 8601, UTC.
        cell_ids: the cells that were touched, ascending.
    """

    what: str
    by: str
    at: str
    cell_ids: tuple[int, ...]


def change_to_json(change: Change, before: Mapping[int, Cell]) -> dict[str, Any]:
    """The keys of a journal's line for a change.

    Args:
        change: it.
        before: the cells that there are before.
    """
    content: dict[str, Any] = {}
    if change.cells:
        content["cells"] = {
            str(one): _cell_to_json(cell, before.get(one)) for one, cell in change.cells.items()
        }
    for key, value in asdict(replace(change, cells={})).items():
        if key != "cells" and value is not None:
            content[key] = value
    return content


def _cell_to_json(cell: Cell | None, before: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {
        key: getattr(cell, name)
        for key, name in _KEYS.items()
        if before is None or getattr(cell, name) != getattr(before, name)
    }


def change_from_json(content: Mapping[str, Any], before: Mapping[int, Cell]) -> Change:
    """The change that `change_to_json` made a line of.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the line is no such thing.
    """
    cells = {
        int(one): None if parts is None else _cell_from_json(parts, before.get(int(one)))
        for one, parts in content.get("cells", {}).items()
    }
    done = content.get("done")
    return Change(
        cells,
        None if done is None else tuple(Window(*map(int, one)) for one in done),
        content.get("source"),
        content.get("threshold"),
    )


def _cell_from_json(parts: Mapping[str, Any], before: Cell | None) -> Cell:
    if before is None:
        return Cell(parts["class"], parts["score"], parts["state"], parts["mask"])
    return replace(before, **{name: parts[key] for key, name in _KEYS.items() if key in parts})
