"""What the widgets share: work that does not hold up the window, errors that are told, layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cellseg.errors import CellsegError
from cellseg.napari.garbage import GarbageCollection
from napari.layers import Layer
from napari.qt.threading import FunctionWorker, create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QComboBox, QWidget

logger = logging.getLogger(__name__)


@contextmanager
def errors_told() -> Iterator[None]:
    """What cellseg says of bad input becomes a notification; other errors are napari's to show."""
    try:
        yield
    except CellsegError as error:
        tell_error(error)


def tell_error(error: BaseException) -> None:
    """Show an error in the window: cellseg's own with its text, others with their kind too."""
    if isinstance(error, StoppedError):
        return
    if isinstance(error, CellsegError):
        show_error(str(error))
        return
    logger.error("%s", error, exc_info=error)
    show_error(f"{type(error).__name__}: {error}")


class StoppedError(Exception):
    """Somebody pressed Stop; nothing is told of it."""


class Progress(QObject):
    """How far work in a thread is, told in the window's thread, and the wish that it stops.

    The work calls `tell` again and again, which raises StoppedError once `stop` was called.
    """

    changed = Signal(int, int)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_stopped, self._told = False, (-1, -1)

    def stop(self) -> None:
        """Let the work end the next time that it tells how far it is."""
        self._is_stopped = True

    def tell(self, done: int, total: int) -> None:
        """Called by the work: so many steps of all are done."""
        if self._is_stopped:
            raise StoppedError
        if (done, total) != self._told:
            self._told = (done, total)
            self.changed.emit(done, total)


def run_in_background(
    work: Callable[[], Any],
    *,
    done: Callable[[Any], None],
    failed: Callable[[BaseException], None] = tell_error,
    finished: Callable[[], None] = lambda: None,
    owner: QObject | None = None,
) -> FunctionWorker[Any]:
    """Do work in a thread of its own.

    Args:
        work: what is done there; it touches neither widgets nor layers. No garbage is collected
            there (see GarbageCollection).
        done: called in the window's thread with what it returned.
        failed: called there with what it raised.
        finished: called there last, in either case.
        owner: what the three belong to; when it is gone none of them is called.
    """
    # Handed over as a value, so that an error is told once, by us, and not by napari as well.
    worker = create_worker(lambda: _outcome(work), _start_thread=False)
    worker.returned.connect(_Receiver(done, failed, finished, owner).take)
    garbage = _garbage_collection()
    garbage.hold()
    worker.finished.connect(garbage.release)
    worker.start()
    return worker


class _Receiver(QObject):
    """Lives in the window's thread, as long as its parent does."""

    def __init__(
        self,
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None],
        finished: Callable[[], None],
        parent: QObject | None,
    ) -> None:
        super().__init__(parent)
        self._done, self._failed, self._finished = done, failed, finished
        if parent is None:
            _orphans.add(self)

    def take(self, outcome: tuple[Any, BaseException | None]) -> None:
        try:
            value, error = outcome
            if error is None:
                with errors_told():
                    self._done(value)
            else:
                self._failed(error)
        finally:
            self._finished()
            _orphans.discard(self)
            self.deleteLater()


_orphans: set[_Receiver] = set()  # nobody else keeps them until their work is done


@cache
def _garbage_collection() -> GarbageCollection:
    """The one of this process, as Python's own collection is; made in the window's thread."""
    return GarbageCollection()


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


class LayerChoice(QComboBox):
    """A list of the viewer's layers of some kinds, which follows what is added and removed.

    Args:
        viewer: napari's viewer.
        kinds: classes of layers, such as `napari.layers.Image`.
        empty: what stands there for no layer; "" where one is always chosen if there is any.
    """

    def __init__(
        self,
        viewer: Any,
        kinds: type[Layer] | tuple[type[Layer], ...],
        *,
        empty: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._kinds, self._empty = viewer, kinds, empty
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.refresh)
        viewer.layers.events.renamed.connect(self.refresh)
        self.refresh()

    def refresh(self, event: Any = None) -> None:
        """List the layers anew; the choice stays where its layer does."""
        chosen = self.layer()
        self.blockSignals(True)
        self.clear()
        if self._empty:
            self.addItem(self._empty, None)
        for layer in self._viewer.layers:
            if isinstance(layer, self._kinds):
                self.addItem(layer.name, layer)
        self.blockSignals(False)
        self.choose(chosen)
        if self.layer() is not chosen:
            self.currentIndexChanged.emit(self.currentIndex())

    def layer(self) -> Any:
        """The layer chosen; None where there is none."""
        return self.currentData()

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer of the list; nothing happens where it is not in it."""
        for k in range(self.count()):
            if self.itemData(k) is layer:
                self.setCurrentIndex(k)
                return

    def disconnect_viewer(self) -> None:
        """Follow the viewer no longer, as when the widget is closed."""
        for name in ("inserted", "removed", "renamed"):
            getattr(self._viewer.layers.events, name).disconnect(self.refresh)
