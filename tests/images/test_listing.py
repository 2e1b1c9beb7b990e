"""What is in a folder: one rule for every command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cellseg.images.formats import IMAGE_FORMATS, LABEL_SUFFIXES
from cellseg.images.listing import describe_passed_over, list_folder, name_below
from cellseg.images.pictures import PICTURE_FORMATS
from image_files import shared_case
from PIL import Image


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_every_format_that_is_read_is_found_in_folders(tmp_path: Path) -> None:
    names = [f"a{suffix}" for one in IMAGE_FORMATS for suffix in one.suffixes if suffix != ".zarr"]
    touch(tmp_path, *names, "b.zarr/zarr.json")
    assert [*sorted(names), "b.zarr"] == [path.name for path in list_folder(tmp_path).files]


def test_every_picture_that_pillow_reads_here_has_its_endings() -> None:
    """The endings that Pillow itself knows for these formats are in the table."""
    known = {end for one in IMAGE_FORMATS for end in one.suffixes}
    own = {end for end, name in Image.registered_extensions().items() if name in PICTURE_FORMATS}
    assert own <= known
    assert {".png", ".tif", ".bmp", ".npy"} <= set(LABEL_SUFFIXES) <= known
    assert not {".jpg", ".webp", ".czi"} & set(LABEL_SUFFIXES)


def test_the_folder_of_everything() -> None:
    found = list_folder(shared_case("mixed_folder"))
    assert [path.name for path in found.files] == ["a.png", "b.gif", "c.webp", "d.npy"]
    assert found.passed_over == []


def test_what_systems_leave_behind_is_not_there(tmp_path: Path) -> None:
    touch(tmp_path, "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._b.png", "a.png")
    found = list_folder(tmp_path, is_deep=True)
    assert [path.name for path in found.files] == ["a.png"]
    assert (found.passed_over, found.folders) == ([], [])


def test_links_are_followed_and_broken_ones_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "here/a.png", "there/b.png", "there/deep/c.tif")
    here = tmp_path / "here"
    (here / "d.png").symlink_to("gone.png")
    (here / "notes.txt").symlink_to("gone.txt")
    (here / "e").symlink_to(tmp_path / "gone")
    (here / "linked").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "back").symlink_to(here)
    found = list_folder(here, is_deep=True)
    names = [name_below(here, path) for path in found.files]
    assert names == ["a", "linked/b", "linked/deep/c"]
    assert [path.name for path, _ in found.broken] == ["d.png", "e"]
    assert [path.name for path, _ in found.passed_over] == ["d.png", "e", "notes.txt"]
    assert found.broken[0].reason == "a link to gone.png, which is not there"


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert list_folder(tmp_path).broken[0].reason == "neither a file nor a folder"


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", "b.csv", "c.mrxs", "d_seg.npy")
    said = describe_passed_over(list_folder(tmp_path).passed_over)
    assert said.startswith("4 files passed over: a.csv, b.csv (not an image: the ending .csv is ")
    assert "c.mrxs (OpenSlide alone reads this slide" in said
    assert "d_seg.npy (not an image: masks as Cellpose saves them" in said
    assert describe_passed_over([]) == ""


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        list_folder(tmp_path / "gone")
