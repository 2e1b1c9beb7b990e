"""TIFF files: plain, ImageJ's, OME's, and what else tifffile knows."""

from __future__ import annotations

import lzma
import math
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images.channels import ImageStack
from numpy.typing import NDArray

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
INSTALL_IMAGECODECS = "pip install imagecodecs"

_ASSOCIATED_OR_NOT_ALPHA = (1, 2)  # of TIFF's ExtraSamples
_TRUNCATED = "the file is truncated"
# Inflated in one piece by tifffile, so that what a strip may hold has to be known before.
_HARMLESS_BYTES = 1 << 28
_DECOMPRESSORS: dict[int, tuple[int, Callable[[], Any]]] = {
    8: (1032, zlib.decompressobj),  # compression -> greatest ratio, decompressor
    32946: (1032, zlib.decompressobj),
    34925: (7200, lzma.LZMADecompressor),
}


@contextmanager
def open_tiff(path: Path) -> Iterator[ImageStack]:
    """The one image or stack of a TIFF file; only its headers are read at first.

    Raises:
        ImageReadError: truncated, of several images that are no stack, or of pixels that need a
            package which is not installed.
    """
    _check_directories(path)
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            shapes = [list(series.shape) for series in tiff.series]
            raise ImageReadError(
                f"expected one image or stack; found {len(shapes)} of shapes {shapes}: save the "
                "one of interest by itself"
            )
        series = tiff.series[0]
        axes = series.get_axes(squeeze=True)
        shape = tuple(map(int, series.get_shape(squeeze=True)))
        leading, read_block = _choose_reading(path, series, axes, shape)
        yield ImageStack(
            axes=axes,
            shape=shape,
            read_block=read_block,
            leading=leading,
            channel_names=_channel_names(tiff),
            has_alpha=_has_alpha(series) and axes.count("S") == 1 and "C" not in axes,
        )


def _has_alpha(series: tifffile.TiffPageSeries) -> bool:
    extra = list(getattr(series.keyframe, "extrasamples", ()))
    return len(extra) == 1 and int(extra[0]) in _ASSOCIATED_OR_NOT_ALPHA


def _choose_reading(
    path: Path, series: tifffile.TiffPageSeries, axes: str, shape: tuple[int, ...]
) -> tuple[int, Callable[[tuple[int, ...]], NDArray[Any]]]:
    """How many dimensions can be read one by one, and how."""
    first_of_plane = min(axes.index("Y"), axes.index("X")) if {"Y", "X"} <= set(axes) else 0
    if series.dataoffset is not None:
        block = _RawPlanes(path, series, shape[:first_of_plane], shape[first_of_plane:])
        return first_of_plane, block
    page_shape = tuple(map(int, series.keyframe.shape))
    leading = len(shape) - len(page_shape)
    pages_fit = shape[leading:] == page_shape and math.prod(shape[:leading]) == len(series.pages)
    if leading <= first_of_plane and pages_fit:
        return leading, _Pages(series, shape[:leading])
    return 0, _Whole(series, shape)


class _RawPlanes:
    """Reads planes that lie in the file one behind the other, uncompressed."""

    def __init__(
        self,
        path: Path,
        series: tifffile.TiffPageSeries,
        leading: tuple[int, ...],
        plane: tuple[int, ...],
    ) -> None:
        self.path, self.leading, self.plane = path, leading, plane
        self.offset = cast(int, series.dataoffset)
        self.dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
        nbytes = math.prod((*leading, *plane)) * self.dtype.itemsize
        if self.offset + nbytes > path.stat().st_size:
            raise ImageReadError(_TRUNCATED)

    def __call__(self, index: tuple[int, ...]) -> NDArray[Any]:
        number = int(np.ravel_multi_index(index, self.leading)) if index else 0
        count = math.prod(self.plane)
        offset = self.offset + number * count * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count, offset=offset)
        return values.reshape(self.plane)


class _Pages:
    """Reads page by page."""

    def __init__(self, series: tifffile.TiffPageSeries, leading: tuple[int, ...]) -> None:
        self.series, self.leading = series, leading

    def __call__(self, index: tuple[int, ...]) -> NDArray[Any]:
        number = int(np.ravel_multi_index(index, self.leading)) if index else 0
        page = _page_in_file(self.series.pages[number])
        with _opened_again(page.parent.filehandle):
            _check_page(page)
            return _decode_pixels(page)


class _Whole:
    """Reads everything at once, where pages and dimensions do not go together."""

    def __init__(self, series: tifffile.TiffPageSeries, shape: tuple[int, ...]) -> None:
        self.series, self.shape = series, shape

    def __call__(self, index: tuple[int, ...]) -> NDArray[Any]:
        for page in self.series.pages:
            _check_page(_page_in_file(page))
        return _decode_pixels(self.series).reshape(self.shape)


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


def _decode_pixels(source: tifffile.TiffPageSeries | tifffile.TiffPage) -> NDArray[Any]:
    try:
        return source.asarray()
    except Exception as error:
        if "imagecodecs" in str(error):
            raise ImageReadError(f"{error}: {INSTALL_IMAGECODECS}") from error
        raise


def _page_in_file(page: Any) -> Any:
    if page is None:
        raise ImageReadError("a page is missing: of an OME-TIFF in several files, one is not there")
    return page


def _check_page(page: Any) -> None:
    """Refuse what tifffile would fill up with zeros, or inflate without end."""
    frame = page.keyframe
    if frame.dtype is None:
        raise ImageReadError(f"pixels of {frame.bitspersample} bits are not supported")
    segments = list(zip(page.dataoffsets, page.databytecounts))
    file = page.parent.filehandle
    if any(offset + count > file.size for offset, count in segments):
        raise ImageReadError(_TRUNCATED)
    is_raw = frame.compression == 1
    size_bytes = math.prod(frame.shape) * frame.bitspersample // 8
    stored = sum(count for _, count in segments)
    if not all(offset and count for offset, count in segments) or (is_raw and stored < size_bytes):
        raise ImageReadError("parts of the image are not in the file")
    if not is_raw and len(segments) < math.prod(frame.chunked):
        raise ImageReadError("parts of the image are not in the file")
    if frame.compression in _DECOMPRESSORS:
        chunk_bytes = math.prod(frame.chunks) * frame.dtype.itemsize
        for offset, count in segments:
            _check_inflated_size(file, frame.compression, offset, count, chunk_bytes)


def _check_inflated_size(
    file: Any, compression: int, offset: int, count: int, chunk_bytes: int
) -> None:
    """Inflate piece by piece, keeping nothing, where a segment may hold far more than it should."""
    greatest_ratio, make_decompressor = _DECOMPRESSORS[compression]
    if count * greatest_ratio <= _HARMLESS_BYTES:
        return
    file.seek(offset)
    data, decompressor, size = file.read(count), make_decompressor(), 0
    while not decompressor.eof:
        piece = decompressor.decompress(data, 1 << 20)
        data = getattr(decompressor, "unconsumed_tail", b"")
        size += len(piece)
        if size > 2 * chunk_bytes + _HARMLESS_BYTES // 4:
            raise ImageReadError(f"a part of {chunk_bytes} bytes inflates to more than {size}")
        if not piece and not data:
            raise ImageReadError(_TRUNCATED)


def _channel_names(tiff: tifffile.TiffFile) -> tuple[str, ...]:
    """From OME-XML or ImageJ's labels of slices; none where there are none."""
    if tiff.is_ome and tiff.ome_metadata:
        try:
            image = ElementTree.fromstring(tiff.ome_metadata).find("{*}Image")
        except ElementTree.ParseError:
            return ()
        found = [] if image is None else image.findall("{*}Pixels/{*}Channel")
        names = tuple(channel.get("Name", "") for channel in found)
        return names if any(names) else ()
    described = tiff.imagej_metadata if tiff.is_imagej else None
    count = int((described or {}).get("channels", 1))
    labels = (described or {}).get("Labels", [])
    return tuple(map(str, labels[:count])) if 1 < count <= len(labels) else ()


def _check_directories(path: Path) -> None:
    """Follow the chain of pages: tifffile passes over one that the file does not hold any more."""
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
                raise ImageReadError(_TRUNCATED)
            (offset,) = _read_at(stream, end, order + pointer)


def _read_at(stream: BinaryIO, offset: int, layout: str) -> tuple[int, ...]:
    stream.seek(offset)
    return _unpack_whole(layout, stream.read(struct.calcsize(layout)))


def _unpack_whole(layout: str, content: bytes) -> tuple[int, ...]:
    length = struct.calcsize(layout)
    if len(content) < length:
        raise ImageReadError(_TRUNCATED)
    return struct.unpack(layout, content[:length])
