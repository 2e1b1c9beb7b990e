"""How microscopes and plate readers name the files of images, and how users do.

A pattern is one of `PATTERNS`, or the user's own: a template such as `{plate}_{well}_s{site}`, or
a regular expression with named groups. `docs/measurements.md` explains them to the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import regex
from cellseg.errors import ConfigError
from cellseg.images.plate_positions import (
    FIELDS,
    PlatePosition,
    letters_to_row,
    row_column_to_well,
    well_to_row_column,
)
from cellseg.limits import LimitError, search_within_time
from cellseg.names import suggest_name

_FORMS = {
    "plate": r"[^/]+?",
    "well": r"[A-Za-z]{1,2}\d{1,2}",
    "row": r"[A-Za-z]{1,2}|\d+",
    "column": r"\d+",
    "site": r"\d+",
    "channel": r"[^/]+?",
    "t": r"[^/]+?",
    "z": r"\d+",
}


@dataclass(frozen=True)
class NamePattern:
    """How the names of images say where they were taken.

    Attributes:
        name: of `PATTERNS`, or the user's own text.
        expression: groups are called as in `FIELDS`, with underscores behind where a field may
            stand in several places.
        folders: searched for in the path of the file's folder, for what the name does not say.
        depth: `expression` is the whole name without its ending, with so many folders before it;
            None: it is searched for in the name with its ending, or in the path if there is a / in
            it.
    """

    name: str
    expression: regex.Pattern[str]
    folders: tuple[regex.Pattern[str], ...] = ()
    depth: int | None = 0

    def parse(self, path: str | Path) -> PlatePosition | None:
        """Where the image of that file was taken; None if its name is not made like this.

        Example:
            >>> found = find_pattern("{plate}_{well}_s{site}").parse("run/drug_b3_s12.ome.tif")
            >>> found.plate, found.well, found.site
            ('drug', 'B03', 12)
        """
        file = Path(path)
        if self.depth is None:
            text = file.as_posix() if "/" in self.expression.pattern else file.name
            match = self._search(text)
        else:
            stem = re.sub(r"(\.ome)?\.[^.]+$", "", file.name, flags=re.IGNORECASE)
            folders = file.parts[:-1][-self.depth :] if self.depth else ()
            match = self._search("/".join([*folders, stem]), whole=True)
        if match is None:
            return None
        found: dict[str, str] = {}
        inside = [folder.search(f"/{file.parent.as_posix()}/") for folder in self.folders]
        for each in (match, *inside):
            for name, value in each.groupdict().items() if each else ():
                if value:
                    found.setdefault(name.rstrip("_"), value)
        return _make_position(found)

    def _search(self, text: str, *, whole: bool = False) -> regex.Match[str] | None:
        try:
            return search_within_time(self.expression, text, whole=whole)
        except LimitError as error:
            raise ConfigError(f"pattern of file names: {error}") from error


def _make_position(found: Mapping[str, str]) -> PlatePosition | None:
    """A position from texts; None where the well is none."""
    well = found.get("well", "")
    if well and not re.fullmatch(_FORMS["well"], well):
        return None
    place = well_to_row_column(well) if well else None
    row, column = found.get("row", ""), found.get("column", "")
    if row and column and not well:
        place = int(row) if row.isdecimal() else letters_to_row(row), int(column)
    return PlatePosition(
        found.get("plate"),
        row_column_to_well(*place) if place else None,
        *(_number(found.get(name)) for name in ("site", "channel", "t", "z")),
    )


def _number(text: str | None) -> int | str | None:
    return int(text) if text and text.isdecimal() else text


# Small letters for the rows of 384 wells only: s1 and w1 are a site and a channel.
_WELL = r"(?P<well>(?:A[A-F]|[A-Z]|[a-p])\d{1,2})"
# Tried without a plate first: in A01_s1_w1 the well is A01, and not S01 of a plate A01.
_PLATE = r"(?:(?P<plate>[^/]+?)_)??"
_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_HARMONY = (
    r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<site>\d+)p(?P<z>\d+)-ch(?P<channel>\d+)"
    r"(?:sk(?P<t>\d+))?(?:fk\d+)?(?:fl\d+)?"
    r"|(?P<row_>\d{3})(?P<column_>\d{3})-(?P<site_>\d+)-(?P<t_>\d{3})(?P<z_>\d{3})"
    r"(?P<channel_>\d{3})"
)

# name: (expression, expressions for the folders)
_EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "imagexpress": (
        # Of _w1 followed by a GUID that begins with a digit, the channel is the one digit.
        rf"{_PLATE}(?:t(?P<t>\d+)_)?{_WELL}(?=_[sw]\d)(?:_s(?P<site>\d+))?"
        rf"(?:_w(?P<channel>\d(?={_GUID})|\d+))?(?:_s(?P<site_>\d+))?(?:_z(?P<z>\d+))?"
        rf"(?:_t(?P<t_>\d+))?(?:{_GUID})?",
        r"/[Tt]ime[Pp]oint_?(?P<t>\d+)/",
        r"/ZStep_?(?P<z>\d+)/",
    ),
    "opera_phenix": (_HARMONY,),
    "operetta": (_HARMONY,),
    "cv8000": (
        rf"{_PLATE}{_WELL}_T(?P<t>\d+)F(?P<site>\d+)L\d+A\d+(?:Z(?P<z>\d+))?C(?P<channel>\d+)",
    ),
    "cellomics": (
        r"(?:(?P<plate>[^/]+?)(?:_[RM])?_)??(?:p\d+_z(?P<z>\d+)_\d+_)?"
        rf"{_WELL}f(?P<site>\d+)d(?P<channel>\d+)",
    ),
    "incucyte": (rf"{_PLATE}{_WELL}_(?P<site>\d+)_(?P<t>\d+d\d+h\d+m|\d{{4}}y\d+m\d+d_\d+h\d+m)",),
    "micromanager": (
        r"img_channel(?P<channel>\d+)_position(?P<site>\d+)_time(?P<t>\d+)_z(?P<z>\d+)"
        r"|img_(?P<t_>\d+)_(?P<channel_>[^/]+)_(?P<z_>\d+)"
        r"|(?:(?P<plate>[^/]+?)_)?MMStack_(?:(?P<well>[A-Z]{1,2}\d{1,2})-Site_?(?P<site_>\d+)"
        r"|Pos_?(?P<site__>\d+)|(?P<site___>\d+-Pos_?\d+_\d+|Pos-\d+-\d+_\d+)|Default)(?:_\d+)?",
        r"/(?:(?P<well>[A-Z]{1,2}\d{1,2})-Site_?(?P<site>\d+)|Pos_?(?P<site_>\d+)"
        r"|(?P<site__>\d+-Pos_?\d+_\d+|Pos-\d+-\d+_\d+))/",
    ),
}

PATTERNS = {
    name: NamePattern(name, regex.compile(name_of_file), tuple(map(regex.compile, folders)))
    for name, (name_of_file, *folders) in _EXPRESSIONS.items()
}


def find_pattern(text: str) -> NamePattern:
    """The pattern that a user asks for.

    Args:
        text: the name of one of `PATTERNS`; a template, in which {plate}, {well}, {row}, {column},
            {site}, {channel}, {t} and {z} stand for these, * for anything and the rest for itself,
            with a / between folders and name; or a regular expression with groups of these names,
            as (?P<well>...).

    Raises:
        ConfigError: no such name, an unknown field, none at all, or no regular expression.
    """
    is_regex = "(?P<" in text
    if not is_regex and "{" not in text:
        if text not in PATTERNS:
            hint = suggest_name(text, PATTERNS, "known are")
            raise ConfigError(
                f"no pattern of file names {text!r}; {hint}. A pattern of your own is a template "
                "such as {plate}_{well}_s{site}, or a regular expression with (?P<well>...)"
            )
        return PATTERNS[text]
    try:
        plain = text if is_regex else _template_to_regex(text)
        re.compile(plain)  # is stricter: no name may be given twice
        expression = regex.compile(plain)
    except (re.error, regex.error) as error:
        raise ConfigError(f"pattern of file names {text!r}: {error}") from error
    if not expression.groupindex:
        raise ConfigError(f"pattern of file names {text!r} names none of {', '.join(FIELDS)}")
    for name in expression.groupindex:
        if name.rstrip("_") not in FIELDS:
            raise ConfigError(
                f"pattern of file names {text!r}: unknown field {name!r}; "
                f"{suggest_name(name, FIELDS, 'known are')}"
            )
    return NamePattern(text, expression, depth=None if is_regex else text.count("/"))


def _template_to_regex(template: str) -> str:
    parts = []
    for part in re.split(r"(\{\w*\}|\*)", template):
        field = part[1:-1] if part.startswith("{") else ""
        if part == "*":
            parts.append("[^/]*?")
        elif field:
            parts.append(f"(?P<{field}>{_FORMS.get(field, '.')})")
        else:
            parts.append(re.escape(part))
    return "".join(parts)
