"""Where on a plate an image was taken."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("plate", "well", "row", "column", "site", "channel", "t", "z")
"""What the name of an image can say; also the columns of tables, in this order."""

_LETTERS = 26


@dataclass(frozen=True)
class PlatePosition:
    """Where on a plate an image was taken; None for what its name does not say.

    Attributes:
        plate: name of the plate.
        well: letter and number of two digits, such as `A01`; rows behind Z are `AA`, `AB`, ...
        site: number of the field of view in the well as the microscope counts, or its name.
        channel: number or name.
        t: number of the time point, or the time as the name has it.
        z: number of the plane.
    """

    plate: str | None = None
    well: str | None = None
    site: int | str | None = None
    channel: int | str | None = None
    t: int | str | None = None
    z: int | str | None = None

    @property
    def row(self) -> int | None:
        """Row of the well, from 1."""
        return None if self.well is None else well_to_row_column(self.well)[0]

    @property
    def column(self) -> int | None:
        """Column of the well, from 1."""
        return None if self.well is None else well_to_row_column(self.well)[1]

    def columns(self) -> dict[str, int | str | None]:
        """The columns of tables, all of `FIELDS`.

        Example:
            >>> found = PlatePosition("P1", "B03", site=2).columns()
            >>> {name: value for name, value in found.items() if value is not None}
            {'plate': 'P1', 'well': 'B03', 'row': 2, 'column': 3, 'site': 2}
        """
        return {name: getattr(self, name) for name in FIELDS}


def well_to_row_column(well: str) -> tuple[int, int]:
    """Row and column of a well, both from 1.

    Example:
        >>> well_to_row_column("A1"), well_to_row_column("h12"), well_to_row_column("AF48")
        ((1, 1), (8, 12), (32, 48))
    """
    letters = well.rstrip("0123456789")
    return letters_to_row(letters), int(well[len(letters) :])


def letters_to_row(letters: str) -> int:
    """Number of a row of wells, from 1: A is 1, AA is 27."""
    row = 0
    for letter in letters.upper():
        row = row * _LETTERS + ord(letter) - ord("A") + 1
    return row


def row_column_to_well(row: int, column: int) -> str:
    """Name of the well in a row and a column, both from 1.

    Example:
        >>> row_column_to_well(1, 1), row_column_to_well(32, 48)
        ('A01', 'AF48')
    """
    last = chr(ord("A") + (row - 1) % _LETTERS)
    first = chr(ord("A") + (row - 1) // _LETTERS - 1) if row > _LETTERS else ""
    return f"{first}{last}{column:02d}"
