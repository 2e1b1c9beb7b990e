"""The cells of one image as they are, what was done to them, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import VECTOR, check_argument
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.windows import Window
from cellseg.corrections.done_windows import as_window
from cellseg.corrections.entries import ImageEntry
from cellseg.corrections.events import BEGIN, FOUND, REDO, UNDO, Cell, Change, Event, change_to_json
from cellseg.corrections.journal import Journal, utc_now
from cellseg.corrections.masks import Canvas, Labels
from cellseg.corrections.states import NAME, VERSION, ImageState
from cellseg.errors import CorrectionError, LabelError
from cellseg.images import PlaneImage
from numpy.typing import ArrayLike, NDArray


@dataclass
class Desk:
    """What the images of a folder share: who corrects, in which classes, and what is told.

    Attributes:
        classes: names; a cell's class is a place among them.
        author: who makes the corrections from now on.
        is_writable: whether corrections may be made.
        tell: called with an image after each event.
    """

    classes: tuple[str, ...]
    author: str
    is_writable: bool
    tell: Callable[[ImageCells], None]

    def check_writable(self, path: Path) -> None:
        """Raise CorrectionError, which names a path, where no corrections may be made."""
        if not self.is_writable:
            raise CorrectionError(
                f"{path}: the folder of corrections was opened for looking only, or is closed"
            )


class ImageCells:
    """What `CorrectedImage` knows, and how it writes and takes back what is done.

    Attributes:
        entry: where the image's file is, and which plane of it this is.
        state: what is known of the cells; to be changed by the methods only.
        changed_window: the smallest window that holds all pixels whose cell the last change may
            have changed; None where it changed no pixel.
    """

    def __init__(self, entry: ImageEntry, journal: Journal, state: ImageState, desk: Desk) -> None:
        self.entry = entry
        self.changed_window: Window | None = None
        self.state = state
        self._journal, self._desk = journal, desk

    @property
    def image_id(self) -> str:
        """As `cellseg predict` calls the image."""
        return self.entry.image_id

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.entry.image_hw

    def open_plane(self, channels: Sequence[int | str] = ()) -> AbstractContextManager[PlaneImage]:
        """The image itself, to be read while the context is open; see `cellseg.images.open_planes`.

        Args:
            channels: which of them; see `cellseg.images.select_image`.
        """
        return self.entry.open_plane(channels)

    @property
    def ids(self) -> IntArray:
        """int64 [N], ascending."""
        return np.array(self.state.ids, np.int64)

    @property
    def states(self) -> list[str]:
        """Of each cell, "found", "accepted" or "drawn"."""
        return [self.state.cells[one].state for one in self.state.ids]

    @property
    def cells(self) -> CellInstances:
        """The cells in the order of their ids."""
        ids = self.state.ids
        masks = [self._canvas.masks[one] for one in ids]
        known = [self.state.cells[one] for one in ids]
        return CellInstances.from_crops(
            [crop for crop, _ in masks],
            np.array([at for _, at in masks], np.int64).reshape(-1, 2),
            self.image_hw,
            scores=np.array([cell.score for cell in known], np.float32),
            classes=np.array([cell.class_number for cell in known], np.int64),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a cell's class is a place among them."""
        return self._desk.classes

    @property
    def source(self) -> str:
        """What found the cells; "" where nothing did."""
        return self.state.source

    @property
    def threshold(self) -> float:
        """The score that a detection needed to be a cell."""
        return self.state.threshold

    @property
    def open_ids(self) -> IntArray:
        """Of the cells that nobody has looked at, int64, ascending."""
        return np.array(self.state.open_ids, np.int64)

    @property
    def is_done(self) -> bool:
        """Whether the whole image was marked as done."""
        return self.state.is_done

    @property
    def done_windows(self) -> list[Window]:
        """The windows that were marked as done; they do not overlap."""
        return list(self.state.done)

    @property
    def history(self) -> list[Event]:
        """All that was done, undoing too, from the beginning."""
        return list(self.state.history)

    def label_image(self, window: tuple[slice, slice] | None = None) -> Labels:
        """The ids of the cells, uint32 [H, W], or those of a window (rows, columns)."""
        one = as_window(window, self.image_hw)
        return self._canvas.labels[one.rows, one.columns].copy()

    def counted_region(self) -> NDArray[np.bool_]:
        """Where it is known what there is, bool [H, W]: what counts in training and evaluation.

        These are the windows that were marked as done, and the pixels of cells that were accepted
        or drawn; never those of a cell that nobody has looked at.
        """
        counted = np.zeros(self.image_hw, bool)
        for one in self.state.done:
            counted[one.rows, one.columns] = True
        for number, cell in self.state.cells.items():
            crop, (row, column) = self._canvas.masks[number]
            part = counted[row : row + crop.shape[0], column : column + crop.shape[1]]
            part[crop] = cell.state != FOUND
        return counted

    def undo(self) -> bool:
        """Take back the last change that is not taken back yet; False where there is none."""
        return self._step(UNDO)

    def redo(self) -> bool:
        """Make again what was undone last; False where there is nothing."""
        return self._step(REDO)

    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return self.state.can(UNDO)

    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return self.state.can(REDO)

    @cached_property
    def _canvas(self) -> Canvas:
        try:
            return Canvas(self.image_hw, self.state.cells)
        except LabelError as error:
            raise CorrectionError(
                f"{self._journal.path}: holds what is no mask: {error}. Put the file back from "
                "a copy"
            ) from error

    def _do(self, what: str, change: Change) -> None:
        """Write an event, then make its change; nothing for a change that changes nothing."""
        if what != BEGIN and not change.cells and change.done is None:
            return
        event = Event(what, self._desk.author, utc_now(), tuple(sorted(change.cells)))
        self._write(event, change_to_json(change, self.state.cells))
        before = {one: self.state.cells.get(one) for one in change.cells}
        self.state.apply(event, change)
        self._after(before, change)

    def _step(self, what: str) -> bool:
        if not self.state.can(what):
            return False
        event = Event(what, self._desk.author, utc_now(), ())
        self._write(event, {})
        change, inverse = self.state.step(event)
        self._after(inverse.cells, change)
        return True

    def _write(self, event: Event, content: Mapping[str, Any]) -> None:
        self._desk.check_writable(self._journal.path)
        self._canvas  # noqa: B018 -- masks that cannot be read are said before anything is written
        lines = [{"what": event.what, "by": event.by, "at": event.at, **content}]
        if not self._journal.count:
            head = {"format": NAME, "version": VERSION, "image": self.image_id}
            lines.insert(0, {**head, "image_hw": list(self.image_hw)})
        self._journal.append(*lines)

    def _after(self, before: Mapping[int, Cell | None], change: Change) -> None:
        self.changed_window = self._canvas.change(before, change.cells)
        self._desk.tell(self)

    def _find(self, ids: ArrayLike) -> dict[int, Cell]:
        """Cells by their ids, each once, ascending."""
        check_argument("ids", np.atleast_1d(np.asarray(ids)), VECTOR)
        wanted = sorted({int(one) for one in np.atleast_1d(np.asarray(ids)).tolist()})
        if missing := [one for one in wanted if one not in self.state.cells]:
            raise CorrectionError(
                f"{self.image_id} has no cell {', '.join(map(str, missing[:10]))}; it has "
                f"{len(self.state.cells)} cells. Nothing was changed"
            )
        return {one: self.state.cells[one] for one in wanted}

    def _check_size(self, hw: Iterable[int], what: str) -> None:
        if tuple(hw) != self.image_hw:
            raise CorrectionError(
                f"{what} have (height, width) {tuple(hw)}; {self.image_id} has {self._size()}"
            )

    def _size(self) -> str:
        return f"{self.image_hw[0]} x {self.image_hw[1]} (rows x columns)"

    def _check_classes(self, numbers: Iterable[Any]) -> None:
        names = self._desk.classes
        for number in numbers:
            if not isinstance(number, (int, np.integer)) or not 0 <= number < len(names):
                raise CorrectionError(
                    f"class {number!r} (from 0); there are {len(names)}: {', '.join(names)}"
                )
