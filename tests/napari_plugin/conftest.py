"""Tests of the plug-in for napari: without a display, and seen to be skipped without napari.

QT_QPA_PLATFORM=xcb (or cocoa, windows) runs them on a display, with all that is drawn.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # before anything loads Qt
os.environ.setdefault("NAPARI_CONFIG", "")  # settings of the tests are not kept


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End what hangs within Qt, where the signal of a time limit is not looked at."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(method="thread"))


@pytest.fixture(autouse=True)
def _an_answer_from_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a display there is no OpenGL to ask what it can; nothing is drawn with it either."""
    if os.environ["QT_QPA_PLATFORM"] != "offscreen":
        return
    gl = pytest.importorskip("vispy.gloo.gl")

    def get_parameter(name: Any) -> str | int:
        return "GL_ARB_texture_float" if name == gl.GL_EXTENSIONS else 4096

    monkeypatch.setattr(gl, "glGetParameter", get_parameter)


@pytest.fixture(autouse=True)
def _garbage_stays_in_this_thread() -> Iterator[None]:
    """As GarbageCollection says; napari and others have threads too that could collect it."""
    was_enabled = gc.isenabled()
    gc.disable()
    yield
    gc.collect()
    if was_enabled:
        gc.enable()
