"""Files of microscope makers, with a stand-in for bioio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.cells.records import PlaceInFile
from cellseg.errors import ImageReadError
from cellseg.images import open_planes, place_of, read_image, read_image_hw
from image_files import RNG

TCZYX = RNG.integers(0, 4096, (2, 3, 4, 5, 6)).astype(np.uint16)
READERS = ("bioio_nd2", "bioio_lif", "bioio_bioformats")


class FakeBioImage:
    """What of bioio's BioImage is used, on an array."""

    scenes: tuple[str, ...] = ("Image:0",)
    array = TCZYX
    planes_read = 0
    pixel_sizes = SimpleNamespace(Z=None, Y=0.5, X=0.25)

    def __init__(self, path: Path, reader: type) -> None:
        if Path(path).is_file() and Path(path).read_bytes().endswith(b"cut"):
            raise RuntimeError("unexpected end of file")
        self.reader = reader
        order = "TCZYX" if self.array.ndim == 5 else "TCZYXS"
        self.dims = SimpleNamespace(order=order, **dict(zip(order, self.array.shape)))
        self.channel_names = [f"EGFP-{k}" for k in range(self.array.shape[1])]
        self.physical_pixel_sizes = self.pixel_sizes
        self.scene = 0

    def set_scene(self, scene: int) -> None:
        self.scene = scene

    def get_image_dask_data(self, order: str, **index: int) -> Any:
        assert order == self.dims.order[3:]
        type(self).planes_read += 1
        plane = self.array[index["T"], index["C"], index["Z"]] + self.scene
        return SimpleNamespace(compute=lambda scheduler: plane)


@pytest.fixture
def bioio(monkeypatch: pytest.MonkeyPatch) -> type[FakeBioImage]:
    fake = type("Fake", (FakeBioImage,), {})
    module = ModuleType("bioio")
    module.BioImage = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bioio", module)
    for name in READERS:
        reader = ModuleType(name)
        reader.Reader = type(name, (), {})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, reader)
    return fake


SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."


def write_file(path: Path, content: bytes = b"something that only its maker knows") -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["b.ND2", "c d.lif", "e.vsi"])
def test_pages_and_channels(tmp_path: Path, bioio: type[FakeBioImage], name: str) -> None:
    path = write_file(tmp_path / name)
    assert read_image_hw(path) == (5, 6)
    assert bioio.planes_read == 0
    found = read_image(path, channels=[2, "EGFP-0"], page=5)  # T 1, Z 1
    assert np.array_equal(found, TCZYX[1, [2, 0], 1].transpose(1, 2, 0))
    assert bioio.planes_read == 2
    brightest = read_image(path, channels=[1], page=0, projection="max")
    assert np.array_equal(brightest, TCZYX[0, 1].max(axis=0))
    with pytest.raises(ImageReadError, match=r"0 'EGFP-0', 1 'EGFP-1', 2 'EGFP-2'"):
        read_image(path, page=0)
    with pytest.raises(ImageReadError, match=r"8 pages \(T 2, Z 4\)"):
        read_image(path, channels=[0])


def test_colour_and_single_planes(tmp_path: Path, bioio: type[FakeBioImage]) -> None:
    bioio.array = RNG.integers(0, 256, (1, 1, 1, 5, 6, 3)).astype(np.uint8)
    path = write_file(tmp_path / "a.lif")
    assert np.array_equal(read_image(path), bioio.array[0, 0, 0])
    bioio.array = TCZYX[:1, :1, :1]
    assert np.array_equal(read_image(path), TCZYX[0, 0, 0])


def test_content_wins_over_the_name(tmp_path: Path, bioio: type[FakeBioImage]) -> None:
    path = write_file(tmp_path / "a.tif", b"\xda\xce\xbe\x0a" + bytes(90))
    assert read_image_hw(path) == (5, 6)
    path = write_file(tmp_path / "a.vsi", b"II*\0" + bytes(90))  # begins as TIFF files do
    assert read_image_hw(path) == (5, 6)


def test_scenes_are_read_each_by_itself(tmp_path: Path, bioio: type[FakeBioImage]) -> None:
    path = write_file(tmp_path / "a.lif")
    bioio.scenes = ("TileScan 1/A1", "TileScan 1/A2", "TileScan 1/A2", "Übersicht")
    with open_planes(path, channels=[1]) as planes:
        assert len(planes) == 4 * 8
        assert len({plane.suffix.lower() for plane in planes}) == len(planes)
        assert all(set(plane.suffix) <= set(SAFE) for plane in planes)
        first, second = planes[0], planes[8]
        assert (first.scene, first.suffix) == ("TileScan 1/A1", "_TileScan-1-A1_t0_z0")
        assert (second.scene, second.suffix) == ("TileScan 1/A2", "_TileScan-1-A2_t0_z0")
        assert (planes[16].scene, planes[16].suffix) == ("TileScan 1/A2", "_TileScan-1-A2-2_t0_z0")
        assert np.array_equal(second.read_whole(), TCZYX[0, 1, 0] + 1)
        assert np.array_equal(first.read_whole(), TCZYX[0, 1, 0])
        assert second.pixel_size_um == (0.5, 0.25)
        assert place_of(planes[9]) == PlaceInFile(
            (("T", 0), ("Z", 1)), "TileScan 1/A2", (0.5, 0.25)
        )
    for wanted, expected in (([3], [3]), (["3"], [3]), (["Übersicht", 0, 3], [3, 0])):
        with open_planes(path, channels=[1], page=0, scenes=wanted) as planes:
            assert [plane.scene for plane in planes] == [bioio.scenes[k] for k in expected]
    for wrong, says in (
        (4, r"scene 4: no scene is called so; the file has 4 \(0 'TileScan 1/A1', 1 .*by number"),
        ("A1", "scene 'A1': no scene"),
        ("TileScan 1/A2", "several have that name"),
        (-1, "scene -1: no scene"),
    ):
        with pytest.raises(ImageReadError, match=says), open_planes(path, scenes=[wrong]):
            raise AssertionError


def test_one_scene_needs_no_name(tmp_path: Path, bioio: type[FakeBioImage]) -> None:
    bioio.pixel_sizes = SimpleNamespace(Z=0.0, Y=0.0, X=None)
    with open_planes(write_file(tmp_path / "a.nd2"), channels=[0]) as planes:
        assert [plane.scene for plane in planes] == [""] * 8
        assert planes[7].suffix == "_t1_z3"
        assert planes[7].pixel_size_um is None
        assert planes[0].chunk_hw == (5, 6)


def test_windows_decode_a_plane_once(tmp_path: Path, bioio: type[FakeBioImage]) -> None:
    with open_planes(write_file(tmp_path / "a.nd2"), channels=[0, 2], page=0) as (plane,):
        for row in range(5):
            found = plane.read(slice(row, row + 1), slice(1, 4))
            assert np.array_equal(found, TCZYX[0, [0, 2], 0, row, 1:4].T[None])
        assert bioio.planes_read == 2


def test_several_scenes_and_damaged_files(tmp_path: Path, bioio: type[FakeBioImage]) -> None:
    path = write_file(tmp_path / "a.lif")
    bioio.scenes = ("well A1", "well A2")
    with pytest.raises(ImageReadError, match=r"found 2 \(well A1, well A2\)"):
        read_image(path)
    write_file(path, b"this was cut")
    with pytest.raises(ImageReadError, match=r"a\.lif: .*unexpected end of file"):
        read_image(path)


@pytest.mark.parametrize(
    ("ending", "package"),
    [
        (".nd2", "bioio-nd2"),
        (".lif", "bioio-lif"),
        (".dv", "bioio-dv"),
        (".oib", "bioio-bioformats"),
    ],
)
@pytest.mark.parametrize("missing", ["bioio", "reader"])
def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, package: str, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None if missing == "bioio" else ModuleType("bioio"))
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    path = write_file(tmp_path / f"a{ending.upper()}")
    for read in (read_image, read_image_hw):
        with pytest.raises(ImageReadError) as caught:
            read(path)
        expected = f"{path}: this format needs bioio and {package}: pip install bioio {package}"
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("name", "content", "package"),
    [
        ("a.czi", b"ZISRAWFILE" + bytes(90), "pylibCZIrw"),
        ("a.zarr", None, "zarr"),
        ("a.svs", "Aperio Image Library", "tiffslide"),
    ],
)
def test_other_packages_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, package: str
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
        (path / ".zgroup").write_text('{"zarr_format": 2}')
    elif isinstance(content, str):
        tifffile.imwrite(path, TCZYX[0, 0], photometric="minisblack", description=content)
    else:
        path.write_bytes(content)
    for module in (package, f"{package}.czi"):
        monkeypatch.setitem(sys.modules, module, None)
    for read in (read_image, read_image_hw):
        with pytest.raises(ImageReadError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith(f" {package}: pip install {package}")


def test_jpeg_2000(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = bytes.fromhex("0000000c6a5020200d0a870a")
    header = struct_of_jp2(height=5, width=6)
    path = write_file(tmp_path / "a.jp2", signature + header)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageReadError, match=r"JPEG 2000 needs .*: pip install imagecodecs$"):
        read_image(path)
    assert read_image_hw(path) == (5, 6)
    codecs = ModuleType("imagecodecs")
    codecs.jpeg2k_decode = lambda content: TCZYX[0, :, 0].transpose(1, 2, 0)  # type: ignore
    monkeypatch.setitem(sys.modules, "imagecodecs", codecs)
    assert np.array_equal(read_image(path), TCZYX[0, :, 0].transpose(1, 2, 0))


def struct_of_jp2(height: int, width: int) -> bytes:
    """The boxes of a JPEG 2000 file up to its size and number of channels."""
    kind = b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
    size = height.to_bytes(4, "big") + width.to_bytes(4, "big")
    image_header = b"\0\0\0\x16ihdr" + size + b"\0\x03\x0f\x07\0\0"
    colour = b"\0\0\0\x0fcolr\x01\0\0\0\0\0\x10"
    return kind + (8 + 22 + 15).to_bytes(4, "big") + b"jp2h" + image_header + colour


def test_nothing_optional_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, cellseg.images; UNWANTED = "
        "('bioio', 'dask', 'zarr', 'tiffslide', 'pylibCZIrw', 'torch'); "
        "print([m for m in sys.modules if m.split('.')[0] in UNWANTED])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
