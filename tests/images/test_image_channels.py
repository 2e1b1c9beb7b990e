"""Pages and channels of what microscopes write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, read_image_hw, read_label_image
from image_files import GREY_8, GREY_16, RGB_8, RNG, with_alpha
from PIL import Image

HW = (9, 13)
T, Z, C = 2, 3, 4
TZCYX = RNG.integers(0, 65536, (T, Z, C, *HW)).astype(np.uint16)
NAMES = ["DAPI", "GFP", "RFP", "Cy5"]


def write_imagej(path: Path, array: np.ndarray, axes: str) -> None:
    labels = [f"{NAMES[k % C]}" for k in range(array.size // (HW[0] * HW[1]))]
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": axes, "Labels": labels})


def write_ome(path: Path, array: np.ndarray, axes: str, **options: Any) -> None:
    names = {"Channel": {"Name": NAMES}} if "C" in axes else {}
    tifffile.imwrite(path, array, ome=True, metadata={"axes": axes, **names}, **options)


def write_plain(path: Path, array: np.ndarray, axes: str, **options: Any) -> None:
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, **options)


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (write_imagej, {}),
        (write_ome, {}),
        (write_ome, {"compression": "zlib"}),
        (write_ome, {"compression": "zlib", "tile": (16, 16)}),
        (write_plain, {}),
        (write_plain, {"compression": "zlib", "byteorder": ">", "bigtiff": True}),
    ],
)
def test_every_page_and_channel_of_a_hyperstack(
    tmp_path: Path, write: Any, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    write(path, TZCYX, "TZCYX", **options)
    assert read_image_hw(path) == HW
    for page in range(T * Z):
        t, z = divmod(page, Z)
        for channel in range(C):
            found = read_image(path, channels=[channel], page=page)
            assert found.dtype == np.uint16
            assert np.array_equal(found, TZCYX[t, z, channel])
    mixed = read_image(path, channels=[3, 0, 3], page=4)
    assert np.array_equal(mixed, TZCYX[1, 1][[3, 0, 3]].transpose(1, 2, 0))
    assert mixed.flags.c_contiguous
    brightest = read_image(path, channels=[1, 2], page=1, projection="max")
    assert np.array_equal(brightest, TZCYX[1].max(axis=0)[1:3].transpose(1, 2, 0))


@pytest.mark.parametrize("write", [write_imagej, write_ome])
def test_channels_by_name(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "a.tif"
    write(path, TZCYX[0, 0], "CYX")
    found = read_image(path, channels=["RFP", "DAPI"])
    assert np.array_equal(found, TZCYX[0, 0, [2, 0]].transpose(1, 2, 0))
    with pytest.raises(ImageReadError, match=r"asks for 'gfp'; the file has .*0 'DAPI', 1 'GFP'"):
        read_image(path, channels=["gfp"])


def test_names_where_there_are_none_or_twice(tmp_path: Path) -> None:
    write_plain(tmp_path / "a.tif", TZCYX[0, 0], "CYX")
    with pytest.raises(ImageReadError, match=r"channels 0 to 3 \(it has no channel names\)"):
        read_image(tmp_path / "a.tif", channels=["DAPI"])
    metadata = {"axes": "CYX", "Channel": {"Name": ["x", "x", "y", "z"]}}
    tifffile.imwrite(tmp_path / "b.tif", TZCYX[0, 0], ome=True, metadata=metadata)
    with pytest.raises(ImageReadError, match="asks for 'x'"):
        read_image(tmp_path / "b.tif", channels=["x"])
    assert np.array_equal(read_image(tmp_path / "b.tif", channels=["z"]), TZCYX[0, 0, 3])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["CYX", "YXC", "QYX", "YCX", "CXY"])
def test_axes_in_any_order(tmp_path: Path, axes: str, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    source = TZCYX[0, 0]
    order = ["CYX".index(axis) for axis in axes.replace("Q", "C")]
    write_plain(path, source.transpose(order), axes, compression=compression)
    assert read_image_hw(path) == HW
    assert np.array_equal(read_image(path, channels=[2]), source[2])
    found = read_image(path, channels=[0, 1])
    assert np.array_equal(found, source[:2].transpose(1, 2, 0))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_as_channels(tmp_path: Path, planar: str) -> None:
    path = tmp_path / "a.tif"
    source = TZCYX[0, 0]
    array = source.transpose(1, 2, 0) if planar == "contig" else source
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig=planar)
    assert np.array_equal(read_image(path, channels=[3]), source[3])
    found = read_image(path, channels=[0, 1, 2])
    assert np.array_equal(found, source[:3].transpose(1, 2, 0))
    with pytest.raises(ImageReadError, match=r"channels 0 to 3 with CELLSEG\.INPUT\.CHANNELS"):
        read_image(path)


def test_colour_by_channel(tmp_path: Path) -> None:
    builders.write_png(tmp_path / "a.png", RGB_8)
    tifffile.imwrite(tmp_path / "a.tif", with_alpha(RGB_8), photometric="rgb", extrasamples=[2])
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_image(tmp_path / name, channels=[1]), RGB_8[..., 1])
        assert np.array_equal(read_image(tmp_path / name, channels=[2, 0]), RGB_8[..., [2, 0]])
        with pytest.raises(ImageReadError, match="channels 0 to 2"):
            read_image(tmp_path / name, channels=[3])  # alpha is none
    rgb_stack = np.stack([RGB_8, RGB_8[::-1]])
    tifffile.imwrite(tmp_path / "b.tif", rgb_stack, photometric="rgb", metadata={"axes": "ZYXS"})
    assert np.array_equal(read_image(tmp_path / "b.tif", page=1), RGB_8[::-1])
    brightest = read_image(tmp_path / "b.tif", projection="max")
    assert np.array_equal(brightest, np.maximum(RGB_8, RGB_8[::-1]))


def test_one_channel_needs_no_choice_and_takes_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY_16[None], imagej=True)
    for options in ({}, {"channels": [0]}, {"page": 0}, {"projection": "max"}):
        assert np.array_equal(read_image(tmp_path / "a.tif", **options), GREY_16)
    assert read_image(tmp_path / "a.tif", channels=[0, 0]).shape == (7, 11, 2)


def test_pages_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for plane in TZCYX[0, 0]:
            tiff.write(plane, contiguous=False, metadata=None)
    assert np.array_equal(read_image(path, page=2), TZCYX[0, 0, 2])
    assert np.array_equal(read_image(path, page=2, channels=[0]), TZCYX[0, 0, 2])
    assert np.array_equal(read_image(path, channels=[2]), TZCYX[0, 0, 2])
    assert np.array_equal(read_image(path, projection="max"), TZCYX[0, 0].max(axis=0))
    with pytest.raises(ImageReadError, match=r"4 pages \(I 4\).*0 to 3.*PAGE.*max.*CHANNELS"):
        read_image(path)


@pytest.mark.parametrize(
    ("axes", "array", "options", "says"),
    [
        ("ZYX", TZCYX[0, :, 0], {}, r"3 pages \(Z 3\)\. Choose one, 0 to 2, .*PAGE, or .*max"),
        ("TYX", TZCYX[:, 0, 0], {}, r"2 pages \(T 2\)\. Choose one, 0 to 1, with \S+PAGE$"),
        ("TZYX", TZCYX[:, :, 0], {}, r"6 pages \(T 2, Z 3\)"),
        ("TZYX", TZCYX[:, :, 0], {"projection": "max"}, r"2 pages \(T 2\)"),
        ("TZYX", TZCYX[:, :, 0], {"page": 6}, r"PAGE is 6; the file has pages 0 to 5; .*TZYX"),
        ("YX", TZCYX[0, 0, 0], {"page": 1}, r"PAGE is 1; the file has page 0 only"),
        ("YX", TZCYX[0, 0, 0], {"channels": [1]}, r"asks for 1; the file has channel 0"),
        ("CYX", TZCYX[0, 0], {}, r"found shape \[4, 9, 13\], axes CYX: choose up to three of"),
        ("CYX", TZCYX[0, 0, :3], {}, r"channels 0 to 2 with CELLSEG"),
        ("CYX", TZCYX[0, 0], {"channels": [0, 4]}, r"asks for 4; the file has channels 0 to 3"),
        ("QYX", TZCYX.reshape(-1, 13, 9)[:, :, :5], {}, r"24 pages .*written without its axes"),
    ],
)
def test_choices_that_are_missing_or_not_there(
    tmp_path: Path, axes: str, array: np.ndarray, options: dict[str, Any], says: str
) -> None:
    path = tmp_path / "a.tif"
    write_plain(path, array, axes)
    with pytest.raises(ImageReadError, match=says) as caught:
        read_image(path, **options)
    assert str(caught.value).startswith(f"{path}: ")


def test_frames_of_a_gif_are_pages(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 6), 50 * k, np.uint8)) for k in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif", page=2) == 100).all()
    assert read_image_hw(tmp_path / "a.gif") == (4, 6)
    with pytest.raises(ImageReadError, match="3 pages"):
        read_image(tmp_path / "a.gif")


def test_labels_are_one_page_of_one_channel(tmp_path: Path) -> None:
    write_plain(tmp_path / "a.tif", TZCYX[0, 0], "CYX")
    with pytest.raises(ImageReadError, match=r"has one channel, .*found shape \[4, 9, 13\]"):
        read_label_image(tmp_path / "a.tif")
    for dtype in (np.int32, np.uint32):
        labels = np.array([[0, np.iinfo(dtype).max], [70000, 1]], dtype)
        for options in ({}, {"imagej": False, "compression": "zlib"}, {"predictor": False}):
            tifffile.imwrite(tmp_path / "b.tif", labels, **options)
            found = read_label_image(tmp_path / "b.tif")
            assert found.dtype == dtype
            assert np.array_equal(found, labels)


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is damaged does not matter to another one."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(3):
            tiff.write(GREY_8, compression="zlib", contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[1].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert np.array_equal(read_image(path, page=2), GREY_8)
    with pytest.raises(ImageReadError, match=r"a\.tif: cannot be read as an image"):
        read_image(path, page=1)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_ome_tiff_in_several_files(tmp_path: Path, compression: str | None) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="13" SizeY="9" '
        'SizeC="2" SizeZ="1" SizeT="1"><Channel ID="Channel:0"/><Channel ID="Channel:1"/>'
        '<TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID>'
        '</TiffData><TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID FileName="b.ome.tif">'
        "urn:uuid:2</UUID></TiffData></Pixels></Image></OME>"
    )
    options = {"compression": compression, "rowsperstrip": 2}
    for name, plane in (("a", 0), ("b", 1)):
        numbered = xml.replace("<OME ", f'<OME UUID="urn:uuid:{plane + 1}" ')
        path = tmp_path / f"{name}.ome.tif"
        tifffile.imwrite(path, TZCYX[0, 0, plane], description=numbered, metadata=None, **options)
    found = read_image(tmp_path / "a.ome.tif", channels=[0, 1])
    assert np.array_equal(found, TZCYX[0, 0, :2].transpose(1, 2, 0))
    with open_planes(tmp_path / "a.ome.tif", channels=[0, 1]) as (plane,):
        assert np.array_equal(plane.read(slice(2, 5), slice(3, 11)), found[2:5, 3:11])
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(ImageReadError, match="of an OME-TIFF in several files, one is not there"):
        read_image(tmp_path / "a.ome.tif", channels=[0, 1])
