"""Image layers as what a model looks at: a plane of them, and which part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cellseg.cells.windows import Window
from cellseg.errors import LabelError
from cellseg.images import PlaneImage
from cellseg.napari.layers import lazy_plane, pixel_size_um
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Image, Shapes


def layers_to_plane(layers: Sequence[Image], plane: tuple[int, ...] = ()) -> PlaneImage:
    """One plane of image layers, for a model: its windows are read as they are needed.

    Args:
        layers: one, grey or RGB, or the channels in their order, all of one size.
        plane: index along the axes before rows and columns.

    Raises:
        LabelError: an index of no plane, or layers of several sizes.
    """
    arrays = [lazy_plane(layer, plane) for layer in layers]
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) > 1:
        named = ", ".join(f"{one.name} {list(a.shape[:2])}" for one, a in zip(layers, arrays))
        raise LabelError(f"channels of several sizes: {named}; expected layers of one image")

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        read = [np.asarray(array[rows, columns]) for array in arrays]
        return read[0][..., :3] if len(read) == 1 and read[0].ndim == 3 else _stacked(read)

    def read_channels(rows: slice, columns: slice) -> NDArray[Any]:
        pixels = read(rows, columns)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    path = layers[0].source.path or layers[0].name
    hw = (int(arrays[0].shape[0]), int(arrays[0].shape[1]))
    return PlaneImage(Path(path), hw, read, read_channels, pixel_size_um=pixel_size_um(layers[0]))


def _stacked(planes: list[NDArray[Any]]) -> NDArray[Any]:
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)


def window_in_view(layer: Image) -> Window:
    """The part of an image that can be seen; all of it where it is not in view at all."""
    corners = np.asarray(layer.corner_pixels, float)[:, -2:]
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors[layer.data_level])[-2:]
    return _window_of(corners + np.array([[0, 0], [1, 1]]), _hw(layer))


def window_of_shape(shape: NDArray[Any], shapes: Shapes, layer: Image) -> Window:
    """The part of an image that a drawn shape covers, with straight sides.

    Args:
        shape: vertices in the shapes layer's own coordinates, [K, D].
        shapes: the layer that it was drawn in.
        layer: the image.

    Raises:
        LabelError: it lies outside the image.
    """
    world = np.array([shapes.data_to_world(vertex) for vertex in shape])
    points = world[:, -2:] / layer.scale[-2:] - layer.translate[-2:] / layer.scale[-2:]
    corners = np.stack([points.min(axis=0), points.max(axis=0)]) + 0.5  # pixel centres are whole
    height, width = _hw(layer)
    if (corners[1] <= 0).any() or (corners[0] >= (height, width)).any():
        raise LabelError(f"the rectangle lies outside the image {layer.name!r}; draw it on it")
    return _window_of(corners, (height, width))


def _hw(layer: Image) -> tuple[int, int]:
    """(height, width) of the finest level, pixels."""
    shape = layer.level_shapes[0] if layer.multiscale else layer.data.shape
    height, width = shape[layer.ndim - 2 : layer.ndim]
    return int(height), int(width)


def _window_of(corners: NDArray[Any], image_hw: tuple[int, int]) -> Window:
    """Of the pixels whose centres lie between the corners; all, where that is nearly none."""
    top, left = corners[0].round().clip(0).astype(int).tolist()
    bottom, right = np.minimum(corners[1].round(), image_hw).astype(int).tolist()
    whole = bottom - top < 2 or right - left < 2
    return Window(0, 0, *image_hw) if whole else Window(top, left, bottom, right)
