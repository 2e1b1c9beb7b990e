"""Around the network: planes are read before it needs them, results written behind it."""

from __future__ import annotations

import logging
import queue
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from cellseg.errors import CellsegError, ImageReadError
from cellseg.images import PlaneImage
from cellseg.inference.inputs import InputFile
from cellseg.inference.magnification import Found
from cellseg.inference.result_folder import FileState, ResultFolder
from cellseg.names import printable
from cellseg.system_errors import explain_system_error
from numpy.typing import NDArray

READ_AHEAD = 2
"""How many images are read before the network needs them."""
WRITE_BEHIND = 4
"""How many results wait to be written before the network waits for them."""

FAILURES_IN_A_ROW = 20
"""After so many planes in a row that cannot be read the rest of a file is not tried: a damaged
header may claim millions."""
FLAT_TOLD = 10
WHOLE = slice(None)

logger = logging.getLogger(__name__)


class PlaneModel(Protocol):
    """What finds cells; `CellModel` does."""

    def open_planes(self, path: Any) -> AbstractContextManager[Sequence[PlaneImage]]:
        """The planes of a file that are to be predicted."""

    def is_tiled(self, plane: PlaneImage) -> bool:
        """Whether a plane is looked at in tiles, and never read as a whole."""

    def predict_images(self, images: Sequence[NDArray[Any]]) -> list[Found]:
        """The cells of images of one size."""

    def predict_plane(self, plane: PlaneImage, image_id: str) -> AbstractContextManager[Any]:
        """The cells of a plane that is looked at in tiles: a context whose value is the record."""


class WriteImage(Protocol):
    """What writes the results of an image."""

    needs_channels: bool

    def plan(self, image_id: str, former: Collection[str]) -> list[str]:
        """The files that will be written for an image, relative to the folder of results.

        Args:
            image_id: of the image.
            former: files of an earlier prediction of it, which may be replaced; others may not.
        """

    def __call__(
        self,
        record: Any,
        plane: PlaneImage,
        pixels: NDArray[Any] | None,
        channels: NDArray[Any] | None,
    ) -> dict[str, Any]:
        """Write the results of one image.

        Args:
            record: the image's cells.
            plane: the plane that they are of; to be read from only if the next two are None.
            pixels: the chosen channels of the plane, if it was read as a whole.
            channels: all channels, [C, H, W], if it was and `needs_channels`.

        Returns:
            What is remembered of the image: `files`, relative to the folder of results, `summary`.
        """


@dataclass
class Outcome:
    """What became of the images.

    Attributes:
        done: images predicted now.
        skipped: images whose results were there already.
        cells: cells found now.
        failed: (path of the file, image id, reason) of each image, or whole file, that failed.
    """

    done: int = 0
    skipped: int = 0
    cells: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Count what became of other images as well."""
        self.done += other.done
        self.skipped += other.skipped
        self.cells += other.cells
        self.failed += other.failed


@dataclass
class Work:
    """One plane on its way: read, then predicted, then written."""

    file: InputFile
    state: FileState | None = None  # none where nothing can be remembered
    image_id: str = ""
    plane: PlaneImage | None = None
    pixels: NDArray[Any] | None = None
    channels: NDArray[Any] | None = None
    error: Exception | None = None
    is_last: bool = False
    written: threading.Event = field(default_factory=threading.Event)


class Reader:
    """Reads planes in a thread of its own, a few before they are needed.

    Args:
        model: opens files.
        files: in their order.
        results: says what is there already.
        resume: whether that counts.
        needs_channels: whether all channels are read as well.
        pixel_size_um: of all planes; None for what the files say.

    Attributes:
        skipped: how many images were left out.
    """

    def __init__(
        self,
        model: PlaneModel,
        files: Sequence[InputFile],
        results: ResultFolder,
        resume: bool,
        needs_channels: bool,
        pixel_size_um: tuple[float, float] | None,
    ) -> None:
        self.model, self.files, self.results = model, files, results
        self.resume, self.needs_channels = resume, needs_channels
        self.pixel_size_um = pixel_size_um
        self.skipped = 0
        self._flat = 0
        self._queue: queue.Queue[Work | None] = queue.Queue(READ_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        while self._thread.is_alive():  # it may wait for a place in the queue
            try:
                work = self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
            if work is not None:
                work.written.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Work]:
        while (work := self._queue.get()) is not None:
            yield work

    def _run(self) -> None:
        try:
            for file in self.files:
                if self._stop.is_set():
                    return
                self._read_file(file)
        finally:
            self._queue.put(None)

    def _read_file(self, file: InputFile) -> None:
        if self.resume and self.results.is_done(file):
            self.skipped += len(self.results.state_of(file).images)
            self._queue.put(Work(file, is_last=True))
            return
        try:
            state = self.results.start(file, resume=self.resume)
        except OSError as error:
            self._queue.put(Work(file, error=error, is_last=True))
            return
        try:
            with self.model.open_planes(file.path) as planes:
                self._read_planes(file, state, planes)
        except Exception as error:
            self._queue.put(Work(file, state, error=error))
        self._queue.put(Work(file, state, is_last=True))

    def _read_planes(self, file: InputFile, state: FileState, planes: Sequence[PlaneImage]) -> None:
        failed_in_a_row = 0
        for number, plane in enumerate(planes):
            image_id = file.image_id(plane.suffix)
            if self._stop.is_set():
                return
            if image_id in state.images:
                self.skipped += 1
                continue
            if failed_in_a_row == FAILURES_IN_A_ROW:
                raise ImageReadError(
                    f"{file.path}: {failed_in_a_row} planes in a row cannot be read; the other "
                    f"{len(planes) - number}, from {image_id} on, are not tried"
                )
            if self.pixel_size_um is not None:
                plane = replace(plane, pixel_size_um=self.pixel_size_um)
            is_read = self._read_plane(Work(file, state, image_id, plane))
            failed_in_a_row = 0 if is_read else failed_in_a_row + 1

    def _read_plane(self, work: Work) -> bool:
        """Read one plane; whether that went well."""
        assert work.plane is not None
        try:
            if self.model.is_tiled(work.plane):
                self._queue.put(work)
                work.written.wait()
                return True
            work.pixels = work.plane.read_whole()
            self._tell_flat(work.image_id, work.pixels)
            if self.needs_channels:
                work.channels = work.plane.read_channels(WHOLE, WHOLE)
        except Exception as error:
            work.error, work.plane, work.pixels = error, None, None
        self._queue.put(work)
        return work.error is None

    def _tell_flat(self, image_id: str, pixels: NDArray[Any]) -> None:
        """Warn of an image without anything in it; of a plate with many, of the first ones."""
        if pixels.size < 2 or (pixels != pixels.flat[0]).any():
            return
        self._flat += 1
        if self._flat <= FLAT_TOLD:
            more = "; others like it are not told of" if self._flat == FLAT_TOLD else ""
            logger.warning(
                "%s: one value, %g, everywhere: nothing can be found in it%s",
                *(image_id, pixels.flat[0].item(), more),
            )


class Writer:
    """Writes results in a thread of its own, in their order."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        results: ResultFolder,
        write: WriteImage,
        outcome: Outcome,
        bar: Any,
        is_part: bool,
    ) -> None:
        self.pool, self.results, self.write_image = pool, results, write
        self.outcome, self.bar, self.is_part = outcome, bar, is_part
        self._places = threading.Semaphore(WRITE_BEHIND)

    def write(self, work: Work, record: Any) -> Future[None]:
        """Write the results of an image as soon as its turn comes."""
        return self._submit(self._write, work, record)

    def note(self, work: Work) -> None:
        """Remember that an image, or a file, failed, or that a file is complete."""
        self._submit(self._note, work)

    def _submit(self, act: Callable[..., None], *arguments: Any) -> Future[None]:
        self._places.acquire()
        future = self.pool.submit(act, *arguments)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def _write(self, work: Work, record: Any) -> None:
        try:
            assert work.plane is not None
            assert work.state is not None
            former = work.state.former.get(work.image_id, ())
            names = self.write_image.plan(work.image_id, former)
            with work.state.begin(work.image_id, names):
                step = self.write_image(record, work.plane, work.pixels, work.channels)
            work.state.add({"image": work.image_id, **step})
            self.results.remove(set(former) - set(step["files"]))
        except Exception as error:
            work.error = error
            self._note(work)
            return
        self.outcome.done += 1
        self.outcome.cells += record.num_cells

    def _note(self, work: Work) -> None:
        if work.error is not None:
            failure = remember_failure(work.file, work.state, work.image_id, work.error)
            self.outcome.failed.append(failure)
            if not self.is_part:
                logger.error("%s", failure[2])
        if work.is_last:
            self._note_end(work)
            self.bar.update()

    def _note_end(self, work: Work) -> None:
        if work.state is None:
            return
        try:
            work.state.add({"complete": True})
        except OSError as error:
            failure = remember_failure(work.file, work.state, "", error)
            self.outcome.failed.append(failure)
            logger.error("%s", failure[2])


def remember_failure(
    file: InputFile, state: FileState | None, image_id: str, error: Exception
) -> tuple[str, str, str]:
    """Note that an image, or a whole file, failed.

    Args:
        file: what failed.
        state: where it is noted; None where nothing can be.
        image_id: "" for the whole file.
        error: why.

    Returns:
        As in `Outcome.failed`.
    """
    reason = describe_failure(file, error)
    if state is not None:
        step = {"image": image_id, "failed": reason}
        if not isinstance(error, CellsegError):
            step["traceback"] = "".join(traceback.format_exception(error))
        with suppress(OSError):  # a full disk: log and exit status say so all the same
            state.add(step)
    return str(file.path), image_id, reason


def describe_failure(file: InputFile, error: Exception) -> str:
    """The reason in one line that names the file."""
    path, said = str(file.path), str(error)
    if not isinstance(error, CellsegError):
        said = explain_system_error(error) or f"{type(error).__name__}: {said[:300]}"
    text = printable(" ".join(said.replace(path, printable(path)).split()))
    return text if printable(path) in text else f"{printable(path)}: {text}"
