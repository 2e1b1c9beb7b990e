"""Corrects cells through the widget until it is killed; a line is printed behind each correction.

python correcting_child.py IMAGES IMAGE_ID
"""

from __future__ import annotations

import sys

import napari
from cellseg.napari.correct import CorrectWidget
from cellseg.napari.open_corrections import corrections
from vispy.gloo import gl
from vispy.gloo.gl import _pyopengl2

for module in (gl, _pyopengl2):  # as in conftest.py: there is no OpenGL to ask
    module.glGetParameter = lambda name: (
        "GL_ARB_texture_float" if name == gl.GL_EXTENSIONS else 4096
    )
viewer = napari.Viewer(show=False)
widget = CorrectWidget(viewer)
viewer.window.add_dock_widget(widget)
widget.folder_box.images.setText(sys.argv[1])
widget.folder_box.author.setText("Ada")
widget.folder_box.classes.setText("round, long")
widget.folder_box.open_button.click()
assert corrections().folder is not None, widget.folder_box.in_use.text()
widget.open_image(sys.argv[2])
assert widget.shown is not None
print("open", flush=True)
for number in range(10**6):
    widget.shown.choose([3])
    widget.set_class(number % 2)
    widget.buttons["new"].click()
    row = 2 + 5 * (number % 10)
    with widget.shown.layer.block_history():  # as a stroke of the mouse does
        widget.shown.layer.paint((row, 70), widget.shown.layer.selected_label)
    print(len(widget.shown.image.history), *widget.shown.image.ids.tolist(), flush=True)
