"""Planes of stacks: which a file has, and each as a file of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.cells.records import PlaceInFile
from cellseg.images import open_planes, place_of


def find_planes(path: Path) -> list[tuple[str, PlaceInFile]]:
    """End of the id and place of each plane of a file, from its header; one without an end for one.

    Raises:
        ImageReadError: the file cannot be read.
    """
    with open_planes(path) as planes:
        if len(planes) == 1:
            return [("", PlaceInFile())]
        return [
            (plane.suffix, replace(place_of(plane), page=page)) for page, plane in enumerate(planes)
        ]


def write_plane(path: Path, page: int, target: Path) -> None:
    """Write one plane of a stack, all its channels with their own values, as OME-TIFF.

    Args:
        path: the stack.
        page: number of the plane, from 0.
        target: a TIFF; its folder is there.

    Raises:
        ImageReadError: the stack cannot be read.
    """
    with open_planes(path) as planes:
        plane = planes[page]
        pixels = plane.read_channels(slice(None), slice(None))
    metadata: dict[str, Any] = {"axes": "CYX" if len(pixels) > 1 else "YX"}
    if plane.pixel_size_um is not None:
        height, width = plane.pixel_size_um
        metadata |= {"PhysicalSizeY": height, "PhysicalSizeX": width}
    if len(plane.channel_names) == len(pixels) > 1:
        metadata["Channel"] = {"Name": list(plane.channel_names)}
    image = pixels if len(pixels) > 1 else pixels[0]
    tifffile.imwrite(
        target, np.ascontiguousarray(image), ome=True, photometric="minisblack", metadata=metadata
    )
