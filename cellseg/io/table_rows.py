"""Rows of a CSV file, by their first wanted column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cellseg.errors import DatasetError

Row = tuple[int, dict[str, str]]

MAX_FIELD_SIZE = 2**31 - 1


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
            header = [name.strip() for name in next(reader, [])]
            places = _find_columns(table, header, columns)
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise DatasetError(
                        f"{table}: line {reader.line_num} has {len(row)} columns, the first "
                        f"line {len(header)}; is the file cut off?"
                    )
                content = {name: row[at].strip() for name, at in zip(columns, places)}
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
