"""Corrections of the images of a folder, kept on disk."""

from __future__ import annotations

import getpass
import logging
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from cellseg.arguments import FLAG, NAME, NAMES, WHOLE, checked, or_nothing, several
from cellseg.cells.instances import CellInstances
from cellseg.corrections.adding import Added, find_new
from cellseg.corrections.entries import ImageEntry
from cellseg.corrections.image import CorrectedImage
from cellseg.corrections.journal import (
    DamagedJournalError,
    Journal,
    check_head,
)
from cellseg.corrections.record import Desk, ImageCells
from cellseg.corrections.register import JOURNAL_FILE, Register
from cellseg.corrections.states import NAME as IMAGE_JOURNAL
from cellseg.corrections.states import VERSION as IMAGE_VERSION
from cellseg.corrections.states import ImageState, replay
from cellseg.corrections.summaries import CellQueue, ImageStatus, Summary, summarize
from cellseg.corrections.training_data import TrainingData, choose_sides, save_images
from cellseg.errors import CorrectionError, CorrectionsInUseError, collect_problems
from cellseg.io.base import check_class_names
from cellseg.locks import FileLock, LockedError, take_lock
from cellseg.names import printable
from cellseg.rules import PATH, number

LOCK_FILE = "in_use.lock"
IMAGES_FOLDER = "images"

logger = logging.getLogger(__name__)


class CorrectionFolder:
    """Corrections of many images, each change on disk when the call that makes it returns.

    `open` makes one. One window has it at a time. Nothing in it is ever changed in place:
    corrections.jsonl names the images, and `images/` has a journal of each, to which lines are
    added.

    Attributes:
        root: the folder.

    Example:
        >>> import tempfile
        >>> import cv2
        >>> import numpy as np
        >>> from cellseg.cells.synthetic import make_cells
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = cv2.imwrite(f"{place}/field.png", make_cells(4, (64, 64)).image)
        ...     with CorrectionFolder.open(f"{place}/mended", ("nucleus",), author="Ada") as folder:
        ...         ids = folder.add_images([f"{place}/field.png"]).image_ids
        ...         image = folder.image(ids[0])
        ...         nucleus = image.draw(np.ones((3, 4)), offset_rc=(5, 5))
        ...     with CorrectionFolder.open(f"{place}/mended", author="Bob") as folder:
        ...         image = folder.image("field")
        ...         print(image.ids, image.states, image.history[0].by, image.undo(), image.ids)
        [1] ['drawn'] Ada True []
    """

    def __init__(self, root: Path, desk: Desk, lock: FileLock | None = None) -> None:
        self.root = root
        self._register, self._desk, self._lock = Register(root, desk), desk, lock
        self._open: weakref.WeakValueDictionary[str, CorrectedImage] = weakref.WeakValueDictionary()
        self._summaries: dict[str, Summary] = {}
        self._stale: dict[str, ImageState] = {}
        desk.tell = self._note

    @classmethod
    @checked(
        path=PATH,
        classes=or_nothing(NAMES),
        author=or_nothing(NAME),
        read_only=FLAG,
    )
    def open(
        cls,
        path: str | Path,
        classes: Sequence[str] | None = None,
        *,
        author: str | None = None,
        read_only: bool = False,
    ) -> CorrectionFolder:
        """Open a folder of corrections; one that is not there is made.

        Args:
            path: the folder.
            classes: names of the classes of cells, in their order; those of a folder that is there
                may get more behind them. By default its own, and for a new one `cell`.
            author: who corrects; by default the name of the user of this computer.
            read_only: for looking only, which others need not wait for.

        Raises:
            CorrectionsInUseError: another window has it.
            CorrectionError: it holds something else, has other classes, or cannot be written.
        """
        root = Path(path).absolute()
        names = None if classes is None else check_class_names(classes)
        lock = None if read_only else _take(root)
        try:
            desk = Desk((), _name_author(author), not read_only, lambda image: None)
            folder = cls(root, desk, lock)
            folder._register.load(names)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return folder

    def close(self) -> None:
        """Let others have the folder; its images take no corrections any more."""
        self._desk.is_writable = False
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> CorrectionFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a cell's class is a place among them."""
        return self._desk.classes

    @property
    def author(self) -> str:
        """Who makes the corrections from now on; may be set."""
        return self._desk.author

    @author.setter
    def author(self, name: str) -> None:
        self._desk.author = _name_author(name)

    @property
    def entries(self) -> list[ImageEntry]:
        """The images, in the order in which they were added."""
        return list(self._register.entries.values())

    def add_images(self, paths: Iterable[str | Path] | str | Path) -> Added:
        """Add images, which stay where they are; those that are in it already are passed over.

        Files of several planes (time, depth, scenes) are as many images.

        Args:
            paths: files, folders or patterns, as `cellseg predict` takes them.

        Returns:
            The ids of the new images, and files that were not taken, with the reason.

        Raises:
            CorrectionError: a path leads to no image.
        """
        words = [paths] if isinstance(paths, (str, Path)) else list(paths)
        entries, added = find_new([str(word) for word in words], self.entries, self.root)
        self._register.put(entries)
        return added

    def move_image(self, image_id: str, path: str | Path) -> None:
        """Say where the file of an image is now, and so of all images of that file.

        Raises:
            CorrectionError: no such image, or not the same file.
        """
        moved = self._register.moved(image_id, Path(path).absolute())
        moved[0].check()
        self._register.put(moved)
        for entry in moved:
            if entry.image_id in self._open:
                self._open[entry.image_id].entry = entry
            self._summaries.pop(entry.image_id, None)

    def image(self, image_id: str) -> CorrectedImage:
        """The cells of an image, to be looked at and corrected; the same object while it is held.

        Raises:
            CorrectionError: no such image, its file is gone or has changed, or its journal is
                damaged.
        """
        entry = self._register.find(image_id)
        if image_id in self._open:
            return self._open[image_id]
        entry.check()
        journal, state = self._replay(entry)
        image = CorrectedImage(entry, journal, state, self._desk)
        self._open[image_id] = image
        return image

    def _replay(self, entry: ImageEntry) -> tuple[Journal, ImageState]:
        hint = (
            f"; `folder.cut_damaged({entry.image_id!r})` goes on with the lines before it, and "
            "keeps the whole file beside"
        )
        path = self.root / IMAGES_FOLDER / entry.journal
        journal = Journal(path, self._desk.is_writable, hint)
        lines = journal.read()
        if lines:
            check_head(journal.path, lines, IMAGE_JOURNAL, IMAGE_VERSION)
        return journal, replay(journal, lines[1:], entry.image_hw)

    def cut_damaged(self, image_id: str) -> Path | None:
        """Go on with what comes before the damage in an image's journal.

        Args:
            image_id: of the image.

        Returns:
            Where the whole file is kept; None where it is sound.
        """
        entry = self._register.find(image_id)
        try:
            self._replay(entry)
        except DamagedJournalError as error:
            self._desk.check_writable(self.root)
            aside = error.journal.cut(error.line)
            self._summaries.pop(image_id, None)
            return aside
        return None

    def candidates(self, image_id: str) -> CellInstances:
        """The detections of an image that were kept beside its cells."""
        return self.image(image_id).candidates

    @property
    def images(self) -> list[ImageStatus]:
        """How far the corrections of each image are, in the order in which they were added."""
        return [self._summary(one).status for one in self._register.entries]

    @checked(images=or_nothing(several()))
    def queue(self, images: Sequence[str] | None = None) -> CellQueue:
        """The cells that nobody has looked at, from the least certain to the surest.

        The least certain are those whose score is nearest the score that a detection needed.

        Args:
            images: ids of those that are looked at; by default all. Of equally certain cells those
                of earlier images come first.
        """
        wanted = list(self._register.entries) if images is None else list(images)
        found = [self._register.find(one).image_id for one in wanted]
        return CellQueue([(one, self._summary(one)) for one in found])

    @checked(out=PATH, held_out=number(0, below=1), seed=WHOLE)
    def save_training_data(
        self, out: str | Path, *, held_out: float = 0.2, seed: int = 0
    ) -> TrainingData:
        """Save the corrected images as a data set that `cellseg train` takes.

        Images of which nothing counts (`CorrectedImage.counted_region`) are left out. Which images
        are held out is decided by their names, and kept: none changes sides when others are added.
        The planes of one file are on one side.

        Args:
            out: a folder that is new, empty, or saved from corrections before.
            held_out: about which share of the images is held out, to be evaluated on; at least one
                where there are two files, none where it is 0.
            seed: another one chooses others.

        Raises:
            CorrectionError: nothing counts yet, an image's file is gone or has changed, its journal
                is damaged, or something else is in `out`.
        """
        images = self._images_that_count()
        groups = [image.entry.file_name for image in images]
        if len(set(groups)) == 1:
            groups = [image.image_id for image in images]
        plan = f"{held_out:g} {seed}"
        known = self._register.sides.get(plan, {})
        sides = choose_sides(groups, known, held_out, seed)
        said = {"saved_by": self.author, "corrections": str(self.root), "classes": self.classes}
        data = save_images(
            images, [sides[one] for one in groups], Path(out).absolute(), {**said, "plan": plan}
        )
        self._register.keep_sides(plan, sides)
        return data

    def _images_that_count(self) -> list[CorrectedImage]:
        images, problems = [], []
        for one in self._register.entries:
            summary = self._summary(one)
            if not (summary.counts or summary.status.problem):
                continue
            try:
                images.append(self.image(one))
            except CorrectionError as error:
                problems.append(str(error))
        if problems:
            raise CorrectionError(collect_problems("nothing was saved; problems", problems))
        if not images:
            raise CorrectionError(
                f"{self.root}: nothing counts yet: accept or draw cells, or mark what is done"
            )
        return images

    def _summary(self, image_id: str) -> Summary:
        state = self._stale.pop(image_id, None)
        if state is not None or image_id not in self._summaries:
            entry = self._register.entries[image_id]
            try:
                state = state or self._replay(entry)[1]
                self._summaries[image_id] = summarize(entry, state)
            except CorrectionError as error:
                logger.warning("%s", error)
                return Summary(ImageStatus(image_id, entry.path, problem=str(error)))
        return self._summaries[image_id]

    def _note(self, image: ImageCells) -> None:
        """What is known of an image is no longer so; it is counted when somebody asks."""
        self._stale[image.image_id] = image.state


def _take(root: Path) -> FileLock:
    """Have the folder for this window alone."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        strange = [one.name for one in root.iterdir() if not one.name.startswith(".")]
        if strange and not (root / JOURNAL_FILE).exists() and strange != [LOCK_FILE]:
            raise CorrectionError(
                f"{root}: holds {strange[0]} and no {JOURNAL_FILE}, so it is no folder of "
                "corrections: name one that is empty, or a new one"
            )
        return take_lock(root / LOCK_FILE)
    except LockedError as error:
        raise CorrectionsInUseError(
            f"{root} is in use: {error.holder} has it open. Close it there, or open it for looking "
            "only (read_only)"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise CorrectionError(f"{root}: cannot be written: {reason}") from error


def _name_author(author: str | None) -> str:
    if author is None:
        try:
            author = getpass.getuser()
        except (KeyError, OSError, ImportError):  # a user without a name, as in containers
            author = ""
    return printable(author.strip()) or "unknown"
