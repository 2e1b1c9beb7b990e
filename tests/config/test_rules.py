"""Rules: what they accept, and the words that go with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cellseg import rules
from cellseg.rules import Rule, number

SHARE = number(0, 1)


@pytest.mark.parametrize(
    ("rule", "expected", "right", "wrong"),
    [
        (SHARE, "0 to 1", [0, 0.5, 1, np.float32(0.5)], [-0.1, 1.1, True, "0.5", None, math.nan]),
        (number(0), "0 or more", [0, 1e9], [-1, math.inf]),
        (number(above=0), "more than 0", [1e-9, 3], [0, -1]),
        (number(above=0, high=8), "more than 0, at most 8", [8, 0.1], [0, 8.1]),
        (number(0, below=1), "0 or more, below 1", [0, 0.999], [1, -0.1]),
        (number(1, whole=True), "a whole number, 1 or more", [1, np.int64(7)], [0, 1.0, True]),
        (number(), "a number", [-1e9, 0], [math.inf, [], "a"]),
        (rules.choice("a", "b"), "one of a, b", ["a"], ["c", ["a"], None, 1]),
        (rules.FLAG, "True or False", [True, False], [0, 1, "True"]),
        (rules.NAMES, "a list of names", [[], ["a"], ("a", "b")], ["a", [1], None]),
        (
            rules.ascending(SHARE, ", shares"),
            "[low, high], shares",
            [[0, 1], (0.5, 0.5)],
            [[1, 0], [0], [0, 1, 1], [0, 2], "01", 0.5],
        ),
        (rules.ascending(SHARE, "", strictly=True), "[low, high]", [[0, 1]], [[0.5, 0.5]]),
        (
            rules.per_class(SHARE),
            "0 to 1, as one number or a list with one per class",
            [0.5, [0.5], [0, 1]],
            [[], [2], 2, "a"],
        ),
        (
            rules.named_numbers(number()),
            'pairs such as ["backbone", 1]',
            [[], [["a", 1], ("b", 0.5)]],
            [["a"], [["a"]], [[1, "a"]], [["a", True]], "ab"],
        ),
        (rules.or_empty(SHARE), "0 to 1", [[], (), 0.5], [[0.5], 2, "", None]),
        (rules.list_of(SHARE, words="two shares", most=2), "two shares", [[], [0, 1]], [[0, 0, 0]]),
        (SHARE.remark("0: off"), "0 to 1 (0: off)", [0], [2]),
        (SHARE.said("a share"), "a share", [0], [2]),
    ],
)
def test_what_a_rule_accepts_and_says(
    rule: Rule, expected: str, right: list[Any], wrong: list[Any]
) -> None:
    assert rule.expected == expected
    assert [value for value in right if not rule.accepts(value)] == []
    assert [value for value in wrong if rule.accepts(value)] == []
