"""How a command ends when somebody asks it to: Ctrl-C, a scheduler's SIGTERM, a closed terminal.

The frame of commands runs each inside `watched()` and `running()`. A signal then raises
`Interrupted`, so that partial files are removed on the way out; where work has begun that is worth
finishing, `finishing` lets it poll `requested()` and end where everything is whole. A second signal
ends the process at once, also where it waits inside a library. Callers from Python are left alone:
without `watched` nothing here does anything.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_NO_MORE = 0
CONFIRMED = getattr(signal, "SIGUSR1", 0)
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
UNWIND_WITHIN_S = 20
"""A process that a signal was to end, and that some library holds, is ended after so long."""
CONFIRM_WITHIN_S = 2.0
"""The launcher of several processes ends them with SIGTERM when one of them fails, which is no
request: one to all of them the process that has started them confirms."""
ONE_REQUEST_S = 1.0
"""A terminal and the launcher of several processes may both tell a process of one Ctrl-C."""

logger = logging.getLogger("cellseg")


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        signum: of the signal.
        told: what is saved and how to go on.

    Attributes:
        status: exit status by the custom of shells, 128 and the signal's number.
    """

    def __init__(self, signum: int = signal.SIGINT, told: str = "") -> None:
        self.signum = signal.Signals(signum)
        self.told = told or "what was written is whole; run it again to have the rest"
        self.status = 128 + signum
        super().__init__(f"Interrupted ({self.signum.name}): {self.told}")


class _Watch:
    """What the signals of this process have asked for so far."""

    def __init__(self) -> None:
        self.active = False
        self.is_child = False
        self.forwards = False
        self.confirmed = False
        self.repeats = False
        self.running = self.has_run = False
        self.finishing = 0
        self.signum = 0
        self.since = 0.0

    def note(self, signum: int) -> None:
        """A signal has come; called by the thread that watches, whatever the main one does."""
        if self.forwards:
            self.signum = self.signum or signum
            for child in multiprocessing.active_children():
                with suppress(ProcessLookupError):
                    confirmed = CONFIRMED if signum == signal.SIGTERM else signum
                    os.kill(child.pid or 0, confirmed)
            return
        if self.is_child and not self._is_confirmed(signum):
            return
        signum = _meaning(signum)
        if not self.running:
            self.end_idle(signum)
        if not self.signum:
            self.signum, self.since = signum, time.monotonic()
            if self.finishing:
                logger.warning("%s: ending soon; once more ends at once", _name(signum))
            else:
                timer = threading.Timer(UNWIND_WITHIN_S, self._give_up)
                timer.daemon = True
                timer.start()
        elif not self.repeats or time.monotonic() - self.since > ONE_REQUEST_S:
            end_at_once(signum, "ended at once; files with their own names are whole")

    def _is_confirmed(self, signum: int) -> bool:
        """Whether a signal is a request; SIGTERM is none until it has been confirmed."""
        if signum != signal.SIGTERM:
            self.confirmed = True
        elif not self.confirmed:
            timer = threading.Timer(CONFIRM_WITHIN_S, self._end_unconfirmed)
            timer.daemon = True
            timer.start()
        return self.confirmed

    def _end_unconfirmed(self) -> None:
        if not self.confirmed:
            os._exit(128 + signal.SIGTERM)  # another process has said why

    def _give_up(self) -> None:
        if self.active and self.signum and not self.finishing:
            end_at_once(self.signum, "")

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Python's handler, in the main thread."""
        if self.is_child and signum == signal.SIGTERM:
            return
        signum = _meaning(signum)
        if not self.running:
            self.end_idle(signum)
        if not (self.finishing or self.forwards):
            raise Interrupted(signum)

    def end_idle(self, signum: int) -> NoReturn:
        """There is nothing to tidy up, and Python's imports do not all let an error through."""
        end_at_once(signum, "all was done" if self.has_run else "nothing was begun")


_watch = _Watch()
_ending = threading.RLock()
_counting = threading.Lock()


def _name(signum: int) -> str:
    return signal.Signals(signum).name


def _meaning(signum: int) -> int:
    return signal.SIGTERM if signum == CONFIRMED else signum


def end_at_once(signum: int, told: str) -> NoReturn:
    """Say so in one line and end this process; nothing is tidied up."""
    with _ending:  # the main thread and the one that watches may both come here
        os.write(2, f"{Interrupted(signum, told)}\n".encode())
        os._exit(128 + signum)


def leave(status: int) -> NoReturn:
    """End this process now, and what it has started; libraries may take their time to do so."""
    sys.stdout.flush()
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(status)


def fill_closed_streams() -> None:
    """Let closed standard streams (`>&-`) lead nowhere, lest another file takes their number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def requested() -> Interrupted | None:
    """The request to end that has come, if one has; to be asked where everything is whole."""
    return Interrupted(_watch.signum) if _watch.active and _watch.signum else None


def is_watched() -> bool:
    """Whether this process is `watched` for signals."""
    return _watch.active


@contextmanager
def finishing() -> Iterator[None]:
    """Inside, the first signal raises nothing: who works polls `requested`.

    Raises:
        Interrupted: behind the block, if a signal came too late for that.
    """
    with _counting:
        _watch.finishing += 1
    try:
        yield
    finally:
        with _counting:
            _watch.finishing -= 1
    if not _watch.finishing and (asked := requested()):
        raise asked


@contextmanager
def running() -> Iterator[None]:
    """Inside, the work is done, and a signal raises `Interrupted`.

    Before and behind it there is nothing to tidy up: a signal ends the process in one line at once.
    """
    before, _watch.running = _watch.running, True
    try:
        yield
    finally:
        _watch.running, _watch.has_run = before, True


def ignore_signals() -> None:
    """For a process that ends by itself in a moment."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


@contextmanager
def forwarding() -> Iterator[None]:
    """Inside, signals go on to the processes that are started there, and which end by themselves.

    They begin with SIGINT held back, and take it when they are `watched`.
    """
    if not _watch.active:
        yield
        return
    before, _watch.forwards = _watch.forwards, True
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _watch.forwards = before


def expect_repeats() -> None:
    """Take what comes again within a second for the same request, as a launcher may pass it on."""
    _watch.repeats = True


@contextmanager
def watched(*, is_child: bool = False) -> Iterator[None]:
    """Inside, signals end the process, and what is `running` in it, as this module says.

    To be used in the main thread. In another one, and inside another such block, nothing changes.

    Args:
        is_child: the process is one of several that another one has started, and that `forwarding`
            there tells of every request, perhaps more than once.
    """
    global _watch
    if _watch.active or threading.current_thread() is not threading.main_thread():
        yield
        return
    fill_closed_streams()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    _watch = _Watch()
    _watch.active = True
    _watch.is_child = _watch.repeats = _watch.running = is_child
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watched_for = (*SIGNALS, CONFIRMED) if is_child and CONFIRMED else SIGNALS
    before = {signum: signal.getsignal(signum) or signal.SIG_DFL for signum in watched_for}
    kept = {n: handler for n, handler in before.items() if handler is not signal.SIG_IGN}
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: _on_unraisable(what, hook)
    thread = threading.Thread(target=_read_signals, args=(reader,), name="signals", daemon=True)
    thread.start()
    try:
        for signum in kept:
            signal.signal(signum, _watch.handle)
        if is_child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        # a process that a signal ends is not to be hit once more on the way out
        for signum, handler in kept.items():
            signal.signal(signum, signal.SIG_IGN if _watch.signum else handler)
        signal.set_wakeup_fd(wakeup)
        sys.unraisablehook = hook
        _watch.active = False
        os.write(writer, bytes([_NO_MORE]))  # forked processes may hold it open, too
        thread.join()
        os.close(writer)
        os.close(reader)
        for signum, handler in kept.items():
            signal.signal(signum, handler)


def _read_signals(reader: int) -> None:
    while (received := os.read(reader, 1)) and received[0] != _NO_MORE:
        if received[0] in (*SIGNALS, CONFIRMED):
            _watch.note(received[0])


def _on_unraisable(what: Any, hook: Any) -> None:
    """A signal that came while Python tidied up would be printed, and forgotten."""
    if isinstance(what.exc_value, Interrupted):
        end_at_once(what.exc_value.signum, "")
    hook(what)


def _in_forked_child() -> None:
    """A loader's process: the one that began it all decides."""
    if not _watch.active:
        return
    signal.set_wakeup_fd(-1)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN if signum == signal.SIGINT else signal.SIG_DFL)
    _watch.active = False


def outlive_requests() -> None:
    """Let a loader's process go on for a while when all of a group are asked to end.

    The one that it works for finishes its iteration, and then ends it. PyTorch sets a handler of
    its own when such a process begins: call this behind that.
    """
    signal.signal(signal.SIGTERM, _end_late)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end_late(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(UNWIND_WITHIN_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
