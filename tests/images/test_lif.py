"""LIF files, made from what is known of the format, through bioio."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, read_image_hw
from image_files import RNG
from numpy.typing import NDArray

pytest.importorskip("bioio_lif")

CZYX = RNG.integers(0, 4096, (2, 3, 20, 30)).astype(np.uint16)
GREY = RNG.integers(0, 256, (1, 1, 15, 18)).astype(np.uint8)
COLOURS = ("Green", "Red")
STEPS_M = {"Z": 1e-6, "Y": 0.5e-6, "X": 0.25e-6}


def write_lif(path: Path, images: dict[str, NDArray[np.generic]]) -> Path:
    """Images [C, Z, Y, X] by name: a header in XML, then a block of memory for each."""
    elements = "".join(describe(number, name, a) for number, (name, a) in enumerate(images.items()))
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="a.lif" Visibility="1" UniqueID="a">'
        f"<Data/><Children>{elements}</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, 5 + len(xml), 0x2A, len(xml) // 2) + xml
    for number, image in enumerate(images.values()):
        name = f"MemBlock_{number}".encode("utf-16-le")
        head = struct.pack("<BQBI", 0x2A, image.nbytes, 0x2A, len(name) // 2) + name
        content += struct.pack("<II", 0x70, len(head)) + head + image.tobytes()
    path.write_bytes(content)
    return path


def describe(number: int, name: str, image: NDArray[np.generic]) -> str:
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * image.itemsize}" '
        f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{colour}" IsLUTInverted="0" '
        f'BytesInc="{place * image.strides[0]}" BitInc="0"/>'
        for place, colour in zip(range(image.shape[0]), COLOURS)
    )
    dimensions = "".join(
        f'<DimensionDescription DimID="{kind}" NumberOfElements="{length}" Origin="0" Unit="m" '
        f'Length="{(length - 1) * STEPS_M[axis]}" BitInc="0" BytesInc="{stride}"/>'
        for kind, axis, length, stride in zip(
            (1, 2, 3), "XYZ", image.shape[::-1], image.strides[::-1]
        )
        if length > 1
    )
    return (
        f'<Element Name="{name}" Visibility="1" UniqueID="{number}"><Data><Image><ImageDescription>'
        f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription>"
        f'</Image></Data><Memory Size="{image.nbytes}" MemoryBlockID="MemBlock_{number}"/>'
        "<Children/></Element>"
    )


def test_scenes_channels_and_windows(tmp_path: Path) -> None:
    path = write_lif(tmp_path / "a.lif", {"A/1": CZYX, "position 2": GREY})
    with open_planes(path, channels=[0]) as planes:
        suffixes = ["_A-1_z0", "_A-1_z1", "_A-1_z2", "_position-2"]
        assert [plane.suffix for plane in planes] == suffixes
        assert np.array_equal(planes[1].read_whole(), CZYX[0, 1])
        rows, columns = slice(2, 9), slice(3, 8)
        assert np.array_equal(planes[3].read(rows, columns), GREY[0, 0, rows, columns])
        assert np.array_equal(planes[1].read_channels(rows, columns), CZYX[:, 1, rows, columns])
        assert planes[0].channel_names == COLOURS
        assert planes[0].pixel_size_um == pytest.approx((0.5, 0.25))
    with open_planes(path, channels=["Red"], scenes=["A/1"], projection="max") as (plane,):
        assert np.array_equal(plane.read_whole(), CZYX[1].max(axis=0))


def test_one_scene(tmp_path: Path) -> None:
    path = write_lif(tmp_path / "a.lif", {"A/1": CZYX})
    assert read_image_hw(path) == (20, 30)
    found = read_image(path, channels=["Red", 0], page=2)
    assert np.array_equal(found, CZYX[[1, 0], 2].transpose(1, 2, 0))


def test_a_process_that_has_to_do_with_a_cluster(tmp_path: Path) -> None:
    """A worker reads by itself; it does not ask its cluster to."""
    dask = pytest.importorskip("dask")
    path = write_lif(tmp_path / "a.lif", {"A/1": CZYX})
    with dask.config.set(scheduler="dask.distributed"):
        assert np.array_equal(read_image(path, channels=[1], page=2), CZYX[1, 2])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_files_that_were_cut_off(tmp_path: Path, share: float) -> None:
    path = write_lif(tmp_path / "a.lif", {"A/1": CZYX})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageReadError, match=r"a\.lif: cannot be read as an image"):
        read_image(path, channels=[1], page=2)
