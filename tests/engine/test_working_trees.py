"""The revision of a working tree, without running what its own config names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cellseg.engine.working_trees import describe_working_trees


def git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree with one file, which is the present folder."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "config.yaml").write_text("a: 1\n")
    git(folder, "add", "config.yaml")
    git(folder, "commit", "--quiet", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def dirty(folder: Path) -> bool | None:
    (found,) = [one for one in describe_working_trees() if one["folder"] == str(folder)]
    assert len(found["revision"]) == 40
    return found["dirty"]


def test_a_change_is_seen(clone: Path) -> None:
    assert dirty(clone) is False
    (clone / "new.txt").write_text("not known to Git")
    assert dirty(clone) is False
    (clone / "config.yaml").write_text("a: 2\n")
    assert dirty(clone) is True


def test_programs_that_a_clone_names_are_not_run(clone: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    git(clone, "config", "core.fsmonitor", f"touch {ran} #")
    hook = clone / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    (clone / "config.yaml").write_text("a: 2\n")
    assert dirty(clone) is True
    git(clone, "config", "filter.theirs.clean", f"touch {ran}; cat")
    (clone / ".gitattributes").write_text("* filter=theirs\n")
    (clone / "config.yaml").write_text("a: 3\n")
    assert dirty(clone) is None
    assert not ran.exists()


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_working_trees() == []
