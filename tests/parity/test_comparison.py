"""Differences that must be found, and those that must not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison import differences, numbers, read_tree, summary, write_tree
from fixed_numbers import spread
from model_scenarios import run_lengths


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"a": 1.0}, {}),
        ({"a": 1.0}, {"a": 1.0, "b": 1.0}),
        ({"a": 1.0}, {"a": 1.00002}),
        ({"gradients": {"a": 1.0}}, {"gradients": {"a": 1.0002}}),
        ({"figures": {"AP": 50.0}}, {"figures": {"AP": 50.0 + 1e-9}}),
        ([1, 2], [1, 3]),
        ([1, 2], [1, 2, 3]),
        ([1.0, 2.0], [1.0]),
        ([[1.0], [2.0]], [[1.0], [2.0, 3.0]]),
        (["a", "b"], ["b", "a"]),
        (["int", 1], ["float", 1.0]),
        (1, 1.0),
        (1, True),
        (None, 0.0),
        (math.nan, 0.0),
        ([1.0, math.nan], [1.0, math.inf]),
        ([], [1.0]),
        (0.0, 1e-9),
    ],
)
def test_found(expected: Any, actual: Any) -> None:
    assert differences(expected, actual)
    assert differences(actual, expected)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}),
        ([1e-9, 1.0], [0.0, 1.000009]),
        ({"weights": {"a": [1.0]}}, {"weights": {"a": [1.00009]}}),
        ({"figures": {"APl": math.nan}}, {"figures": {"APl": math.nan}}),
        ([], []),
    ],
)
def test_not_found(expected: Any, actual: Any) -> None:
    assert differences(expected, actual) == []


def test_the_place_is_named() -> None:
    found = differences({"a": [{"b": 1.0}, {"b": 2.0}]}, {"a": [{"b": 1.0}, {"b": 3.0}]})
    assert found == ["/a[1]/b: off by 1, where the largest number is 2"]


def test_masks() -> None:
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    flipped = mask.copy()
    flipped[0, :2] = True
    assert differences(run_lengths(mask), run_lengths(flipped)) == []
    flipped[0, 2] = True
    assert differences(run_lengths(mask), run_lengths(flipped)) == [": 3 pixels of a mask differ"]
    assert differences(run_lengths(mask), run_lengths(mask[1:]))


def test_summaries() -> None:
    values = torch.linspace(0, 1, 101)
    assert summary(values, count=3)["entries"] == [0.0, 0.5, 1.0]
    assert summary(torch.zeros(0, 4)) == {"shape": [0, 4], "norm": 0.0, "entries": []}
    assert summary(torch.tensor(2.0)) == {"shape": [], "norm": 2.0, "entries": [2.0]}
    # Entries that happen to be tiny are compared with what is usual in their tensor: 1.
    expected = {"shape": [100], "norm": 10.0, "entries": [1e-7, 1e-7]}
    assert differences(expected, {**expected, "entries": [1e-7, 9e-6]}) == []
    assert differences(expected, {**expected, "entries": [1e-7, 2e-5]})
    assert differences(expected, {**expected, "shape": [10, 10]})


def test_files(tmp_path: Path) -> None:
    tree = {
        "floats": numbers(torch.linspace(0, 1, 30)),
        "texts": ["x" * 70, "y" * 70],
        "rows": [{"a": [1, 2], "b": None}, {"c": math.nan}] * 5,
        "nothing": numbers(np.zeros((0, 4))),
    }
    path = tmp_path / "folder" / "tree.json"
    write_tree(tree, path)
    assert differences(tree, read_tree(path)) == []
    assert max(map(len, path.read_text().splitlines()[2:])) < 100
    before = path.read_bytes()
    write_tree(read_tree(path), path)
    assert path.read_bytes() == before


def test_float32_survives() -> None:
    values = torch.rand(1000)
    assert torch.equal(torch.tensor(numbers(values)), values)


def test_spread() -> None:
    values = spread(10_000, "a")
    assert -1 <= values.min() < -0.99
    assert 0.99 < values.max() < 1
    assert abs(values.mean()) < 0.02
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(values, spread(10_000, "b"))[0, 1]) < 0.03
    np.testing.assert_array_equal(values[:10], spread(10, "a"))
