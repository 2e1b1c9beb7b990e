"""Keys of the augmentations below CELLSEG.AUGMENTATION, and what they may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from cellseg.errors import ConfigError, collect_problems
from cellseg.training_data.augmentations.elastic import MAX_STRENGTH_PER_SIGMA
from cellseg.training_data.augmentations.registry import find_unknown_augmentations
from detectron2.config import CfgNode

PREFIX = "CELLSEG.AUGMENTATION"


def add_augmentation_config(node: CfgNode) -> None:
    """Add every key with its default to `node`, which becomes CELLSEG.AUGMENTATION.

    Each augmentation has ENABLED (all are off by default) and PROB, how often it happens. They are
    applied in the order in which they stand here, after Detectron2's own; EXTRA names others.
    """
    # Cells of another training image that has cells of the same class, pasted in front.
    node.COPY_PASTE = _node_with_prob(0.5)
    # Least and highest number of cells to paste.
    node.COPY_PASTE.NUM_CELLS = [1, 20]
    # Mirror the other image first, each axis half of the time.
    node.COPY_PASTE.FLIP = True
    # How far the other image is moved at most, as a share of its size.
    node.COPY_PASTE.SHIFT = 0.5
    # Width of the soft edge of pasted cells, pixels; 0 makes it hard.
    node.COPY_PASTE.EDGE_SIGMA_PX = 1.0
    # A cell that is left with a smaller share of its pixels is dropped.
    node.COPY_PASTE.MIN_VISIBLE = 0.3
    # So is one that lost pixels and is left with fewer than these.
    node.COPY_PASTE.MIN_AREA_PX = 8

    # Turns by 90, 180 or 270 degrees; at 0.75 these and no turn are equally frequent.
    node.ROTATE90 = _node_with_prob(0.75)

    # Scale by a random factor; what grows is cut to the size it had, what shrinks stays smaller.
    node.SCALE = _node_with_prob(0.5)
    # Lowest and highest factor, uniform on a logarithmic scale.
    node.SCALE.RANGE = [0.75, 1.5]

    # Smooth random shifts (Simard et al., 2003).
    node.ELASTIC = _node_with_prob(0.5)
    # Standard deviation of the shifts along each axis, pixels: lowest and highest.
    node.ELASTIC.STRENGTH_PX = [1.0, 3.0]
    # Of the Gaussian that smooths the shifts, pixels; at least five times the strength.
    node.ELASTIC.SIGMA_PX = 16.0

    # Power of the intensities' share of the full range; above 1 darkens.
    node.GAMMA = _node_with_prob(0.5)
    node.GAMMA.RANGE = [0.7, 1.4]

    # Factor of all intensities.
    node.BRIGHTNESS = _node_with_prob(0.5)
    node.BRIGHTNESS.RANGE = [0.7, 1.4]

    # Factor of the distances from the mean intensity.
    node.CONTRAST = _node_with_prob(0.5)
    node.CONTRAST.RANGE = [0.7, 1.4]

    # Gaussian blur of a random width in pixels.
    node.BLUR = _node_with_prob(0.25)
    node.BLUR.SIGMA_PX = [0.5, 1.5]

    # Gaussian noise of a random standard deviation, on a scale of 255.
    node.NOISE = _node_with_prob(0.5)
    node.NOISE.SIGMA = [1.0, 10.0]

    # Dark becomes bright: for models that see fluorescence and transmitted light.
    node.INVERT = _node_with_prob(0.5)

    # Registered names of augmentations of your own, applied last (docs/custom_parts.md).
    node.EXTRA = []


def _node_with_prob(prob: float) -> CfgNode:
    return CfgNode({"ENABLED": False, "PROB": prob})


def find_switches(node: CfgNode) -> dict[str, CfgNode]:
    """The augmentations of this package, by name: less EXTRA, and less the keys of plug-ins."""
    return {
        name: own for name, own in node.items() if isinstance(own, CfgNode) and "ENABLED" in own
    }


def check_augmentation_config(node: CfgNode) -> None:
    """Check all values of CELLSEG.AUGMENTATION, also of what is off.

    Raises:
        ConfigError: naming every key with an impossible value, what it has and what it may have.
    """
    problems = list(_find_problems(node))
    if problems:
        raise ConfigError(
            collect_problems(
                f"{PREFIX}: values that cannot be used",
                problems,
                hint="docs/augmentation.md describes every key. Code that registers a name for "
                "EXTRA has to be listed in CELLSEG.PLUGINS.",
            )
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_range(value: Any, allows: Callable[[Any], bool]) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(_is_number(end) and allows(end) for end in value)
        and value[0] <= value[1]
    )


def _is_factor_range(value: Any) -> bool:
    return _is_range(value, lambda end: end > 0)


def _is_size_range(value: Any) -> bool:
    return _is_range(value, lambda end: end >= 0)


def _is_count_range(value: Any) -> bool:
    return _is_range(value, lambda end: end >= 0 and int(end) == end)


_FACTORS = (_is_factor_range, "[low, high] with 0 < low <= high")
_SIZES = (_is_size_range, "[low, high] with 0 <= low <= high")
_SHARE = (_is_share, "0 to 1")
_SIZE = (_is_size, "0 or more")

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "COPY_PASTE.NUM_CELLS": (_is_count_range, "[low, high], whole numbers, 0 <= low <= high"),
    "COPY_PASTE.SHIFT": _SHARE,
    "COPY_PASTE.EDGE_SIGMA_PX": _SIZE,
    "COPY_PASTE.MIN_VISIBLE": _SHARE,
    "COPY_PASTE.MIN_AREA_PX": _SIZE,
    "SCALE.RANGE": _FACTORS,
    "ELASTIC.STRENGTH_PX": _SIZES,
    "ELASTIC.SIGMA_PX": (lambda value: _is_size(value) and value > 0, "more than 0"),
    "GAMMA.RANGE": _FACTORS,
    "BRIGHTNESS.RANGE": _FACTORS,
    "CONTRAST.RANGE": _FACTORS,
    "BLUR.SIGMA_PX": (_is_factor_range, "[low, high] with 0 < low <= high"),
    "NOISE.SIGMA": _SIZES,
}


def _find_problems(node: CfgNode) -> Iterator[str]:
    shares = {f"{name}.PROB": _SHARE for name in find_switches(node)}
    wrong = set()
    for key, (accepts, expected) in {**shares, **_CHECKS}.items():
        name, entry = key.split(".")
        if not accepts(node[name][entry]):
            wrong.add(key)
            yield f"{PREFIX}.{key} is {node[name][entry]!r}; expected {expected}"
    if not wrong & {"ELASTIC.STRENGTH_PX", "ELASTIC.SIGMA_PX"}:
        strongest = MAX_STRENGTH_PER_SIGMA * node.ELASTIC.SIGMA_PX
        if node.ELASTIC.STRENGTH_PX[1] > strongest:
            yield (
                f"{PREFIX}.ELASTIC.STRENGTH_PX is {node.ELASTIC.STRENGTH_PX!r}; expected at most "
                f"{strongest:g}, a fifth of SIGMA_PX: stronger shifts fold the image"
            )
    yield from find_unknown_augmentations(node.EXTRA)
