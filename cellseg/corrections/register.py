"""What a folder of corrections holds: its classes, its images, and which of them are held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellseg.corrections.entries import ImageEntry
from cellseg.corrections.journal import (
    DamagedJournalError,
    Journal,
    Line,
    check_head,
    sync_folders,
    utc_now,
)
from cellseg.corrections.record import Desk
from cellseg.errors import CorrectionError
from cellseg.names import find_near_names, printable

JOURNAL_FILE = "corrections.jsonl"
_NAME, _VERSION = "cellseg corrections", 1
_CLASSES = ("cell",)


@dataclass
class Register:
    """The journal of a folder, in which its images stand and nothing of their cells.

    Attributes:
        root: the folder.
        desk: classes, author, and whether anything may be written.
        entries: the images by their ids, in the order in which they were added.
        sides: of each plan of holding images out, the side of each group of images.
    """

    root: Path
    desk: Desk
    entries: dict[str, ImageEntry] = field(default_factory=dict)
    sides: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._journal = Journal(self.root / JOURNAL_FILE, self.desk.is_writable)

    def load(self, classes: tuple[str, ...] | None) -> None:
        """Read what there is, or begin.

        Args:
            classes: names; those that there are may get more behind them. None for these.

        Raises:
            CorrectionError: it is damaged, or the classes are others.
        """
        lines = self._journal.read()
        if not lines:
            if not self.desk.is_writable:
                raise CorrectionError(f"{self.root}: no corrections are there to be looked at")
            self.desk.classes = classes or _CLASSES
            head = {"format": _NAME, "version": _VERSION, "classes": list(self.desk.classes)}
            self._write(head)
            sync_folders(self.root.parent)
            return
        check_head(self._journal.path, lines, _NAME, _VERSION)
        for number, line in enumerate(lines, 1):
            try:
                self._take(line)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                reason = f"nothing that is known ({type(error).__name__}: {error})"
                raise DamagedJournalError(self._journal, number, reason) from error
        self._extend_classes(classes)

    def _take(self, line: Line) -> None:
        if "classes" in line:
            self.desk.classes = tuple(map(str, line["classes"]))
        if "image" in line:
            entry = ImageEntry.from_json(line["image"], self.root)
            self.entries[entry.image_id] = entry
        for plan, sides in line.get("sides", {}).items():
            self.sides.setdefault(plan, {}).update(sides)

    def _extend_classes(self, classes: tuple[str, ...] | None) -> None:
        known = self.desk.classes
        if classes is None or classes == known:
            return
        if classes[: len(known)] != known:
            raise CorrectionError(
                f"{self.root}: its classes are {', '.join(known)}; found {', '.join(classes)}. "
                "New ones may come behind those that there are"
            )
        self._write({"classes": list(classes)})
        self.desk.classes = classes

    def put(self, entries: Iterable[ImageEntry]) -> None:
        """Add images, or say where known ones are now."""
        new = list(entries)
        if new:
            self._write(*({"image": entry.to_json(self.root)} for entry in new))
            self.entries.update({entry.image_id: entry for entry in new})

    def moved(self, image_id: str, path: Path) -> list[ImageEntry]:
        """The entries of an image, and of others of its file, with the file at another place."""
        name = self.find(image_id).file_name
        return [replace(one, path=path) for one in self.entries.values() if one.file_name == name]

    def keep_sides(self, plan: str, sides: Mapping[str, str]) -> None:
        """Note on which side groups of images are, where that is new."""
        known = self.sides.setdefault(plan, {})
        new = {one: side for one, side in sides.items() if known.get(one) != side}
        if new and self.desk.is_writable:
            self._write({"sides": {plan: new}})
            known.update(new)

    def find(self, image_id: str) -> ImageEntry:
        """An image; a CorrectionError with the near ids where there is none."""
        if image_id not in self.entries:
            near = find_near_names(image_id, self.entries)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise CorrectionError(f"{self.root}: no image {printable(str(image_id))!r}{hint}")
        return self.entries[image_id]

    def _write(self, *lines: Mapping[str, object]) -> None:
        self.desk.check_writable(self.root)
        said = {"by": self.desk.author, "at": utc_now()}
        self._journal.append(*({**line, **said} for line in lines))
