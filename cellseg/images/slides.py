"""Slides of Aperio, Hamamatsu, Leica, Philips and Ventana, through the optional tiffslide."""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images.formats import explain_packages
from cellseg.images.stacks import ImageStack, Scene, as_chunk_hw, check_claim, choose_level
from cellseg.images.tiff_checks import check_page
from cellseg.images.units import checked_pixel_size, level_pixel_sizes
from numpy.typing import NDArray

_FLAGS = ("is_svs", "is_ndpi", "is_scn", "is_bif", "is_philips")  # of tifffile's pages

_TILE_SIDES = ("height", "width")

logger = logging.getLogger(__name__)


def is_slide(tiff: tifffile.TiffFile) -> bool:
    """Whether a scanner of slides has written a TIFF file."""
    first = tiff.pages.first
    return any(getattr(first, flag) for flag in _FLAGS)


@contextmanager
def open_slide(path: Path) -> Iterator[Sequence[Scene]]:
    """The baseline image of a slide; its thumbnail, label and macro picture are left out.

    Raises:
        ImageReadError: tiffslide is not installed.
    """
    try:
        tiffslide = importlib.import_module("tiffslide")
    except ImportError as error:
        raise ImageReadError(f"slides need {explain_packages(['tiffslide'])}") from error
    with tiffslide.TiffSlide(path) as slide:
        with warnings.catch_warnings():  # of vendors of which it does not know everything
            warnings.simplefilter("ignore")
            described = dict(slide.properties)
        lock = Lock()
        yield [Scene("", lambda wished_um: _open_stack(path, slide, described, wished_um, lock))]


def _open_stack(
    path: Path, slide: Any, described: dict[str, Any], wished_um: float | None, lock: Lock
) -> ImageStack:
    sizes_hw = [(height, width) for width, height in slide.level_dimensions]
    sides = [described.get(f"tiffslide.mpp-{axis}") for axis in "yx"]
    sizes_um = level_pixel_sizes(checked_pixel_size(*sides), sizes_hw)
    level = choose_level(sizes_um, wished_um)
    check_claim(sizes_hw[level], path.stat().st_size)
    _check_tiles(path, slide, described, level)
    axes = str(described["tiffslide.series-axes"])
    tile = [described.get(f"tiffslide.level[{level}].tile-{side}", 0) for side in _TILE_SIDES]
    chunk_hw = as_chunk_hw(tile, sizes_hw[level]) if all(tile) else None

    def read_window(_: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        size = (columns.stop - columns.start, rows.stop - rows.start)
        factor = slide.level_downsamples[level]
        location = [_level_0_place(at.start, factor) for at in (columns, rows)]
        with lock:
            pixels = slide.read_region(location, level, size, as_array=True, padding=False)
        return pixels[..., 0] if axes == "YX" else pixels

    samples = _count_samples(slide, described, axes)
    return ImageStack(
        axes={"YX": "YX", "YXS": "YXS", "CYX": "YXC"}[axes],
        shape=(*sizes_hw[level], *samples),
        read_block=read_window,
        has_alpha=samples == (4,) and axes == "YXS",
        pixel_size_um=sizes_um[level],
        chunk_hw=chunk_hw,
        level=level,
        downsample=math.sqrt(math.prod(sizes_hw[0]) / math.prod(sizes_hw[level])),
    )


def _level_0_place(at: int, factor: float) -> int:
    """A place at level 0 for which tiffslide, which rounds down, comes to `at`."""
    place = math.ceil(at * factor)
    return place if int(place / factor) == at else place + 1


def _count_samples(slide: Any, described: dict[str, Any], axes: str) -> tuple[int, ...]:
    series = slide.ts_tifffile.series[described["tiffslide.series-index"]]
    sizes = dict(zip(series.axes, series.shape))
    return () if axes == "YX" else (int(sizes[axes.strip("YX")]),)


def _check_tiles(path: Path, slide: Any, described: dict[str, Any], level: int) -> None:
    """Refuse a slide that was cut off; warn of tiles that the scanner left out, which are black."""
    series = slide.ts_tifffile.series[described["tiffslide.series-index"]]
    pages = [page for page in series.levels[level].pages if page is not None]
    missing = sum(check_page(page, may_lack_parts=True) for page in pages)
    if missing:
        total = int(np.sum([math.prod(page.keyframe.chunked) for page in pages]))
        logger.warning("%s: %d of %d tiles are not in the file: black", path, missing, total)
