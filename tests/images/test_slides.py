"""Slides, as tifffile can write them, through tiffslide."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, read_image_hw
from image_files import RNG

pytest.importorskip("tiffslide")

HW = (1000, 1401)
COARSE = RNG.integers(0, 256, (HW[0] // 4 + 1, HW[1] // 4 + 1, 3)).astype(np.uint8)
BASE = np.kron(COARSE, np.ones((4, 4, 1), np.uint8))[: HW[0], : HW[1]]
BASE += np.arange(HW[1], dtype=np.uint8)[:, None] % 7
TITLE = "Aperio Image Library v12.0.15\n1401x1000 [0,0 1401x1000] (256x256) Q=70"


def write_svs(path: Path, mpp: str = "|MPP = 0.4990", **options: Any) -> Path:
    """Baseline, thumbnail, two levels (of a fourth and of about a tenth), label and macro."""
    tiled = {"photometric": "rgb", "tile": (256, 256), "metadata": None, "compression": "zlib"}
    plain = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(BASE, description=f"{TITLE}|AppMag = 20{mpp}", **{**tiled, **options})
        tiff.write(BASE[::5, ::5], description=f"{TITLE} -> 281x200 - ", **plain)
        tiff.write(BASE[::4, ::4], description=f"{TITLE} -> 351x250", **tiled)
        tiff.write(BASE[5::10, 5::10], description=f"{TITLE} -> 140x100", **tiled)
        for name, kind in (("label", 1), ("macro", 9)):
            text = f"Aperio Image Library v12\n{name} 60x50"
            tiff.write(BASE[:50, :60], description=text, subfiletype=kind, **plain)
    return path


def test_the_baseline_image(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs")
    assert read_image_hw(path) == HW
    assert np.array_equal(read_image(path), BASE)
    with open_planes(path) as (plane,):
        assert (plane.scene, plane.suffix, plane.level, plane.downsample) == ("", "", 0, 1.0)
        assert plane.pixel_size_um == (0.499, 0.499)
        assert plane.chunk_hw == (256, 256)
        for rows, columns in ((slice(200, 300), slice(1300, None)), (slice(0, 1), slice(7, 9))):
            assert np.array_equal(plane.read(rows, columns), BASE[rows, columns])
            expected = BASE[rows, columns].transpose(2, 0, 1)
            assert np.array_equal(plane.read_channels(rows, columns), expected)
    assert np.array_equal(read_image(path, channels=[2]), BASE[..., 2])


@pytest.mark.parametrize(
    ("wished_um", "level", "expected"),
    [
        (0.25, 0, BASE),
        (0.5, 0, BASE),
        (1.9, 0, BASE),
        (2.0, 1, BASE[::4, ::4]),
        (4.0, 1, BASE[::4, ::4]),
        (6.0, 2, BASE[5::10, 5::10]),
    ],
)
def test_levels(tmp_path: Path, wished_um: float, level: int, expected: np.ndarray) -> None:
    path = write_svs(tmp_path / "a.svs")
    with open_planes(path, pixel_size_um=wished_um) as (plane,):
        assert (plane.level, plane.image_hw) == (level, expected.shape[:2])
        assert plane.downsample == pytest.approx((1, 4, 10)[level], rel=0.01)
        assert plane.pixel_size_um == pytest.approx((0.499 * plane.downsample,) * 2, rel=0.01)
        assert np.array_equal(plane.read_whole(), expected)
        height, width = plane.image_hw
        for at in range(0, min(height, width) - 9, 13):  # each place, in spite of its rounding
            rows, columns = slice(at, at + 9), slice(width - at - 9, width - at)
            assert np.array_equal(plane.read(rows, columns), expected[rows, columns])


def test_a_slide_that_does_not_say_how_large_pixels_are(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs", mpp="", resolution=(0, 1), resolutionunit="NONE")
    with open_planes(path) as (plane,):
        assert plane.pixel_size_um is None
    with (
        pytest.raises(ImageReadError, match=r"a\.svs: a level .* does not say how large"),
        open_planes(path, pixel_size_um=1.0),
    ):
        raise AssertionError


def test_alpha_is_dropped(tmp_path: Path) -> None:
    image = np.dstack([BASE, BASE[..., :1]])
    path = tmp_path / "a.svs"
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"], "metadata": None}
    tifffile.imwrite(path, image, description=TITLE, tile=(256, 256), **options)
    assert np.array_equal(read_image(path), BASE)


def test_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_svs(tmp_path / "a.svs")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, where = page.dataoffsets[3], page.tags["TileByteCounts"].valueoffset
    damaged = content.copy()
    damaged[offset : offset + 8] = bytes(8)
    path.write_bytes(damaged)
    with open_planes(path) as (plane,):
        assert np.array_equal(plane.read(slice(0, 90), slice(0, 700)), BASE[:90, :700])
        with pytest.raises(ImageReadError, match=r"a\.svs: cannot be read as an image"):
            plane.read(slice(0, 90), slice(0, 800))
    for share in (0.1, 0.5, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageReadError, match=r"a\.svs: "):
            read_image(path)
    left_out = content.copy()
    left_out[where : where + 4] = bytes(4)  # the scanner has stored nothing of the first tile
    path.write_bytes(left_out)
    with caplog.at_level(logging.WARNING), open_planes(path) as (plane,):
        assert "a.svs: 1 of 24 tiles are not in the file: black" in caplog.text
        assert not plane.read(slice(0, 256), slice(0, 256)).any()
        assert np.array_equal(plane.read(slice(0, 9), slice(256, 999)), BASE[:9, 256:999])


def test_a_large_slide_is_read_by_window(tmp_path: Path) -> None:
    """100,000 x 80,000 pixels, of which all but one tile are the same."""
    height, width, tile = 80_000, 100_000, 8192
    blank = np.full((tile, tile), 240, np.uint8)
    marked = blank.copy()
    marked[100:200, 300:500] = 7
    down, across = -(-height // tile), -(-width // tile)

    def tiles() -> Any:
        for number in range(down * across):
            yield marked if number == 2 * across + 3 else blank

    path = tmp_path / "a.tif"
    options = {"dtype": np.uint8, "tile": (tile, tile), "compression": "zstd"}
    tifffile.imwrite(path, tiles(), shape=(height, width), bigtiff=True, **options)
    assert read_image_hw(path) == (height, width)
    with open_planes(path) as (plane,):
        rows, columns = slice(2 * tile + 50, 2 * tile + 250), slice(3 * tile, 3 * tile + 600)
        found = plane.read(rows, columns)
        assert np.array_equal(found, marked[50:250, :600])
        assert (plane.read(slice(height - 2, None), slice(width - 5, None)) == 240).all()
