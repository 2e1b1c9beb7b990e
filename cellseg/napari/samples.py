"""File > Open Sample > cellseg: the images that come with it."""

from __future__ import annotations

from cellseg.images import read_image
from cellseg.napari.layers import LayerData
from cellseg.shipped import sample_images


def open_nuclei() -> list[LayerData]:
    """The images of real nuclei that come with cellseg, CC0."""
    return [
        (read_image(path), {"name": path.stem, "metadata": {"path": str(path)}}, "image")
        for path in sample_images()
    ]
