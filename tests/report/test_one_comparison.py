"""A whole report and a whole evaluation search the overlaps of each image once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.evaluation import METRICS, comparison
from cellseg.evaluation.tables import Sides, evaluate, write_per_image
from cellseg.report.build import write_report


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each function of the comparison was called."""
    counted: Counter[str] = Counter()

    def count(name: str) -> None:
        original: Callable[..., Any] = getattr(comparison, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counted[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(comparison, name, counting)

    for name in ("find_overlaps", "find_label_overlaps", "finish_cells", "vote_over_image"):
        count(name)
    return counted


def test_report(run, calls: Counter[str], tmp_path: Path) -> None:
    """0.1 searched 21 times and selected 7 times per image."""
    images = 4
    write_report(run.cfg, run.folder, tmp_path / "report.html")
    assert calls == {"find_overlaps": images, "finish_cells": images, "vote_over_image": images}


def test_evaluation_of_everything(calls: Counter[str], tmp_path: Path) -> None:
    masks = np.zeros((2, 10, 20), bool)
    masks[0, :5, :5] = masks[1, 5:, 10:] = True
    cells = CellInstances.from_bitmaps(masks, classes=[0, 1])
    sides = Sides(["a", "b"], [cells, cells], [cells, cells], ("round", "long"))
    evaluate(sides, list(METRICS), intervals=True)
    write_per_image(sides, list(METRICS), tmp_path / "images.csv")
    assert calls["find_overlaps"] == 2
