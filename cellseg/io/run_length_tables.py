"""Tables with one row of run lengths per cell, as in two competitions.

`sartorius_table` (Sartorius - Cell Instance Segmentation, 2021): pixels count row by row from 1

    <root>/<split>.csv                  id, annotation, width, height, cell_type, ...
    <root>/<split>/<id>.png

`dsb2018_table` (Data Science Bowl 2018): pixels count column by column from 1

    <root>/<split>_labels.csv           ImageId, EncodedPixels
    <root>/<split>/<id>/images/<id>.png

An image in the folder without a row has no cells; so has one whose row has no run lengths. Where
splits are csv files (`splits: {train: fold_1.csv}`) that share a folder, only images with a row
belong to a split.

Predictions are written as `submission.csv`, as the competitions wanted them: columns `id` and
`predicted` (Sartorius) or `ImageId` and `EncodedPixels`, no pixel twice, and one row without run
lengths for an image without cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError
from cellseg.files import write_whole
from cellseg.images import read_image_hw, stem_of_image
from cellseg.images.listing import list_folder
from cellseg.io.base import (
    CLASSES,
    EMPTY_IMAGES,
    FOLDER_NAME,
    HOLES,
    OVERLAPS,
    FileFormat,
    Option,
    Problems,
    WriteRecord,
    check_free,
    copy_image,
    find_split_folder,
    image_file_name,
    list_files,
    match_classes,
    new_split_folder,
    raise_broken,
    raise_problems,
    read_all,
)
from cellseg.io.checks import check_cells
from cellseg.io.pairing import find_duplicates
from cellseg.io.run_length_rows import cells_to_rows, rows_to_runs
from cellseg.io.table_rows import CsvWriter, Row, read_rows

SUBMISSION_NAME = "submission.csv"


@dataclass(frozen=True)
class _Layout:
    """How one of the tables looks.

    Attributes:
        columns: of the image's id and of the run lengths.
        submitted: the same columns in a submission.
        row_major: pixels count row by row; else column by column.
        has_details: there are also width, height and cell_type.
        table: its file; {split} stands for the split's name.
        find: (folder of images) -> path of each id.
        place: (folder of images, file name) -> where the image is written to.
    """

    columns: tuple[str, str]
    submitted: tuple[str, str]
    row_major: bool
    has_details: bool
    table: str
    find: Callable[[Path], dict[str, Path]]
    place: Callable[[Path, str], Path]

    @property
    def all_columns(self) -> tuple[str, ...]:
        return (*self.columns, *DETAILS) if self.has_details else self.columns


DETAILS = ("width", "height", "cell_type")


@dataclass
class _Case:
    """One image and its rows."""

    image_id: str
    path: Path
    lines: list[int]
    run_lengths: list[str]
    names: list[str]
    sizes: list[tuple[str, str]]


def _flat_images(folder: Path) -> dict[str, Path]:
    files = [(stem_of_image(path), path) for path in list_files(folder)]
    raise_problems(folder, list(find_duplicates(files)))
    return dict(files)


def _images_in_folders(folder: Path) -> dict[str, Path]:
    found = list_folder(folder)
    raise_broken(folder, found)
    images = {
        case.name: list_files(case / "images")
        for case in found.folders
        if (case / "images").is_dir()
    }
    problems = [
        f"{folder / name / 'images'}: expected one image; found {len(files)}"
        for name, files in images.items()
        if len(files) != 1
    ]
    raise_problems(folder, problems)
    return {name: files[0] for name, files in images.items()}


SARTORIUS = _Layout(
    columns=("id", "annotation"),
    submitted=("id", "predicted"),
    row_major=True,
    has_details=True,
    table="{split}.csv",
    find=_flat_images,
    place=lambda folder, name: folder / name,
)
DSB2018 = _Layout(
    columns=("ImageId", "EncodedPixels"),
    submitted=("ImageId", "EncodedPixels"),
    row_major=False,
    has_details=False,
    table="{split}_labels.csv",
    find=_images_in_folders,
    place=lambda folder, name: folder / stem_of_image(name) / "images" / name,
)


def read_split(
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    layout: _Layout,
) -> list[ImageRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    _check_classes(layout, classes)
    table, folder = _find_places(layout, root, split, **options)
    rows = read_rows(table, layout.all_columns)
    paths = layout.find(find_split_folder(folder.parent, folder.name))
    cases = _group(table, folder, rows, paths, layout)
    if not split.lower().endswith(".csv"):
        cases += [_Case(key, paths[key], [], [], [], []) for key in set(paths) - set(rows)]
    if not cases:
        raise DatasetError(f"{table}: no rows in it, and no images in {folder}")
    numbers, problems = match_classes((name for case in cases for name in case.names), classes)
    raise_problems(table, problems)
    cases.sort(key=lambda case: case.image_id)
    read_one = partial(_read_case, layout=layout, table=table, numbers=numbers)
    return read_all(cases, read_one, table)


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Cell types in a Sartorius table, in alphabetical order."""
    table, _ = _find_places(SARTORIUS, root, split, **options)
    found = {
        row[1]["cell_type"]
        for rows in read_rows(table, SARTORIUS.all_columns).values()
        for row in rows
    }
    return tuple(sorted(found))


def _check_classes(layout: _Layout, classes: tuple[str, ...]) -> None:
    if not layout.has_details and len(classes) > 1:
        raise DatasetError(
            f"a table of {' and '.join(layout.columns)} has one class; declared are "
            f"{', '.join(classes)}"
        )


def _find_places(
    layout: _Layout, root: Path, split: str, images: str = "{split}", table: str = ""
) -> tuple[Path, Path]:
    """The table and the folder of images."""
    if split.lower().endswith(".csv"):
        return root / split, root / images.replace("{split}", Path(split).stem)
    file = (table or layout.table).replace("{split}", split)
    return root / file, root / images.replace("{split}", split)


def _group(
    table: Path,
    folder: Path,
    rows: Mapping[str, Sequence[Row]],
    paths: Mapping[str, Path],
    layout: _Layout,
) -> list[_Case]:
    """One case per image with rows; all ids without an image in one DatasetError."""
    raise_problems(
        table,
        [
            f"line {own[0][0]}: there is no image {image_id!r} in {folder}"
            for image_id, own in rows.items()
            if image_id not in paths
        ],
    )
    cases = []
    for image_id, own in rows.items():
        cells = [row for row in own if row[1][layout.columns[1]]]
        details = [row for _, row in own] if layout.has_details else []
        cases.append(
            _Case(
                image_id,
                paths[image_id],
                lines=[line for line, _ in cells],
                run_lengths=[row[layout.columns[1]] for _, row in cells],
                names=[row["cell_type"] for _, row in cells] if layout.has_details else [],
                sizes=sorted({(row["width"], row["height"]) for row in details}),
            )
        )
    return cases


def _read_case(
    case: _Case, layout: _Layout, table: Path, numbers: Mapping[str, int]
) -> ImageRecord | Problems:
    try:
        image_hw = read_image_hw(case.path)
    except ImageReadError as error:
        return Problems([str(error)])
    expected = f"{image_hw[1]} x {image_hw[0]} (width x height)"
    for size in case.sizes:
        if not _is_size(size, image_hw):
            found = " x ".join(size)
            return Problems(
                [f"{case.path}: the image is {expected}; {table.name} says {found} in a row of it"]
            )
    runs, problems = rows_to_runs(case.run_lengths, image_hw, row_major=layout.row_major)
    if problems:
        return Problems(
            f"line {case.lines[row]} ({case.image_id}): {problem}"
            for row, problem in problems.items()
        )
    classes = [numbers[name] for name in case.names] or [0] * len(case.lines)
    cells = CellInstances.from_runs(runs, len(case.lines), image_hw, classes=classes)
    return ImageRecord(case.image_id, cells, case.path)


def _is_size(size: tuple[str, str], image_hw: tuple[int, int]) -> bool:
    try:
        return (float(size[1]), float(size[0])) == image_hw
    except ValueError:
        return False


def write_split(
    records: Sequence[ImageRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    layout: _Layout,
) -> None:
    """Write the table and a folder of images; see `DatasetFormat.write`."""
    _check_classes(layout, classes)
    if split.lower().endswith(".csv"):
        raise DatasetError(f"{split}: a split is written as a folder and a table of its name")
    table, folder = _find_places(layout, root, split, **options)
    check_free(table)
    try:
        _write_files(records, table, folder, classes, layout)
    except OSError as error:
        raise DatasetError(f"{table}: cannot be written: {error}") from error


def _write_files(
    records: Sequence[ImageRecord],
    table: Path,
    folder: Path,
    classes: tuple[str, ...],
    layout: _Layout,
) -> None:
    names = [image_file_name(record) for record in records]
    with (
        write_whole(table) as partial_table,
        new_split_folder(folder.parent, folder.name) as partial_folder,
    ):
        for record, name in zip(records, names):
            target = layout.place(partial_folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_image(record, target)
        rows = _table_rows(records, classes, layout)
        _write_rows(partial_table, layout.all_columns, rows)


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        CsvWriter(stream, "\n").writerows([columns, *rows])


def _table_rows(
    records: Iterable[ImageRecord], classes: tuple[str, ...], layout: _Layout
) -> Iterator[Sequence[Any]]:
    for record in records:
        check_cells(record, classes)
        height, width = record.image_hw
        texts = cells_to_rows(record.cells, row_major=layout.row_major)
        for text, number in zip(texts, record.cells.classes.tolist()):
            details = (width, height, classes[number]) if layout.has_details else ()
            yield (record.image_id, text, *details)


def cells_to_submission_rows(cells: CellInstances, *, row_major: bool) -> list[str]:
    """Run lengths, `start length start length ...`, of the cells of one image, no pixel twice.

    Where cells overlap the one with the higher score keeps the pixel; a cell that has none left
    is dropped. The order of the others is kept.

    Args:
        cells: of one image; may be empty.
        row_major: pixels count row by row, as in Sartorius; else column by column, as in the Data
            Science Bowl 2018.

    Example:
        >>> cells = CellInstances.from_label_image([[0, 1], [2, 1]])
        >>> cells_to_submission_rows(cells, row_major=True)
        ['2 1 4 1', '3 1']
    """
    apart = CellInstances.from_label_image(cells.to_label_image())
    return cells_to_rows(apart, row_major=row_major)


@contextmanager
def open_submission(
    folder: Path, classes: tuple[str, ...], *, layout: _Layout
) -> Iterator[WriteRecord]:
    """Write `submission.csv`; see `FileFormat.open_predictions`. Classes do not go into it."""
    seen: set[str] = set()
    with (
        write_whole(folder / SUBMISSION_NAME) as partial_table,
        partial_table.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = CsvWriter(stream, "\n")
        table.writerow(layout.submitted)

        def write(record: ImageRecord) -> None:
            if record.image_id in seen:
                raise DatasetError(f"image {record.image_id!r} comes twice in a submission")
            seen.add(record.image_id)
            rows = cells_to_submission_rows(record.cells, row_major=layout.row_major)
            table.writerows((record.image_id, row) for row in rows or [""])

        yield write


def _format_of(layout: _Layout, **how: Any) -> FileFormat:
    pattern = Option("a text in which {split} stands for the split", FOLDER_NAME.accepts)
    return FileFormat(
        partial(read_split, layout=layout),
        split=Option("the name of a folder or of a .csv file", FOLDER_NAME.accepts),
        options={"images": pattern, "table": pattern},
        write=partial(write_split, layout=layout),
        open_predictions=partial(open_submission, layout=layout),
        **how,
    )


_HELD = frozenset((OVERLAPS, HOLES, EMPTY_IMAGES))
SARTORIUS_TABLE = _format_of(SARTORIUS, holds=_HELD | {CLASSES}, find_classes=find_classes)
DSB2018_TABLE = _format_of(DSB2018, holds=_HELD)
