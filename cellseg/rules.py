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
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        expected: in words, so that it reads well behind "expected".
        accepts: whether a value is allowed; it takes any object and does not raise.
    """

    expected: str
    accepts: Callable[[Any], bool]

    def said(self, expected: str) -> Rule:
        """The same rule in other words."""
        return replace(self, expected=expected)

    def remark(self, text: str) -> Rule:
        """The same rule with words in brackets behind its own, such as "0: off"."""
        return self.said(f"{self.expected} ({text})")


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
        size = float(value)
        inside = math.isfinite(size) and least <= size <= most
        return inside and (above is None or size > above) and (below is None or size < below)

    if low is not None and high is not None:
        words = [f"{low:g} to {high:g}"]
    else:
        limits = {"more than": above, "at most": high, "below": below}
        words = [] if low is None else [f"{low:g} or more"]
        words += [f"{name} {limit:g}" for name, limit in limits.items() if limit is not None]
    kind = "a whole number" if whole else "a number"
    return Rule(", ".join([kind, *words] if whole or not words else words), accepts)


def choice(*allowed: str) -> Rule:
    """One of some words."""
    return Rule(
        f"one of {', '.join(allowed)}",
        lambda value: isinstance(value, str) and value in allowed,
    )


FLAG = Rule("True or False", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str))


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

    return Rule(words, accepts)


NAMES = list_of(TEXT, words="a list of names")


def or_empty(rule: Rule) -> Rule:
    """What a rule allows, and an empty list, which is not spoken of."""
    return Rule(
        rule.expected,
        lambda value: (isinstance(value, (list, tuple)) and not value) or rule.accepts(value),
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

    return Rule(f"[low, high]{words}", accepts)


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
