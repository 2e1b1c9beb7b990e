"""What callers give to public functions: one error that names the argument."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.arguments import IMAGE, IMAGE_HW, NUMBERS, checked, either, or_nothing, several
from cellseg.errors import InputTypeError, InputValueError
from cellseg.rules import TEXT, number


@checked(share=number(0, 1), size=or_nothing(IMAGE_HW), extra=TEXT)
def record(share: float, *more: int, size: object = None, **options: object) -> tuple[object, ...]:
    """What it was called with."""
    return share, more, size, options


def test_what_is_right_is_handed_on_as_it_is() -> None:
    assert record(0.5, 1, 2, size=(3, 4), other=5) == (0.5, (1, 2), (3, 4), {"other": 5})
    assert record(share=1) == (1, (), None, {})
    assert record.__name__ == "record"
    assert record.__doc__ == "What it was called with."


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"share": 5}, InputValueError, "share is 5; expected 0 to 1"),
        ({"share": float("nan")}, InputValueError, "share is nan"),
        ({"share": True}, InputTypeError, "share is True"),
        ({"share": "1"}, InputTypeError, "share is '1'"),
        ({"share": None}, InputTypeError, "share is None"),
        ({"share": 0, "size": (1, -2.5)}, InputValueError, r"size is \[1, -2.5\]; .* or None"),
        ({"share": 0, "size": 3}, InputTypeError, "size is 3"),
        ({"share": 0, "extra": 3}, InputTypeError, "extra is 3; expected a text"),
        ({"share": np.zeros(3)}, InputTypeError, r"share is an array of float64 of shape \[3\]"),
    ],
)
def test_what_is_wrong_is_named(
    options: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        record(**options)  # type: ignore[arg-type]


def test_positions_are_checked_too() -> None:
    with pytest.raises(InputValueError, match="share is 2"):
        record(2)


@pytest.mark.parametrize(
    ("value", "is_array", "is_image"),
    [
        ([1, 2], True, False),
        ([[1, 2], [3]], False, False),
        (np.zeros((2, 3)), True, True),
        (np.zeros((0, 3)), True, False),
        (np.zeros((2, 3), complex), False, False),
        (np.array([["a"]]), False, False),
        (np.array([[None]]), False, False),
        ("12", False, False),
        ({1: 2}, False, False),
    ],
)
def test_arrays_of_numbers(value: object, is_array: bool, is_image: bool) -> None:
    assert NUMBERS.accepts(value) == is_array
    assert IMAGE.accepts(value) == is_image


def test_several_and_either() -> None:
    names = several(TEXT, "a list of names")
    assert [names.accepts(each) for each in (["a"], ("a",), [], "a", ["a", 1], None)] == [
        *(True, True, True, False, False, False)
    ]
    both = either(TEXT, number(0))
    assert (both.accepts("a"), both.accepts(1), both.accepts(-1)) == (True, True, False)
    assert both.expected == "a text, or 0 or more"
