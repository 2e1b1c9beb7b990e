"""Make docs/images/napari.png: Find cells at work on an image that comes with cellseg.

    xvfb-run -s "-screen 0 1600x1000x24" env QT_QPA_PLATFORM=xcb \
        python tests/napari_plugin/make_screenshot.py docs/images/napari.png

Takes the Debian packages xvfb, libgl1-mesa-dri and libxcb-cursor0; on a desktop the last line does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("NAPARI_CONFIG", "")  # the window as it is on the first day

import napari
from cellseg.napari.find_cells import FindCells
from cellseg.napari.samples import open_nuclei
from qtpy.QtCore import QPoint
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

SIZE = 1280, 800
WAIT_S = 300


def wait(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let the window do its work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.01)


def main(path: str) -> None:
    """Open an image, find its cells, show them by score, and put the mouse onto one."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    (pixels, about) = next((d, a) for d, a, _ in open_nuclei() if a["name"] == "monolayer")
    viewer.add_image(pixels, **about)
    widget = FindCells(viewer)
    viewer.window.add_dock_widget(widget, name="Find cells", area="right")
    wait(1)
    widget.find_button.click()
    wait(WAIT_S, lambda: widget.sliders.found is not None)
    assert widget.sliders.found is not None, widget.said.text()
    widget.sliders.colour_by.setCurrentIndex(widget.sliders.colour_by.findData("score"))
    widget.sliders.outlines.click()
    viewer.layers[-1].contour = 2
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.8
    wait(1)
    canvas = viewer.window._qt_viewer.canvas.native
    middle = canvas.rect().center()
    for step in range(40):  # until there is a cell under the mouse
        QTest.mouseMove(canvas, middle + QPoint(5 * step, 3 * step))
        wait(0.1)
        if "score" in str(viewer.status):
            break
    wait(1)
    viewer.screenshot(path, canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1])
