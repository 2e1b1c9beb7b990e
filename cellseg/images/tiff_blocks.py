"""Pixels of TIFF files, by window; what is damaged, and tells so, is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from threading import RLock
from typing import Any, cast

import numpy as np
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images.stacks import (
    ReadBlock,
    RecentArrays,
    WholeBlocks,
    as_chunk_hw,
    check_claim,
    is_whole,
)
from cellseg.images.tiff_checks import TRUNCATED, check_inflated_sizes, check_page
from cellseg.limits import check_memory
from numpy.typing import NDArray

INSTALL_IMAGECODECS = "pip install imagecodecs"
_JPEG = (6, 7, 34892, 33007)
_KEPT_BYTES = 1 << 28


class TiffAccess:
    """What the series of an open file share: the file's position, and the parts decoded last."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.segments = RecentArrays(_KEPT_BYTES)


def choose_reading(
    path: Path,
    series: tifffile.TiffPageSeries,
    axes: str,
    shape: tuple[int, ...],
    access: TiffAccess,
) -> tuple[int, ReadBlock, tuple[int, int] | None]:
    """How the planes of a series are read.

    Args:
        path: the file.
        series: of which planes are to be read, or a level of it.
        axes: of the series.
        shape: along `axes`.
        access: of the open file, one for all its series.

    Returns:
        How many dimensions are read one by one; the function that reads; and rows and columns of
        what it decodes at once, None for whole planes: three attributes of `ImageStack`.
    """
    has_plane = {"Y", "X"} <= set(axes)
    first_of_plane = min(axes.index("Y"), axes.index("X")) if has_plane else 0
    image_hw = (shape[axes.index("Y")], shape[axes.index("X")]) if has_plane else (0, 0)
    if series.dataoffset is not None:
        block = _RawPlanes(path, series, axes, shape, first_of_plane)
        return first_of_plane, block, (1, image_hw[1])
    page_shape = tuple(map(int, series.keyframe.shape))
    leading = len(shape) - len(page_shape)
    pages_fit = shape[leading:] == page_shape and math.prod(shape[:leading]) == len(series.pages)
    if leading <= first_of_plane and pages_fit:
        pages = _Pages(series, shape[:leading], axes[leading:], access)
        return leading, pages, as_chunk_hw(pages.chunk_hw, image_hw)

    def decode_everything(_: tuple[int, ...]) -> NDArray[Any]:
        check_memory(math.prod(shape) * series.dtype.itemsize, f"an image of shape {list(shape)}")
        with access.lock, _naming_packages(series.keyframe.compression):
            for page in series.pages:
                check_page(_page_in_file(page))
                check_inflated_sizes(page)
            return series.asarray().reshape(shape)

    return 0, WholeBlocks(decode_everything, axes), None


class _RawPlanes:
    """Reads planes that lie in the file one behind the other, uncompressed."""

    def __init__(
        self,
        path: Path,
        series: tifffile.TiffPageSeries,
        axes: str,
        shape: tuple[int, ...],
        leading: int,
    ) -> None:
        self.path, self.axes = path, axes[leading:]
        self.leading, self.plane = shape[:leading], shape[leading:]
        self.offset = cast(int, series.dataoffset)
        self.dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
        self.plane_bytes = math.prod(self.plane) * self.dtype.itemsize
        if self.offset + math.prod(self.leading) * self.plane_bytes > path.stat().st_size:
            raise ImageReadError(TRUNCATED)

    def __call__(self, index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        number = int(np.ravel_multi_index(index, self.leading)) if index else 0
        offset = self.offset + number * self.plane_bytes
        return _read_raw(self.path, offset, self.dtype, self.plane, self.axes, (rows, columns))


def _read_raw(
    path: Path,
    offset: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    axes: str,
    window: tuple[slice, slice],
) -> NDArray[Any]:
    """A window of an array that lies in a file; no more than its rows are touched."""
    y, x = axes.index("Y"), axes.index("X")
    rows, columns = window
    if is_whole(rows, columns, (shape[y], shape[x])) or x != y + 1:
        values = np.fromfile(path, dtype, math.prod(shape), offset=offset)
        if values.size < math.prod(shape):
            raise ImageReadError(TRUNCATED)
        parts = {y: rows, x: columns}
        return values.reshape(shape)[tuple(parts.get(k, slice(None)) for k in range(len(shape)))]
    pixel_bytes = math.prod(shape[x + 1 :]) * dtype.itemsize
    height, width = rows.stop - rows.start, columns.stop - columns.start
    found = np.empty((*shape[:y], height, width, *shape[x + 1 :]), dtype)
    row_values = width * math.prod(shape[x + 1 :])
    by_row = found.reshape(math.prod(shape[:y]), height, row_values).view(np.uint8)
    with path.open("rb") as stream:
        for plane, row in product(range(len(by_row)), range(height)):
            place = ((plane * shape[y] + rows.start + row) * shape[x] + columns.start) * pixel_bytes
            stream.seek(offset + place)
            if stream.readinto(by_row[plane, row]) < by_row.shape[-1]:  # type: ignore[arg-type]
                raise ImageReadError(TRUNCATED)
    return found


class _Pages:
    """Reads page by page, of each the strips or tiles that a window touches.

    Args:
        series: of which pages are to be read.
        leading: the lengths along which there is a page each.
        axes: of a page, as the series calls them: what is a column of the page may be a row of it.
        access: of the open file.
    """

    def __init__(
        self,
        series: tifffile.TiffPageSeries,
        leading: tuple[int, ...],
        axes: str,
        access: TiffAccess,
    ) -> None:
        self.series, self.leading, self.axes = series, leading, axes
        self._lock, self._segments = access.lock, access.segments
        self._checked: set[int] = set()
        frame = series.keyframe
        if frame.compression != 1:
            check_claim((frame.imagelength, frame.imagewidth), frame.parent.filehandle.size)

    @property
    def chunk_hw(self) -> tuple[int, int]:
        """Rows and columns of what is decoded at once."""
        frame, page = self.series.keyframe, self.series.pages[0]
        chunk = _segment_hw(frame)
        if page is not None and _lies_in_one_piece(page):
            chunk = 1, int(frame.imagewidth)
        lengths = dict(zip(self.axes, frame.shape))
        named = dict(zip(self._names_on_page(frame), chunk))
        return named.get("Y", lengths["Y"]), named.get("X", lengths["X"])

    def _names_on_page(self, frame: Any) -> tuple[str, str]:
        """What the series calls the rows and the columns of a page."""
        return self.axes[frame.axes.index("Y")], self.axes[frame.axes.index("X")]

    def __call__(self, index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        number = int(np.ravel_multi_index(index, self.leading)) if index else 0
        page = _page_in_file(self.series.pages[number])
        frame = page.keyframe
        size = (frame.imagelength, frame.imagewidth)
        names, wanted = self._names_on_page(frame), {"Y": rows, "X": columns}
        down, across = (wanted.pop(n, slice(0, length)) for n, length in zip(names, size))
        if is_whole(down, across, size):
            pixels = self._read_page(page, number)
        else:
            pixels = self._read_part(page, number, down, across)
        return pixels[tuple(wanted.get(axis, slice(None)) for axis in self.axes)]

    def _read_page(self, page: Any, number: int) -> NDArray[Any]:
        naming = _naming_packages(page.keyframe.compression)
        with self._lock, _opened_again(page.parent.filehandle), naming:
            self._check_once(page, number)
            check_inflated_sizes(page)
            _check_room(page.keyframe, page.keyframe.shape)
            return page.asarray(lock=self._lock)

    def _check_once(self, page: Any, number: int) -> None:
        if number not in self._checked:
            check_page(page)
            self._checked.add(number)

    def _read_part(self, page: Any, number: int, rows: slice, columns: slice) -> NDArray[Any]:
        frame, file = page.keyframe, page.parent.filehandle
        with self._lock, _opened_again(file):
            self._check_once(page, number)
        if _lies_in_one_piece(page):
            dtype = np.dtype(frame.dtype).newbyteorder(page.parent.byteorder)
            offset, shape = page.dataoffsets[0], tuple(map(int, frame.shape))
            return _read_raw(Path(file.path), offset, dtype, shape, frame.axes, (rows, columns))
        separate, depth, _, _, samples = frame.shaped
        size = (rows.stop - rows.start, columns.stop - columns.start)
        _check_room(frame, (separate, depth, *size, samples))
        found = np.empty((separate, depth, *size, samples), frame.dtype)
        for segment, (s, d, y, x) in _segments_in(frame, rows, columns):
            pixels = self._decode_segment(page, segment)
            height, width = pixels.shape[1:3]
            top, bottom = max(y, rows.start), min(y + height, rows.stop)
            left, right = max(x, columns.start), min(x + width, columns.stop)
            target = found[s, d : d + len(pixels)]
            target[
                :,
                top - rows.start : bottom - rows.start,
                left - columns.start : right - columns.start,
            ] = pixels[: len(target), top - y : bottom - y, left - x : right - x]
        lengths = {"Y": size[0], "X": size[1]}
        return found.reshape([lengths.get(a, n) for a, n in zip(frame.axes, frame.shape)])

    def _decode_segment(self, page: Any, segment: int) -> NDArray[Any]:
        """[depth, rows, columns, samples] of a strip or tile."""
        frame, file = page.keyframe, page.parent.filehandle
        key = (file.path, page.dataoffsets[segment], segment)
        found = self._segments.get(key)
        if found is not None:
            return found
        options = {}
        with self._lock, _opened_again(file):
            frame.init_decode()
            if frame.compression in _JPEG:
                options = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
            check_inflated_sizes(page, [segment])
            file.seek(page.dataoffsets[segment])
            content = file.read(page.databytecounts[segment])
        with _naming_packages(frame.compression):
            pixels = frame.decode(content, segment, **options)[0]
        self._segments.keep(key, pixels)
        return pixels


def _check_room(frame: Any, shape: Sequence[int]) -> None:
    needed = math.prod(shape) * np.dtype(frame.dtype).itemsize
    check_memory(needed, f"pixels of shape {list(shape)}")


def _lies_in_one_piece(page: Any) -> bool:
    """Whether the pixels of a page lie in the file as they are, one behind the other."""
    frame = page.keyframe
    if frame.compression != 1 or not frame.is_memmappable:
        return False
    offsets, counts = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
    return bool((offsets[1:] == offsets[:-1] + counts[:-1]).all())


def _segment_hw(frame: Any) -> tuple[int, int]:
    """Rows and columns of a tile or strip."""
    if frame.is_tiled:
        return int(frame.tilelength), int(frame.tilewidth)
    return int(min(frame.rowsperstrip, frame.imagelength)), int(frame.imagewidth)


def _segments_in(
    frame: Any, rows: slice, columns: slice
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """The tiles or strips that have pixels of a window, in all depths and separate samples.

    Yields:
        The number of each, and its first (separate sample, depth, row, column).
    """
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    separate, depth, height, width, _ = frame.shaped
    tile_height, tile_width = _segment_hw(frame)
    tile_depth = frame.tiledepth if frame.is_tiled else 1
    deep, down = math.ceil(depth / tile_depth), math.ceil(height / tile_height)
    across = math.ceil(width / tile_width)
    for s, d, y, x in product(
        range(separate),
        range(deep),
        range(rows.start // tile_height, (rows.stop - 1) // tile_height + 1),
        range(columns.start // tile_width, (columns.stop - 1) // tile_width + 1),
    ):
        number = ((s * deep + d) * down + y) * across + x
        yield number, (s, d * tile_depth, y * tile_height, x * tile_width)


@contextmanager
def _opened_again(file: Any) -> Iterator[None]:
    """Open again what tifffile has closed: the further files of an OME-TIFF."""
    was_closed = file.closed
    if was_closed:
        file.open()
    try:
        yield
    finally:
        if was_closed:
            file.close()


@contextmanager
def _naming_packages(compression: Any) -> Iterator[None]:
    """Say how to install what decoding pages of a compression needs."""
    try:
        yield
    except ImageReadError:
        raise
    except Exception as error:
        is_missing = "imagecodecs" in str(error) or isinstance(error, ImportError)
        if is_missing:  # of Zstandard tifffile misses a module of Python 3.14 first
            raise ImageReadError(
                f"{compression!r} requires the 'imagecodecs' package: {INSTALL_IMAGECODECS}"
            ) from error
        raise


def _page_in_file(page: Any) -> Any:
    if page is None:
        raise ImageReadError("a page is missing: of an OME-TIFF in several files, one is not there")
    return page
