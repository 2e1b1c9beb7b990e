"""What a command is asked to write: nothing that it reads, and nothing of somebody else's.

An option that names a file may replace what the same command wrote earlier, as well as files that
hold nothing yet. Everything else that is there is asked for with `--overwrite`, and what the
command itself reads is not replaced even then.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cellseg.cells.drawing import SIGNATURE
from cellseg.errors import ConfigError

_BEGINNING = 4096
# Images and other binary files; tables, markup, YAML and code; JSON that the field knows.
_SOMEBODYS = re.compile(
    rb"\0|\A(?!\s*[{\[])[^:,#<=(]*[:,#<=(]|"
    rb'"(annotations|categories|image_id|segmentation|features|shapes|runs)"|"images": *\['
)


class Output(NamedTuple):
    """A file that a command writes.

    Attributes:
        option: that names it, or what the file is.
        path: of the file.
        suffixes: endings that such files have, in lower case.
        own: what the beginning of one that the command wrote looks like.
    """

    option: str
    path: Path
    suffixes: tuple[str, ...]
    own: re.Pattern[bytes]


JSON_OF_METRICS = re.compile(rb'\A\s*\{\s*"images": \d+,\s*"classes": \[')
TABLE_OF_METRICS = re.compile(rb"\Aimage(?!,file)(,[a-z_0-9]+(@[\d.]+)?)*\r?\n")
SUGGESTIONS = re.compile(rb'\A\{\s*"suggestions": \[')
REPORT = re.compile(rb"<title>Segmentation report: ")
THRESHOLDS = re.compile(rb"\A# cellseg tune\n")
PICTURE = re.compile(rb"\A\x89PNG.{0,400}tEXt" + re.escape(SIGNATURE), re.DOTALL)
ONNX = re.compile(rb"\A.{1,16}cellseg", re.DOTALL)
PACKAGE = re.compile(rb"\APK\x03\x04.*(rdf|bioimageio)\.yaml", re.DOTALL)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """`--overwrite`, for `check_outputs`."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a file that is there and was not written by this command",
    )


def check_outputs(
    outputs: Iterable[Output | None], inputs: Iterable[str | Path | None], *, overwrite: bool
) -> None:
    """Refuse, before any work, to write where something would be lost or nothing can be written.

    Args:
        outputs: None for those that are not asked for.
        inputs: files that the command reads, and folders whose files it reads.
        overwrite: whether the user allows that other files are replaced.

    Raises:
        ConfigError: an output is an input, by whatever name or link; is another output; is there
            and not of this command; or its folder cannot be made or written to.
    """
    read = [Path(one) for one in inputs if one is not None]
    seen: list[Output] = []
    for output in outputs:
        if output is None:
            continue
        _check_place(output)
        for one in read:
            if is_same(output.path, one):
                raise ConfigError(
                    f"{output.option} {output.path}: this command reads {one}, which would be "
                    "lost; choose another name"
                )
        for other in seen:
            if is_same(output.path, other.path):
                raise ConfigError(
                    f"{output.option} {output.path}: {other.option} would be written to the same "
                    "file; choose another name for one of them"
                )
        if not overwrite and is_somebodys(output):
            raise ConfigError(
                f"{output.option} {output.path}: is there, and is no file that this command "
                "wrote; choose another name, or replace it with --overwrite"
            )
        seen.append(output)


def is_same(one: Path, other: Path) -> bool:
    """Whether two names stand for one file, through links and whatever letters' case."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def is_somebodys(output: Output) -> bool:
    """Whether a file is there that may be dear to somebody: neither our own nor without content."""
    if not output.path.is_file() or not output.path.stat().st_size:
        return False
    with output.path.open("rb") as stream:
        beginning = stream.read(_BEGINNING)
    if output.own.search(beginning):
        return False
    has_ending = output.path.suffix.lower() in output.suffixes
    return not has_ending or _SOMEBODYS.search(beginning) is not None


def _check_place(output: Output) -> None:
    path = output.path
    if path.is_dir():
        raise ConfigError(f"{output.option} {path}: is a folder; expected the name of a file")
    folder = path.absolute().parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"{output.option} {path}: {folder} is no folder; choose another name")
    is_file = path.is_file()
    if not os.access(path if is_file else folder, os.W_OK):
        raise ConfigError(
            f"{output.option} {path}: {'the file' if is_file else folder} may not be written to; "
            "choose another name, or have the permissions changed"
        )


def describe_own(names: Sequence[str]) -> re.Pattern[bytes]:
    """The first line of a CSV table with these columns, or more."""
    return re.compile(rb"\A" + re.escape(",".join(names).encode()))
