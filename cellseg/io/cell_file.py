"""A file with the cells of one image, and how it is written: for a data set, for predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import DatasetError
from cellseg.files import write_whole
from cellseg.io.base import ALL_BUT_SCORES, Option, PredictionFile, Problems, WriteRecord
from cellseg.io.checks import check_cells, check_classes, check_file_name

ReadCells = Callable[
    [Path, tuple[int, int], tuple[str, ...], Mapping[str, Any]], CellInstances | Problems
]
ReadFrames = Callable[
    [Path, tuple[int, int], Sequence[PlaceInFile], tuple[str, ...], Mapping[str, Any]],
    list[CellInstances | None] | Problems,
]
WriteCells = Callable[[ImageRecord, Path, tuple[str, ...], Mapping[str, Any]], None]


@dataclass(frozen=True)
class CellFile:
    """A file with the cells of one image.

    Attributes:
        kind: what messages call such files, as in "label image".
        folder: name of the folder that they lie in; also the option that names another one.
        suffixes: endings that are read, the usual two first.
        written_suffix: the ending that is written.
        read: (path, image_hw, classes, options) -> cells, or all that is wrong with the file. It
            may raise DatasetError, ImageReadError and LabelError as well.
        write: (record, path, classes, options): writes the cells, which have pixels and classes;
            None where files are read only.
        write_prediction: the same for predictions, where that is something else: `record` is what
            prediction gave, to be gone through by `cells_with_labels`. Without it predictions are
            written by `write`, less the detections without a pixel.
        prediction_suffix: end of the name of a file of predictions, `<out>/<id><suffix>`; by
            default `_<folder><written_suffix>`.
        read_frames: (path, image_hw, places, classes, options) -> the cells of each plane of a
            stack, whose places are given, or what is wrong; None for a plane that is no image of
            the data set. It is asked where `read` raises SeveralPlanesError.
        missing_is_empty: an image without such a file has no cells; it is an error otherwise, since
            a forgotten file would look the same.
        find_classes: (path, options) -> names of classes in the file; None where it has none.
        options: keys of a declaration beside the names of the two folders.
        holds: as in `FileFormat`.
        check: (classes) -> what is wrong with them before anything is read or written; "" if
            nothing is.
    """

    kind: str
    folder: str
    suffixes: tuple[str, ...]
    written_suffix: str
    read: ReadCells
    write: WriteCells | None = None
    write_prediction: WriteCells | None = None
    prediction_suffix: str = ""
    read_frames: ReadFrames | None = None
    missing_is_empty: bool = False
    find_classes: Callable[[Path, Mapping[str, Any]], Iterable[str]] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    holds: frozenset[str] = ALL_BUT_SCORES
    check: Callable[[tuple[str, ...]], str] = lambda classes: ""

    def folder_in(self, split: Path, options: Mapping[str, Any]) -> Path:
        """The folder of these files in that of a split."""
        return split / str(options.get(self.folder, self.folder))

    def run_check(self, folder: Path, classes: tuple[str, ...]) -> None:
        """Raise DatasetError for classes that the format cannot have."""
        problem = self.check(classes)
        if problem:
            raise DatasetError(f"{folder}: {problem}")


def predictions_of_files(
    cell_file: CellFile, place: Callable[[Path, str], Path]
) -> Callable[[Path, tuple[str, ...]], Any]:
    """The `open_predictions` of a format of one file per image.

    Args:
        cell_file: what is written.
        place: (folder, image id) -> path of the file.
    """

    @contextmanager
    def open_predictions(folder: Path, classes: tuple[str, ...]) -> Iterator[WriteRecord]:
        cell_file.run_check(folder, classes)

        def write(record: ImageRecord) -> None:
            check_file_name(record)
            with write_whole(place(folder, record.image_id)) as partial:
                write_predicted(record, partial, cell_file, classes)

        yield write

    return open_predictions


def prediction_of(cell_file: CellFile) -> PredictionFile:
    """The same file for predictions that are written image by image."""

    def write(
        record: ImageRecord,
        paths: Sequence[Path],
        classes: tuple[str, ...],
        options: Mapping[str, Any],
    ) -> None:
        write_predicted(record, paths[0], cell_file, classes, options)

    suffix = cell_file.prediction_suffix or f"_{cell_file.folder}{cell_file.written_suffix}"
    return PredictionFile(suffix, write, check=cell_file.check)


def write_predicted(
    record: ImageRecord,
    path: Path,
    cell_file: CellFile,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the predicted cells of one image; detections without a pixel are left out.

    Raises:
        DatasetError: a cell's class is not among `classes`.
    """
    if cell_file.write_prediction:
        cell_file.write_prediction(record, path, classes, options or {})
        return
    cells = record.cells[record.cells.areas_px > 0]
    check_classes(record, cells, classes)
    kept = ImageRecord(record.image_id, cells, record.image_path, record.place)
    assert cell_file.write is not None
    cell_file.write(kept, path, classes, options or {})


def write_checked(
    record: ImageRecord,
    path: Path,
    cell_file: CellFile,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the file of one image, whole or not at all; its folder is made.

    Raises:
        DatasetError: a cell has no pixel, or a class that is not among `classes`.
    """
    assert cell_file.write is not None
    check_cells(record, classes)
    with write_whole(path) as partial:
        cell_file.write(record, partial, classes, options or {})
