"""The files of a bundle, in a folder or in a zip."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cellseg.arguments import checked
from cellseg.errors import CheckpointError
from cellseg.files import write_whole, write_whole_folder
from cellseg.limits import open_zip
from cellseg.rules import PATH
from cellseg.shipped import CARD_FILE

ZIP_SUFFIX = ".zip"
_NOT_OURS = "__MACOSX"  # what macOS adds to a zip that is made there


@checked(path=PATH)
def is_bundle(path: str | Path) -> bool:
    """Whether a path is a bundle by its looks: a folder with a `model.yaml`, or a zip file."""
    path = Path(path)
    return (path / CARD_FILE).is_file() or (path.suffix.lower() == ZIP_SUFFIX and path.is_file())


def find_members(path: Path) -> dict[str, str]:
    """What the files of a bundle are called where they lie.

    Args:
        path: folder or zip. In a zip they may lie in one folder, as they do where somebody packed
            the folder of a bundle.

    Returns:
        Path inside `path`, by file name.

    Raises:
        CheckpointError: a zip that is damaged, that would write outside of its folder when it is
            unpacked, or that holds no card or several.
    """
    if path.is_dir():
        return {entry.name: entry.name for entry in path.iterdir() if entry.is_file()}
    names = _list_zip(path)
    outside = [name for name in names if _leads_outside(name)]
    if outside:
        raise CheckpointError(
            f"{path}: {outside[0]!r} in it leads out of the folder that it would be unpacked to; "
            "expected plain file names. Do not unpack it: ask whoever gave it for another one"
        )
    ours = [PurePosixPath(name) for name in names if not name.startswith(_NOT_OURS)]
    cards = [name for name in ours if name.name == CARD_FILE and len(name.parts) <= 2]
    if len(cards) != 1:
        found = "several models" if cards else f"no {CARD_FILE}"
        raise CheckpointError(
            f"{path}: {found} in it; expected the zip of one model bundle, with its files in it or "
            "in one folder (`cellseg bundle --zip` makes one)"
        )
    return {name.name: str(name) for name in ours if name.parent == cards[0].parent}


def _list_zip(path: Path) -> list[str]:
    try:
        with open_zip(path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a zip: {error}; expected a model bundle. Copy or download "
            "it again"
        ) from error


def _leads_outside(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return ".." in parts or parts[:1] == ("/",) or any(":" in part for part in parts[:1])


def read_member(path: Path, member: str) -> bytes:
    """The content of one file of a bundle.

    Args:
        path: folder or zip.
        member: as `find_members` gives it.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        if path.is_dir():
            return (path / member).read_bytes()
        with open_zip(path) as archive:
            return archive.read(member)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(
            f"{path}: {member} cannot be read: {error}; the bundle is damaged. Copy or download it "
            "again"
        ) from error


def write_members(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a bundle, all of them or none.

    Args:
        path: the folder, or the zip where it ends in .zip; what is there is replaced.
        contents: by file name. The same ones give the same zip, byte for byte.
    """
    if path.suffix.lower() == ZIP_SUFFIX:
        with write_whole(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return
    with write_whole_folder(path) as folder:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
