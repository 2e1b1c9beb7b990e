"""Which files in a folder of results predictions have written, and may write again.

What is there and was written by somebody else is never replaced unasked, nor taken away. Of the
files of single images the steps in `.cellseg/images` say it (`result_folder`), of those of all
images together `.cellseg/files_of_all.jsonl`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cellseg.errors import DatasetError

STATE_FOLDER = ".cellseg"
"""In a folder of results; where it lies, nothing is taken for an image."""
IMAGES_FOLDER = "images"
_OF_ALL = "files_of_all.jsonl"


class OwnFiles:
    """Tells results of earlier predictions from other files, wherever they lie.

    Each folder of results is looked into once.
    """

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def have(self, path: Path) -> bool:
        """Whether a file is a result in the folder of results that it lies in, if it does."""
        place = Path(os.path.abspath(path))
        for folder in place.parents:
            if folder not in self._names:
                steps = _read_steps(folder / STATE_FOLDER)
                self._names[folder] = frozenset(name for step in steps for name in step)
            names = self._names[folder]
            if names and place.relative_to(folder).as_posix() in names:
                return True
        return False


def claim_files_of_all(folder: Path, names: Sequence[str], *, overwrite: bool = False) -> None:
    """Note that predictions write these files of all images.

    Args:
        folder: of results; it is there.
        names: relative to it.
        overwrite: whether files may be replaced that predictions did not write.

    Raises:
        DatasetError: one is there and was written by somebody else.
    """
    state = folder / STATE_FOLDER
    record = state / _OF_ALL
    own = {name for step in _read_lines(record) for name in step}
    # Before there was a record, whatever lay in a folder with predictions was taken for theirs.
    is_older = not record.exists() and next((state / IMAGES_FOLDER).rglob("*.jsonl"), None)
    foreign = [name for name in names if name not in own and (folder / name).exists()]
    if foreign and not is_older and not overwrite:
        raise DatasetError(
            f"{folder / foreign[0]}: is there and was not written by an earlier prediction; name "
            "another folder for the results, or replace it with --overwrite"
        )
    if not own.issuperset(names):
        with record.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"writes": list(names)}) + "\n")


def _read_steps(state: Path) -> Iterator[Sequence[str]]:
    """The names in every step that was noted in a folder of results; none in other folders."""
    yield from _read_lines(state / _OF_ALL)
    for path in (state / IMAGES_FOLDER).rglob("*.jsonl"):
        yield from _read_lines(path)


def _read_lines(path: Path) -> Iterator[Sequence[str]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            step = json.loads(line)
        except ValueError:  # the end of an interrupted run
            continue
        for key in ("writes", "files"):
            if isinstance(step, dict) and isinstance(step.get(key), list):
                yield [name for name in step[key] if isinstance(name, str)]
