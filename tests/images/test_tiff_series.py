"""Several images in one TIFF file: levels, thumbnails, scenes; and the size of their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, read_image_hw
from cellseg.images.units import um_per_unit
from image_files import GREY_8, GREY_16, RGB_8, RNG
from numpy.typing import NDArray
from shared_cases import shared_case

BASE = RNG.integers(0, 65536, (2, 128, 203)).astype(np.uint16)


def only_plane_of(path: Path, **options: Any) -> Any:
    with open_planes(path, **options) as (plane,):
        return plane


def test_lsm_without_its_thumbnail() -> None:
    path = shared_case("three_channels_and_thumbnail.lsm")
    with tifffile.TiffFile(path) as tiff:
        expected = tiff.series[0].asarray()
    assert expected.shape == (3, *read_image_hw(path)) == (3, 64, 64)
    assert np.array_equal(read_image(path, channels=[0]), expected[0])
    plane = only_plane_of(path, channels=[0])
    assert (plane.scene, plane.suffix) == ("", "")
    assert plane.pixel_size_um == pytest.approx((0.1, 0.1))


def write_ome_pyramid(path: Path, size_um: float | None = 0.25) -> None:
    sizes = {"PhysicalSizeX": size_um, "PhysicalSizeY": size_um} if size_um else {}
    options = {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib"}
    names = {"Channel": {"Name": ["DAPI", "GFP"]}}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(BASE, subifds=2, metadata={"axes": "CYX", **sizes, **names}, **options)
        for step in (2, 4):
            tiff.write(BASE[:, ::step, ::step], subfiletype=1, **options)


@pytest.mark.parametrize(("wished_um", "level"), [(None, 0), (0.3, 0), (0.5, 1), (5, 2)])
def test_levels_of_an_ome_tiff(tmp_path: Path, wished_um: float | None, level: int) -> None:
    write_ome_pyramid(tmp_path / "a.ome.tif")
    assert np.array_equal(read_image(tmp_path / "a.ome.tif", channels=["GFP"]), BASE[1])
    expected = BASE[1, :: 2**level, :: 2**level]
    with open_planes(tmp_path / "a.ome.tif", channels=["GFP"], pixel_size_um=wished_um) as planes:
        (plane,) = planes
        assert (plane.level, plane.image_hw) == (level, expected.shape)
        assert plane.downsample == pytest.approx(2**level, rel=0.01)
        assert plane.pixel_size_um == pytest.approx((0.25 * 2**level,) * 2, rel=0.01)
        assert np.array_equal(plane.read_whole(), expected)
        assert np.array_equal(plane.read(slice(9, 30), slice(3, 40)), expected[9:30, 3:40])


def test_a_level_where_nobody_said_how_large_pixels_are(tmp_path: Path) -> None:
    write_ome_pyramid(tmp_path / "a.ome.tif", size_um=None)
    assert only_plane_of(tmp_path / "a.ome.tif", channels=[0]).pixel_size_um is None
    with pytest.raises(ImageReadError, match=r"the file has 3 levels and does not say how large"):
        only_plane_of(tmp_path / "a.ome.tif", channels=[0], pixel_size_um=1.0)
    tifffile.imwrite(tmp_path / "b.tif", GREY_16)
    assert only_plane_of(tmp_path / "b.tif", pixel_size_um=1.0).level == 0  # it has one only


def test_smaller_copies_behind_the_image(tmp_path: Path) -> None:
    """As libvips and GDAL write pyramids: pages, marked as reduced."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2, 4):
            pixels = BASE[0, ::step, ::step]
            tiff.write(pixels, tile=(32, 32), subfiletype=int(step > 1), metadata=None)
        tiff.write(RGB_8, photometric="rgb", subfiletype=1, metadata=None)  # a thumbnail
    assert np.array_equal(read_image(path), BASE[0])
    assert only_plane_of(path).level == 0
    with pytest.raises(ImageReadError, match="has 3 levels"):
        only_plane_of(path, pixel_size_um=2.0)


def write_ome_images(path: Path, images: dict[str, NDArray[Any]]) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for number, (name, image) in enumerate(images.items()):
            metadata = {"Name": name, "PhysicalSizeX": 1.5 + number, "PhysicalSizeY": 2.5}
            options = {"photometric": "rgb" if image.ndim == 3 else "minisblack"}
            tiff.write(image, metadata=metadata, **options)


def test_scenes_of_an_ome_tiff(tmp_path: Path) -> None:
    images = {"well A/1": GREY_16, "well A 1": GREY_16[::-1] // 2, "overview": RGB_8}
    write_ome_images(tmp_path / "a.ome.tif", images)
    with open_planes(tmp_path / "a.ome.tif") as planes:
        assert [plane.scene for plane in planes] == ["well A/1", "well A 1"]
        assert [plane.suffix for plane in planes] == ["_well-A-1", "_well-A-1-1"]
        assert [plane.pixel_size_um for plane in planes] == [(2.5, 1.5), (2.5, 2.5)]
        for plane, image in zip(planes, images.values()):
            assert np.array_equal(plane.read(slice(1, 6), slice(2, 9)), image[1:6, 2:9])
    with pytest.raises(ImageReadError, match=r"found 2 \(well A/1, well A 1\) of shapes"):
        read_image(tmp_path / "a.ome.tif")
    write_ome_images(tmp_path / "b.ome.tif", {"cells": GREY_16, "macro": RGB_8})
    assert np.array_equal(read_image(tmp_path / "b.ome.tif"), GREY_16)
    assert only_plane_of(tmp_path / "b.ome.tif").suffix == ""


def test_images_without_names(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(GREY_8)
        tiff.write(GREY_16[:3])
    with open_planes(path) as planes:
        assert [(plane.scene, plane.suffix) for plane in planes] == [("s0", "_s0"), ("s1", "_s1")]
        assert np.array_equal(planes[0].read_whole(), GREY_8)
        assert np.array_equal(planes[1].read_whole(), GREY_16[:3])
    plane = only_plane_of(path, scenes=[1])
    assert (plane.scene, plane.image_hw) == ("s1", (3, 11))
    with pytest.raises(ImageReadError, match=r"a\.tif: scene 2: .* \(0 's0', 1 's1'\)"):
        only_plane_of(path, scenes=[2])


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("µm", 1), ("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4), ("cm", 1e4), ("m", 1e6), ("pixel", None)],
)
def test_units_of_ome(tmp_path: Path, unit: str, factor: float | None) -> None:
    sizes = {"PhysicalSizeX": 2.0, "PhysicalSizeXUnit": unit}
    sizes |= {"PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY_16, ome=True, metadata=sizes)
    found = only_plane_of(tmp_path / "a.ome.tif").pixel_size_um
    assert found == (None if factor is None else pytest.approx((0.5, 2.0 * factor)))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.4}, (0.4, 0.3)),  # micrometres are usual
        ({"PhysicalSizeX": 0.3}, None),
        ({"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.4}, None),
        ({}, None),
    ],
)
def test_sizes_of_ome(tmp_path: Path, sizes: Any, expected: Any) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY_16, ome=True, metadata=sizes)
    assert only_plane_of(tmp_path / "a.ome.tif").pixel_size_um == expected


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("um", 1),
        ("micron", 1),
        ("\\u00B5m", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("inch", None),  # what ImageJ makes of a picture's 72 dots per inch
        ("cm", None),
        ("pixel", None),
        ("", None),
    ],
)
def test_units_of_imagej(tmp_path: Path, unit: str, factor: float | None) -> None:
    options = {"resolution": (4.0, 2.0), "metadata": {"unit": unit} if unit else {}}
    tifffile.imwrite(tmp_path / "a.tif", GREY_16, imagej=True, **options)
    found = only_plane_of(tmp_path / "a.tif").pixel_size_um
    assert found == (None if factor is None else pytest.approx((0.5 * factor, 0.25 * factor)))


def test_the_resolution_of_a_print_is_not_the_size_of_pixels(tmp_path: Path) -> None:
    for unit in ("CENTIMETER", "INCH"):
        tifffile.imwrite(
            tmp_path / "a.tif", GREY_16, resolution=(40000, 40000), resolutionunit=unit
        )
        assert only_plane_of(tmp_path / "a.tif").pixel_size_um is None


def test_a_size_without_a_resolution(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY_16, imagej=True, metadata={"unit": "um"})
    assert only_plane_of(tmp_path / "a.tif").pixel_size_um is not None  # 1 pixel per um is said
    tifffile.imwrite(
        tmp_path / "a.tif", GREY_16, imagej=True, metadata={"unit": "um"}, resolution=(0, 0)
    )
    assert only_plane_of(tmp_path / "a.tif").pixel_size_um is None


def test_greek_and_micro_signs() -> None:
    assert um_per_unit("\u00b5m") == um_per_unit("\u03bcm") == um_per_unit(" Micron ") == 1.0
    assert um_per_unit(None) is None
