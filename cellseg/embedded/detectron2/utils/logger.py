"""Log lines on the terminal and in `log.txt`, and ways to log less often."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, TextIO

from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from termcolor import colored

__all__ = [
    "create_small_table",
    "log_every_n",
    "log_every_n_seconds",
    "log_first_n",
    "setup_logger",
]

TIME_FORMAT = "%m/%d %H:%M:%S"
LOG_FILE_NAME = "log.txt"


class _TerminalFormatter(logging.Formatter):
    """Green heads, red levels from WARNING on, and the root of the logger's name shortened."""

    def __init__(self, root: str, short_root: str) -> None:
        super().__init__(datefmt=TIME_FORMAT)
        self._root = root
        self._short_root = short_root

    def format(self, record: logging.LogRecord) -> str:
        name = record.name
        if name == self._root or name.startswith(self._root + "."):
            name = (self._short_root + name.removeprefix(self._root)).lstrip(".")
        head = colored(f"[{self.formatTime(record, self.datefmt)} {name}]: ", "green")
        if record.levelno >= logging.WARNING:
            level = "WARNING" if record.levelno < logging.ERROR else "ERROR"
            head += colored(level, "red", attrs=["bold"]) + " "
        return head + super().format(record)


class _StdoutHandler(logging.StreamHandler):
    """Writes to what `sys.stdout` is at that moment, so that a redirection is followed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


class _PathHandler(logging.StreamHandler):
    """Appends to one file, closed with the handler or at the end of the process."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(PathManager.open(path, "a"))

    def close(self) -> None:
        self.stream.close()
        super().close()

    def flush(self) -> None:
        if not self.stream.closed:
            super().flush()


def setup_logger(
    output: str | os.PathLike[str] | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Let a logger, and those below it, write to the terminal and to a file.

    Loggers of other packages stay silent until this is called with their name too. Calling it
    again adds what is new, for instance a file, and never the same handler twice.

    Args:
        output: a folder, which gets `log.txt`, or a path that ends in .txt or .log; processes
            other than the main one append `.rank<k>` to it. None writes no file.
        distributed_rank: number of this process; only 0 writes to the terminal.
        color: coloured and short lines on a terminal.
        name: of the logger.
        abbrev_name: replaces `name` in coloured lines; "d2" for "detectron2". "" drops it.
        enable_propagation: also hand records to the handlers of the parent loggers.
        configure_stdout: whether to write to the terminal at all.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation

    in_file = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", TIME_FORMAT)
    if configure_stdout and distributed_rank == 0 and not _handlers(logger, _StdoutHandler):
        if abbrev_name is None:
            abbrev_name = "d2" if name == "detectron2" else name
        on_terminal = _TerminalFormatter(name, abbrev_name) if color else in_file
        _add_handler(logger, _StdoutHandler(), on_terminal)
    if output is not None:
        path = _log_path(os.fspath(output), distributed_rank)
        if path not in {handler.path for handler in _handlers(logger, _PathHandler)}:
            PathManager.mkdirs(os.path.dirname(path) or ".")
            _add_handler(logger, _PathHandler(path), in_file)
    return logger


def _log_path(output: str, rank: int) -> str:
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, LOG_FILE_NAME)
    return f"{path}.rank{rank}" if rank > 0 else path


def _handlers(logger: logging.Logger, kind: type[Any]) -> list[Any]:
    return [handler for handler in logger.handlers if isinstance(handler, kind)]


def _add_handler(
    logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter
) -> None:
    handler.setFormatter(formatter)
    logger.addHandler(handler)


_calls: Counter[tuple[Any, ...]] = Counter()
_last_logged_s: dict[tuple[Any, ...], float] = {}


def _caller() -> tuple[str, tuple[Any, ...]]:
    """Name of the module outside this one that is logging, and what identifies the line."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    module = frame.f_globals["__name__"]
    place = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
    return ("detectron2" if module == "__main__" else module), place


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log only the first times.

    Args:
        lvl: a level of `logging`.
        msg: the text.
        n: how often.
        name: of the logger; the module of the caller by default.
        key: what counts as the same: the line of code ("caller"), the text ("message"), or
            ("caller", "message") for both together.
    """
    module, place = _caller()
    kinds = {key} if isinstance(key, str) else set(key)
    same = (place if "caller" in kinds else None, msg if "message" in kinds else None)
    _calls[same] += 1
    if _calls[same] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first of every `n` calls from the same line; arguments as in `log_first_n`."""
    module, place = _caller()
    if _calls[place] % n == 0:
        logging.getLogger(name or module).log(lvl, msg)
    _calls[place] += 1


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log unless the same line did less than `n` seconds ago; arguments as in `log_first_n`."""
    module, place = _caller()
    now_s = time.monotonic()
    if now_s - _last_logged_s.get(place, -float("inf")) >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_logged_s[place] = now_s


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """A Markdown table of one row, with the keys as its head; floats with three decimals."""
    rows = [list(small_dict.values())]
    heads = list(small_dict)
    return tabulate(rows, heads, "pipe", floatfmt=".3f", numalign="center", stralign="center")
