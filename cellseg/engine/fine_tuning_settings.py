"""What a fine-tuning on few images sets: sizes, windows, steps and how often it is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.cells.selection import TEST_KEYS
from cellseg.config import KEYS, put_below, read_value
from cellseg.datasets.declarations import Declaration, read_declared_records
from cellseg.datasets.registration import datasets_root
from cellseg.errors import DatasetError

WINDOW_PX = {"cpu": 128, "cuda": 256}
"""Side of the windows that are trained on, as the network sees them."""
_PER_STEP = {"cpu": (2, 0.0005, 20), "cuda": (8, 0.0003, 200)}
"""Images per step, learning rate, and steps per minute between evaluations."""
_STEPS_PER_MINUTE = 1200
"""More than any machine does: time ends a training, and this only bounds it."""


def median_diameter(declared: Declaration) -> float:
    """Median diameter of the counted cells of a data set, px: that of a disc of their area.

    Raises:
        DatasetError: it cannot be read, or has no cell to learn from.
    """
    folder = datasets_root() / declared.root
    records = read_declared_records(declared, folder)
    sizes = [one.cells.counted.diameters_px for one in records]
    if not sum(map(len, sizes)):
        raise DatasetError(f"{declared.path}: {declared.name} has no cell to learn from")
    return float(np.median(np.concatenate(sizes)))


def choose_settings(
    config: dict[str, Any], diameter_px: float, minutes: float, device: str
) -> dict[str, Any]:
    """What a fine-tuning sets on top of a model's config and `parts/few_images.yaml`.

    Args:
        config: of the model.
        diameter_px: median of the cells, in pixels of the file. Cells that are smaller or larger
            than all that the model knows are brought to the size that it knows best.
        minutes: of training.
        device: "cpu" or "cuda".

    Returns:
        A tree of keys and values.
    """
    images, rate, period = _PER_STEP[device]
    own_scale = float(value_in(config, "CELLSEG.INPUT.SCALE", 1.0))
    scale = choose_scale(
        value_in(config, "CELLSEG.TEST.KNOWN_DIAMETERS", []), diameter_px, own_scale
    )
    return {
        "INPUT": _choose_windows(config, scale, device),
        "SOLVER": {
            "IMS_PER_BATCH": images,
            "BASE_LR": rate,
            "WEIGHT_DECAY": 0.05,
            "LR_SCHEDULER_NAME": "WarmupCosineLR",
            "MAX_ITER": math.ceil(minutes * _STEPS_PER_MINUTE),
            "CHECKPOINT_PERIOD": 10**9,  # the best one and the last one
            "AMP": {"ENABLED": device == "cuda"},
        },
        "DATALOADER": {"NUM_WORKERS": 1 if device == "cpu" else 4},
        "TEST": {"EVAL_PERIOD": max(math.ceil(minutes * period), 20), "EXPECTED_RESULTS": []},
        "CELLSEG": {
            "INPUT": {"SCALE": scale},
            "SOLVER": {"MAX_MINUTES": minutes, "OPTIMIZER": "ADAMW", "ACCUMULATE": 1},
            "TEST": {"PICTURES": 0, "REPORT": False},
            "TRAIN": {
                "BEST_MODE": "max",
                "PATIENCE": 0,
                "VALIDATION_LOSS": False,
                "PROGRESS_BAR": False,
            },
        },
    }


def choose_scale(known_px: Sequence[float], diameter_px: float, own_scale: float) -> float:
    """What images are multiplied by, so that the model sees cells of a size that it knows.

    Args:
        known_px: least, middle and largest diameter that it knows, as it sees them; may be empty.
        diameter_px: of the cells, in pixels of the file.
        own_scale: of the model's config, which stays where it is good enough.

    Example:
        >>> choose_scale([7.0, 26.0, 60.0], 20.0, 1.0), choose_scale([7.0, 26.0, 60.0], 104.0, 1.0)
        (1.0, 0.25)
    """
    if not known_px or known_px[0] <= diameter_px * own_scale <= known_px[-1]:
        return own_scale
    return round(known_px[len(known_px) // 2] / diameter_px, 3)


def _choose_windows(config: dict[str, Any], scale: float, device: str) -> dict[str, Any]:
    """Windows, where the model sees images at their own size; else as it was trained."""
    if value_in(config, "INPUT.MIN_SIZE_TEST", 800) != 0:
        return {}
    side = math.ceil(WINDOW_PX[device] / scale)
    crop = {"ENABLED": True, "TYPE": "absolute", "SIZE": [side, side]}
    return {"CROP": crop, "MIN_SIZE_TRAIN": [0]}


def drop_lists_of_other_classes(config: dict[str, Any], num_classes: int) -> dict[str, Any]:
    """Defaults in place of a model's values per class, where it has other classes than the data."""
    names = [*(f"TEST.{key}" for key in TEST_KEYS), "CELL_TYPE.CLASS_WEIGHTS"]
    dropped: dict[str, Any] = {}
    for name in names:
        value = value_in(config, f"CELLSEG.{name}", None)
        if isinstance(value, list | tuple) and len(value) not in (0, num_classes):
            section, key = name.split(".")
            put_below(dropped, {"CELLSEG": {section: {key: KEYS[name].default}}})
    return dropped


def value_in(config: dict[str, Any], name: str, default: Any) -> Any:
    """The value of a key in a tree of a config, such as "INPUT.MIN_SIZE_TEST"."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return default
        found = found[part]
    return read_value(found)
