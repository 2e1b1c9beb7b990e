"""Windows of an image in which all cells are right, as rectangles that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cellseg.cells.windows import Window
from cellseg.errors import CorrectionError


def as_window(
    window: tuple[slice, slice] | None, image_hw: tuple[int, int], name: str = "window"
) -> Window:
    """The rectangle of (rows, columns), cut at the image's edges; None is the whole image.

    Raises:
        CorrectionError: it has a step, or no pixel of the image.
    """
    if window is None:
        return Window(0, 0, *image_hw)
    if not (
        isinstance(window, tuple)
        and len(window) == 2
        and all(isinstance(one, slice) and one.step in (None, 1) for one in window)
    ):
        raise CorrectionError(f"{name} is {window!r}; expected (rows, columns), two slices")
    (top, bottom, _), (left, right, _) = (
        one.indices(length) for one, length in zip(window, image_hw)
    )
    if bottom <= top or right <= left:
        raise CorrectionError(
            f"{name} {window!r} holds no pixel of an image of {image_hw[0]} x {image_hw[1]} (rows "
            "x columns)"
        )
    return Window(top, left, bottom, right)


def mark(known: Sequence[Window], one: Window, done: bool) -> tuple[Window, ...]:
    """Add a rectangle to others, or take it away from them; the result is disjoint again.

    Example:
        >>> mark([Window(0, 0, 4, 4)], Window(1, 1, 2, 9), False)[0]
        Window(top=0, left=0, bottom=1, right=4)
    """
    left_over = [part for each in known for part in _without(each, one)]
    return tuple([*left_over, one] if done else left_over)


def _without(one: Window, hole: Window) -> Iterable[Window]:
    """The up to four parts of a rectangle that lie outside another."""
    top, bottom = max(one.top, hole.top), min(one.bottom, hole.bottom)
    left, right = max(one.left, hole.left), min(one.right, hole.right)
    if top >= bottom or left >= right:
        return [one]
    parts = [
        Window(one.top, one.left, top, one.right),
        Window(bottom, one.left, one.bottom, one.right),
        Window(top, one.left, bottom, left),
        Window(top, right, bottom, one.right),
    ]
    return [part for part in parts if min(part.hw) > 0]


def area_of(rectangles: Iterable[Window]) -> int:
    """Pixels of rectangles that do not overlap."""
    return sum(one.hw[0] * one.hw[1] for one in rectangles)
