"""One corrected image in the viewer: a Labels layer that shows what is kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from cellseg.corrections import CorrectedImage
from cellseg.corrections.strokes import find_changed_window, find_crossed_cell
from cellseg.napari.background import errors_told
from cellseg.napari.correction_colours import colour_states
from cellseg.napari.image_layers import ImageLayers
from cellseg.napari.layers import METADATA, cells_to_features, placed_like
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

STATE = "state"
OF_CORRECTIONS = "cellseg corrections"
"""In the metadata of a layer that shows what is kept in a folder of corrections."""
CLICK_PX = 4
"""So far the mouse may move, in pixels of the screen, between press and release of a click."""
SURROUNDING = 4
"""The view is so many times as wide as the cell that is gone to."""
SMALLEST_VIEW_PX = 150
"""And shows at least so many pixels of the image."""

Window = tuple[slice, slice]


def camera_of(viewer: Any) -> Any:
    """The camera, which later versions of napari keep in the scene."""
    return getattr(viewer, "scene", viewer).camera


class CorrectionLayer(QObject):
    """Shows the cells of an image and turns what is done to the layer into corrections.

    The layer is a picture of the image's record: each stroke, fill or click is handed to the
    record, which writes it down, and then what it holds is shown. Open cells have the colour of
    their score, dark blue to yellow, the others that of their class.

    Args:
        viewer: napari's.
        classes: names of the classes.
        read_only: show cells, and change nothing.

    Attributes:
        image: the record that is shown.
        layer: the Labels layer.
        marks: the layer of the frames of chosen cells, and of the line that splits one.
        is_read_only: whether nothing may be changed.
        chosen: ids of the cells that were clicked on, the first one is gone to.
        new_class: class of the cells that are drawn, 0-based.
        changed: emitted after each correction.
        told: emitted with a sentence for the user.
    """

    changed = Signal()
    told = Signal(str)

    image: CorrectedImage

    def __init__(self, viewer: Any, classes: Sequence[str], *, read_only: bool = False) -> None:
        super().__init__()
        self._viewer, self._classes, self.is_read_only = viewer, tuple(classes), read_only
        self._pixels = ImageLayers(viewer)
        self.chosen: list[int] = []
        self.new_class = 0
        self._is_near = False

    def open(self, image: CorrectedImage) -> bool:
        """Show another image.

        Returns:
            Whether the layers are new, as those that a user has removed are.

        Raises:
            CorrectionError, ImageReadError: its file has changed, or cannot be read.
        """
        self._pixels.show(image)
        self.image, self.chosen, self._is_near = image, [], False
        is_new = not self.is_there
        if is_new:
            self._add_layers()
        placed = placed_like(self._pixels.layers[0])
        for layer in (self.layer, self.marks):
            layer.scale, layer.translate = placed["scale"], placed["translate"]
            layer.units = placed["units"]
        self.layer.data, self.layer.name = image.label_image(), f"cells of {image.image_id}"
        self.layer.editable = not self.is_read_only  # new data may be edited
        self.stop_split()
        self.choose([])
        self._show_table()
        return is_new

    @property
    def is_there(self) -> bool:
        """Whether its layers are in the viewer."""
        own = [getattr(self, name, None) for name in ("layer", "marks")]
        return all(one is not None and one in self._viewer.layers for one in own)

    def _add_layers(self) -> None:
        metadata = {METADATA: {"classes": self._classes}, OF_CORRECTIONS: True}
        self.close(with_pixels=False)
        self.layer = self._viewer.add_labels(
            self.image.label_image(), opacity=0.5, metadata=metadata
        )
        self.marks = self._viewer.add_shapes(
            name="chosen cells", ndim=2, face_color="transparent", edge_color="yellow", opacity=1.0
        )
        self.layer.events.paint.connect(self._on_paint)
        self.layer.mouse_drag_callbacks.append(self._on_press)
        self.marks.events.data.connect(self._on_line)
        self.marks.bind_key("Escape", lambda layer: self.stop_split(), overwrite=True)

    def close(self, *, with_pixels: bool = True) -> None:
        """Take the layers out of the viewer."""
        for name in ("marks", "layer"):
            if (layer := getattr(self, name, None)) is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        if with_pixels:
            self._pixels.remove()

    def correct(self, work: Callable[[CorrectedImage], Any]) -> Any:
        """Do a correction, and show what is then held; an error is told.

        Args:
            work: called with the record.

        Returns:
            What it returned; None where it failed.
        """
        self.take_painted()
        return self._correct(work)

    def _correct(self, work: Callable[[CorrectedImage], Any]) -> Any:
        with errors_told():
            result = work(self.image)
            if (changed := self.image.changed_window) is not None:
                self._draw((changed.rows, changed.columns))
            self.show()
            return result
        return None

    def _draw(self, window: Window) -> None:
        self.layer.data[window] = self.image.label_image(window)

    def redraw(self) -> None:
        """Show everything anew, as when the cells have come from elsewhere."""
        self._draw((slice(None), slice(None)))
        self.show()

    def show(self) -> None:
        """Show what the record holds of each cell; their pixels are those in the layer."""
        self._show_table()
        held = set(self.image.ids.tolist())
        self.choose([one for one in self.chosen if one in held])
        self.layer.refresh()
        self.changed.emit()

    def _show_table(self) -> None:
        cells, ids = self.image.cells, self.image.ids
        states = self.image.states
        features = cells_to_features(cells, self._classes, ids=ids)
        features[STATE] = states
        self.layer.features = features
        self.layer.colormap = colour_states(cells, ids, states)

    # Choosing

    def choose(self, ids: Sequence[int]) -> None:
        """Choose cells, which get a frame; the brush then paints the last of them."""
        self.chosen = list(ids)
        frames = [self._frame(one) for one in self.chosen]
        self.marks.data = []
        if frames:
            colours = ["white", *["yellow"] * (len(frames) - 1)]
            width = max(1.0, float(np.ptp(frames[0], axis=0).max()) / 30)
            self.marks.add_rectangles(frames, edge_color=colours, edge_width=width)
            self.layer.selected_label = self.chosen[-1]

    def _frame(self, cell_id: int) -> NDArray[np.float64]:
        """Two corners (row, column) around a cell, two pixels off."""
        k = int(np.flatnonzero(self.image.ids == cell_id)[0])
        x0, y0, x1, y1 = self.image.cells[[k]].boxes_xyxy[0].tolist()
        return np.array([[y0 - 2.5, x0 - 2.5], [y1 + 1.5, x1 + 1.5]])

    def go_to(self, cell_id: int) -> None:
        """Choose a cell and move the camera there; it comes nearer only the first time."""
        self.choose([cell_id])
        camera, frame = camera_of(self._viewer), self._frame(cell_id)
        zoom = camera.zoom
        self._viewer.fit_to_view(margin=0)
        whole_px = float(max(self.layer.data.shape)) * camera.zoom
        cell_px = float(np.ptp(frame, axis=0).max())
        if not self._is_near or cell_px * zoom > whole_px:
            zoom = whole_px / max(cell_px * SURROUNDING, SMALLEST_VIEW_PX)
        self._is_near = True
        camera.center = tuple(self.layer.data_to_world(frame.mean(axis=0)))
        camera.zoom = zoom

    def ids_in_view(self) -> list[int]:
        """Ids of the cells of which a pixel is in the view."""
        return [int(one) for one in np.unique(self.layer.data[self.view()]) if one]

    def view(self) -> Window:
        """(rows, columns) of the image that are seen."""
        corners = np.asarray(self.layer.corner_pixels)[:, -2:]
        lasts = np.asarray(self.layer.data.shape) - 1
        (top, left), (bottom, right) = np.clip(corners, 0, lasts).astype(int).tolist()
        return slice(top, bottom + 1), slice(left, right + 1)

    # What is done to the layer

    def _on_paint(self, event: Any) -> None:
        """A stroke, fill or polygon has ended, or, of a polygon, is painted behind this event."""
        self.take_painted()
        QTimer.singleShot(0, self.take_painted)

    def take_painted(self) -> None:
        """Hand what was painted to the record."""
        window = find_changed_window(self.image.label_image(), self.layer.data)
        if window is None:
            return
        label, painted = self.layer.selected_label, self.layer.data
        result = self._correct(lambda one: one.repaint(painted, self.new_class, window=window))
        self._draw(window)  # also what was refused, or got another number
        self.layer.refresh()
        if result is not None:
            if label in result.new:
                self.choose([result.new[label]])
            if result.in_pieces:
                self.told.emit(
                    f"cell {result.in_pieces[0]} is in several pieces now, and still one cell; S "
                    "splits it"
                )

    def _on_press(self, layer: Any, event: Any) -> Iterator[None]:
        """Tell a click from a drag, which moves the view."""
        if event.button != 1 or layer.mode != "pan_zoom":
            return
        start, far = np.array(event.pos, float), False
        yield
        while event.type == "mouse_move":
            far = far or float(np.linalg.norm(np.array(event.pos, float) - start)) > CLICK_PX
            yield
        if not far:
            self._click(layer.world_to_data(event.position), "Shift" in event.modifiers)

    def _click(self, position_rc: Sequence[float], is_more: bool) -> None:
        row, column = (round(float(one)) for one in position_rc[-2:])
        height, width = self.layer.data.shape
        if not (0 <= row < height and 0 <= column < width):
            return
        cell_id = int(self.layer.data[row, column])
        if cell_id and is_more:
            others = [one for one in self.chosen if one != cell_id]
            self.choose(others if cell_id in self.chosen else [*self.chosen, cell_id])
        elif cell_id:
            self.choose([cell_id])
        elif not self.is_read_only:
            self._take_candidate(row, column)

    def _take_candidate(self, row: int, column: int) -> None:
        new = self.correct(lambda image: image.add_candidate(row, column))
        if new is None:
            self.told.emit("no detection below the threshold is there; D draws a cell")
        else:
            self.choose([new])

    def start_new(self) -> None:
        """Take the brush, with the number of a cell that is not there yet."""
        self.choose([])
        self.layer.selected_label = int(self.image.ids.max(initial=0)) + 1
        self.layer.mode = "paint"

    def start_split(self) -> None:
        """Let a line be drawn; the cell that it crosses is split along it."""
        self._viewer.layers.selection.active = self.marks
        self.marks.mode = "add_path"
        self.told.emit("draw a line through the cell; Escape to leave it")

    def _on_line(self, event: Any) -> None:
        if str(event.action) == "added" and str(self.marks.mode) == "add_path":
            lines = self.marks.data[len(self.chosen) :]
            # napari goes on with the layer behind this event
            QTimer.singleShot(0, partial(self._split_along, [np.asarray(one) for one in lines]))

    def _split_along(self, lines: Sequence[NDArray[np.float64]]) -> None:
        self.stop_split()
        line = lines[-1] if lines else None
        cell_id = None
        if line is not None:
            cell_id = find_crossed_cell(self.layer.data, line, self.chosen)
        if line is None or cell_id is None:
            self.told.emit("the line crosses no cell")
            self.choose(self.chosen)
            return
        parts = self.correct(lambda image: image.split(cell_id, line))
        self.choose(self.chosen if parts is None else list(parts))

    def stop_split(self) -> None:
        """Go back from drawing a line to the cells."""
        self.marks.mode = "pan_zoom"
        self._viewer.layers.selection.active = self.layer
