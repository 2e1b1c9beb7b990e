"""TIFF files: plain, ImageJ's, OME's, and what else tifffile knows."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import tifffile
from cellseg.errors import ImageReadError
from cellseg.images.slides import is_slide, open_slide
from cellseg.images.stacks import ImageStack, Scene, choose_level
from cellseg.images.tiff_blocks import TiffAccess, choose_reading
from cellseg.images.tiff_checks import TRUNCATED
from cellseg.images.tiff_colours import find_colours
from cellseg.images.tiff_metadata import channel_names, check_claimed_planes, pixel_size_um
from cellseg.images.units import level_pixel_sizes

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_ASSOCIATED_OR_NOT_ALPHA = (1, 2)  # of TIFF's ExtraSamples
# Pictures that come with an image, by the names that they have in OME-TIFF.
_COMPANIONS = tuple(
    f"{name}{end}"
    for name in ("label", "macro", "thumbnail", "overview", "preview")
    for end in ("", " image")
)


@contextmanager
def open_tiff(path: Path, is_label: bool = False) -> Iterator[Sequence[Scene]]:
    """The images of a TIFF file, each with its stack of planes; only headers are read at first.

    Thumbnails and the labels of slides are left out; smaller copies of an image are levels of it.

    Args:
        path: the file.
        is_label: the pixels are labels: see `find_colours`.

    Raises:
        ImageReadError: truncated, or of pixels that need a package which is not installed.
    """
    pages = _check_directories(path)
    with tifffile.TiffFile(path) as tiff:
        check_claimed_planes(tiff, pages)
        if is_slide(tiff):
            with open_slide(path) as scenes:
                yield scenes
            return
        access = TiffAccess()
        yield [
            Scene(
                tiff.series[levels[0]].name,
                partial(_open_stack, path, tiff, levels, access, is_label),
                shape=tuple(tiff.series[levels[0]].shape),
            )
            for levels in _find_images(tiff)
        ]


def _find_images(tiff: tifffile.TiffFile) -> list[list[int]]:
    """Numbers of the series that are one image at several sizes, the largest first."""
    if len(tiff.series) == 1:
        return [[0]]
    named = [s for s in range(len(tiff.series)) if not _is_companion(tiff.series[s])]
    numbers = named or list(range(len(tiff.series)))
    real = [s for s in numbers if not _is_reduced(tiff.series[s])] or numbers
    found = [[s] for s in real]
    if len(real) == 1:
        first = tiff.series[real[0]]
        others = [s for s in numbers if s not in real and _shows_the_same(tiff.series[s], first)]
        found[0] += sorted(others, key=lambda s: -tiff.series[s].size)
    return found


def _is_companion(series: tifffile.TiffPageSeries) -> bool:
    is_mask = bool(getattr(series.keyframe, "is_mask", False))  # which pixels are transparent
    return is_mask or series.name.lower() in _COMPANIONS


def _is_reduced(series: tifffile.TiffPageSeries) -> bool:
    return bool(getattr(series.keyframe, "is_reduced", False))


def _shows_the_same(smaller: tifffile.TiffPageSeries, larger: tifffile.TiffPageSeries) -> bool:
    """Whether one is the other at a smaller size, by shape and type; a thumbnail in RGB is not."""
    if smaller.axes != larger.axes or smaller.dtype != larger.dtype:
        return False
    sides = dict(zip(smaller.axes, zip(smaller.shape, larger.shape)))
    ratios = [sides[axis][1] / sides[axis][0] for axis in "YX" if axis in sides]
    others_equal = all(a == b for axis, (a, b) in sides.items() if axis not in "YX")
    return others_equal and min(ratios) > 1 and max(ratios) / min(ratios) < 1.02


def _open_stack(
    path: Path,
    tiff: tifffile.TiffFile,
    numbers: Sequence[int],
    access: TiffAccess,
    is_label: bool,
    wished_um: float | None,
) -> ImageStack:
    first = tiff.series[numbers[0]]
    levels = [*first.levels, *(tiff.series[number] for number in numbers[1:])]
    axes = first.get_axes(squeeze=True)
    shapes = [tuple(map(int, level.get_shape(squeeze=True))) for level in levels]
    if not {"Y", "X"} <= set(axes):
        raise ImageReadError(f"expected an image; found shape {list(shapes[0])}, axes {axes}")
    sizes_hw = [(shape[axes.index("Y")], shape[axes.index("X")]) for shape in shapes]
    sizes_um = level_pixel_sizes(pixel_size_um(tiff, numbers[0]), sizes_hw)
    level = choose_level(sizes_um, wished_um)
    leading, read_block, chunk_hw = choose_reading(path, levels[level], axes, shapes[level], access)
    has_alpha = _has_alpha(first) and axes.count("S") == 1 and "C" not in axes
    shape, colours = shapes[level], find_colours(tiff, first.keyframe, is_label)
    if colours is not None:
        axes, shape, read_block, leading = colours.apply(axes, shape, read_block, leading)
        has_alpha = has_alpha and not colours.samples
    return ImageStack(
        axes=axes,
        shape=shape,
        read_block=read_block,
        leading=leading,
        channel_names=channel_names(tiff, numbers[0]),
        has_alpha=has_alpha,
        pixel_size_um=sizes_um[level],
        chunk_hw=chunk_hw,
        level=level,
        downsample=math.sqrt(math.prod(sizes_hw[0]) / math.prod(sizes_hw[level])),
    )


def _has_alpha(series: tifffile.TiffPageSeries) -> bool:
    extra = list(getattr(series.keyframe, "extrasamples", ()))
    return len(extra) == 1 and int(extra[0]) in _ASSOCIATED_OR_NOT_ALPHA


def _check_directories(path: Path) -> int:
    """How many pages there are. tifffile passes over one that the file does not hold any more."""
    with path.open("rb") as stream:
        header = stream.read(16)
        order = "<" if header[:2] == b"II" else ">"
        is_big = header[2:4] in (b"+\0", b"\0+")
        pointer, count, entry_bytes = ("Q", "Q", 20) if is_big else ("I", "H", 12)
        size_bytes = path.stat().st_size
        (offset,) = _unpack_whole(order + pointer, header[8 if is_big else 4 :])
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise ImageReadError("the pages form a loop: the file is damaged")
            seen.add(offset)
            (entries,) = _read_at(stream, offset, order + count)
            end = offset + struct.calcsize(order + count) + entries * entry_bytes
            if end > size_bytes:
                raise ImageReadError(TRUNCATED)
            (offset,) = _read_at(stream, end, order + pointer)
        return len(seen)


def _read_at(stream: BinaryIO, offset: int, layout: str) -> tuple[int, ...]:
    stream.seek(offset)
    return _unpack_whole(layout, stream.read(struct.calcsize(layout)))


def _unpack_whole(layout: str, content: bytes) -> tuple[int, ...]:
    length = struct.calcsize(layout)
    if len(content) < length:
        raise ImageReadError(TRUNCATED)
    return struct.unpack(layout, content[:length])
