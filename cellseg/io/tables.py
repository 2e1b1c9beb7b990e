"""Tables as files: CSV in UTF-8, and Parquet (`pip install 'cellseg[tables]'`).

A table is a dict of columns of one length (`cellseg.cells.measurements.Table`). It is written piece
by piece, whole or not at all. Numbers have all their digits, so that both kinds of file hold the
same; what is not known is an empty field in CSV and null in Parquet. Truth is `true` or `false`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cellseg.cells.measurements import Table
from cellseg.errors import DatasetError
from cellseg.files import write_whole
from cellseg.io.table_rows import CsvWriter, rearm
from numpy.typing import NDArray

TABLE_SUFFIXES = (".csv", ".parquet")

Value = str | int | float | bool | None
Row = Mapping[str, Value]
WritePiece = Callable[[Table], None]


@contextmanager
def open_table(path: Path) -> Iterator[WritePiece]:
    """A context whose value writes one piece of a table after the other.

    Args:
        path: `.csv` or `.parquet`; written when the block ends well.

    Raises:
        DatasetError: another ending, pyarrow is not there for Parquet, a piece has other columns
            than the first, or there was no piece.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "cells.csv")
        ...     with open_table(path) as write:
        ...         write({"label": np.array([1, 2]), "area_um2": np.array([0.1, np.nan])})
        ...     path.read_text()
        'label,area_um2\\n1,0.1\\n2,\\n'
    """
    opener = {".csv": _open_csv, ".parquet": _open_parquet}.get(path.suffix.lower())
    if opener is None:
        raise DatasetError(f"{path}: a table is written as {' or '.join(TABLE_SUFFIXES)}")
    names: list[str] = []
    with write_whole(path) as partial, opener(partial) as write_piece:

        def write(table: Table) -> None:
            if names and list(table) != names:
                different = sorted(set(names) ^ set(table)) or "their order"
                raise DatasetError(f"{path}: pieces of one table differ in columns: {different}")
            write_piece(table)
            names[:] = table

        yield write
        if not names:
            raise DatasetError(f"{path}: nothing was written to the table, not even its columns")


@contextmanager
def _open_csv(path: Path) -> Iterator[WritePiece]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = CsvWriter(stream, "\n")

        def write(table: Table) -> None:
            if stream.tell() == 0:
                writer.writerow(table)
            writer.writerows(zip(*map(_fields, table.values())))

        yield write


def _fields(column: NDArray[Any]) -> list[Any]:
    """The values of a column as `csv` writes them: floats in as few digits as give them back."""
    values = column.tolist()
    if column.dtype.kind == "f":
        return ["" if value != value else value for value in values]
    if column.dtype.kind == "b":
        return ["true" if value else "false" for value in values]
    return values


@contextmanager
def _open_parquet(path: Path) -> Iterator[WritePiece]:
    arrow, parquet = _load_pyarrow()
    with ExitStack() as stack:
        writers: list[Any] = []

        def write(table: Table) -> None:
            columns = {name: arrow.array(v, from_pandas=True) for name, v in table.items()}
            piece = arrow.table(columns)
            if not writers:
                writers.append(stack.enter_context(parquet.ParquetWriter(path, piece.schema)))
            writers[0].write_table(piece)

        yield write


def _load_pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            "Parquet is read and written by the package pyarrow, which is not installed: "
            "pip install pyarrow, or pip install 'cellseg[tables]'; or write .csv"
        ) from error
    return pyarrow, pyarrow.parquet


def read_table(path: Path) -> Table:
    """Read a table that `open_table` wrote.

    In CSV a column is of whole numbers, numbers or truths if all its fields are written as such
    (`0700` is no number); otherwise it is text. Numbers that are not known are nan.

    Raises:
        DatasetError: another ending, no such file, no table, or pyarrow is not there.
    """
    if path.suffix.lower() == ".parquet":
        parquet = _load_pyarrow()[1]
        try:
            found = parquet.read_table(path)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: cannot be read as Parquet: {error}") from error
        return {name: found[name].to_numpy() for name in found.column_names}
    if path.suffix.lower() != ".csv":
        raise DatasetError(f"{path}: a table is read from {' or '.join(TABLE_SUFFIXES)}")
    names, rows = _read_csv(path)
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise DatasetError(
                f"{path}: line {line} has not as many fields as the first line, {len(names)}; is "
                "the file cut off?"
            )
    return {name: _parse_column([row[name] for row in rows]) for name in names}


def _parse_column(texts: list[str]) -> NDArray[Any]:
    if texts and set(texts) <= {"true", "false"}:
        return np.array([text == "true" for text in texts])
    try:
        numbers = [int(text) for text in texts]
        if all(str(number) == text for number, text in zip(numbers, texts)):
            return np.array(numbers, np.int64)
        return np.array(texts)
    except ValueError:
        pass
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts)


def read_rows(path: Path) -> list[dict[str, Value]]:
    """The rows of a table, see `read_table`; None where a value is not known."""
    table = read_table(path)
    columns = [
        [None if value != value or value == "" else value for value in column.tolist()]
        for column in table.values()
    ]
    return [dict(zip(table, row)) for row in zip(*columns)]


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows of a CSV, whole or not at all.

    Args:
        path: its folder is made.
        rows: may lack columns, whose fields are empty then, as where the value is None. Columns
            are in the order in which they first occur; one that is empty in all rows is left out.

    Returns:
        The number of rows; without any, nothing is written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "summary.csv")
        ...     _ = write_rows(path, [{"image": "a", "well": None, "num_cells": 2}])
        ...     path.read_text(), read_rows(path)
        ('image,num_cells\\na,2\\n', [{'image': 'a', 'num_cells': 2}])
    """
    listed = list(rows)
    names: dict[str, bool] = {}
    for row in listed:
        for name, value in row.items():
            names[name] = names.get(name, False) or (value is not None and value == value)
    kept = [name for name, is_known in names.items() if is_known]
    if not listed:
        return 0
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = CsvWriter(stream, "\n")
        writer.writerow(kept)
        writer.writerows([_field(row.get(name)) for name in kept] for row in listed)
    return len(listed)


def _field(value: Value) -> Any:
    if value is None or value != value:
        return ""
    return str(value).lower() if isinstance(value, bool | np.bool_) else value


def read_text_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of somebody's CSV file as text, without blanks around the values.

    Args:
        path: CSV in UTF-8 with the columns' names in the first line.
        columns: names that have to be there; a row that ends before has "" in them.

    Raises:
        DatasetError: no such file, no table, or a column is missing.
    """
    found, rows = _read_csv(path, columns)
    return [
        {column: (row[column] or "").strip() for column in found if row[column] is not None}
        | {column: (row[column] or "").strip() for column in columns}
        for row in rows
    ]


def _rearm(value: Any) -> Any:
    """Of a row of another length than the first, `csv` gives None or a list."""
    return rearm(value) if isinstance(value, str) else value


def _read_csv(path: Path, columns: Sequence[str] = ()) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the columns, and the rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            found = reader.fieldnames = [rearm(name) for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in found]
            if missing:
                raise DatasetError(
                    f"{path}: no column {', '.join(missing)}; the first line is {found}"
                )
            return found, [{name: _rearm(value) for name, value in row.items()} for row in reader]
    except OSError as error:
        expected = f"; expected a table with {', '.join(columns)}" if columns else ""
        raise DatasetError(f"{path}: {error.strerror or error}{expected}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as a CSV file: {error}") from error
