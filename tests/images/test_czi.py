"""CZI files as pylibCZIrw writes them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg.errors import ImageReadError
from cellseg.images import czi as own
from cellseg.images import open_planes, read_image, read_image_hw
from image_files import RNG, shared_case

czi = pytest.importorskip("pylibCZIrw.czi")

TCZYX = RNG.integers(0, 4096, (2, 2, 3, 30, 80)).astype(np.uint16)


def write_czi(path: Path, scenes: int = 1, scale_um: float | None = 0.25) -> Path:
    """Each scene a mosaic of two tiles; scene k has k more in each pixel."""
    with czi.create_czi(str(path)) as file:
        for scene in range(scenes):
            for t, c, z, tile in np.ndindex(2, 2, 3, 2):
                pixels = TCZYX[t, c, z, :, 40 * tile : 40 * tile + 40, None] + np.uint16(scene)
                options = {"scene": scene} if scenes > 1 else {}
                place = (500 * scene + 40 * tile - 7, -3)
                file.write(pixels, plane={"T": t, "C": c, "Z": z}, location=place, **options)
        scale = {} if scale_um is None else {"scale_x": scale_um * 1e-6, "scale_y": 3e-7}
        file.write_metadata("document", channel_names={0: "DAPI", 1: "GFP"}, **scale)
    return path


def test_the_planes_of_a_mosaic(tmp_path: Path) -> None:
    path = write_czi(tmp_path / "a.czi")
    assert read_image_hw(path) == (30, 80)
    found = read_image(path, channels=["GFP", 0], page=4)
    assert np.array_equal(found, TCZYX[1, [1, 0], 1].transpose(1, 2, 0))
    with open_planes(path, channels=["GFP"]) as planes:
        assert [plane.suffix for plane in planes][:4] == ["_t0_z0", "_t0_z1", "_t0_z2", "_t1_z0"]
        for plane, expected in zip(planes, TCZYX[:, 1].reshape(6, 30, 80)):
            assert np.array_equal(plane.read_whole(), expected)
            window = slice(3, 29), slice(35, 61)  # over the seam of the tiles
            assert np.array_equal(plane.read(*window), expected[window])
            assert plane.channel_names == ("DAPI", "GFP")
            assert plane.pixel_size_um == pytest.approx((0.3, 0.25))
        channels = planes[5].read_channels(slice(0, 9), slice(70, None))
        assert np.array_equal(channels, TCZYX[1, :, 2, :9, 70:])


def test_scenes(tmp_path: Path) -> None:
    path = write_czi(tmp_path / "a.czi", scenes=3)
    with open_planes(path, channels=[0], page=1) as planes:
        assert [plane.suffix for plane in planes] == ["_s0", "_s1", "_s2"]  # one page of each
        assert {plane.position for plane in planes} == {(("T", 0), ("Z", 1))}
        for number, plane in enumerate(planes):
            assert np.array_equal(plane.read_whole(), TCZYX[0, 0, 1] + number)
    with open_planes(path, channels=[0], page=0, scenes=["s1"]) as planes:
        assert [plane.scene for plane in planes] == ["s1"]
    with pytest.raises(ImageReadError, match=r"a\.czi: expected one image or stack; found 3"):
        read_image(path, channels=[0], page=0)


def test_names_of_scenes_and_pixels_that_are_not_measured(tmp_path: Path) -> None:
    described = ElementTree.fromstring(
        "<ImageDocument><Metadata><Information><Image><Dimensions><S><Scenes>"
        '<Scene Index="4" Name="B2"/></Scenes></S></Dimensions></Image></Information></Metadata>'
        "</ImageDocument>"
    )
    assert own._scene_name(described, 4) == "B2"
    assert own._scene_name(described, 5) == ""
    with open_planes(write_czi(tmp_path / "a.czi", scale_um=None), channels=[0]) as planes:
        assert planes[0].pixel_size_um is None


def test_colours_of_a_camera(tmp_path: Path) -> None:
    path = shared_case("rgb_by_pylibCZIrw.czi")
    assert read_image(path)[3, 5].tolist() == [81, 122, 245]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_red_comes_first(tmp_path: Path, dtype: Any) -> None:
    rgb = RNG.integers(0, 256, (20, 25, 3)).astype(dtype)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(np.ascontiguousarray(rgb[..., ::-1]), plane={"C": 0, "T": 0, "Z": 0})
        file.write_metadata("document")
    assert np.array_equal(read_image(tmp_path / "a.czi"), rgb)
    with open_planes(tmp_path / "a.czi") as (plane,):
        assert np.array_equal(plane.read(slice(4, 9), slice(2, 7)), rgb[4:9, 2:7])
        channels = plane.read_channels(slice(4, 9), slice(2, 7))
        assert np.array_equal(channels, rgb[4:9, 2:7].transpose(2, 0, 1))


def test_a_colour_camera_beside_a_grey_one(tmp_path: Path) -> None:
    rgb = RNG.integers(0, 256, (20, 25, 3)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(rgb[..., ::-1].copy(), plane={"C": 0, "T": 0, "Z": 0})
        file.write(rgb[..., :1].copy(), plane={"C": 1, "T": 0, "Z": 0})
    assert np.array_equal(read_image(tmp_path / "a.czi", channels=[1]), rgb[..., 0])
    with pytest.raises(ImageReadError, match=r"a\.czi: a channel of a colour camera \(Bgr24\)"):
        read_image(tmp_path / "a.czi", channels=[0])


def test_bioio_gives_the_same_colours_in_the_order_of_the_file(tmp_path: Path) -> None:
    bioio = pytest.importorskip("bioio")
    reader = pytest.importorskip("bioio_czi").Reader
    rgb = RNG.integers(0, 256, (20, 25, 3)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(rgb[..., ::-1].copy(), plane={"C": 0, "T": 0, "Z": 0})
    theirs = bioio.BioImage(tmp_path / "a.czi", reader=reader).get_image_data("YXS")
    assert np.array_equal(read_image(tmp_path / "a.czi"), theirs[..., ::-1])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_files_that_were_cut_off(tmp_path: Path, share: float) -> None:
    path = write_czi(tmp_path / "a.czi")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageReadError, match=r"a\.czi: "):
        read_image(path, channels=[0], page=0)
