"""docs/metrics.md: its table is the one of the code, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from cellseg.evaluation import METRICS, score
from cellseg.evaluation.metrics import describe_metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def section(title: str) -> str:
    return PAGE.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]


def test_table_is_that_of_the_code() -> None:
    lines = [line for line in section("All names").splitlines() if line.startswith("|")]
    assert lines == describe_metrics(METRICS.values())


def test_names_of_the_other_tables_exist() -> None:
    lines = section('What "AP" means where').splitlines()
    names = [name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[-2:][0])]
    assert len(names) >= 8
    score([], [], names)


def test_examples() -> None:
    """The second one is a plug-in's metric, of which less is better."""
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    labels = [np.ones((3, 3), int)]
    exec(first, {"true_label_images": labels, "predicted_label_images": labels})
    try:
        exec(second, {})
        assert score(labels, labels, ["error_rate"]) == {"error_rate": 0}
        assert METRICS["error_rate"].lower_is_better
    finally:
        METRICS.pop("error_rate", None)
