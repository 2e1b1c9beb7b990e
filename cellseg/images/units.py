"""Sizes of pixels in micrometres."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

PixelSize = tuple[float, float]

# Symbols of OME-XML (the second half of its UnitsLength), words of OME-Zarr and of ImageJ.
_UM_PER_UNIT = {
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("Å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre"), 1e-3),
    **dict.fromkeys(("µm", "um", "micron", "microns", "micrometer", "micrometers"), 1.0),
    **dict.fromkeys(("micrometre",), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch"), 25400.0),
}


def um_per_unit(unit: str | None) -> float | None:
    r"""How many micrometres a unit of length has; None where it is none.

    Example:
        >>> [um_per_unit(unit) for unit in ("nm", "micron", r"\u00B5m", "μm", "pixel")]
        [0.001, 1.0, 1.0, 1.0, None]
    """
    text = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda code: chr(int(code[1], 16)), unit or "").strip()
    text = text.replace("\u03bc", "\u00b5")  # the Greek letter and the sign look the same
    return _UM_PER_UNIT.get(text, _UM_PER_UNIT.get(text.lower()))


def checked_pixel_size(height_um: object, width_um: object) -> PixelSize | None:
    """Both sides of a pixel as floats; None where one is missing, zero, negative or no number."""
    try:
        size = float(height_um), float(width_um)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return size if all(math.isfinite(side) and side > 0 for side in size) else None


def level_pixel_sizes(
    size_um: PixelSize | None, sizes_hw: Sequence[tuple[int, int]]
) -> list[PixelSize | None]:
    """Of each level of a pyramid, whose finest level comes first and has pixels of `size_um`."""
    return [scaled_pixel_size(size_um, sizes_hw[0], image_hw) for image_hw in sizes_hw]


def scaled_pixel_size(
    size_um: PixelSize | None, image_hw: tuple[int, int], level_hw: tuple[int, int]
) -> PixelSize | None:
    """The pixels of a pyramid's level, which shows what the whole image shows in fewer pixels."""
    if size_um is None:
        return None
    return size_um[0] * (image_hw[0] / level_hw[0]), size_um[1] * (image_hw[1] / level_hw[1])
