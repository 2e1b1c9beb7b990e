"""Every format, whole and by window: the same pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, read_image, tiff_blocks, windows_of
from image_files import RNG
from PIL import Image

imagecodecs = pytest.importorskip("imagecodecs")

HW = (97, 131)
GREY = RNG.integers(0, 65536, HW).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (*HW, 3)).astype(np.uint8)
SMOOTH = np.hypot(*np.mgrid[: HW[0], : HW[1]]).astype(np.uint8)
FLOAT = RNG.normal(0, 100, HW).astype(np.float32)

Writer = Callable[[Path], "tuple[Path, np.ndarray]"]
WRITERS: dict[str, Writer] = {}


def writer(name: str) -> Callable[[Writer], Writer]:
    def register(function: Writer) -> Writer:
        WRITERS[name] = function
        return function

    return register


def tiff_writer(name: str, image: np.ndarray, **options: Any) -> None:
    def write(folder: Path) -> tuple[Path, np.ndarray]:
        tifffile.imwrite(folder / "a.tif", image, **options)
        return folder / "a.tif", image

    WRITERS[f"tiff {name}"] = write


RGB = {"photometric": "rgb"}
tiff_writer("raw", GREY)
tiff_writer("raw big endian", GREY, byteorder=">", bigtiff=True)
tiff_writer("raw rgb", COLOUR, **RGB)
tiff_writer("raw strips", GREY, rowsperstrip=10, contiguous=False, metadata=None)
tiff_writer("raw tiles", GREY, tile=(32, 48))
tiff_writer("deflate strips", GREY, compression="zlib", rowsperstrip=10)
tiff_writer("deflate one strip", FLOAT, compression="zlib")
tiff_writer("deflate predictor", GREY, compression="zlib", predictor=2, tile=(32, 32))
tiff_writer("float predictor", FLOAT, compression="zlib", predictor=3, tile=(16, 64))
tiff_writer("deflate tiles rgb", COLOUR, compression="zlib", tile=(48, 32), **RGB)
tiff_writer("lzw tiles", GREY, compression="lzw", tile=(32, 32))
tiff_writer("zstd strips", COLOUR, compression="zstd", rowsperstrip=7, **RGB)
tiff_writer("jpeg 2000 tiles", COLOUR, compression="jpeg2000", tile=(64, 64), **RGB)
tiff_writer("packed bits", SMOOTH > 60)
tiff_writer("ome tiles", GREY, ome=True, tile=(32, 32), compression="zlib")
tiff_writer("imagej", GREY, imagej=True)


@writer("tiff separate samples")
def write_separate(folder: Path) -> tuple[Path, np.ndarray]:
    planes = COLOUR.transpose(2, 0, 1)
    options = {"planarconfig": "separate", "compression": "zlib", "tile": (32, 32), **RGB}
    tifffile.imwrite(folder / "a.tif", planes, **options)
    return folder / "a.tif", COLOUR


@writer("tiff separate samples, raw")
def write_raw_separate(folder: Path) -> tuple[Path, np.ndarray]:
    tifffile.imwrite(folder / "a.tif", COLOUR.transpose(2, 0, 1), planarconfig="separate", **RGB)
    return folder / "a.tif", COLOUR


@writer("tiff alpha")
def write_alpha(folder: Path) -> tuple[Path, np.ndarray]:
    image = np.dstack([COLOUR, SMOOTH])
    options = {"tile": (32, 32), "compression": "zlib", "extrasamples": ["unassalpha"], **RGB}
    tifffile.imwrite(folder / "a.tif", image, **options)
    return folder / "a.tif", COLOUR


@writer("tiff jpeg")
def write_jpeg_tiff(folder: Path) -> tuple[Path, np.ndarray]:
    path = folder / "a.tif"
    tifffile.imwrite(path, COLOUR, compression="jpeg", tile=(32, 32), **RGB)
    return path, tifffile.imread(path)


@writer("tiff turned")
def write_turned(folder: Path) -> tuple[Path, np.ndarray]:
    options = {"metadata": {"axes": "XY"}, "photometric": "minisblack"}
    tifffile.imwrite(folder / "a.tif", GREY.T, compression="zlib", rowsperstrip=9, **options)
    return folder / "a.tif", GREY


@writer("tiff turned, raw")
def write_raw_turned(folder: Path) -> tuple[Path, np.ndarray]:
    tifffile.imwrite(folder / "a.tif", GREY.T, metadata={"axes": "XY"}, photometric="minisblack")
    return folder / "a.tif", GREY


@writer("png")
def write_png(folder: Path) -> tuple[Path, np.ndarray]:
    return builders.write_png(folder / "a.png", GREY), GREY


@writer("bmp")
def write_bmp(folder: Path) -> tuple[Path, np.ndarray]:
    Image.fromarray(COLOUR).save(folder / "a.bmp")
    return folder / "a.bmp", COLOUR


@writer("webp")
def write_webp(folder: Path) -> tuple[Path, np.ndarray]:
    Image.fromarray(COLOUR).save(folder / "a.webp", lossless=True)
    return folder / "a.webp", COLOUR


@writer("jp2")
def write_jp2(folder: Path) -> tuple[Path, np.ndarray]:
    content = imagecodecs.jpeg2k_encode(GREY, level=0, codecformat="jp2", reversible=True)
    (folder / "a.jp2").write_bytes(content)
    return folder / "a.jp2", GREY


@writer("npy")
def write_npy(folder: Path) -> tuple[Path, np.ndarray]:
    np.save(folder / "a.npy", FLOAT)
    return folder / "a.npy", FLOAT


def some_windows(image_hw: tuple[int, int]) -> list[tuple[slice, slice]]:
    rng = np.random.default_rng(1)
    height, width = image_hw
    windows = [(slice(None), slice(None)), (slice(0, 1), slice(0, 1)), (slice(0, 0), slice(5, 9))]
    windows += [(slice(height - 1, None), slice(-3, None)), (slice(20, 40), slice(None))]
    for _ in range(12):
        top, left = rng.integers(0, height), rng.integers(0, width)
        bottom, right = top + rng.integers(1, 60), left + rng.integers(1, 70)  # may reach beyond
        windows.append((slice(int(top), int(bottom)), slice(int(left), int(right))))
    return windows


@pytest.mark.parametrize("kind", WRITERS)
def test_whole_and_by_window(tmp_path: Path, kind: str) -> None:
    path, image = WRITERS[kind](tmp_path)
    expected = np.where(image, 255, 0).astype(np.uint8) if image.dtype == bool else image
    assert np.array_equal(read_image(path), expected)
    with open_planes(path) as planes:
        (plane,) = planes
        assert plane.image_hw == HW
        assert plane.suffix == ""
        assert np.array_equal(plane.read_whole(), expected)
        channels = expected[None] if expected.ndim == 2 else np.moveaxis(expected, -1, 0)
        for rows, columns in some_windows(HW):
            found = plane.read(rows, columns)
            assert found.dtype == expected.dtype
            assert found.flags.c_contiguous
            assert np.array_equal(found, expected[rows, columns]), (rows, columns)
            assert np.array_equal(plane.read_channels(rows, columns), channels[:, rows, columns])
        with pytest.raises(ImageReadError, match="without gaps"):
            plane.read(slice(0, 9, 2), slice(None))


@pytest.mark.parametrize("axes", ["CYX", "YXC", "CXY", "ZCYX", "CZYX", "TZCYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_stacks_by_window(tmp_path: Path, axes: str, compression: str | None) -> None:
    lengths = {"C": 2, "Z": 3, "T": 2, "Y": 30, "X": 41}
    array = RNG.integers(0, 65536, [lengths[axis] for axis in axes]).astype(np.uint16)
    options = {"compression": compression, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": axes}, **options)
    order = [axes.index(axis) for axis in "TZYXC" if axis in axes]
    pages = array.transpose(order).reshape(-1, 30, 41, 2)
    with open_planes(tmp_path / "a.tif", channels=[1, 0]) as planes:
        assert len(planes) == len(pages)
        assert len({plane.suffix for plane in planes}) == len(planes)
        for plane, page in zip(planes, pages):
            for rows, columns in some_windows((30, 41)):
                found = plane.read(rows, columns)
                assert np.array_equal(found, page[rows, columns][..., ::-1])
                channels = plane.read_channels(rows, columns)
                assert np.array_equal(channels, page[rows, columns].transpose(2, 0, 1))
    if "Z" in axes:
        with open_planes(tmp_path / "a.tif", channels=[0], projection="max") as planes:
            depth = pages.reshape(-1, 3, 30, 41, 2).max(axis=1)[..., 0]
            for plane, page in zip(planes, depth):
                assert np.array_equal(plane.read(slice(3, 9), slice(7, 30)), page[3:9, 7:30])


def test_channels_of_pages_without_a_name(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for plane in (GREY, GREY[::-1]):
            tiff.write(plane, contiguous=False, metadata=None)
    with open_planes(tmp_path / "a.tif", channels=[1]) as planes:
        assert np.array_equal(planes[0].read_whole(), GREY[::-1])
    with open_planes(tmp_path / "a.tif") as planes:
        assert [plane.suffix for plane in planes] == ["_i0", "_i1"]
        assert np.array_equal(planes[1].read_whole(), GREY[::-1])


def test_frames_of_a_gif_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.fromarray(np.roll(SMOOTH, 30 * k)) for k in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with open_planes(tmp_path / "a.gif") as planes:
        assert [plane.suffix for plane in planes] == ["_i0", "_i1", "_i2"]
        whole = planes[1].read_whole()
        for rows, columns in some_windows(HW):
            assert np.array_equal(planes[1].read(rows, columns), whole[rows, columns])


def test_only_the_segments_of_a_window_are_read(tmp_path: Path) -> None:
    """A damaged tile matters where it is, and there it is an error."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[7]  # rows 32 to 64, columns 64 to 96
    content = bytearray(path.read_bytes())
    content[offset : offset + 6] = b"\xff" * 6
    path.write_bytes(content)
    with open_planes(path) as (plane,):
        for rows, columns in ((slice(0, 32), slice(0, 131)), (slice(32, 64), slice(0, 64))):
            assert np.array_equal(plane.read(rows, columns), GREY[rows, columns])
        with pytest.raises(ImageReadError, match=r"a\.tif: cannot be read as an image"):
            plane.read(slice(40, 41), slice(70, 71))
        with pytest.raises(ImageReadError, match=r"a\.tif: cannot be read as an image"):
            plane.read_whole()


def test_decoded_once_and_forgotten_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_blocks, "_KEPT_BYTES", 3 * 10 * 131 * 2)  # three strips
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", rowsperstrip=10)
    decoded: list[int] = []
    original = tifffile.TiffPage.decode.func

    def count(page: tifffile.TiffPage) -> Any:
        decode = original(page)

        def decode_and_count(content: bytes, index: int, **options: Any) -> Any:
            decoded.append(index)
            return decode(content, index, **options)

        return decode_and_count

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(count))
    with open_planes(tmp_path / "a.tif") as (plane,):
        for left in range(0, 120, 20):
            plane.read(slice(30, 55), slice(left, left + 20))
        assert decoded == [3, 4, 5]
        plane.read(slice(80, 90), slice(0, 9))
        plane.read(slice(30, 40), slice(0, 9))  # the oldest one has made room
        assert decoded == [3, 4, 5, 8, 3]


@pytest.mark.parametrize("kind", ["tiff deflate tiles rgb", "tiff raw", "webp", "npy"])
def test_many_threads_at_a_time(tmp_path: Path, kind: str) -> None:
    path, image = WRITERS[kind](tmp_path)
    problems: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            top, left = int(rng.integers(0, 90)), int(rng.integers(0, 120))
            rows, columns = slice(top, top + 40), slice(left, left + 40)
            if not np.array_equal(plane.read(rows, columns), image[rows, columns]):
                problems.append((rows, columns))

    with open_planes(path) as (plane,):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


def test_errors_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    path = builders.write_png(tmp_path / "a.png", GREY)
    with pytest.raises(ZeroDivisionError), open_planes(path):
        raise ZeroDivisionError
    with (
        pytest.raises(ImageReadError, match=r"nothing\.png: .*No such file"),
        open_planes(tmp_path / "nothing.png"),
    ):
        raise AssertionError
    with (
        pytest.raises(ImageReadError, match=r"a\.png: CELLSEG.INPUT.PAGE is 3"),
        open_planes(path, page=3),
    ):
        raise AssertionError


@pytest.mark.parametrize("chunk", [(1, 131), (32, 32), (97, 131), (10, 131), (1000, 1000)])
@pytest.mark.parametrize("window_px", [1, 500, 5000, 10**6])
def test_windows_cover_an_image_once(chunk: tuple[int, int], window_px: int) -> None:
    seen = np.zeros(HW, int)
    for rows, columns in windows_of(HW, chunk, window_px):
        seen[rows, columns] += 1
        assert rows.start % chunk[0] == columns.start % chunk[1] == 0
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert pixels <= max(window_px, chunk[0] * chunk[1])
    assert (seen == 1).all()
