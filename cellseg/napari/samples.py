"""File > Open Sample > cellseg: the images that come with it."""

from __future__ import annotations

from cellseg.images import read_image
from cellseg.napari.layers import LayerData
from cellseg.shipped import sample_images


def open_nuclei() -> list[LayerData]:
    """The images of real nuclei that come with cellseg, CC0."""
    layers: list[LayerData] = []
    for path in sample_images():
        pixels = read_image(path)
        about = {"name": path.stem, "contrast_limits": (int(pixels.min()), int(pixels.max()))}
        layers.append((pixels, about, "image"))
    return layers
