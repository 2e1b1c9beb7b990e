"""The figures of benchmarks/suggest.py, on rankings that are judged by hand."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], (1.0, 1.0, 0.15)),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], (-1.0, 0.0, 0.95)),
        ([9, 0, 1, 2, 3, 4, 5, 6, 7, 8], (-0.4545, 0.5, 0.55)),
    ],
)
def test_correlation_worst_on_top_and_their_mean(
    monkeypatch: pytest.MonkeyPatch, values: list[int], expected: tuple[float, ...]
) -> None:
    """Ten images whose errors fall from 0.9 to 0.0: two are a fifth."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pytest.importorskip("skimage")
    judge = importlib.import_module("suggest").judge
    errors = np.arange(9, -1, -1) / 10
    assert judge(np.array(values, float), errors) == pytest.approx(expected, abs=1e-4)
