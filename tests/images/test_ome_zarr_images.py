"""OME-Zarr folders, as the package zarr writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, read_image_hw
from image_files import RNG
from PIL import Image

zarr = pytest.importorskip("zarr")

TCZYX = RNG.integers(0, 65536, (2, 3, 2, 70, 90)).astype(np.uint16)
UNITS = {"t": "second", "z": "micrometer", "y": "nanometer", "x": "nanometer"}


def write_image(group: Any, array: np.ndarray, axes: str, version: str, levels: int = 3) -> None:
    """A pyramid whose finest pixels are 250 x 500 nm."""
    described = [{"name": a, "type": "channel" if a == "c" else "space"} for a in axes]
    for axis in described:
        if axis["name"] in UNITS:
            axis["unit"] = UNITS[axis["name"]]
    datasets = []
    for level in range(levels):
        step = 2**level
        scale = [{"y": 250.0 * step, "x": 500.0 * step}.get(axis, 1.0) for axis in axes]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
        pixels = array[..., ::step, ::step]
        chunks = (*(1,) * (array.ndim - 2), 32, 32)
        options = (
            {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version < "0.5" else {}
        )
        group.create_array(str(level), data=pixels, chunks=chunks, **options)
    scales = {"version": version, "axes": described, "datasets": datasets, "name": "image"}
    omero = {"channels": [{"label": name} for name in ("DAPI", "GFP", "RFP")]}
    metadata = {"multiscales": [scales], **({"omero": omero} if "c" in axes else {})}
    group.attrs.update(metadata if version < "0.5" else {"ome": {"version": version, **metadata}})


def create_group(path: Path, version: str) -> Any:
    return zarr.create_group(path, zarr_format=2 if version < "0.5" else 3)


@pytest.fixture(params=["0.4", "0.5"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write_image(create_group(tmp_path / "a.ome.zarr", request.param), TCZYX, "tczyx", request.param)
    return tmp_path / "a.ome.zarr"


def test_planes_channels_and_windows(folder: Path) -> None:
    assert read_image_hw(folder) == (70, 90)
    found = read_image(folder, channels=["RFP", 0], page=2)
    assert np.array_equal(found, TCZYX[1, [2, 0], 0].transpose(1, 2, 0))
    with open_planes(folder, channels=["GFP"]) as planes:
        assert [plane.suffix for plane in planes] == ["_t0_z0", "_t0_z1", "_t1_z0", "_t1_z1"]
        for plane, expected in zip(planes, TCZYX[:, 1].reshape(4, 70, 90)):
            assert plane.pixel_size_um == (0.25, 0.5)
            assert plane.chunk_hw == (32, 32)
            assert np.array_equal(plane.read_whole(), expected)
            for window in ((slice(30, 35), slice(60, 90)), (slice(0, 70), slice(31, 33))):
                assert np.array_equal(plane.read(*window), expected[window])
        channels = planes[1].read_channels(slice(5, 50), slice(8, 9))
        assert np.array_equal(channels, TCZYX[0, :, 1, 5:50, 8:9])


@pytest.mark.parametrize(
    ("wished_um", "level"), [(None, 0), (0.1, 0), (0.5, 0), (0.9, 0), (1.0, 1), (1.9, 1), (9, 2)]
)
def test_levels_by_the_size_of_pixels(folder: Path, wished_um: float | None, level: int) -> None:
    with open_planes(folder, channels=[1], page=0, pixel_size_um=wished_um) as (plane,):
        step = 2**level
        assert (plane.level, plane.pixel_size_um) == (level, (0.25 * step, 0.5 * step))
        assert plane.downsample == pytest.approx(step, rel=0.03)
        assert np.array_equal(plane.read_whole(), TCZYX[0, 1, 0, ::step, ::step])


def test_only_the_chunks_of_a_window_are_read(folder: Path) -> None:
    chunks = [path for path in (folder / "0").rglob("*") if path.is_file()]
    damaged = [path for path in chunks if path.parts[-2:] == ("1", "2")]  # rows 32.., columns 64..
    assert len(damaged) == 12
    for path in damaged:
        path.write_bytes(b"nothing of this can be decoded")
    with open_planes(folder, channels=[0], page=0) as (plane,):
        assert np.array_equal(plane.read(slice(0, 32), slice(0, 90)), TCZYX[0, 0, 0, :32])
        with pytest.raises(ImageReadError, match=r"a\.ome\.zarr: cannot be read"):
            plane.read(slice(32, 33), slice(64, 65))


def test_a_chunk_that_is_not_stored_is_the_fill_value(tmp_path: Path) -> None:
    group = create_group(tmp_path / "a.zarr", "0.4")
    image = np.zeros((70, 90), np.uint8)
    image[:5] = 9
    write_image(group, image, "yx", "0.4", levels=1)
    assert np.array_equal(read_image(tmp_path / "a.zarr"), image)


def test_a_copy_that_was_broken_off(folder: Path) -> None:
    for path in list((folder / "0").iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
    for read in (read_image, read_image_hw):
        with pytest.raises(ImageReadError, match=r"a\.ome\.zarr: no pixel is stored: .*0 has no"):
            read(folder)


def test_plates_and_series(tmp_path: Path) -> None:
    plate = create_group(tmp_path / "plate.zarr", "0.4")
    series = create_group(tmp_path / "series.zarr", "0.4")
    wells = [{"path": "A/1"}, {"path": "B/12"}]
    plate.attrs["plate"] = {"wells": wells, "version": "0.4"}
    series.attrs["bioformats2raw.layout"] = 3
    for k, well in enumerate(wells):
        group = plate.create_group(well["path"])
        group.attrs["well"] = {"images": [{"path": "0"}, {"path": "1"}]}
        for field in range(2):
            pixels = TCZYX[0, 0, 0] // 2 + np.uint16(2 * k + field)
            write_image(group.create_group(str(field)), pixels, "yx", "0.4")
        write_image(series.create_group(str(k)), TCZYX[0, k, 0], "yx", "0.4")
    with open_planes(tmp_path / "plate.zarr") as planes:
        assert [plane.scene for plane in planes] == ["A/1/0", "A/1/1", "B/12/0", "B/12/1"]
        assert [plane.suffix for plane in planes] == ["_A-1-0", "_A-1-1", "_B-12-0", "_B-12-1"]
        assert np.array_equal(planes[3].read_whole(), TCZYX[0, 0, 0] // 2 + 3)
    with open_planes(tmp_path / "plate.zarr", scenes=["B/12/0"]) as (plane,):
        assert np.array_equal(plane.read_whole(), TCZYX[0, 0, 0] // 2 + 2)
    with open_planes(tmp_path / "series.zarr") as planes:
        assert [plane.scene for plane in planes] == ["0", "1"]
        assert np.array_equal(planes[1].read_whole(), TCZYX[0, 1, 0])


def test_units_that_nobody_said(tmp_path: Path) -> None:
    group = create_group(tmp_path / "a.zarr", "0.4")
    write_image(group, TCZYX[0, 0, 0], "yx", "0.4")
    scales = group.attrs["multiscales"]
    for axis in scales[0]["axes"]:
        del axis["unit"]
    group.attrs["multiscales"] = scales
    with open_planes(tmp_path / "a.zarr") as (plane,):
        assert plane.pixel_size_um is None
    with (
        pytest.raises(ImageReadError, match=r"0\.5 um is wished; the file has 3 levels and does"),
        open_planes(tmp_path / "a.zarr", pixel_size_um=0.5),
    ):
        raise AssertionError


def test_old_and_plain_zarr(tmp_path: Path) -> None:
    group = create_group(tmp_path / "old.zarr", "0.1")
    group.create_array("0", data=TCZYX, chunks=(1, 1, 1, 32, 32))
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    with open_planes(tmp_path / "old.zarr", channels=[2]) as planes:
        assert np.array_equal(planes[3].read_whole(), TCZYX[1, 2, 1])
        assert planes[3].pixel_size_um is None
    zarr.create_array(tmp_path / "plain.zarr", data=TCZYX[0, 0, 0], chunks=(32, 32))
    assert np.array_equal(read_image(tmp_path / "plain.zarr"), TCZYX[0, 0, 0])


def test_sharded_arrays(tmp_path: Path) -> None:
    data = TCZYX[0, 0, 0]
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(16, 16), shards=(64, 64))
    with open_planes(tmp_path / "a.zarr") as (plane,):
        assert plane.chunk_hw == (16, 16)
        assert np.array_equal(plane.read(slice(10, 40), slice(50, 80)), data[10:40, 50:80])


def test_what_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_group(tmp_path / "a.zarr", "0.4").create_group("tables")
    with pytest.raises(ImageReadError, match=r"a\.zarr: expected an OME-Zarr image .*'tables'"):
        read_image(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(ImageReadError, match=r"b\.zarr: "):
        read_image(tmp_path / "b.zarr")
    (tmp_path / "b.zarr" / ".zgroup").write_text(json.dumps({"zarr_format": 99}))
    with pytest.raises(ImageReadError, match=r"b\.zarr: "):
        read_image(tmp_path / "b.zarr")
    zarr.create_array(tmp_path / "c.zarr", data=TCZYX[0, 0, 0], chunks=(70, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a chunk has more
    with pytest.raises(ImageReadError, match=r"c\.zarr: implausibly large"):
        read_image(tmp_path / "c.zarr")
