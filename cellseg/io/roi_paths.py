"""The paths of ImageJ's composite ROIs: commands and coordinates in one array of floats.

0 x y moves to a point, 1 x y draws a line, 2 and 3 draw Bezier curves of second and third order
(as java.awt.geom.PathIterator numbers them), 4 closes the ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from cellseg.errors import DatasetError
from numpy.typing import ArrayLike, NDArray

MOVE, LINE, CLOSE = 0, 1, 4
POINTS_OF = {MOVE: 1, LINE: 1, 2: 2, 3: 3, CLOSE: 0}
CURVE_STEPS = 32

Point = tuple[float, float]


def rings_to_path(rings: Sequence[ArrayLike]) -> NDArray[np.float32]:
    """The path of closed rings [K, 2] of (x, y); exact for integers below 2^24."""
    parts: list[Any] = []
    for ring in rings:
        points = np.asarray(ring, np.float32)
        commands = np.full((len(points), 1), LINE, np.float32)
        commands[0] = MOVE
        parts += [np.hstack([commands, points]).ravel(), np.array([CLOSE], np.float32)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def path_to_rings(path: ArrayLike) -> list[NDArray[np.float64]]:
    """Closed rings of a path; curves become short lines.

    Raises:
        DatasetError: an unknown command, or the path ends in the middle of one.
    """
    numbers = np.asarray(path, np.float64).tolist()
    rings: list[list[Point]] = []
    at = 0
    while at < len(numbers):
        command = numbers[at]
        size = 2 * POINTS_OF.get(command, -1)
        if size < 0 or at + 1 + size > len(numbers) or (command != MOVE and not rings):
            raise DatasetError(f"damaged path of a composite at number {at} of {len(numbers)}")
        flat = numbers[at + 1 : at + 1 + size]
        points = list(zip(flat[::2], flat[1::2]))
        if command == MOVE:
            rings.append(points)
        elif command != CLOSE:
            rings[-1] += points if command == LINE else _curve([rings[-1][-1], *points])
        at += 1 + size
    return [np.array(ring, np.float64) for ring in rings]


def _curve(controls: Sequence[Point]) -> list[Point]:
    """Points of a Bezier curve behind its first, by de Casteljau's construction."""
    share = np.linspace(0, 1, CURVE_STEPS + 1)[1:, None]
    levels = [np.broadcast_to(np.array(one), (CURVE_STEPS, 2)) for one in controls]
    while len(levels) > 1:
        levels = [a + (b - a) * share for a, b in pairwise(levels)]
    return [(x, y) for x, y in levels[0].tolist()]
