"""Arrays and files for the tests of image reading."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)
GREY_8 = RNG.integers(0, 256, (7, 11)).astype(np.uint8)
GREY_16 = RNG.integers(0, 65536, (7, 11)).astype(np.uint16)
RGB_8 = RNG.integers(0, 256, (7, 11, 3)).astype(np.uint8)
RGB_16 = RNG.integers(0, 65536, (7, 11, 3)).astype(np.uint16)
FLOAT = RNG.normal(0, 1000, (7, 11)).astype(np.float32)


def with_alpha(image: np.ndarray) -> np.ndarray:
    alpha = np.full((*image.shape[:2], 1), 3, image.dtype)
    return np.concatenate([image.reshape(*image.shape[:2], -1), alpha], axis=-1)


def write_raw_png(path: Path, image: np.ndarray, colour_type: int) -> None:
    """A PNG from its definition, for the kinds that no library here writes."""
    height, width = image.shape[:2]
    depth = 8 * image.itemsize
    rows = image.astype(image.dtype.newbyteorder(">")).reshape(height, -1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
