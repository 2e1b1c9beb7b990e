"""docs/metrics.md: its table has every metric and no other, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from cellseg.evaluation.figures import FIGURES
from cellseg.evaluation.scoring import COCO_NAMES, score

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def section(title: str) -> str:
    return PAGE.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_metric_once() -> None:
    names = [
        name
        for line in section("All names").splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert sorted(names) == sorted([*FIGURES, *COCO_NAMES])


def test_names_of_the_other_tables_exist() -> None:
    lines = section('What "AP" means where').splitlines()
    names = [name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[-2:][0])]
    assert len(names) >= 8
    score([], [], names)


def test_example() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert code is not None
    labels = [np.ones((3, 3), int)]
    exec(code[1], {"true_label_images": labels, "predicted_label_images": labels})
