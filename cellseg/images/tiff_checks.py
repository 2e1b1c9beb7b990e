"""What is damaged in a TIFF file, and tells so before it is decoded."""

from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError

TRUNCATED = "the file is truncated"

# Inflated in one piece by tifffile, so that what a strip may hold has to be known before.
_HARMLESS_BYTES = 1 << 28
_DECOMPRESSORS: dict[int, tuple[int, Callable[[], Any]]] = {
    8: (1032, zlib.decompressobj),  # compression -> greatest ratio, decompressor
    32946: (1032, zlib.decompressobj),
    34925: (7200, lzma.LZMADecompressor),
}


def check_page(page: Any, may_lack_parts: bool = False) -> int:
    """Refuse what tifffile would fill up with zeros.

    Args:
        page: of an open TIFF file.
        may_lack_parts: tiles of which nothing is stored are allowed, as scanners of slides leave
            out what is beside the tissue.

    Returns:
        How many strips or tiles are not stored.
    """
    frame = page.keyframe
    if frame.dtype is None:
        raise ImageReadError(f"pixels of {frame.bitspersample} bits are not supported")
    stored = min(len(page.dataoffsets), len(page.databytecounts))
    offsets = np.asarray(page.dataoffsets[:stored], np.float64)
    counts = np.asarray(page.databytecounts[:stored], np.float64)
    if (offsets + counts > page.parent.filehandle.size).any():
        raise ImageReadError(TRUNCATED)
    missing = int(np.count_nonzero((offsets == 0) | (counts == 0)))
    if frame.compression == 1 and not missing:
        is_short = counts.sum() < math.prod(frame.shape) * frame.bitspersample // 8
    else:
        is_short = stored < math.prod(frame.chunked)
    if is_short or (missing and not may_lack_parts):
        raise ImageReadError("parts of the image are not in the file")
    return missing


def check_inflated_sizes(page: Any, segments: list[int] | None = None) -> None:
    """Refuse what tifffile would inflate without end; by default in any strip or tile of a page."""
    frame = page.keyframe
    if frame.compression not in _DECOMPRESSORS:
        return
    chunk_bytes = math.prod(frame.chunks) * frame.dtype.itemsize
    for segment in range(len(page.databytecounts)) if segments is None else segments:
        offset, count = page.dataoffsets[segment], page.databytecounts[segment]
        _check_inflated_size(page.parent.filehandle, frame.compression, offset, count, chunk_bytes)


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
            raise ImageReadError(TRUNCATED)
