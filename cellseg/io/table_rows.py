"""Rows of CSV files: written so that a spreadsheet shows them and runs nothing, and read again.

A spreadsheet takes a field that begins with `=`, `+`, `-` or `@` for a formula, also in a file from
somebody else, whose image may be called `=HYPERLINK(...).tif`. Such a text has an apostrophe before
it in our files, which reading takes off again; numbers are as they are. Control characters are
written as in `cellseg.names.printable`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cellseg.errors import DatasetError
from cellseg.names import printable

Row = tuple[int, dict[str, str]]

MAX_FIELD_SIZE = 2**31 - 1
_FORMULA = re.compile(r"'*[=+\-@\uff0b\uff0d\uff1d\uff20]")  # full-width ones too


class CsvWriter:
    """`csv.writer` for fields of any origin.

    Args:
        stream: opened with newline="".
        line_end: behind each row.

    Example:
        >>> import sys
        >>> CsvWriter(sys.stdout, "\\n").writerow(["=1+1", "a\\tb", -1.5, "-1.5", None])
        '=1+1,a\\tb,-1.5,-1.5,
    """

    def __init__(self, stream: IO[str], line_end: str = "\r\n") -> None:
        self._rows = csv.writer(stream, lineterminator=line_end)

    def writerow(self, row: Iterable[Any]) -> None:
        """Write one row."""
        self._rows.writerow(list(map(disarm, row)))

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write several rows."""
        self._rows.writerows(list(map(disarm, row)) for row in rows)


def disarm(field: Any) -> Any:
    """A field as it is written; `rearm` gives a text back."""
    text = os.fspath(field) if isinstance(field, os.PathLike) else field
    if not isinstance(text, str):
        return text
    text = printable(text)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def rearm(field: str) -> str:
    """A field that was read, as it was before `disarm`."""
    return field[1:] if field.startswith("'") and _FORMULA.match(field) else field


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _long_fields() -> Iterator[None]:
    """Large cells have more run lengths than csv reads by default."""
    before = csv.field_size_limit(MAX_FIELD_SIZE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_rows(table: Path, columns: Sequence[str]) -> dict[str, list[Row]]:
    """Read some columns of a table.

    Args:
        table: CSV in UTF-8 with the columns' names in the first line.
        columns: the wanted ones, in any order in the file; the first is the key.

    Returns:
        By key, in the order of the file: number of the line and text of each wanted column.

    Raises:
        DatasetError: no such file, no table, a column is missing, or a row is cut off.
    """
    rows: dict[str, list[Row]] = {}
    try:
        with _long_fields(), table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [rearm(name.strip()) for name in next(reader, [])]
            places = _find_columns(table, header, columns)
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise DatasetError(
                        f"{table}: line {reader.line_num} has {len(row)} columns, the first "
                        f"line {len(header)}; is the file cut off?"
                    )
                content = {name: rearm(row[at].strip()) for name, at in zip(columns, places)}
                rows.setdefault(content[columns[0]], []).append((reader.line_num, content))
    except OSError as error:
        raise DatasetError(
            f"{table}: {error.strerror or error}; expected a table of {', '.join(columns)}"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{table}: cannot be read as a table: {error}") from error
    return rows


def _find_columns(table: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    missing = [name for name in columns if name not in header]
    if missing:
        raise DatasetError(
            f"{table}: no column {', '.join(missing)}; expected {', '.join(columns)}, "
            f"found {', '.join(header)[:200] or 'nothing'}"
        )
    return [list(header).index(name) for name in columns]
