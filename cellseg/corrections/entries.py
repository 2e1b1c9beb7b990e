"""The images of a folder of corrections: named, not copied, and known again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellseg.cells.records import PlaceInFile
from cellseg.errors import CorrectionError
from cellseg.images import PlaneImage, open_planes, place_of

_END_BYTES = 2**16
_FILES_OF_FOLDER = (".zattrs", ".zgroup", "zarr.json")


@dataclass(frozen=True)
class ImageEntry:
    """One image: a file, or one plane of it.

    Attributes:
        image_id: as `cellseg predict` calls it.
        file_name: what the ids of all planes of its file begin with.
        path: the file, absolute.
        image_hw: (height, width), pixels.
        num_bytes: of the file; 0 of a folder (OME-Zarr).
        fingerprint: of the beginning and the end of the file.
        journal: name of the file of its corrections.
        place: which plane of the file it is.
    """

    image_id: str
    file_name: str
    path: Path
    image_hw: tuple[int, int]
    num_bytes: int
    fingerprint: str
    journal: str
    place: PlaceInFile = field(default_factory=PlaceInFile)

    def to_json(self, root: Path) -> dict[str, Any]:
        """The keys of a line of the folder's journal.

        Args:
            root: the folder of corrections, below which, or beside which, the path is named.
        """
        content = {
            **asdict(self),
            "path": _relative(self.path, root),
            "absolute_path": str(self.path),
        }
        return {key: value for key, value in content.items() if key != "image_hw"} | {
            "image_hw": list(self.image_hw)
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], root: Path) -> ImageEntry:
        """The entry that `to_json` made a line of."""
        near = Path(os.path.abspath(root / content["path"]))
        path = near if near.exists() else Path(content["absolute_path"])
        height, width = content["image_hw"]
        names = ("image_id", "file_name", "num_bytes", "fingerprint", "journal")
        return cls(
            path=path,
            image_hw=(int(height), int(width)),
            place=PlaceInFile.from_json(content["place"]),
            **{name: content[name] for name in names},
        )

    def check(self) -> None:
        """Raise CorrectionError where the file is gone, or is another one than was corrected."""
        hint = (
            "Put the file back, or say with `CorrectionFolder.move_image` where it is now. An "
            "image with other content is another image: add it under another name"
        )
        if not self.path.exists():
            raise CorrectionError(f"{self.image_id}: {self.path} is not there. {hint}")
        num_bytes, fingerprint = identify(self.path)
        if (num_bytes, fingerprint) != (self.num_bytes, self.fingerprint):
            raise CorrectionError(
                f"{self.image_id}: {self.path} is not the file whose cells were corrected: it has "
                f"{num_bytes} bytes (fingerprint {fingerprint[:8]}), expected {self.num_bytes} "
                f"({self.fingerprint[:8]}). {hint}"
            )

    @contextmanager
    def open_plane(self, channels: Sequence[int | str] = ()) -> Iterator[PlaneImage]:
        """The plane, to be read while the context is open.

        Raises:
            CorrectionError: the file has changed.
            ImageReadError: it cannot be read.
        """
        self.check()
        with open_planes(self.path, channels=channels) as planes:
            yield planes[self.place.page or 0]


def identify(path: Path) -> tuple[int, str]:
    """Size in bytes and fingerprint of an image, from its first and last bytes.

    Raises:
        CorrectionError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        if path.is_dir():
            for name in _FILES_OF_FOLDER:
                if (path / name).is_file():
                    digest.update((path / name).read_bytes())
            return 0, digest.hexdigest()
        size = path.stat().st_size
        with path.open("rb") as stream:
            digest.update(stream.read(_END_BYTES))
            stream.seek(max(size - _END_BYTES, 0))
            digest.update(stream.read(_END_BYTES))
    except OSError as error:
        raise CorrectionError(f"{path}: cannot be read: {error.strerror or error}") from error
    return size, digest.hexdigest()


def find_entries(path: Path, file_name: str) -> list[tuple[str, tuple[int, int], PlaceInFile]]:
    """End of the id, size and place of each plane of a file, from its header.

    Raises:
        ImageReadError: it cannot be read.
    """
    with open_planes(path) as planes:
        if len(planes) == 1:
            return [(planes[0].suffix, planes[0].image_hw, place_of(planes[0]))]
        return [
            (plane.suffix, plane.image_hw, PlaceInFile(**{**asdict(place_of(plane)), "page": page}))
            for page, plane in enumerate(planes)
        ]


def _relative(path: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:  # another drive
        return str(path)
