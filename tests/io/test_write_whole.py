from __future__ import annotations

import os

import pytest
from cellseg.files import write_whole, write_whole_folder


def test_replaces_only_when_complete(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with write_whole(path) as partial:
        partial.write_text("first")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.suffix == ".txt"
    assert path.read_text() == "first"
    with write_whole(str(path)) as partial:
        partial.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with write_whole(path) as partial:
            partial.write_text("ha")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_another_only_when_complete(tmp_path):
    path = tmp_path / "a" / "cells.zarr"
    for name in ("first", "second"):
        with write_whole_folder(path) as partial:
            (partial / name).write_text(name)
            assert partial.parent == path.parent
            assert partial.name.startswith(".")
        assert [one.name for one in path.iterdir()] == [name]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_the_place_of_a_file(tmp_path):
    (tmp_path / "cells.zarr").write_text("a file")
    with write_whole_folder(tmp_path / "cells.zarr"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "cells.zarr"]
    assert (tmp_path / "cells.zarr").is_dir()


@pytest.mark.parametrize("fails_at", ["writing", "first exchange", "second exchange"])
def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path, monkeypatch, fails_at):
    path = tmp_path / "cells.zarr"
    path.mkdir()
    (path / "old").touch()
    replace, calls = os.replace, []

    def fail_once(*names):
        calls.append(names)
        if len(calls) == {"writing": 0, "first exchange": 1, "second exchange": 2}[fails_at]:
            raise OSError("disk full")
        replace(*names)

    monkeypatch.setattr(os, "replace", fail_once)

    def fail():
        with write_whole_folder(path):
            if fails_at == "writing":
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.rglob("*")) == [path, path / "old"]
