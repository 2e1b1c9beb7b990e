"""Rules for values: what is accepted, and the words for it in an error and in a table.

Example:
    >>> share = number(0, 1)
    >>> share.expected, share.accepts(0.3), share.accepts(2), share.accepts(True)
    ('0 to 1', True, False, False)
    >>> per_class(share).accepts([0.3, 0.5])
    True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        expected: in words, so that it reads well behind "expected".
        accepts: whether a value is allowed; it takes any object and does not raise.
        types: what other values may be of than those that are allowed; of anything else the type
            is wrong (`cellseg.arguments`).
    """

    expected: str
    accepts: Callable[[Any], bool]
    types: tuple[type, ...] = ()

    def said(self, expected: str) -> Rule:
        """The same rule in other words."""
        return replace(self, expected=expected)

    def remark(self, text: str) -> Rule:
        """The same rule with words in brackets behind its own, such as "0: off"."""
        return self.said(f"{self.expected} ({text})")


_SHOWN = 120


def show(value: Any, most: int = _SHOWN) -> str:
    """A value as an error shows it: on one line, lists as they are typed, and not for pages.

    Args:
        value: anything.
        most: letters that are shown.

    Example:
        >>> show((1, 2)), show("x" * 1000, 9)
        ('[1, 2]', "'xxxxxxxx...")
    """
    try:
        text = repr(list(value) if isinstance(value, tuple) else value)
    except Exception:  # an object of a stranger's, or an int of 5,000 digits
        text = f"a value of type {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}..."


def spell(value: float) -> str:
    """A limit as a message says it: 65,536 and not 65536 or 6.6e+04.

    Example:
        >>> spell(65536), spell(0.5), spell(1024)
        ('65,536', '0.5', '1024')
    """
    if value != int(value):
        return f"{value:g}"
    return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> Rule:
    """A finite number in a range; True and False are none.

    Args:
        low, high: the least and the greatest value that are allowed.
        above, below: limits that are not reached, in place of `low` and `high`.
        whole: only an int is allowed.
    """
    least = -math.inf if low is None else low
    most = math.inf if high is None else high

    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
            return False
        try:
            size = float(value)
        except OverflowError:  # an int of more than 308 digits
            return False
        inside = math.isfinite(size) and least <= size <= most
        return inside and (above is None or size > above) and (below is None or size < below)

    if low is not None and high is not None:
        words = [f"{spell(low)} to {spell(high)}"]
    else:
        limits = {"more than": above, "at most": high, "below": below}
        words = [] if low is None else [f"{spell(low)} or more"]
        words += [f"{name} {spell(limit)}" for name, limit in limits.items() if limit is not None]
    kind = "a whole number" if whole else "a number"
    said = ", ".join([kind, *words] if whole or not words else words)
    return Rule(said, accepts, (Integral if whole else Real,))


ABOVE_0 = number(above=0)
SIZE = number(1, whole=True)


def choice(*allowed: str) -> Rule:
    """One of some words."""
    return Rule(
        f"one of {', '.join(allowed)}",
        lambda value: isinstance(value, str) and value in allowed,
        (str,),
    )


FLAG = Rule("True or False", lambda value: isinstance(value, bool))
ANYTHING = Rule("anything", lambda value: True)
TEXT = Rule("a text", lambda value: isinstance(value, str))


PATH = Rule(
    "a path, as a text or a Path",
    lambda value: isinstance(value, Path) or (isinstance(value, str) and value != ""),
    (str,),
)


def describe_kind(value: Any) -> str:
    """What a value is, in words: "a list", "a number"; for anything else the name of its type.

    Example:
        >>> describe_kind([1]), describe_kind(b"")
        ('a list', 'a value of type bytes')
    """
    for kind, words in _KINDS.items():
        if isinstance(value, kind):
            return words
    return f"a value of type {type(value).__name__}"


_KINDS: dict[Any, str] = {
    type(None): "nothing",
    bool: "True or False",
    str: "a text",
    Real: "a number",
    (list, tuple): "a list",
    dict: "keys and values",
}


def list_of(item: Rule, *, words: str = "", most: float = math.inf) -> Rule:
    """A list, possibly empty.

    Args:
        item: what every item may be.
        words: what is expected.
        most: how many items it has at most.
    """

    def accepts(value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            return False
        return all(map(item.accepts, value))

    return Rule(words, accepts, (list, tuple))


NAMES = list_of(TEXT, words="a list of names")


def or_empty(rule: Rule) -> Rule:
    """What a rule allows, and an empty list, which is not spoken of."""
    return Rule(
        rule.expected,
        lambda value: (isinstance(value, (list, tuple)) and not value) or rule.accepts(value),
        (*rule.types, list, tuple),
    )


def ascending(end: Rule, words: str, *, strictly: bool = False) -> Rule:
    """Two ends of a range, [low, high].

    Args:
        end: what each end may be.
        words: what is said behind "[low, high]".
        strictly: the ends may not be equal.
    """

    def accepts(value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            return False
        if not all(map(end.accepts, value)):
            return False
        return bool(value[0] < value[1] or (value[0] == value[1] and not strictly))

    return Rule(f"[low, high]{words}", accepts, (list, tuple))


def per_class(one: Rule, noun: str = "number") -> Rule:
    """One value for all classes, or a list with one for each; how many there are is not known.

    Args:
        one: what each value may be.
        noun: what messages call it.
    """
    several = list_of(one)
    return Rule(
        f"{one.expected}, as one {noun} or a list with one per class",
        lambda value: one.accepts(value) or (several.accepts(value) and len(value) > 0),
        (*one.types, list, tuple),
    )


def named_numbers(amount: Rule) -> Rule:
    """Pairs of a name and a number, [["backbone", 1], ...]."""

    def is_pair(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and isinstance(value[0], str)
            and amount.accepts(value[1])
        )

    return list_of(Rule("", is_pair), words='pairs such as ["backbone", 1]')
