"""Documentation pages as tests: their files are written and their commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# A block may stand in a list, and is indented then.
_MARKED_BLOCK = r"^( *)<!-- file: (\S+) -->\n\1```\w+\n(.*?)^\1```"


class Page:
    """A Markdown page whose blocks are marked `<!-- file: PATH -->` or are ```bash commands.

    Attributes:
        files: text of each marked block by its path.
        commands: the bash blocks, one command each, continuation lines joined.
    """

    def __init__(self, path: str) -> None:
        text = (REPOSITORY / path).read_text("utf-8")
        marked = re.findall(_MARKED_BLOCK, text, flags=re.DOTALL | re.MULTILINE)
        self.files = {name: textwrap.dedent(block) for _, name, block in marked}
        self.commands = [
            " ".join(block.replace("\\\n", " ").split())
            for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
        ]

    def write_files(self, folder: Path) -> None:
        """The page's files in a folder that has the project's configs and tools."""
        for name in ("configs", "tools"):
            (folder / name).symlink_to(REPOSITORY / name)
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")

    @staticmethod
    def run(command: str, folder: Path, *extra: str) -> str:
        """Run a `python ...` or `cellseg ...` command with more arguments; its standard output."""
        words = shlex.split(command)
        assert words[0] in ("python", "cellseg"), command
        words = words[1:] if words[0] == "python" else ["-m", *words]
        python_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, *words, *extra],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": python_path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
