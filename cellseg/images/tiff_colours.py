"""TIFF's colour models: what is neither grey nor RGB becomes one of them, or is refused by name.

TIFF 6.0 calls the model of a page its photometric interpretation (tag 262). Values that a
microscope's program measured are never changed: for ImageJ, OME and the like a lookup table or an
inverted display says how they are shown, and not what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images.stacks import ReadBlock
from numpy.typing import NDArray
from PIL import Image, ImageCms

Samples = NDArray[Any]

_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _MASK, _SEPARATED, _YCBCR, _CIELAB, _ICCLAB = (
    *(0, 1, 2, 3, 4, 5, 6),
    *(8, 9),
)
_REFUSED = {
    10: "ITU L*a*b*",
    32803: "the mosaic of a colour camera (CFA)",
    32844: "logarithmic luminance (LogL)",
    32845: "logarithmic luminance and colour (LogLuv)",
    34892: "raw values of a camera (LinearRaw)",
    51177: "a map of depths",
    52527: "a semantic mask",
}
# Compressions that keep no YCbCr: what they give back is RGB already.
_PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000, 34926)
_INK_SET, _YCBCR_COEFFICIENTS, _YCBCR_SUBSAMPLING = 332, 529, 530
_REC_601 = (0.299, 0.587, 0.114)
_MEASURED = (
    *("imagej", "ome", "lsm", "stk", "micromanager", "metaseries", "scanimage", "fluoview"),
    *("andor", "sis", "nih", "fei", "sem", "mdgel"),
)


@dataclass(frozen=True)
class Colours:
    """How the samples of a page become grey or RGB.

    Attributes:
        convert: [..., samples], or [...] where a pixel is one number, to what is read.
        samples: how many there are of a pixel; 0 where a pixel is one number.
        becomes: how many there are afterwards, likewise.
    """

    convert: Callable[[Samples], Samples]
    samples: int = 0
    becomes: int = 0

    def apply(
        self, axes: str, shape: tuple[int, ...], read_block: ReadBlock, leading: int
    ) -> tuple[str, tuple[int, ...], ReadBlock, int]:
        """Axes, shape, reading and leading of an `ImageStack` whose pixels are converted.

        Samples come last, whether the file keeps them pixel by pixel or plane by plane.

        Raises:
            ImageReadError: the samples lie otherwise than TIFF has them.
        """
        sizes = [size for axis, size in zip(axes, shape) if axis == "S"]
        if sizes != ([self.samples] if self.samples else []):
            raise ImageReadError(
                f"expected {self.samples or 1} samples per pixel; found axes {axes} of {shape}"
            )
        at = axes.index("S") if self.samples else -1

        def read(index: tuple[int, ...], rows: slice, columns: slice) -> Samples:
            if not 0 <= at < leading:
                block = read_block(index, rows, columns)
                return self.convert(block if at < 0 else np.moveaxis(block, at - leading, -1))
            places = [(*index[:at], sample, *index[at:]) for sample in range(self.samples)]
            planes = [read_block(place, rows, columns) for place in places]
            return self.convert(np.stack(planes, axis=-1))

        rest = [(axis, size) for axis, size in zip(axes, shape) if axis != "S"]
        rest += [("S", self.becomes)] if self.becomes else []
        new_axes, new_shape = "".join(axis for axis, _ in rest), tuple(size for _, size in rest)
        return new_axes, new_shape, read, leading - (0 <= at < leading)


def find_colours(tiff: tifffile.TiffFile, page: Any, is_label: bool) -> Colours | None:
    """What has to be done to the pixels of a page; None where they are read as they are stored.

    Args:
        tiff: the open file.
        page: the first of an image.
        is_label: the pixels are labels, which no display changes.

    Raises:
        ImageReadError: a colour model that is not read; it is named.
    """
    model = int(page.photometric) if 262 in page.tags else _GREY
    if model in (_GREY, _RGB, _MASK):
        return None
    if model in (_WHITE_IS_ZERO, _PALETTE):
        is_measured = any(getattr(tiff, f"is_{program}", False) for program in _MEASURED)
        if is_label or is_measured:
            return None
        return _of_white(page) if model == _WHITE_IS_ZERO else _of_palette(page)
    if model == _SEPARATED:
        return _of_inks(page)
    if model == _YCBCR:
        return _of_ycbcr(page) if int(page.compression) in _PLAIN else None
    if model in (_CIELAB, _ICCLAB):
        return _of_lab(page, model)
    raise _refuse(_REFUSED.get(model, f"photometric interpretation {model}"))


def _refuse(what: str) -> ImageReadError:
    return ImageReadError(
        f"expected grey, RGB, a palette, CMYK, YCbCr or CIELab of 8 bits; found {what}: convert "
        "the file to RGB, for example with ImageJ (Image > Type > RGB Color) or libvips"
    )


def _of_white(page: Any) -> Colours | None:
    """Zero is the brightest: n bits go from 2^n - 1 down."""
    if page.dtype.kind == "b":
        # tifffile says so of all booleans, whatever they mean.
        return None if page.software.startswith("tifffile") else Colours(np.logical_not)
    if page.dtype.kind != "u":  # no bits say where the other end is
        return None
    top = page.dtype.type(2 ** int(page.bitspersample) - 1)
    return Colours(lambda values: top - values)


def _of_palette(page: Any) -> Colours | None:
    """Colours of an indexed picture; the values, where the palette is a lookup table for them.

    A lookup table grows brighter with the value, as grey, green or fire do; the colours of an
    indexed picture come in no such order.
    """
    colours = np.asarray(page.colormap).T
    table = (colours >> 8 if colours.max(initial=0) > 255 else colours).astype(np.uint8)
    brightness = table @ np.array(_REC_601)
    if (np.diff(brightness) >= 0).all():
        return None
    if (table == table[:, :1]).all():
        return Colours(lambda values: table[values, 0])
    return Colours(lambda values: table[values], becomes=3)


def _of_inks(page: Any) -> Colours:
    """Cyan, magenta, yellow and black; other inks have no colour that the file says."""
    inks = page.tags.valueof(_INK_SET, 1)
    samples = int(page.samplesperpixel)
    alphas = sum(int(extra) in (1, 2) for extra in page.extrasamples)
    if inks != 1 or samples - alphas != 4 or page.dtype.kind != "u":
        raise _refuse(f"{samples} inks of a kind of their own (separated, InkSet {inks})")
    return Colours(partial(_inks_to_rgb, top=np.iinfo(page.dtype).max), samples, 3)


def _inks_to_rgb(samples: Samples, top: int) -> Samples:
    """(1 - ink) (1 - black), as Pillow has it; profiles of printers are left out."""
    light = top - samples[..., :4].astype(np.float64)
    return np.rint(light[..., :3] * light[..., 3:] / top).astype(samples.dtype)


def _of_ycbcr(page: Any) -> Colours:
    subsampling = page.tags.valueof(_YCBCR_SUBSAMPLING, (1, 1))
    if page.dtype != np.uint8 or tuple(subsampling) != (1, 1):
        raise _refuse(f"YCbCr of {page.dtype}, subsampled by {subsampling}")
    raw = page.tags.valueof(_YCBCR_COEFFICIENTS, None)
    luma = _REC_601
    if raw is not None and len(raw) == 6 and all(raw[1::2]):
        luma = (raw[0] / raw[1], raw[2] / raw[3], raw[4] / raw[5])
    return Colours(partial(_ycbcr_to_rgb, luma=luma), int(page.samplesperpixel), 3)


def _ycbcr_to_rgb(samples: Samples, luma: tuple[float, float, float]) -> Samples:
    """TIFF 6.0, section 21, for values from 0 to 255 with colour differences around 128."""
    bright, blue, red = np.moveaxis(samples[..., :3].astype(np.float64), -1, 0)
    r = bright + (red - 128) * (2 - 2 * luma[0])
    b = bright + (blue - 128) * (2 - 2 * luma[2])
    g = (bright - luma[0] * r - luma[2] * b) / luma[1]
    return np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, 255)).astype(np.uint8)


def _of_lab(page: Any, model: int) -> Colours:
    if page.dtype != np.uint8:
        raise _refuse(f"L*a*b* of {page.dtype}")
    # In ICC's variant a* and b* are counted from 128, in CIE's they have a sign.
    shift = 128 if model == _ICCLAB else 0
    return Colours(partial(_lab_to_rgb, shift=shift), int(page.samplesperpixel), 3)


def _lab_to_rgb(samples: Samples, shift: int) -> Samples:
    """sRGB of 8-bit L*a*b* with white D50, by Little CMS."""
    lab = samples[..., :3] ^ np.array([0, shift, shift], np.uint8)
    flat = np.ascontiguousarray(lab).reshape(1, -1, 3)
    picture = Image.frombytes("LAB", (flat.shape[1], 1), flat.tobytes())
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
    return np.asarray(converted).reshape(lab.shape)
