"""Trees of numbers and texts: how they are stored, and where two of them differ."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

GOLDEN = Path(__file__).with_name("golden")

TOLERANCE = 1e-5
# Keys below which another tolerance holds: looser where errors add up over steps or many terms,
# all but the last digits of float64 where nothing is computed in float32.
OTHER_TOLERANCES = {
    "gradients": 1e-4,
    "weights": 1e-4,
    "steps": 1e-4,
    "movement": 1e-3,  # the small difference of two large float32 numbers
    "pixels of segments": 1e-3,  # one of them may flip, see FLIPPED_PIXELS
    "figures": 1e-12,
    "groups": 1e-12,
    "learning rates": 1e-12,
}
# Pixels of a mask whose soft value may be so near the threshold that they flip on another CPU.
FLIPPED_PIXELS = 2


def numbers(values: Any) -> Any:
    """A tensor or array as a list (or a scalar) of floats with the nine digits of float32."""
    rounded = np.vectorize(lambda value: float(f"{value:.9g}"), otypes=[float])
    array = values.detach().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return (rounded(array) if array.size else array.astype(float)).tolist()


def summary(values: torch.Tensor, count: int = 40) -> dict[str, Any]:
    """Shape, Euclidean norm and `count` evenly spaced entries of a tensor."""
    flat = values.detach().flatten().double()
    places = np.linspace(0, max(len(flat) - 1, 0), min(count, len(flat))).astype(int)
    return {
        "shape": list(values.shape),
        "norm": numbers(flat.norm()),
        "entries": numbers(flat[torch.from_numpy(places)]),
    }


def read_tree(path: Path) -> Any:
    return json.loads(path.read_text())


def write_tree(tree: Any, path: Path) -> None:
    """Write JSON whose bytes depend on the tree only; short or purely numeric parts on a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(tree) + "\n")


def _lines(tree: Any, indent: str = "") -> str:
    text = json.dumps(tree)
    if len(indent + text) <= 100 or not isinstance(tree, (dict, list)) or _is_numeric(tree):
        return text
    inner = indent + " "
    if isinstance(tree, dict):
        opening, rows = "{}", [f"{json.dumps(key)}: {_lines(tree[key], inner)}" for key in tree]
    else:
        opening, rows = "[]", [_lines(item, inner) for item in tree]
    return f"{opening[0]}\n{inner}" + f",\n{inner}".join(rows) + f"\n{indent}{opening[1]}"


def differences(
    expected: Any, actual: Any, where: str = "", tolerance: float = TOLERANCE
) -> list[str]:
    """One line for each place where two trees differ; empty where they agree.

    Floats agree to `tolerance` of the largest number in their list, or to that of
    `OTHER_TOLERANCES` below its keys; masks may differ in `FLIPPED_PIXELS`; everything else is
    the same.
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() == actual.keys() == {"size", "counts"}:
            return _of_masks(expected, actual, where)
        if expected.keys() == actual.keys() == {"shape", "norm", "entries"}:
            return _of_summaries(expected, actual, where, tolerance)
        return _of_dicts(expected, actual, where, tolerance)
    if _is_numeric(expected) and _is_numeric(actual):
        return _of_numbers(expected, actual, where, tolerance)
    if isinstance(expected, list) and isinstance(actual, list):
        pairs = enumerate(zip(expected, actual))
        found = [d for i, (e, a) in pairs for d in differences(e, a, f"{where}[{i}]", tolerance)]
        if len(expected) != len(actual):
            found.append(f"{where}: expected {len(expected)} entries, got {len(actual)}")
        return found
    same = type(expected) is type(actual) and expected == actual
    return [] if same else [f"{where}: expected {_short(expected)}, got {_short(actual)}"]


def _of_dicts(expected: dict, actual: dict, where: str, tolerance: float) -> list[str]:
    found = [f"{where}/{key}: missing" for key in expected if key not in actual]
    found += [f"{where}/{key}: not expected" for key in actual if key not in expected]
    for key in (key for key in expected if key in actual):
        below = OTHER_TOLERANCES.get(key, tolerance)
        found += differences(expected[key], actual[key], f"{where}/{key}", below)
    return found


def _of_summaries(expected: dict, actual: dict, where: str, tolerance: float) -> list[str]:
    found = differences(expected["shape"], actual["shape"], f"{where}/shape", tolerance)
    found += differences(expected["norm"], actual["norm"], f"{where}/norm", tolerance)
    # The few entries may all be small for their tensor, whose rounding errors they share.
    usual = expected["norm"] / max(math.prod(expected["shape"]), 1) ** 0.5
    entries = expected["entries"], actual["entries"]
    return found + _of_numbers(*entries, f"{where}/entries", tolerance, usual)


def _of_masks(expected: dict, actual: dict, where: str) -> list[str]:
    if expected["size"] != actual["size"]:
        return [f"{where}: a mask of {expected['size']} expected, got one of {actual['size']}"]
    flipped = np.count_nonzero(mask_util.decode(expected) != mask_util.decode(actual))
    return [] if flipped <= FLIPPED_PIXELS else [f"{where}: {flipped} pixels of a mask differ"]


def _is_numeric(tree: Any) -> bool:
    if isinstance(tree, list):
        return bool(tree) and all(_is_numeric(item) for item in tree)
    return isinstance(tree, (int, float)) and not isinstance(tree, bool)


def _of_numbers(
    expected: Any, actual: Any, where: str, tolerance: float, at_least: float = 0.0
) -> list[str]:
    wanted, got = _array(expected), _array(actual)
    if wanted is None or got is None or wanted.shape != got.shape or wanted.dtype != got.dtype:
        return [f"{where}: expected {_short(expected)}, got {_short(actual)}"]
    if wanted.dtype.kind == "i":
        return [] if (wanted == got).all() else [f"{where}: {_short(expected)} != {_short(actual)}"]
    finite = np.isfinite(wanted) & np.isfinite(got)
    if not np.array_equal(wanted[~finite], got[~finite], equal_nan=True):
        return [f"{where}: other entries are not finite"]
    error = np.abs(wanted - got)[finite].max(initial=0)
    largest = np.abs(wanted)[finite].max(initial=at_least)
    if error <= tolerance * largest:
        return []
    return [f"{where}: off by {error:.3g}, where the largest number is {largest:.3g}"]


def _array(values: Any) -> np.ndarray | None:
    try:
        return np.asarray(values)
    except ValueError:  # rows of different length
        return None


def _short(tree: Any) -> str:
    text = json.dumps(tree)
    return text if len(text) <= 80 else f"{text[:77]}..."
