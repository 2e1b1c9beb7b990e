"""Make docs/images/napari_correct.png: Correct at work on images that come with cellseg.

    xvfb-run -s "-screen 0 1600x1200x24" env QT_QPA_PLATFORM=xcb \
        python tests/napari_plugin/make_correct_screenshot.py docs/images/napari_correct.png

Takes what make_screenshot.py takes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("NAPARI_CONFIG", "")  # the window as it is on the first day

import napari
from cellseg.napari.correct import CorrectWidget
from cellseg.napari.open_corrections import corrections
from cellseg.shipped import sample_images
from make_screenshot import WAIT_S, wait

SIZE = 1400, 1100


def main(path: str) -> None:
    """Find cells in two images, accept some of one, reject one, and choose two to be merged."""
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        for image in sample_images():
            if image.stem != "large":
                shutil.copy(image, images)
        viewer = napari.Viewer()
        viewer.window.resize(*SIZE)
        widget = CorrectWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Correct", area="right")
        box = widget.folder_box
        box.images.setText(str(images))
        box.kept_in.setText(str(images.with_name("my corrections")))
        box.author.setText("Ada")
        wait(1)
        box.open_button.click()
        widget.source.all_images.setChecked(True)
        widget.source.find_button.click()
        wait(WAIT_S, widget.source.find_button.isEnabled)
        for name in ("accept", "reject", "accept", "accept"):
            widget.buttons[name].click()
        assert widget.shown is not None
        wait(1)
        widget.shown.layer.opacity = 0.4
        near = widget.shown.ids_in_view()
        widget.shown.correct(lambda one: one.accept(near[::2]))
        widget.shown.choose([near[0], near[1]])
        wait(1)
        viewer.screenshot(path, canvas_only=False, flash=False)
        corrections().close()
        viewer.close()


if __name__ == "__main__":
    main(sys.argv[1])
