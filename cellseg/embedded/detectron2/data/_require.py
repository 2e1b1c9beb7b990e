"""Checks of what callers pass in, and the answer where a config asks for a left-out part."""

from __future__ import annotations

from detectron2._missing import missing_part_message


def require(ok: bool, message: str) -> None:
    """Raise `AssertionError(message)` unless `ok`.

    Callers of Detectron2 expect an `AssertionError` for wrong arguments; unlike the `assert`
    statement this one also speaks under `python -O`.
    """
    if not ok:
        raise AssertionError(message)


def left_out(what: str) -> NotImplementedError:
    """The error to raise where a config or a dataset needs something that is not here."""
    return NotImplementedError(missing_part_message(what))
