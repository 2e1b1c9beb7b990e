"""What callers give to public functions, checked at the door: the type and the range, by name.

A function says with `checked` what its arguments may be, in the rules of `cellseg.rules`; a wrong
one is an `InputTypeError` or `InputValueError` that names the argument, what was found and what was
expected, before anything is done. What only the function can know, such as whether two images have
one size, it checks itself. Inner functions, which others of cellseg call with what is right, do
without.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from cellseg.errors import InputTypeError, InputValueError
from cellseg.rules import TEXT, Rule, number, show

P = ParamSpec("P")
R = TypeVar("R")


def checked(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check arguments of a function before it is called.

    An argument that is left out, or is given its default, is not looked at.

    Args:
        rules: by the names of the arguments; of `**options` each name may have one.

    Example:
        >>> @checked(threshold=number(0, 1))
        ... def count(scores, threshold=None):
        ...     return sum(score >= (threshold or 0.5) for score in scores)
        >>> count([0.3, 0.6]), count([0.3, 0.6], 0.2)
        (1, 2)
        >>> count([0.3, 0.6], threshold=5)
        Traceback (most recent call last):
        cellseg.errors.InputValueError: threshold is 5; expected 0 to 1
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        names = list(parameters)
        defaults = {name: one.default for name, one in parameters.items()}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = {**dict(zip(names, args)), **kwargs}
            for name, rule in rules.items():
                if name in given and given[name] is not defaults.get(name, inspect.Parameter.empty):
                    check_argument(name, given[name], rule)
            return function(*args, **kwargs)

        return call

    return decorate


def check_argument(name: str, value: Any, rule: Rule) -> None:
    """Check one argument; for the first lines of a function.

    Args:
        name: of the argument.
        value: what was given.
        rule: what it may be.

    Raises:
        InputTypeError: it is of a type that the rule never takes.
        InputValueError: a value, or an item of it, that cannot be.

    Example:
        >>> check_argument("num_classes", 2, number(1, whole=True))
        >>> check_argument("num_classes", 0, number(1, whole=True))
        Traceback (most recent call last):
        cellseg.errors.InputValueError: num_classes is 0; expected a whole number, 1 or more
    """
    if rule.accepts(value):
        return
    problem = f"{name} is {_show_argument(value)}; expected {rule.expected}"
    of_a_right_type = isinstance(value, rule.types) and not isinstance(value, bool)
    raise InputValueError(problem) if of_a_right_type else InputTypeError(problem)


def check_fields(made: Any, rules: Mapping[str, Rule]) -> None:
    """`check_argument` for what a dataclass was made of; for its `__post_init__`.

    Args:
        made: the object.
        rules: by the names of its fields; a value that is the field's default is not looked at.
    """
    for name, rule in rules.items():
        value = getattr(made, name)
        if value is not getattr(type(made), name, inspect.Parameter.empty):
            check_argument(name, value, rule)


def _show_argument(value: Any) -> str:
    """An array or tensor by its kind and shape, anything else as in `show`."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return show(value)
    return f"an array of {dtype} of shape {list(shape)} ({type(value).__name__})"


def of_type(kinds: type | tuple[type, ...], words: str) -> Rule:
    """An object of a class, or of one of several.

    Args:
        kinds: the classes.
        words: what is expected.
    """
    return Rule(words, lambda value: isinstance(value, kinds))


def either(*rules: Rule) -> Rule:
    """What one of some rules allows."""
    return Rule(
        ", or ".join(rule.expected for rule in rules),
        lambda value: any(rule.accepts(value) for rule in rules),
        tuple(kind for rule in rules for kind in rule.types),
    )


def or_nothing(rule: Rule) -> Rule:
    """What a rule allows, and None."""
    return Rule(
        f"{rule.expected}, or None",
        lambda value: value is None or rule.accepts(value),
        rule.types,
    )


def several(item: Rule | None = None, words: str = "a list") -> Rule:
    """A list, a tuple or an array, of any length, perhaps with a rule for what is in it.

    Args:
        item: what each item may be; None for anything.
        words: what is expected.
    """

    def accepts(value: Any) -> bool:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(
            value, (Sequence, np.ndarray)
        ):
            return False
        if isinstance(value, np.ndarray) and value.ndim == 0:
            return False
        return item is None or all(map(item.accepts, value))

    return Rule(words, accepts, (list, tuple))


def any_of(item: Rule | None = None, words: str = "something to go through") -> Rule:
    """What can be gone through, such as a list or a generator, which is not gone through here.

    Args:
        item: what each item of a list or tuple may be; None for anything.
        words: what is expected.
    """

    def accepts(value: Any) -> bool:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            return False
        return item is None or not isinstance(value, (list, tuple)) or all(map(item.accepts, value))

    return Rule(words, accepts, (list, tuple))


def is_numeric(value: Any) -> bool:
    """Whether `np.asarray` makes an array of real numbers, or of True and False, of a value.

    Example:
        >>> is_numeric([[1, 2.5]]), is_numeric(["1"]), is_numeric([1j]), is_numeric(None)
        (True, False, False, False)
    """
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    if value is None or isinstance(value, (str, bytes, Mapping, set)):
        return False
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except Exception:  # ragged lists, tensors of another device, whatever `__array__` raises
        return False


def array_of(*dimensions: int, words: str, filled: bool = False) -> Rule:
    """A NumPy array of numbers, or of True and False.

    Args:
        dimensions: how many it may have.
        words: what is expected.
        filled: one without any number is refused.
    """

    def accepts(value: Any) -> bool:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            return False
        return value.ndim in dimensions and (value.size > 0 or not filled)

    return Rule(words, accepts, (np.ndarray,))


NUMBERS = Rule("an array of numbers", is_numeric)
IMAGE = array_of(
    2, 3, words="an image: an array of numbers, [H, W] or [H, W, C], with a pixel", filled=True
)
MASK = array_of(2, words="an array [h, w] of True and False")
VECTOR = Rule(
    "a list of numbers", lambda value: is_numeric(value) and np.ndim(value) == 1, (list, tuple)
)
ENDS = Rule(  # which ones can be is for the table of keys to say
    "two numbers, [low, high]",
    lambda value: isinstance(value, Sequence) or (is_numeric(value) and np.ndim(value) == 1),
    (list, tuple),
)
FLAG = Rule("True or False", lambda value: isinstance(value, (bool, np.bool_)))
REAL = Rule(
    "a number", lambda value: isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
)
WHOLE = number(whole=True)
COUNT = number(0, whole=True)
NAME = Rule("a name, as a text", lambda value: isinstance(value, str) and value != "", (str,))
NAMES = several(TEXT, "a list of names")


def _is_size(value: Any) -> bool:
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (str, bytes)):
        return False
    return len(value) == 2 and all(map(WHOLE.accepts, value))


IMAGE_HW = Rule("(height, width), two whole numbers of pixels", _is_size, (list, tuple))
