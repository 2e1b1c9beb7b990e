"""Choosing a scene, series or position, for training as for prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg import load_config
from cellseg.errors import ConfigError, ImageChoiceError, ImageReadError
from cellseg.images import ImageInput, open_planes, read_image, read_image_hw
from cellseg.shipped import shipped_folder
from image_files import RNG

CONFIG = shipped_folder("configs") / "quick_start.yaml"
SCENES = RNG.integers(0, 4096, (3, 9, 12)).astype(np.uint16)


def write_ome_tiff(path: Path, *shapes_from: np.ndarray) -> Path:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for number, image in enumerate(shapes_from):
            tiff.write(image, metadata={"axes": "YX", "Name": f"pos {number}"})
    return path


def write_zarr(path: Path) -> Path:
    zarr = pytest.importorskip("zarr")
    root = zarr.create_group(path, zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for number, image in enumerate(SCENES):
        group = root.create_group(str(number))
        group.create_array("0", data=image)
        axes = [{"name": axis, "type": "space"} for axis in "yx"]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    return path


def write_czi(path: Path) -> Path:
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path)) as file:
        for number, image in enumerate(SCENES):
            file.write(image[..., None], scene=number, location=(100 * number, 0))
    return path


@pytest.mark.parametrize(
    ("write", "name", "called"),
    [
        (lambda path: write_ome_tiff(path, *SCENES), "a.ome.tif", "pos 1"),
        (write_zarr, "a.ome.zarr", "1"),
        (write_czi, "a.czi", "s1"),
    ],
    ids=["OME-TIFF", "OME-Zarr", "CZI"],
)
def test_by_number_and_by_name(tmp_path: Path, write, name: str, called: str) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / name)
    for scene in (1, called):
        assert np.array_equal(read_image(path, scene=scene), SCENES[1])
        assert np.array_equal(ImageInput(scene=scene).read(path), SCENES[1])
        with open_planes(path, scenes=[scene]) as (plane,):
            assert np.array_equal(plane.read_whole(), SCENES[1])
    assert read_image_hw(path) == (9, 12)  # all of one size: a data set needs no choice
    with pytest.raises(ImageChoiceError, match=r"found 3.*from 0 to 2.*CELLSEG\.INPUT\.SCENE"):
        read_image(path)
    with pytest.raises(ImageReadError, match=r"scene 'pos 7': no scene is called so; the file has"):
        read_image(path, scene="pos 7")
    with pytest.raises(ImageReadError, match=r"scene 3: "):
        read_image(path, scene=3)


def test_scenes_of_different_sizes_have_no_size_in_common(tmp_path: Path) -> None:
    path = write_ome_tiff(tmp_path / "a.ome.tif", SCENES[0], SCENES[1, :5])
    with pytest.raises(ImageReadError, match=r"of shapes \[\[9, 12\], \[5, 12\]\]"):
        read_image_hw(path)
    assert read_image(path, scene=1).shape == (5, 12)


def test_a_file_of_one_scene_has_number_0(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", SCENES[0])
    assert np.array_equal(read_image(tmp_path / "a.tif", scene=0), SCENES[0])
    with pytest.raises(ImageReadError, match=r"scene 1: .*the file has 1 \(0 's0'\)"):
        read_image(tmp_path / "a.tif", scene=1)


@pytest.mark.parametrize("value", ["1", "'B2'", "''"])
def test_the_key(value: str) -> None:
    cfg = load_config(CONFIG, ["CELLSEG.INPUT.SCENE", value])
    assert ImageInput.from_config(cfg).scene == {"1": 1, "'B2'": "B2", "''": ""}[value]
    with pytest.raises(ConfigError, match=r"CELLSEG\.INPUT\.SCENE.*-1"):
        load_config(CONFIG, ["CELLSEG.INPUT.SCENE", "-1"])
