"""What a TIFF file says of its channels and of the size of its pixels."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import tifffile
from cellseg.errors import ImageReadError
from cellseg.images.units import PixelSize, checked_pixel_size, um_per_unit
from cellseg.limits import check_planes

_PLANES_PER_PAGE = 1000  # a page may hold channels as samples, and a broken-off file lacks pages
# ImageJ's unit where nobody has calibrated anything: the resolution is that of printing.
_UNITS_OF_PRINT = ("inch", "in", "cm")


def channel_names(tiff: tifffile.TiffFile, series_number: int = 0) -> tuple[str, ...]:
    """From OME-XML or ImageJ's labels of slices; none where there are none.

    Args:
        tiff: the open file.
        series_number: which of the file's series, from 0.
    """
    image = _ome_image(tiff, series_number)
    if image is not None:
        found = image.findall("{*}Pixels/{*}Channel")
        names = tuple(channel.get("Name", "") for channel in found)
        return names if any(names) else ()
    described = tiff.imagej_metadata if tiff.is_imagej else None
    count = int((described or {}).get("channels", 1))
    labels = (described or {}).get("Labels", [])
    return tuple(map(str, labels[:count])) if 1 < count <= len(labels) else ()


def pixel_size_um(tiff: tifffile.TiffFile, series_number: int = 0) -> PixelSize | None:
    """From OME-XML, ImageJ's, Zeiss LSM's or MetaMorph's metadata; None where they do not say.

    The resolution of a plain TIFF file is not asked: it is that of a printer or a screen.
    """
    if tiff.is_ome:
        return _ome_pixel_size(tiff, series_number)
    if tiff.is_lsm and tiff.lsm_metadata:
        sides = [tiff.lsm_metadata.get(f"VoxelSize{axis}", 0) for axis in "YX"]  # metres
        return checked_pixel_size(*(side * 1e6 for side in sides))
    if tiff.is_stk and tiff.stk_metadata:
        return _metamorph_pixel_size(tiff.stk_metadata)
    if tiff.is_imagej:
        return _imagej_pixel_size(tiff)
    return None


def check_claimed_planes(tiff: tifffile.TiffFile, pages: int) -> None:
    """Refuse OME-XML that claims planes without end, of which tifffile would make a list.

    Args:
        tiff: the open file, of which no series has been asked for.
        pages: how many pages the file has.

    Raises:
        ImageReadError: there are far more planes than pages, and no other files to hold them.
        LimitError: more planes than any file has.
    """
    if not (tiff.is_ome and tiff.ome_metadata):
        return
    try:
        described = ElementTree.fromstring(tiff.ome_metadata)
    except (LookupError, ValueError, ElementTree.ParseError):
        return
    claimed = sum(map(_count_planes, described.iter()))
    check_planes(claimed)
    files = {uuid.get("FileName") for uuid in described.iter("{*}UUID")}
    if len(files) <= 1 and claimed > _PLANES_PER_PAGE * pages:
        raise ImageReadError(
            f"implausible: the OME-XML claims {claimed} planes, and the file has {pages} pages"
        )


def _count_planes(element: ElementTree.Element) -> int:
    """Planes that OME's element Pixels claims; 0 for others, and for what is no number."""
    if not element.tag.endswith("Pixels"):
        return 0
    sizes = [element.get(f"Size{axis}", "1") for axis in "ZCT"]
    return math.prod(int(size) if size.isdecimal() else 0 for size in sizes)


def _ome_image(tiff: tifffile.TiffFile, series_number: int) -> ElementTree.Element | None:
    if not (tiff.is_ome and tiff.ome_metadata):
        return None
    try:
        images = ElementTree.fromstring(tiff.ome_metadata).findall("{*}Image")
    except (LookupError, ValueError, ElementTree.ParseError):
        return None
    if len(images) < len(tiff.series):  # the file has others, which the XML does not describe
        return images[0] if images and series_number == 0 else None
    return images[series_number]


def _ome_pixel_size(tiff: tifffile.TiffFile, series_number: int) -> PixelSize | None:
    image = _ome_image(tiff, series_number)
    pixels = None if image is None else image.find("{*}Pixels")
    if pixels is None:
        return None
    sides = []
    for axis in "YX":
        factor = um_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = checked_pixel_size(pixels.get(f"PhysicalSize{axis}"), 1)
        if factor is None or size is None:
            return None
        sides.append(size[0] * factor)
    return checked_pixel_size(*sides)


def _imagej_pixel_size(tiff: tifffile.TiffFile) -> PixelSize | None:
    unit = str((tiff.imagej_metadata or {}).get("unit", ""))
    factor = None if unit in _UNITS_OF_PRINT else um_per_unit(unit)
    per_pixel = [_resolution(tiff, f"{axis}Resolution") for axis in "YX"]
    if factor is None or not all(per_pixel):
        return None
    return checked_pixel_size(*(factor / value for value in per_pixel))


def _resolution(tiff: tifffile.TiffFile, name: str) -> float:
    """Pixels per unit; 0 where the tag is missing or damaged."""
    tag = tiff.pages.first.tags.get(name)
    value: Sequence[int] | Any = 0 if tag is None else tag.value
    if not isinstance(value, tuple) or len(value) != 2 or not value[1]:
        return 0.0
    return value[0] / value[1]


def _metamorph_pixel_size(described: dict[str, Any]) -> PixelSize | None:
    factor = um_per_unit(str(described.get("CalibrationUnits", "")))
    if factor is None or not described.get("SpatialCalibration"):
        return None
    sides = [described.get(f"{axis}Calibration", 0) for axis in "YX"]
    return checked_pixel_size(*(side * factor for side in sides))
