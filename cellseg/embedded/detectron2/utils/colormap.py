"""Colours that can be told apart."""

from __future__ import annotations

import colorsys
import random

import numpy as np

__all__ = ["colormap", "random_color", "random_colors"]

_COUNT = 72
_GOLDEN_RATIO = 0.618033988749895


def _palette() -> np.ndarray:
    """Hues a golden section apart, so that neighbours in the list differ most, at six shades."""
    shades = [(s, v) for v in (1.0, 0.75, 0.9) for s in (0.85, 0.55)]
    colors = [
        colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1.0, *shades[index % len(shades)])
        for index in range(_COUNT)
    ]
    return np.array(colors, dtype=np.float32)


_COLORS = _palette()


def colormap(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """All colours.

    Args:
        rgb: red first; otherwise blue first, as OpenCV has it.
        maximum: 255 or 1.

    Returns:
        float32 (K, 3) with values in 0 to `maximum`.

    Raises:
        ValueError: another maximum.
    """
    if maximum not in (255, 1):
        raise ValueError(f"maximum must be 255 or 1, got {maximum}")
    return (_COLORS if rgb else _COLORS[:, ::-1]) * maximum


def random_color(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """One colour by chance; arguments as in `colormap`."""
    return colormap(rgb, maximum)[np.random.randint(_COUNT)]  # noqa: NPY002  # seed_all_rng


def random_colors(N: int, rgb: bool = False, maximum: int = 255) -> list[np.ndarray]:
    """`N` different colours by chance; the other arguments as in `colormap`.

    Raises:
        ValueError: there are not so many.
    """
    return list(colormap(rgb, maximum)[random.sample(range(_COUNT), N)])
