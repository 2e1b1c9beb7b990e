"""TIFF's colour models: converted as Pillow or the standard says, kept, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, read_image_hw, read_label_image
from cellseg.images.tiff_blocks import _naming_packages
from PIL import Image

RNG = np.random.default_rng(3)
SMALL = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
RGB = np.asarray(Image.fromarray(SMALL).resize((31, 22), Image.Resampling.BICUBIC))
GREY = RGB[..., 0]
INKS = np.concatenate([255 - RGB, RGB[..., :1] // 3], axis=-1)


def write(path: Path, image: np.ndarray, photometric: str, **options: Any) -> Path:
    tifffile.imwrite(path, image, photometric=photometric, metadata=None, **options)
    return path


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_colours_as_pillow_has_them(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).convert(mode).save(path)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB")).astype(int)
    found = read_image(path)
    assert (found.dtype, found.shape, read_image_hw(path)) == (np.uint8, RGB.shape, RGB.shape[:2])
    assert np.abs(found - expected).max() <= 1  # Pillow's tables for YCbCr round twice
    with open_planes(path) as (plane,):
        window = slice(3, 20), slice(5, 17)
        assert np.array_equal(plane.read(*window), found[window])
        assert np.array_equal(plane.read_channels(*window), found[window].transpose(2, 0, 1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_inks_of_16_bits(tmp_path: Path, planar: str) -> None:
    deep = INKS.astype(np.uint16) * 257
    samples = deep if planar == "contig" else deep.transpose(2, 0, 1)
    found = read_image(write(tmp_path / "a.tif", samples, "separated", planarconfig=planar))
    light = 1 - deep / 65535
    assert found.dtype == np.uint16
    assert np.abs(found - 65535 * light[..., :3] * light[..., 3:]).max() <= 0.5


def test_lab_of_icc_counts_from_128(tmp_path: Path) -> None:
    lab = RGB.copy()
    plain = read_image(write(tmp_path / "a.tif", lab, "cielab"))
    other = write(tmp_path / "b.tif", lab ^ np.uint8([0, 128, 128]), "icclab")
    assert np.array_equal(read_image(other), plain)


def test_ycbcr_of_a_jpeg_is_rgb_already(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).save(path, compression="jpeg", quality=100)
    with Image.open(path) as picture:
        assert np.abs(read_image(path) - np.asarray(picture).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (GREY, 255 - GREY),
        (GREY.astype(np.uint16) * 200, 65535 - GREY.astype(np.uint16) * 200),
        (GREY.astype(np.float32), GREY),  # no bits say where the other end is
    ],
    ids=["8 bits", "16 bits", "floats"],
)
def test_zero_is_white(tmp_path: Path, image: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(read_image(write(tmp_path / "a.tif", image, "miniswhite")), expected)


@pytest.mark.parametrize(("program", "inverts"), [("a scanner", True), ("tifffile.py", False)])
def test_one_bit(tmp_path: Path, program: str, inverts: bool) -> None:
    path = write(tmp_path / "a.tif", GREY > 100, "miniswhite", software=program)
    assert np.array_equal(read_image(path) > 0, (GREY > 100) ^ inverts)


def test_zero_is_white_as_pillow_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", GREY, "miniswhite")
    with Image.open(path) as picture:
        assert np.array_equal(read_image(path), np.asarray(picture))


def test_what_was_measured_or_is_a_label_is_not_inverted(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, imagej=True, photometric="miniswhite")
    assert np.array_equal(read_image(path), GREY)
    assert np.array_equal(read_label_image(write(tmp_path / "b.tif", GREY, "miniswhite")), GREY)


def test_palettes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).quantize(32).save(path)
    with Image.open(path) as picture:
        indices, colours = np.asarray(picture), np.asarray(picture.convert("RGB"))
    assert np.array_equal(read_image(path), colours)
    assert np.array_equal(read_label_image(path), indices)
    ramp = np.arange(256) * 257
    fire = np.stack([np.minimum(2 * ramp, 65535), np.maximum(2 * ramp - 65535, 0), ramp // 4])
    for table in (np.stack([ramp] * 3), np.stack([0 * ramp, ramp, 0 * ramp]), fire):
        lookup = write(tmp_path / "b.tif", GREY, "palette", colormap=table.astype(np.uint16))
        assert np.array_equal(read_image(lookup), GREY)  # the values, whatever they are shown in
    inverted = np.stack([ramp[::-1]] * 3).astype(np.uint16)
    grey = write(tmp_path / "c.tif", GREY, "palette", colormap=inverted)
    assert np.array_equal(read_image(grey), 255 - GREY)


@pytest.mark.parametrize(
    ("photometric", "image", "says"),
    [
        ("cfa", GREY, r"mosaic of a colour camera \(CFA\)"),
        ("logl", GREY.astype(np.uint16), r"LogL"),
        ("itulab", RGB, r"ITU L\*a\*b\*"),
        ("cielab", RGB.astype(np.uint16), r"L\*a\*b\* of uint16"),
        ("ycbcr", RGB.astype(np.uint16), r"YCbCr of uint16"),
        ("separated", np.concatenate([INKS, INKS], axis=-1), r"8 inks"),
    ],
)
def test_the_rest_is_refused_by_name(
    tmp_path: Path, photometric: str, image: np.ndarray, says: str
) -> None:
    path = write(tmp_path / "a.tif", image, photometric)
    with pytest.raises(ImageReadError, match=rf"a\.tif: expected grey, RGB, .*{says}.*convert the"):
        read_image(path)


def test_a_mask_of_transparency_is_no_second_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(RGB, photometric="rgb", metadata=None)
        tiff.write(GREY > 100, photometric="mask", subfiletype=4, metadata=None)
    assert np.array_equal(read_image(path), RGB)


def test_zstandard_says_which_package() -> None:
    """Without imagecodecs tifffile misses `compression`, which Python has from 3.14 on."""
    missing = ModuleNotFoundError("No module named 'compression'")
    says = pytest.raises(ImageReadError, match=r"ZSTD.* requires the 'imagecodecs' package: pip")
    with says, _naming_packages(tifffile.COMPRESSION.ZSTD):
        raise missing
