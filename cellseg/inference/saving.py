"""What is written of predicted images: pictures, label images, tables and any format of `io`."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.cells.drawing import draw_overlay, write_picture
from cellseg.errors import ConfigError, DatasetError
from cellseg.files import write_whole
from cellseg.images import PlaneImage
from cellseg.inference.inputs import InputFile
from cellseg.inference.kept_cells import KeptRecord, keep_cells, read_kept
from cellseg.inference.result_folder import ResultFolder
from cellseg.io import FORMATS, open_predictions
from cellseg.io.category_ids import write_companion
from cellseg.io.coco_results import RESULTS_NAME
from cellseg.io.label_images import write_label_image
from cellseg.names import suggest_name
from numpy.typing import NDArray

OVERLAY, LABELS, COCO = "overlay", "labels", "coco"
OVERLAY_SUFFIX, LABELS_SUFFIX = "_overlay.png", "_labels.tif"
SUMMARY_NAME, FAILED_NAME = "summary.csv", "failed.csv"
DEFAULT_SAVE = (LABELS, OVERLAY, COCO)
SHORT_NAMES = {"sartorius": "sartorius_table", "dsb2018": "dsb2018_table"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Saving:
    """What is saved, and how classes are called in it.

    Attributes:
        names: of what is saved; see `saveable_names`.
        classes: class names, in the order of their numbers.
        category_ids: the category id of each class in COCO's files.

    Raises:
        ConfigError: a name that is not known, or two that would write the same file.
    """

    names: tuple[str, ...] = DEFAULT_SAVE
    classes: tuple[str, ...] = ("cell",)
    category_ids: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        known = saveable_names()
        for name in self.names:
            if name not in known:
                raise ConfigError(f"--save: {name!r} cannot be saved; {suggest_name(name, known)}")
        if {"sartorius", "dsb2018"} <= set(self.names):
            raise ConfigError("--save: both tables would be submission.csv; ask for one of them")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What names of the files of one image end with."""
        return (OVERLAY_SUFFIX, LABELS_SUFFIX)


def saveable_names() -> list[str]:
    """All that `Saving.names` may hold."""
    formats = sorted(name for name, one in FORMATS.items() if one.open_predictions)
    return [*DEFAULT_SAVE, *SHORT_NAMES, *formats]


class ResultWriter:
    """Writes the results of one image after the other, then those of all images together.

    Args:
        results: the folder.
        saving: what is saved.
        overwrite: whether files that are no earlier results may be replaced.
    """

    needs_channels = False

    def __init__(
        self,
        results: ResultFolder,
        saving: Saving,
        *,
        overwrite: bool = False,
    ) -> None:
        self.results, self.saving, self.overwrite = results, saving, overwrite

    def __call__(
        self,
        record: Any,
        plane: PlaneImage,
        pixels: NDArray[Any] | None,
        channels: NDArray[Any] | None,
        former: Collection[str] = (),
    ) -> Json:
        """Write the results of one image; see `files.WriteImage`.

        Raises:
            DatasetError: a file that would be written is there, and is no earlier result.
        """
        folder, image_id = self.results.folder, record.image_id
        files = []
        if LABELS in self.saving.names:
            files.append(self._place(f"{image_id}{LABELS_SUFFIX}", former))
            write_label_image(record, files[-1])
        if OVERLAY in self.saving.names:
            files.append(self._place(f"{image_id}{OVERLAY_SUFFIX}", former))
            image = plane.read_whole() if pixels is None else pixels
            write_picture(files[-1], draw_overlay(image, record.cells))
        keep_cells(record, self.results.cells_path(image_id), self.saving.category_ids)
        names = [path.relative_to(folder).as_posix() for path in files]
        return {"files": names, "summary": _summarize(record, plane)}

    def _place(self, name: str, former: Collection[str]) -> Path:
        """Where a file goes; an error if one of somebody else is there."""
        path = self.results.folder / name
        if path.exists() and name not in former and not self.overwrite:
            raise DatasetError(
                f"{path}: is there and was not written by an earlier prediction of this image; "
                "name another folder for the results, or replace it with --overwrite"
            )
        return path

    def write_all(self, files: Sequence[InputFile]) -> None:
        """Write the files of all images together: those of `files` that are done.

        Args:
            files: all images of the task, not only the part that was done in this process.
        """
        with self.results.locked():
            if COCO in self.saving.names:
                self._write_coco(files)
            for name in self.saving.names:
                if name not in DEFAULT_SAVE:
                    self._write_format(SHORT_NAMES.get(name, name), files)
            rows = [step["summary"] for _, _, step in self.results.done_images(files)]
            write_rows(self.results.folder / SUMMARY_NAME, rows)
            self._write_failures(files)

    def _records(self, files: Sequence[InputFile]) -> Iterator[KeptRecord]:
        for _, image_id, _ in self.results.done_images(files):
            yield read_kept(self.results.cells_path(image_id))

    def _write_coco(self, files: Sequence[InputFile]) -> None:
        path = self.results.folder / RESULTS_NAME
        write_companion(path, self.saving.category_ids, self.saving.classes)
        with write_whole(path) as partial, partial.open("w", encoding="utf-8") as stream:
            separator = "["
            for record in self._records(files):
                for entry in record.entries():
                    stream.write(f"{separator}{entry}")
                    separator = ",\n"
            stream.write("]" if separator != "[" else "[]")

    def _write_format(self, name: str, files: Sequence[InputFile]) -> None:
        with open_predictions(self.results.folder, name, self.saving.classes) as write:
            for record in self._records(files):
                write(record.load())

    def _write_failures(self, files: Sequence[InputFile]) -> None:
        path = self.results.folder / FAILED_NAME
        rows = [
            {"file": str(file.path), "image": image_id, "reason": reason}
            for file, image_id, reason in self.results.failures(files)
        ]
        if rows:
            write_rows(path, rows)
        else:
            path.unlink(missing_ok=True)


def _summarize(record: Any, plane: PlaneImage) -> Json:
    row: Json = {"image": record.image_id, "file": str(plane.path)}
    row |= dict(plane.position)
    return row | {"cells": record.num_cells}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with a column for every key that occurs, in the order of occurrence."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
