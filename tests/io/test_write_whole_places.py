"""`write_whole` where links, permissions and pipes are, and what its errors name."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from cellseg.errors import DatasetError
from cellseg.files import is_inside, write_whole, write_whole_folder


def write(path: Path, text: str = "new") -> None:
    with write_whole(path) as partial:
        partial.write_text(text)


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").write_text("old")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_the_mode_of_a_file_stays(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cells.txt"
    path.touch()
    path.chmod(mode)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_pipe_stays_one_and_its_reader_gets_all(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe") as error:
        write(pipe)
    assert error.value.errno == errno.ENXIO
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, "x" * 1000)
    assert os.read(reader, 2000) == b"x" * 1000
    os.close(reader)
    assert pipe.is_fifo()


def test_errors_name_the_file_and_not_its_partial_name(tmp_path: Path) -> None:
    path = tmp_path / "cells.txt"
    with pytest.raises(OSError, match=r"cells\.txt") as error, write_whole(path) as partial:
        raise OSError(errno.ENOSPC, "No space left on device", str(partial))
    assert error.value.filename == str(path)
    with pytest.raises(OSError, match=r"cells\.txt"), write_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DatasetError) as told, write_whole_folder(path) as partial:
        raise DatasetError(f"{partial}/a.png: empty")
    assert str(told.value) == f"{path}/a.png: empty"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 250 + ".json", f"a.{'x' * 250}"])
def test_partial_names_are_no_longer_than_systems_take(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), write_whole(tmp_path):
        pytest.fail("the block began")


def test_inside_is_told_through_links(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    assert is_inside(tmp_path / "link/new/x.csv", tmp_path / "data")
    assert not is_inside(tmp_path / "database", tmp_path / "data")
