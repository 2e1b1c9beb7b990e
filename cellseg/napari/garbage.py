"""Python's garbage is collected in the window's thread while work of ours goes on in others."""

from __future__ import annotations

import gc

from qtpy.QtCore import QObject, QTimer

EVERY_MS = 1000
FULL_EVERY = 60
"""One of so many collections is of all generations, and holds the window up; the others are of the
two youngest."""


class GarbageCollection(QObject):
    """Collects reference cycles in the thread that made it, and lets no other thread do so.

    Python collects them in whatever thread happens to make an object when enough have been made.
    A widget in such a cycle would be deleted by a thread that does work, while the window's thread
    may be in Qt: each waits for what the other holds (Qt's lock of signals, Python's of the
    interpreter), so that the window stands still for ever, or memory is read that is gone.

    Between `hold` and as many `release` Python's own collection is off, and a timer of the
    window's thread does it. Where somebody else had turned it off it stays off, and nothing is
    collected.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._num_held, self._num_times, self._has_disabled = 0, 0, False
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self.collect)

    def hold(self) -> None:
        """Called in the window's thread: work begins."""
        self._num_held += 1
        if self._num_held > 1 or not gc.isenabled():
            return
        self._has_disabled = True
        gc.disable()
        self._timer.start()

    def release(self) -> None:
        """Called in the window's thread: work is over."""
        self._num_held -= 1
        if self._num_held == 0 and self._has_disabled:
            self._has_disabled = False
            self._timer.stop()
            gc.enable()

    def collect(self) -> None:
        """Collect the two youngest generations, or all of them; see `FULL_EVERY`."""
        self._num_times += 1
        gc.collect(1 if self._num_times % FULL_EVERY else 2)
