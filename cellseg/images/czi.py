"""Zeiss CZI files, through the optional pylibCZIrw: any window of a stitched scene."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.formats import explain_packages
from cellseg.images.stacks import ImageStack, Scene, as_chunk_hw, check_claim
from cellseg.images.units import PixelSize, checked_pixel_size
from numpy.typing import NDArray

CZI_MAGIC = b"ZISRAWFILE"

_PACKAGE = "pylibCZIrw"
_CHUNK_HW = (1024, 1024)  # the file's own tiles may lie anywhere
_PLANE_ORDER = "THRIVBCZ"  # the letters of ZEN; those that a file has only once are left out


@contextmanager
def open_czi(path: Path) -> Iterator[Sequence[Scene]]:
    """The scenes of a file, each with axes TCZYX or TCZYXS; tiles of a mosaic are one plane.

    Raises:
        ImageReadError: pylibCZIrw is not installed.
    """
    try:
        czi = importlib.import_module(f"{_PACKAGE}.czi")
    except ImportError as error:
        raise ImageReadError(f"Zeiss CZI needs {explain_packages([_PACKAGE])}") from error
    with czi.open_czi(str(path)) as file:
        described = ElementTree.fromstring(file.raw_metadata)
        rectangles = dict(file.scenes_bounding_rectangle_no_pyramid)
        lock = Lock()

        def make_scene(number: int | None, place: Any) -> Scene:
            name = "" if number is None else _scene_name(described, number)
            return Scene(name, partial(_open_stack, path, file, described, (number, place), lock))

        if rectangles:
            yield [make_scene(number, place) for number, place in sorted(rectangles.items())]
        else:
            yield [make_scene(None, file.total_bounding_rectangle_no_pyramid)]


def _open_stack(
    path: Path,
    file: Any,
    described: ElementTree.Element,
    scene: tuple[int | None, Any],
    lock: Lock,
    _: float | None,
) -> ImageStack:
    number, place = scene
    ranges = file.total_bounding_box_no_pyramid
    lengths = {axis: int(ends[1] - ends[0]) for axis, ends in ranges.items()}
    leading = "".join(a for a in _PLANE_ORDER if a in "TCZ" or lengths.get(a, 1) > 1)
    kinds = {int(channel): str(kind) for channel, kind in file.pixel_types.items()}
    is_colour = all(map(_is_of_camera, kinds.values()))
    image_hw = int(place.h), int(place.w)
    shape = (*(lengths.get(axis, 1) for axis in leading), *image_hw)

    def read_window(index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        kind = kinds.get(index[leading.index("C")], "")
        if _is_of_camera(kind) and not is_colour:
            raise ImageReadError(
                f"a channel of a colour camera ({kind}) beside grey ones ({kinds}): choose a grey "
                "channel, or save the colour picture by itself"
            )
        height, width = rows.stop - rows.start, columns.stop - columns.start
        roi = (place.x + columns.start, place.y + rows.start, width, height)
        with lock:
            pixels = file.read(roi=roi, plane=dict(zip(leading, index)), scene=number)
        # The samples are those of a camera: blue, green, red, perhaps alpha.
        return np.array(pixels[..., 2::-1] if is_colour else pixels[..., 0])

    check_claim(image_hw, path.stat().st_size)
    return ImageStack(
        leading + ("YXS" if is_colour else "YX"),
        (*shape, 3) if is_colour else shape,
        read_window,
        leading=len(leading),
        channel_names=_channel_names(described, lengths.get("C", 1)),
        pixel_size_um=_pixel_size(described),
        chunk_hw=as_chunk_hw(_CHUNK_HW, image_hw),
    )


def _is_of_camera(kind: str) -> bool:
    return kind.startswith("Bgr")


def _scene_name(described: ElementTree.Element, number: int) -> str:
    found = described.find(f".//Dimensions/S/Scenes/Scene[@Index='{number}']")
    return "" if found is None else found.get("Name", "")


def _channel_names(described: ElementTree.Element, count: int) -> tuple[str, ...]:
    channels = described.findall("./Metadata/Information/Image/Dimensions/Channels/Channel")
    names = tuple(channel.get("Name", "") for channel in channels)
    return names if len(names) == count and any(names) else ()


def _pixel_size(described: ElementTree.Element) -> PixelSize | None:
    """CZI keeps metres."""
    sides = []
    for axis in "YX":
        text = described.findtext(f"./Metadata/Scaling/Items/Distance[@Id='{axis}']/Value")
        size = checked_pixel_size(text, 1)
        if size is None:
            return None
        sides.append(size[0] * 1e6)
    return checked_pixel_size(*sides)
