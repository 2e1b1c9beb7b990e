"""Predict image files one after the other, each plane of each, and lose nothing on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cellseg.cells.records import ImageRecord
from cellseg.images import place_of
from cellseg.inference.file_work import Outcome, PlaneModel, Reader, Work, WriteImage, Writer
from cellseg.inference.inputs import InputFile
from cellseg.inference.magnification import Found, tell_of_look
from cellseg.inference.result_folder import ResultFolder
from cellseg.interrupts import finishing, requested
from numpy.typing import NDArray
from tqdm import tqdm


def predict_files(
    model: PlaneModel,
    files: Sequence[InputFile],
    results: ResultFolder,
    write: WriteImage,
    *,
    resume: bool = False,
    batch_size: int = 1,
    pixel_size_um: tuple[float, float] | None = None,
    is_part: bool = False,
) -> Outcome:
    """Predict each plane of each file and write its results; one that fails does not stop the rest.

    A file is read and another one's results are written while the network is at work. What is
    remembered of an image is written when its files are complete, so that after an interruption
    `resume` goes on with the next one. Memory does not grow with the number of files.

    Args:
        model: finds the cells.
        files: the images; each needs a name of its own.
        results: the folder of results.
        write: writes the results of one image.
        resume: leave out images whose results are there, made with the same settings.
        batch_size: how many images of one size go through the network together.
        pixel_size_um: (height, width) of a pixel in micrometres, which wins over what files say.
        is_part: a part of a larger task, whose owner shows how far it is and says what failed.

    Returns:
        What was done and what failed.

    Raises:
        Interrupted: a signal has come; what was in hand is done and written. Only where the
            process is `watched` for signals.
    """
    outcome = Outcome()
    reader = Reader(model, files, results, resume, write.needs_channels, pixel_size_um)
    with (
        finishing(),
        reader,
        ThreadPoolExecutor(1, "write") as pool,
        show_progress(len(files), is_hidden=is_part) as bar,
    ):
        writer = Writer(pool, results, write, outcome, bar, is_part)
        for group in _group_by_size(reader, batch_size):
            if requested():
                break
            together = [work for work in group if work.pixels is not None]
            if together:
                _predict_batch(model, together, writer)
            for work in group:
                if work.pixels is None and work.plane is not None:
                    _predict_tiled(model, work, writer)
                elif work.pixels is None:
                    writer.note(work)
    outcome.skipped = reader.skipped
    return outcome


def show_progress(count: int, doing: str = "predict", *, is_hidden: bool = False) -> tqdm[Any]:
    """The bar that says how many files are done, on a terminal."""
    return tqdm(total=count, desc=doing, unit="file", disable=is_hidden or None)


def _group_by_size(works: Iterable[Work], batch_size: int) -> Iterator[list[Work]]:
    """Images that can go through the network together, with the notes between them.

    A plane that is looked at in tiles is a group of its own. What is noted of a file stands behind
    its images.
    """
    group: list[Work] = []
    count = 0
    for work in works:
        is_note = work.pixels is None and work.plane is None
        if count and not is_note and not _fit_together(group[0], work):
            yield group
            group, count = [], 0
        group.append(work)
        count += not is_note
        is_tiled = work.pixels is None and not is_note
        if not count or is_tiled or count >= batch_size:
            yield group
            group, count = [], 0
    if group:
        yield group


def _fit_together(one: Work, other: Work) -> bool:
    if one.pixels is None or other.pixels is None:
        return False
    return one.pixels.shape == other.pixels.shape and one.pixels.dtype == other.pixels.dtype


def _predict_batch(model: PlaneModel, batch: Sequence[Work], writer: Writer) -> None:
    """Predict images together; if that fails, one by one, so that it is known which one fails."""
    images = [work.pixels for work in batch if work.pixels is not None]
    try:
        found: list[Found | Exception] = list(model.predict_images(images))
    except Exception as error:
        found = [error] if len(batch) == 1 else [_predict_alone(model, one) for one in images]
    for work, one in zip(batch, found):
        if isinstance(one, Exception):
            work.error = one
            writer.note(work)
        else:
            assert work.plane is not None
            tell_of_look(work.image_id, one.look)
            place = one.look.note_in(place_of(work.plane))
            writer.write(work, ImageRecord(work.image_id, one.cells, work.file.path, place))


def _predict_alone(model: PlaneModel, image: NDArray[Any]) -> Found | Exception:
    try:
        return model.predict_images([image])[0]
    except Exception as error:
        return error


def _predict_tiled(model: PlaneModel, work: Work, writer: Writer) -> None:
    """Predict a plane by windows; its file stays open until the results are written."""
    assert work.plane is not None
    try:
        with model.predict_plane(work.plane, work.image_id) as record:
            writer.write(work, record).result()
    except Exception as error:
        work.error = error
        writer.note(work)
    finally:
        work.written.set()
