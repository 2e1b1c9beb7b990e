"""Commands of `cellseg` as tests call them: in this process, and as a program."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from cellseg.cli import run_command

REPOSITORY = Path(__file__).resolve().parent.parent


class Command:
    """One command, in this process; its module's functions are attributes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module = importlib.import_module(f"cellseg.cli.{name.replace('-', '_')}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def main(self, words: Sequence[str | Path]) -> int | str:
        """Exit status, or the error's text where it is 1 because of a `CellsegError`."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), mock.patch.dict(os.environ):
                status = run_command(self._name, [str(word) for word in words])
        finally:
            sys.stderr.write(said.getvalue())
        error = re.search(r"^\w+Error: .*", said.getvalue(), flags=re.DOTALL | re.MULTILINE)
        return error[0].rstrip("\n") if error and status == 1 else status


def run_program(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in a new process that imports cellseg from this checkout.

    Args:
        words: `-m cellseg ...`, or a script and its arguments.
        options: of `subprocess.run`, such as `cwd`.
    """
    python_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )
