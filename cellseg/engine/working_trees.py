"""Which state of the code a training ran with, asked of Git without running what a clone names."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

_TIMEOUT_S = 10
# A folder from elsewhere may bring a `.git/config` of its own, and with it programs that Git calls.
_NO_PROGRAMS = (
    *("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"),
    *("-c", "protocol.allow=never", "--no-optional-locks"),
)
_NAMES_PROGRAMS = re.compile(r"^(local|worktree)\s+(filter\.|include)")


def describe_working_trees() -> list[dict[str, Any]]:
    """Git revision of the present folder and of cellseg's own, where they are working trees.

    Returns:
        Dicts with "folder", "revision" and "dirty": whether a file that Git knows was changed; None
        where the folder's own config names filters, which are programs that asking would run. No
        dicts without Git.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in (Path.cwd(), Path(__file__).parent):
        top = _ask_git(folder, "rev-parse", "--show-toplevel")
        revision = _ask_git(folder, "rev-parse", "HEAD")
        if top and revision:
            found[top] = {"folder": top, "revision": revision, "dirty": _is_dirty(folder)}
    return list(found.values())


def _is_dirty(folder: Path) -> bool | None:
    keys = _ask_git(folder, "config", "--list", "--show-scope", "--name-only", "--includes")
    if any(_NAMES_PROGRAMS.match(line) for line in keys.lower().splitlines()):
        return None
    options = ("--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return bool(_ask_git(folder, "status", *options))


def _ask_git(folder: Path, *arguments: str) -> str:
    """What git prints; "" if it fails or is not there."""
    command = ["git", *_NO_PROGRAMS, "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
