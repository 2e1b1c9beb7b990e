"""Zips that are damaged in ways that Python's module tells with other errors than its own."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from cellseg.limits import is_zip, open_zip
from cellseg.models.carried import read_carried_config


def write_zip(path: Path) -> bytearray:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "some text")
    return bytearray(path.read_bytes())


def test_a_member_that_ends_too_soon(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = write_zip(path)
    sizes = content.index(b"PK\x01\x02") + 20  # compressed and plain size in the directory
    assert struct.unpack_from("<II", content, sizes) == (9, 9)
    struct.pack_into("<II", content, sizes, 5000, 5000)
    path.write_bytes(content)
    # Later Pythons see that it would reach into what follows, before they read it.
    told = "ends too soon|Overlapped entries"
    with pytest.raises(zipfile.BadZipFile, match=told), open_zip(path) as archive:
        archive.read("a.txt")


def test_a_part_of_an_archive_of_several(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    content = write_zip(path)
    # the locator of a 64-bit directory that says there are two disks
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    end = content.index(b"PK\x05\x06")
    path.write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(zipfile.BadZipFile, match="multiple disks"):
        zipfile.is_zipfile(path)
    assert is_zip(path)
    assert read_carried_config(path) is None
    with pytest.raises(zipfile.BadZipFile), open_zip(path):
        pass


def test_what_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("PK", "utf-8")
    assert not is_zip(tmp_path / "a.txt")
    assert not is_zip(tmp_path / "none.zip")
    write_zip(tmp_path / "a.zip")
    assert is_zip(tmp_path / "a.zip")
