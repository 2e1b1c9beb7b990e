"""How far the corrections of each image are, and which cell is to be looked at next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from cellseg.corrections.entries import ImageEntry
from cellseg.corrections.states import ImageState
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageStatus:
    """How far the corrections of an image are.

    Attributes:
        image_id: as `cellseg predict` calls the image.
        path: of its file.
        num_cells: how many cells there are.
        num_open: how many of them nobody has looked at.
        is_done: whether the whole image was marked as done.
        corrected_by: who made corrections, in the order of their first ones, "Ada, Bob".
        corrected_at: when the last one was made, ISO 8601, UTC; "" without any.
        problem: why the corrections cannot be read; "" where they can.
    """

    image_id: str
    path: Path
    num_cells: int = 0
    num_open: int = 0
    is_done: bool = False
    corrected_by: str = ""
    corrected_at: str = ""
    problem: str = ""


class QueueItem(NamedTuple):
    """A cell that nobody has looked at.

    Attributes:
        image_id: of its image.
        cell_id: its id there.
        score: of the model.
    """

    image_id: str
    cell_id: int
    score: float


@dataclass(frozen=True)
class Summary:
    """What is asked of images that are not open.

    Attributes:
        status: what `CorrectionFolder.images` says.
        open_ids: int64 [N], of the cells that nobody has looked at, ascending.
        scores: float64 [N], of these.
        doubts: float64 [N], how far their scores are from the one that a detection needed.
        counts: whether anything of the image counts in training.
    """

    status: ImageStatus
    open_ids: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    scores: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    doubts: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    counts: bool = False


def summarize(entry: ImageEntry, state: ImageState) -> Summary:
    """What is asked of an image, from what is known of its cells."""
    ids = state.open_ids
    scores = np.array([state.cells[one].score for one in ids], np.float64)
    done = state.corrections
    status = ImageStatus(
        entry.image_id,
        entry.path,
        len(state.cells),
        len(ids),
        state.is_done,
        ", ".join(dict.fromkeys(event.by for event in done)),
        done[-1].at if done else "",
    )
    doubts = np.abs(scores - state.threshold)
    counts = bool(state.done) or len(ids) < len(state.cells)
    return Summary(status, np.array(ids, np.int64), scores, doubts, counts)


class CellQueue(Sequence[QueueItem]):
    """The open cells of images, the least certain first; of equal ones those of earlier images.

    A sequence whose items are made when they are asked for: there may be many.

    Args:
        images: id and summary of each.
    """

    def __init__(self, images: Sequence[tuple[str, Summary]]) -> None:
        self._names = [name for name, _ in images]
        columns = [
            np.concatenate([np.zeros(0), *(getattr(summary, name) for _, summary in images)])
            for name in ("open_ids", "scores", "doubts")
        ]
        order = np.argsort(columns[2], kind="stable")
        counts = [len(summary.open_ids) for _, summary in images]
        self._owner = np.repeat(np.arange(len(images)), counts)[order]
        self._ids, self._scores = columns[0][order].astype(np.int64), columns[1][order]

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> QueueItem: ...

    @overload
    def __getitem__(self, place: slice) -> list[QueueItem]: ...

    def __getitem__(self, place: int | slice) -> QueueItem | list[QueueItem]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        name = self._names[self._owner[place]]
        return QueueItem(name, int(self._ids[place]), float(self._scores[place]))

    def __eq__(self, other: object) -> bool:
        """Whether the same items come in the same order, in another queue or a list."""
        if not isinstance(other, (CellQueue, list)):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"CellQueue({len(self)} cells, first {self[0] if len(self) else None})"
