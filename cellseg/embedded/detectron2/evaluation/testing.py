"""Tools around dicts of results, `{task: {figure: value}}`."""

from __future__ import annotations

import logging
import math
import pprint
import sys
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

_logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main figures of each task as a line of names and a line of values, to be pasted.

    Figures with a "-" in their name (those per class) are left out.
    """
    for task, figures in results.items():
        if not isinstance(figures, Mapping):
            _logger.info("copypaste: %s=%s", task, figures)
            continue
        main = {name: value for name, value in figures.items() if "-" not in name}
        _logger.info("copypaste: Task: %s", task)
        _logger.info("copypaste: %s", ",".join(main))
        _logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: CfgNode, results: Mapping[str, Any]) -> bool:
    """Compare figures with `cfg.TEST.EXPECTED_RESULTS`: (task, figure, value, tolerance) each.

    Returns:
        True.

    Raises:
        SystemExit: a figure is missing, not finite or too far off. The status is 1.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    if not expected:
        return True
    missed = []
    for task, name, value, tolerance in expected:
        actual = results[task].get(name, math.nan)
        if not (math.isfinite(actual) and abs(actual - value) <= tolerance):
            missed.append(f"{task}/{name} is {actual}, expected {value} +- {tolerance}")
    if missed:
        _logger.error(
            "Result verification failed: %s\nAll results:\n%s",
            "; ".join(missed),
            pprint.pformat(results),
        )
        sys.exit(1)
    _logger.info("Results verification passed.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a": {"b": 1}, "c": 2}` becomes `{"a/b": 1, "c": 2}`, to any depth."""
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{key}": inner for key, inner in flatten_results_dict(value).items()}
        else:
            flat[name] = value
    return flat
