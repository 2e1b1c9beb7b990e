"""What a person does to napari: keys, clicks and strokes, as its canvas hands them on."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from qtpy.QtCore import Qt

ZOOM = 10
"""Pixels of the screen per pixel of the image."""


def press(qtbot: Any, viewer: Any, key: str) -> None:
    """Press a key on the canvas, such as "A" or "Ctrl+Shift+Z"."""
    *held, name = key.split("+")
    modifier = Qt.KeyboardModifier.NoModifier
    for one in held:
        modifier |= {
            "Ctrl": Qt.KeyboardModifier.ControlModifier,
            "Shift": Qt.KeyboardModifier.ShiftModifier,
        }[one]
    code = getattr(Qt.Key, f"Key_{name}")
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, code, modifier)


def drag(layer: Any, points_rc: Sequence[tuple[float, float]], *, held: Sequence[str] = ()) -> None:
    """Press the mouse at the first point (row, column), move over the others, and let go."""
    kinds = ["mouse_press", *["mouse_move"] * (len(points_rc) - 1), "mouse_release"]
    for kind, point in zip(kinds, [*points_rc, points_rc[-1]]):
        event = ReadOnlyWrapper(
            SimpleNamespace(
                type=kind,
                handled=False,
                is_dragging=kind == "mouse_move",
                button=1,
                modifiers=list(held),
                position=point,
                pos=np.array(point) * ZOOM,
                view_direction=None,
                dims_displayed=[0, 1],
            ),
            exceptions=("handled",),
        )
        hand_on = {
            "mouse_press": mouse_press_callbacks,
            "mouse_move": mouse_move_callbacks,
            "mouse_release": mouse_release_callbacks,
        }[kind]
        hand_on(layer, event)


def click(layer: Any, row: float, column: float, *, held: Sequence[str] = ()) -> None:
    """Click at a pixel."""
    drag(layer, [(row, column)], held=held)
