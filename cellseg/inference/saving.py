"""What is written of predicted images: pictures, tables and any format of `io`, image by image."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cellseg.cells.drawing import write_picture
from cellseg.cells.measurements import DEFAULTS, MeasurementSettings
from cellseg.errors import ConfigError, DatasetError
from cellseg.images import PlaneImage
from cellseg.images.listing import PassedOver
from cellseg.images.plates import PlatePosition
from cellseg.inference.inputs import InputFile
from cellseg.inference.kept_cells import KeptRecord, keep_cells, read_kept
from cellseg.inference.overviews import draw_overview
from cellseg.inference.own_files import claim_files_of_all
from cellseg.inference.result_folder import ResultFolder
from cellseg.io import FORMATS, open_predictions
from cellseg.io.category_ids import companion_of
from cellseg.io.cell_tables import CELLS, write_cell_tables
from cellseg.io.coco_results import RESULTS_NAME, open_result_lines
from cellseg.io.predictions import (
    check_saved,
    describe_losses,
    find_saved,
    is_per_image,
    prediction_files,
    save_names,
    write_image_prediction,
)
from cellseg.io.run_length_tables import SUBMISSION_NAME
from cellseg.io.summaries import summarize_image, summarize_wells
from cellseg.io.tables import Row, write_rows
from cellseg.names import suggest_name
from numpy.typing import NDArray

OVERLAY, LABELS, COCO = "overlay", "labels", "coco"
TABLES = {"table": ".csv", "parquet": ".parquet"}
OVERLAY_SUFFIX = "_overlay.png"
SUMMARY_NAME, FAILED_NAME, PLATES_NAME = "summary.csv", "failed.csv", "plates.csv"
INPUTS_NAME = "inputs.csv"
DEFAULT_SAVE = (LABELS, OVERLAY, COCO)
SUBMISSIONS = {"sartorius": "sartorius_table", "dsb2018": "dsb2018_table"}

Json = dict[str, Any]


def saveable_names() -> list[str]:
    """All that `Saving.names` may hold."""
    first = [LABELS, OVERLAY, COCO, *TABLES, *SUBMISSIONS]
    return [*first, *(name for name in save_names() if name not in first)]


@dataclass(frozen=True)
class Saving:
    """What is saved, and how classes are called in it.

    Attributes:
        names: of what is saved; see `saveable_names`.
        classes: class names, in the order of their numbers.
        category_ids: the category id of each class in COCO's files.
        measurements: distances that tables of cells depend on.

    Raises:
        ConfigError: a name that is not known, or two that would write the same file.
        DatasetError: a format cannot have these classes, or needs a package that is not there.
    """

    names: tuple[str, ...] = DEFAULT_SAVE
    classes: tuple[str, ...] = ("cell",)
    category_ids: tuple[int, ...] = (1,)
    measurements: MeasurementSettings = field(default=DEFAULTS)

    def __post_init__(self) -> None:
        known = saveable_names()
        writable = {name for name, one in FORMATS.items() if one.prediction or one.open_predictions}
        for name in self.names:
            if name not in writable.union(known):
                raise ConfigError(f"--save: {name!r} cannot be saved; {suggest_name(name, known)}")
        formats = [SUBMISSIONS.get(name, name) for name in self.names]
        if {*SUBMISSIONS.values()} <= {*formats}:
            raise ConfigError("--save: both tables would be submission.csv; ask for one of them")
        for name in self.formats_per_image:
            check_saved(name, self.classes)

    @property
    def formats_per_image(self) -> list[str]:
        """Names of formats that have a file for each image."""
        others = (OVERLAY, COCO, *TABLES, *SUBMISSIONS)
        return [name for name in self.names if name not in others and is_per_image(name)]

    @property
    def formats_of_all(self) -> list[str]:
        """Formats that have one file for all images, but for COCO's results."""
        apart = (OVERLAY, COCO, *TABLES, *self.formats_per_image)
        return [SUBMISSIONS.get(name, name) for name in self.names if name not in apart]

    @property
    def needs_channels(self) -> bool:
        """Whether something that is asked for holds, or measures, all channels of the image."""
        files = [find_saved(name).file for name in self.formats_per_image]
        return bool(self.table_suffixes) or any(file.holds_image for file in files)

    @property
    def table_suffixes(self) -> list[str]:
        """Ends of the names of the tables of cells that are asked for."""
        return [f"{CELLS}{ending}" for name, ending in TABLES.items() if name in self.names]

    @property
    def suffixes(self) -> list[str]:
        """What the names of files of one image end with, whatever is asked for now."""
        formats = [name for name in save_names() if is_per_image(name)]
        files = [path for name in formats for path in prediction_files("", "x", name, ("a", "b"))]
        of_formats = [path.name.removeprefix("x") for path in files]
        return [OVERLAY_SUFFIX, *of_formats, *(f"{CELLS}{ending}" for ending in TABLES.values())]

    def describe_losses(self) -> list[str]:
        """A sentence for each format that cannot hold all of what is found."""
        formats = [*self.formats_per_image, *self.formats_of_all]
        said = (describe_losses(name, self.classes) for name in formats if name != LABELS)
        return [sentence for sentence in said if sentence]


class ResultWriter:
    """Writes the results of one image after the other, then those of all images together.

    Args:
        results: the folder.
        saving: what is saved.
        places: where on plates the images were taken, by the path of their file.
        overwrite: whether files that are no earlier results may be replaced; images that are
            predicted never are.
        images: files that are predicted.
    """

    def __init__(
        self,
        results: ResultFolder,
        saving: Saving,
        *,
        places: Mapping[Path, PlatePosition] | None = None,
        overwrite: bool = False,
        images: Iterable[str | Path] = (),
    ) -> None:
        self.results, self.saving, self.overwrite = results, saving, overwrite
        self.images = frozenset(map(os.path.realpath, images))
        self.places = places or {}
        self.needs_channels = saving.needs_channels

    def __call__(
        self,
        record: Any,
        plane: PlaneImage,
        pixels: NDArray[Any] | None,
        channels: NDArray[Any] | None,
    ) -> Json:
        """Write the results of one image; see `file_work.WriteImage`."""
        image = plane if pixels is None else _in_memory(plane, pixels, channels)
        folder, classes = self.results.folder, self.saving.classes
        for name in self.saving.formats_per_image:
            ids = self.saving.category_ids
            write_image_prediction(record, folder, name, classes, category_ids=ids, image=image)
        if OVERLAY in self.saving.names:
            path = folder / f"{record.image_id}{OVERLAY_SUFFIX}"
            write_picture(path, draw_overview(image, record))
        row = self._describe(record, plane)
        constants = {name: value for name, value in row.items() if name != "file"}
        tables = [folder / f"{record.image_id}{end}" for end in self.saving.table_suffixes]
        if tables:
            settings = self.saving.measurements
            write_cell_tables(record, tables, classes, image, constants, settings)
        keep_cells(record, self.results.cells_path(record.image_id), self.saving.category_ids)
        # Empty where no diameter decided it; a column that is empty in all rows is left out.
        summary = {**row, **summarize_image(record, classes), "scale": record.place.scale}
        files = [self._name(path) for path in self._files_of(record.image_id)]
        return {"files": files, "summary": summary}

    def plan(self, image_id: str, former: Collection[str]) -> list[str]:
        """The files that will be written for an image; see `file_work.WriteImage`.

        Raises:
            DatasetError: one of them is there, and is no earlier result.
        """
        files = self._files_of(image_id)
        self._check_free(files, former)
        return [self._name(path) for path in files]

    def _files_of(self, image_id: str) -> list[Path]:
        folder, saving = self.results.folder, self.saving
        ends = [OVERLAY_SUFFIX] if OVERLAY in saving.names else []
        files = [Path(folder, f"{image_id}{end}") for end in (*ends, *saving.table_suffixes)]
        for name in saving.formats_per_image:
            files += prediction_files(folder, image_id, name, saving.classes)
        return files

    def _name(self, path: Path) -> str:
        return path.relative_to(self.results.folder).as_posix()

    def _check_free(self, files: Sequence[Path], former: Collection[str]) -> None:
        for path in files:
            if os.path.realpath(path) in self.images:
                raise DatasetError(
                    f"{path}: is one of the images that are predicted, and would be replaced by a "
                    "result; name another folder for the results"
                )
            if path.exists() and self._name(path) not in former and not self.overwrite:
                raise DatasetError(
                    f"{path}: is there and was not written by an earlier prediction of this "
                    "image; name another folder for the results, or replace it with --overwrite"
                )

    def _describe(self, record: Any, plane: PlaneImage) -> dict[str, Any]:
        """Which image it is: the first columns of its row in the summary."""
        place = self.places.get(plane.path)
        row: dict[str, Any] = {"image": record.image_id, "file": str(plane.path)}
        row |= {"scene": plane.scene or None}
        row |= {axis.lower(): number for axis, number in plane.position}
        columns = {} if place is None else place.columns()
        return row | {name: value for name, value in columns.items() if name not in row}

    def claim_files_of_all(self) -> None:
        """Note which files of all images `write_all` may replace, before anything is predicted.

        Raises:
            DatasetError: one of them is there, and no earlier prediction wrote it.
        """
        names = [SUMMARY_NAME, PLATES_NAME, FAILED_NAME, INPUTS_NAME]
        if COCO in self.saving.names:
            names += [RESULTS_NAME, companion_of(Path(RESULTS_NAME)).name]
        if {*SUBMISSIONS.values()} & {*self.saving.formats_of_all}:
            names.append(SUBMISSION_NAME)
        claim_files_of_all(self.results.folder, names, overwrite=self.overwrite)

    def write_all(self, files: Sequence[InputFile], passed_over: Sequence[PassedOver] = ()) -> None:
        """Write the files of all images together: those of `files` that are done.

        Args:
            files: all images of the task, not only the part that was done in this process.
            passed_over: files that were found and are not predicted, for `inputs.csv`.
        """
        folder = self.results.folder
        with self.results.locked():
            if COCO in self.saving.names:
                path = folder / RESULTS_NAME
                ids = self.saving.category_ids
                with open_result_lines(path, self.saving.classes, ids) as add:
                    for record in self.records(files):
                        for entry in record.entries():
                            add(entry)
            for name in self.saving.formats_of_all:
                self._write_format_of_all(name, files)
            self._write_summaries(files)
            failures = [
                {"file": str(file.path), "image": image_id, "reason": reason}
                for file, image_id, reason in self.results.failures(files)
            ]
            _write_or_remove(folder / FAILED_NAME, failures)
            others = [
                {"file": os.path.abspath(path), "image": "", "outputs": "", "note": reason}
                for path, reason in passed_over
            ]
            _write_or_remove(folder / INPUTS_NAME, [*self.results.all_images(), *others])

    def _write_format_of_all(self, name: str, files: Sequence[InputFile]) -> None:
        """Write a format that has no file for each image, in place of that of an earlier run."""
        folder = self.results.folder
        with TemporaryDirectory(dir=self.results.state_folder) as staged:
            with open_predictions(staged, name, self.saving.classes) as write:
                for record in self.records(files):
                    write(record.load())
            names = sorted(os.listdir(staged))
            claim_files_of_all(folder, names, overwrite=self.overwrite)
            for one in names:
                if (folder / one).is_dir():
                    self.results.remove([one])
                os.replace(Path(staged, one), folder / one)

    def records(self, files: Sequence[InputFile]) -> Iterator[KeptRecord]:
        """The images that are done, with their cells, one after the other."""
        for _, image_id, _ in self.results.done_images(files):
            yield read_kept(self.results.cells_path(image_id))

    def _write_summaries(self, files: Sequence[InputFile]) -> None:
        rows = [step["summary"] for _, _, step in self.results.done_images(files)]
        _write_or_remove(self.results.folder / SUMMARY_NAME, rows)
        _write_or_remove(self.results.folder / PLATES_NAME, summarize_wells(rows))


def _write_or_remove(path: Path, rows: Sequence[Row]) -> None:
    """Write a table; without rows, remove that of an earlier run."""
    if rows:
        write_rows(path, rows)
    else:
        path.unlink(missing_ok=True)


def _in_memory(
    plane: PlaneImage, pixels: NDArray[Any], channels: NDArray[Any] | None
) -> PlaneImage:
    """A plane whose file may be closed, since its pixels were read as a whole."""

    def read_channels(rows: slice, columns: slice) -> NDArray[Any]:
        if channels is None:
            raise AssertionError("channels are read where a table or the image is written")
        return channels[:, rows, columns]

    return replace(
        plane, read=lambda rows, columns: pixels[rows, columns], read_channels=read_channels
    )
