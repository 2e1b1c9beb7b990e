"""The one table of formats, and what it says of names."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cellseg.errors import ImageReadError
from cellseg.images import (
    IMAGE_FORMATS,
    IMAGE_SUFFIXES,
    formats,
    is_readable_name,
    read_image,
    stem_of_image,
    why_unreadable,
)
from PIL import Image
from shared_cases import shared_case


def test_every_ending_once_and_in_lower_case() -> None:
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    expected = ".png .jpg .tif .tiff .bmp .gif .webp .npy .zarr .svs .ndpi .scn .lsm .stk .czi"
    assert set(expected.split()) | {".nd2", ".lif", ".dv", ".jp2"} <= set(IMAGE_SUFFIXES)
    assert not set(IMAGE_SUFFIXES) & set(formats.UNREADABLE_SUFFIXES)
    assert [one.name for one in IMAGE_FORMATS if one.is_folder] == ["OME-Zarr"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("a.ome.zarr", "a"),
        ("a.ome.btf", "a"),
        ("a.b.tif", "a.b"),
        ("some.home.png", "some.home"),
        ("a.ome", "a"),
        ("a.ome.txt", "a.ome"),
        ("folder.d/a.svs", "a"),
        ("a", "a"),
        (".ome.tif", ".ome"),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of_image(name) == stem
    assert stem_of_image(Path(name)) == stem


@pytest.mark.parametrize("name", ["a.PNG", "b.ome.tif", "c.npy", "d.zarr", "e.svs", "f.webp"])
def test_names_of_images(name: str) -> None:
    assert is_readable_name(name)
    assert why_unreadable(name) == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.txt", r"the ending \.txt is not known"),
        ("README", "no ending"),
        (".hidden.tif", "hidden"),
        ("a_seg.npy", "Cellpose"),
        ("a.mrxs", "OpenSlide .*bioformats2raw"),
        ("a.npz", r"\.npy"),
    ],
)
def test_why_a_file_is_not_read(name: str, says: str) -> None:
    assert not is_readable_name(name)
    assert re.search(says, why_unreadable(name))


def test_missing_packages_are_said_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "bioio_lif" else 1)
    assert is_readable_name("a.lif")
    assert why_unreadable("a.lif") == "Leica LIF needs bioio-lif: pip install bioio-lif"
    assert why_unreadable("a.nd2") == ""


def test_a_folder_of_everything() -> None:
    paths = sorted(shared_case("mixed_folder").iterdir())
    assert all(map(is_readable_name, paths))
    assert {read_image(path).shape[:2] for path in paths} == {read_image(paths[0]).shape[:2]}
    assert stem_of_image(shared_case("ome_names/train/images/a.ome.tif")) == "a"


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_gif_and_webp(tmp_path: Path, ending: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    if ending == "gif":
        image = np.repeat(image[..., :1], 3, axis=-1)  # 256 colours are all that it holds
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(image).save(tmp_path / f"a.{ending}", **options)
    found = read_image(tmp_path / f"a.{ending}")
    assert np.array_equal(found if found.ndim == 3 else np.dstack([found] * 3), image)


def test_arrays_of_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for image in (
        rng.integers(0, 9, (5, 7)).astype(np.uint16),
        rng.normal(size=(5, 7, 3)),
        np.asfortranarray(rng.normal(size=(5, 7)).astype(">f4")),
    ):
        np.save(tmp_path / "a.npy", image)
        found = read_image(tmp_path / "a.npy")
        assert np.array_equal(found, image)
        assert found.dtype == image.dtype.newbyteorder("=")
    np.save(tmp_path / "a.npy", rng.integers(0, 9, (4, 5, 7)))
    assert read_image(tmp_path / "a.npy", page=2).shape == (5, 7)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return sys.exit, ("the pickle ran",)

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(ImageReadError, match=r"a\.npy: holds Python objects \(a pickle\)"):
        read_image(tmp_path / "a.npy")
    shutil.copy(tmp_path / "a.npy", tmp_path / "b.tif")  # content decides
    with pytest.raises(ImageReadError, match="pickle"):
        read_image(tmp_path / "b.tif")
    np.save(tmp_path / "c.npy", np.arange(5))
    with pytest.raises(ImageReadError, match=r"expected an image; found shape \[5\]"):
        read_image(tmp_path / "c.npy")
