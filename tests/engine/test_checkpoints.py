"""Writes that are whole or not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from cellseg.engine.checkpoints import AtomicWrites, remove_partial_files
from fvcore.common.checkpoint import Checkpointer
from iopath.common.file_io import PathManager


def test_a_complete_write_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with AtomicWrites(PathManager()).open(str(path), "w") as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with AtomicWrites(PathManager()).open(str(path), "wb") as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_reading_and_other_methods_pass_through(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    manager = AtomicWrites(PathManager())
    with manager.open(str(tmp_path / "a.txt")) as file:
        assert file.read() == "x"
    assert manager.exists(str(tmp_path / "a.txt"))
    assert not manager.exists(str(tmp_path / "b.txt"))


def test_fvcore_checkpointer_saves_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(2, 1)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.path_manager = AtomicWrites(checkpointer.path_manager)
    checkpointer.save("model_0")
    good = (tmp_path / "model_0.pth").read_bytes()

    def break_half_way(data: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", break_half_way)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model_0")
    assert (tmp_path / "model_0.pth").read_bytes() == good
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0.pth")


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "model_1.pth.partial").write_bytes(b"half")
    (tmp_path / "model_1.pth").write_bytes(b"whole")
    remove_partial_files(tmp_path)
    remove_partial_files(tmp_path / "missing")
    assert [p.name for p in tmp_path.iterdir()] == ["model_1.pth"]


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_folder_that_is_removed_while_writing_is_made_again(tmp_path: Path, mode: str) -> None:
    path, content = tmp_path / "run/model.pth", "whole" if mode == "w" else b"whole"
    with AtomicWrites(PathManager()).open(str(path), mode) as file:
        file.write(content)
        shutil.rmtree(path.parent)
    assert path.read_text() == "whole"
    assert [each.name for each in path.parent.iterdir()] == ["model.pth"]
