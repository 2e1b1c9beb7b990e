from __future__ import annotations

import pytest
from cellseg.files import write_whole


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
