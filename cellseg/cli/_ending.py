"""How a command ends: what it says last, its exit status, and streams that are closed or full."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import IO, Any

from cellseg.errors import CellsegError
from cellseg.interrupts import Interrupted, fill_closed_streams, requested, watched
from cellseg.names import printable, printable_lines, printable_message
from cellseg.plugins import describe_plugin_error
from cellseg.system_errors import explain_system_error, strip_worker_traceback


def end_well(work: Callable[[], int]) -> int:
    """Do the work of a command and say in words why it cannot be done.

    Args:
        work: returns the exit status.

    Returns:
        What `work` returns; 1 after a `CellsegError` or an error of the system, such as a full
        disk, whose text went to the error stream; 128 and the signal's number after one that
        asked the command to end, 141 where the reader of the output has gone.

    Raises:
        SystemExit: as `work` does.
    """
    _prepare_streams()
    with watched():
        try:
            return _end_in_words(work)
        except KeyboardInterrupt as error:
            asked = error if isinstance(error, Interrupted) else Interrupted()
        except Exception:  # of a library, perhaps, that makes something else of a signal
            if (noted := requested()) is None:
                raise
            asked = noted
        finally:
            for stream in (sys.stdout, sys.stderr):
                _give_up_if_broken(stream)
        _tell(str(asked))
        return asked.status


def _end_in_words(work: Callable[[], int]) -> int:
    try:
        status = work()
        _flush_output()
        return status
    except SystemExit:  # of argparse, which may have printed help
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        raise
    except CellsegError as error:
        if requested():
            raise
        _tell(f"{type(error).__name__}: {strip_worker_traceback(str(error))}")
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` has
        return 141
    except Exception as error:
        explained = explain_system_error(error)
        of_plugin = "" if explained else describe_plugin_error(error)
        if not (explained or of_plugin) or requested():  # a bug, which its traceback helps to mend
            raise
        _tell(f"PluginError: {of_plugin}" if of_plugin else f"{type(error).__name__}: {explained}")
        return 1


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = error.filename or "the output"
        raise


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # a closed or full error stream: the exit status says it
        print(printable_message(text), file=sys.stderr, flush=True)


def _give_up_if_broken(stream: IO[str]) -> None:
    """Python flushes once more at the end, which must not fail again."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _prepare_streams() -> None:
    """Let a command run whatever its streams are, and names of files reach them in a shown form.

    Closed ones (`>&-`) lead nowhere, lest the first file that is opened take their number. A log
    that cannot be written does not end the work that it is about.
    """
    fill_closed_streams()
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        with contextlib.suppress(AttributeError):  # a stream of somebody who calls from Python
            getattr(sys, name).reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False
    logging.setLogRecordFactory(_Record)


class _Record(logging.LogRecord):
    """A record of a log whose names, which are its arguments, can be shown."""

    def getMessage(self) -> str:
        if isinstance(self.args, tuple):
            has_lines = self.msg == "%s" or "\n%s" in str(self.msg)  # tables and lists
            show = printable_lines if has_lines else printable
            self.args = tuple(_show(argument, show) for argument in self.args)
        return super().getMessage()


def _show(argument: Any, show: Callable[[str], str]) -> Any:
    if isinstance(argument, os.PathLike):
        return printable(os.fspath(argument))
    return show(argument) if isinstance(argument, str) else argument
