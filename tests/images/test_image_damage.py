"""Damaged, dishonest and unreadable files end in one error that names them, and soon."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import builders
import cv2
import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import read_image, read_image_hw, tiff_checks
from image_files import RNG
from PIL import Image

BIG = RNG.integers(0, 256, (90, 100)).astype(np.uint8)
DEEP = BIG.astype(np.uint16) * 251
STACK = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
RGB = np.dstack([BIG, BIG[::-1], BIG[:, ::-1]])


def write_tiff(path: Path, kind: str) -> dict[str, Any]:
    """Write one kind of TIFF; what `read_image` needs to know to read its last page."""
    if kind == "imagej":
        tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"})
        return {"page": 2}
    if kind == "ome":
        tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "CYX"}, compression="zlib")
        return {"channels": [0, 1, 2]}
    if kind == "pages":
        with tifffile.TiffWriter(path) as writer:
            for plane in STACK:
                writer.write(plane, contiguous=False, metadata=None)
        return {"projection": "max"}
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "big": {"bigtiff": True, "byteorder": ">"},
        "zlib": {"compression": "zlib", "rowsperstrip": 7},
        "lzma": {"compression": "lzma"},
        "tiled": {"tile": (32, 32), "compression": "zlib"},
        "raw_tiles": {"tile": (32, 32)},
    }
    if kind == "packbits":
        Image.fromarray(BIG // 50).save(path, compression="packbits")
    else:
        tifffile.imwrite(path, DEEP, **options[kind])
    return {}


TIFFS = ["plain", "big", "zlib", "lzma", "packbits", "tiled", "raw_tiles", "imagej", "ome", "pages"]
PICTURES = ["a.png", "deep.png", "deep_rgb.png", "p.png", "a.jpg", "a.bmp", "a.gif", "a.webp"]


def write_picture(path: Path) -> None:
    if path.stem == "deep":
        builders.write_png(path, DEEP)
    elif path.stem == "deep_rgb":
        builders.write_png(path, RGB.astype(np.uint16) * 257)
    elif path.stem == "p":
        Image.fromarray(RGB).quantize(50).save(path)
    else:
        Image.fromarray(RGB).save(path)


def outcome(path: Path, read: Any, **options: Any) -> Any:
    """What is read, or None for the one error that there may be."""
    try:
        return read(path, **options)
    except ImageReadError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    return None


@pytest.mark.parametrize("name", [*TIFFS, *PICTURES])
def test_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / (name if "." in name else f"{name}.tif")
    options = {}
    if "." in name:
        write_picture(path)
    else:
        options = write_tiff(path, name)
    whole, content = read_image(path, **options), path.read_bytes()
    refused = 0
    shares = [*np.linspace(0, 0.99, 34), *(1 - 1 / len(content) * np.array([40, 9, 2, 1]))]
    for share in shares:
        path.write_bytes(content[: int(share * len(content))])
        found = outcome(path, read_image, **options)
        refused += found is None
        # Read all the same where only what comes after the pixels is missing.
        assert found is None or np.array_equal(found, whole)
        assert outcome(path, read_image_hw) in (None, BIG.shape)
    assert refused >= len(shares) - 6


@pytest.mark.parametrize("name", [*TIFFS, *PICTURES])
def test_bytes_that_flipped(tmp_path: Path, name: str) -> None:
    """Whatever the damage, it is an ImageReadError or an image."""
    path = tmp_path / (name if "." in name else f"{name}.tif")
    options = {}
    if "." in name:
        write_picture(path)
    else:
        options = write_tiff(path, name)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for number in range(40):
        damaged = bytearray(content)
        span = 300 if number % 2 else len(damaged)  # the header more often
        for at in rng.integers(4, min(span, len(damaged)), 4):
            damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        outcome(path, read_image, **options)
        outcome(path, read_image_hw)


def raw_tiff(path: Path, hw: tuple[int, int], data: bytes, compression: int = 8) -> None:
    """One strip of 8-bit pixels behind a header that claims `hw`."""
    values = {
        256: hw[1],
        257: hw[0],
        258: 8,
        259: compression,
        262: 1,
        273: 8 + 2 + 9 * 12 + 4,
        277: 1,
        278: hw[0],
        279: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    directory = struct.pack("<H", len(values)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + data)


def png_header(hw: tuple[int, int]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", hw[1], hw[0], 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [read_image, read_image_hw])
def test_headers_that_claim_too_much(tmp_path: Path, read: Any) -> None:
    (tmp_path / "a.png").write_bytes(png_header((100_000, 100_000)))
    raw_tiff(tmp_path / "a.tif", (100_000, 100_000), zlib.compress(bytes(10**6)))
    Image.fromarray(BIG).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[18:26] = struct.pack("<ii", 100_000, 100_000)
    (tmp_path / "a.bmp").write_bytes(content)
    Image.fromarray(BIG).save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "a.jpg").write_bytes(content)
    for name in ("a.png", "a.tif", "a.bmp", "a.jpg"):
        with pytest.raises(ImageReadError, match=rf"{name}: .*(implausibly|exceeds limit)"):
            read(tmp_path / name)


def zlib_bomb(size_mb: int) -> bytes:
    """A stream of zeros, made of the same megabyte over and over."""
    compressor = zlib.compressobj(9)
    start = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    again = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return start + again * (size_mb - 1)


def test_a_strip_that_inflates_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    raw_tiff(path, (100, 100), zlib_bomb(20_000))
    assert path.stat().st_size < 25 << 20
    with pytest.raises(ImageReadError, match="10000 bytes inflates to more than"):
        read_image(path)
    assert read_image_hw(path) == (100, 100)


def test_large_strips_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_checks, "_HARMLESS_BYTES", 1000)  # so that small ones are looked into
    for compression in ("zlib", "lzma"):
        tifffile.imwrite(tmp_path / "a.tif", DEEP, compression=compression)
        assert np.array_equal(read_image(tmp_path / "a.tif"), DEEP)
    raw_tiff(tmp_path / "b.tif", (90, 100), zlib.compress(BIG.tobytes())[:-3000])
    with pytest.raises(ImageReadError, match=r"b\.tif: the file is truncated"):
        read_image(tmp_path / "b.tif")


def test_pages_in_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    raw_tiff(path, (90, 100), BIG.tobytes(), compression=1)
    assert np.array_equal(read_image(path), BIG)
    content = bytearray(path.read_bytes())
    content[8 + 2 + 9 * 12 : 8 + 2 + 9 * 12 + 4] = struct.pack("<I", 8)
    path.write_bytes(content)
    for read in (read_image, read_image_hw):
        with pytest.raises(ImageReadError, match="loop"):
            read(path)


def test_strips_that_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    raw_tiff(path, (90, 100), BIG.tobytes()[:5000], compression=1)
    with pytest.raises(ImageReadError, match=r"a\.tif: "):
        read_image(path)
    tifffile.imwrite(path, DEEP, compression="zlib", rowsperstrip=30)
    with tifffile.TiffFile(path) as file:
        where = file.pages[0].tags["StripByteCounts"].valueoffset
    content = bytearray(path.read_bytes())
    content[where : where + 2] = b"\0\0"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="parts of the image are not in the file"):
        read_image(path)


def test_what_needs_another_package_names_it(tmp_path: Path) -> None:
    Image.fromarray(BIG).save(tmp_path / "a.tif", compression="tiff_lzw")
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(ImageReadError, match=r"a\.tif: .*LZW.*: pip install imagecodecs$"):
            read_image(tmp_path / "a.tif")
    else:
        assert np.array_equal(read_image(tmp_path / "a.tif"), BIG)
    assert read_image_hw(tmp_path / "a.tif") == BIG.shape


def test_text_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(200))
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    (tmp_path / "d.pgm").write_bytes(b"P5 1 1 65535\n\0\1")  # Pillow would scale its colours
    (tmp_path / "e.npy").write_bytes(b"\x93NUMPY\x01\0" + bytes(30))
    cv2.imwrite(str(tmp_path / "f.png"), BIG)
    for path in sorted(tmp_path.iterdir())[:-1]:
        for read in (read_image, read_image_hw):
            with pytest.raises(ImageReadError, match=path.name):
                read(path)
