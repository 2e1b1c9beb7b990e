"""The pixels of one image after the other in the same layers, so that what was set there stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.corrections import CorrectedImage
from cellseg.napari.layers import scale_arguments
from napari.layers import Image
from numpy.typing import NDArray


class ImageLayers:
    """Image layers of which the image is exchanged.

    Taking layers out of napari and adding others takes a second or so; and whoever has set a
    contrast or a colour wants it for the next image too.

    Args:
        viewer: napari's.

    Attributes:
        layers: one, grey or RGB, or one for each channel.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.layers: list[Image] = []

    def show(self, image: CorrectedImage) -> None:
        """Show an image in place of the one before.

        Raises:
            CorrectionError, ImageReadError: its file has changed, or cannot be read.
        """
        with image.open_plane() as plane:
            pixels, size = plane.read_whole(), plane.pixel_size_um
        is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
        channels = [pixels] if pixels.ndim == 2 or is_rgb else list(np.moveaxis(pixels, 2, 0))
        names = [image.image_id, *(f"{image.image_id} {k}" for k in range(1, len(channels)))]
        if not self._fit(len(channels), is_rgb):
            self.remove()
            self._add(channels, is_rgb)
        placed: dict[str, Any] = {"scale": (1.0, 1.0), "units": ("pixel",) * 2}
        placed |= scale_arguments(size)
        for layer, channel, name in zip(self.layers, channels, names):
            layer.data, layer.name = channel, name
            layer.scale, layer.units = placed["scale"], placed["units"]
            layer.metadata["path"] = str(plane.path)
            if not is_rgb:
                layer.reset_contrast_limits()

    def _fit(self, count: int, is_rgb: bool) -> bool:
        there = [layer for layer in self.layers if layer in self._viewer.layers]
        return len(there) == count == len(self.layers) and there[0].rgb == is_rgb

    def _add(self, channels: list[NDArray[Any]], is_rgb: bool) -> None:
        colours = ["gray"] if len(channels) == 1 else ["green", "magenta", "cyan", "yellow"]
        for k, channel in enumerate(channels):
            more = {} if is_rgb else {"colormap": colours[k % len(colours)], "blending": "additive"}
            self.layers.append(self._viewer.add_image(channel, rgb=is_rgb, **more))

    def remove(self) -> None:
        """Take the layers out of the viewer."""
        for layer in self.layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self.layers = []
