"""What was measured as text and as CSV files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.files import write_whole
from cellseg.inspection.checks import SEVERITIES, Finding
from cellseg.inspection.measures import PERCENTILES, CellTable, ImageMeasures
from cellseg.io.table_rows import CsvWriter
from cellseg.names import printable
from tabulate import tabulate

_SHOWN_PER_KIND = 3
_LONG_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")  # as ids; whole in the CSV files
_IMAGE_COLUMNS = (
    "split", "image_id", "path", "width_px", "height_px", "dtype", "bits", "channels", "lowest",
    "highest", *(f"percentile_{p:g}" for p in PERCENTILES), "top_share", "cells", "on_border",
    "tiny", "several_pieces", "with_holes", "overlap_px", "covered_share", "findings",
)  # fmt: skip


def summarize_splits(images: Sequence[ImageMeasures], names: Sequence[str]) -> str:
    """A table with one column per split and one row per measure."""
    by_split = {name: [image for image in images if image.split == name] for name in names}
    columns = [_summarize_split(own) for own in by_split.values()]
    table = [[row, *(column[row] for column in columns)] for row in (columns[0] if columns else ())]
    classes = sorted({c for image in images for c in image.cells.class_name.tolist()})
    for label in classes if len(classes) > 1 else ():
        counts = [
            sum(np.count_nonzero(image.cells.class_name == label) for image in own)
            for own in by_split.values()
        ]
        table.append([f"cells of class {label}", *map(str, counts)])
    return tabulate(
        table, headers=["", *names], disable_numparse=True,
        colalign=["left", *(["right"] * len(names))],
    )  # fmt: skip


def _summarize_split(images: Sequence[ImageMeasures]) -> dict[str, str]:
    cells = [image.cells for image in images]
    per_image = [len(table) for table in cells]
    area = _join_column(cells, "area_px")
    total = max(1, area.size)
    shares = {
        name: np.count_nonzero(_join_column(cells, column) > least)
        for name, column, least in (
            ("on the border", "on_border", 0),
            ("in several pieces", "pieces", 1),
            ("with holes", "holes", 0),
            ("overlapping", "overlap_px", 0),
        )
    }
    sizes = Counter(f"{m.record.image_hw[1]} x {m.record.image_hw[0]}" for m in images)
    known = [image.intensities for image in images if image.intensities is not None]
    types = Counter(
        f"{v.dtype} {'grey' if v.channels == 1 else f'{v.channels} ch.'}" for v in known
    )
    return {
        "images": str(len(images)),
        "images without cells": str(sum(number == 0 for number in per_image)),
        "sizes (width x height)": _list_most(sizes),
        "types": _list_most(types),
        "bits used": _describe_span([v.bits for v in known if v.bits]),
        "brightest value (median)": _describe_span([v.high for v in known]),
        "cells": str(int(area.size)),
        "cells per image (median)": _describe_span(per_image),
        "area in px (median)": _describe_span(area),
        "diameter in px (median)": _describe_span(_join_column(cells, "diameter_px")),
        "height / width (median)": _describe_span(_join_column(cells, "aspect_ratio")),
        **{
            f"cells {name}": f"{number} ({100 * number / total:.1f} %)"
            for name, number in shares.items()
        },
        "pixels in several cells": str(sum(image.overlap_px for image in images)),
    }


def _join_column(tables: Sequence[CellTable], column: str) -> Any:
    return np.concatenate([np.zeros(0), *(getattr(table, column) for table in tables)])


def _list_most(counts: Counter[str]) -> str:
    most = [f"{count} of {name}" for name, count in counts.most_common(3)]
    others = len(counts) - len(most)
    return "\n".join([*most, *([f"{others} others"] if others else [])])


def _describe_span(values: Any) -> str:
    """Least to greatest, and the median."""
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return "-"
    low, middle, high = (
        f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in np.percentile(numbers, [0, 50, 100])
    )
    return low if low == high else f"{low} to {high} ({middle})"


def list_findings(findings: Sequence[Finding]) -> str:
    """Findings by kind: how many, and the first few; "nothing found" without any."""
    if not findings:
        return "Nothing found."
    lines = []
    kinds = list(dict.fromkeys((finding.severity, finding.kind) for finding in findings))
    for severity, kind in kinds:
        same = [f for f in findings if (f.severity, f.kind) == (severity, kind)]
        lines.append(f"{severity:8}{kind} ({len(same)})")
        for f in same[:_SHOWN_PER_KIND]:
            where = f"{f.split} {f.image_id}".rstrip()
            shown = printable(f"{where}: {f.text}")
            lines.append(_LONG_HASH.sub(r"\1..", f"        {shown}"))
        if len(same) > _SHOWN_PER_KIND:
            lines.append(f"        ... and {len(same) - _SHOWN_PER_KIND} more in findings.csv")
    return "\n".join(lines)


def count_findings(findings: Sequence[Finding]) -> str:
    """For example "2 errors, 0 warnings, 5 notes"."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in SEVERITIES)


def write_tables(
    folder: Path, images: Sequence[ImageMeasures], findings: Sequence[Finding], tiny_px: int
) -> None:
    """Write `findings.csv`, `images.csv` and `cells.csv`, each whole or not at all."""
    columns = ("severity", "kind", "split", "image_id", "text", "cells")
    rows = [
        (f.severity, f.kind, f.split, f.image_id, f.text, " ".join(map(str, f.cells)))
        for f in findings
    ]
    write_csv(folder / "findings.csv", columns, rows)
    kinds: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        kinds.setdefault((finding.split, finding.image_id), []).append(finding.kind)
    of_image = ((m, kinds.get((m.split, m.record.image_id), [])) for m in images)
    image_rows = (_image_row(image, own, tiny_px) for image, own in of_image)
    write_csv(folder / "images.csv", _IMAGE_COLUMNS, image_rows)
    names = [*CellTable.column_names(), "diameter_px", "aspect_ratio"]
    write_csv(folder / "cells.csv", ("split", "image_id", *names), _cell_rows(images, names))


def _image_row(image: ImageMeasures, kinds: Sequence[str], tiny_px: int) -> list[Any]:
    record, values, cells = image.record, image.intensities, image.cells
    height, width = record.image_hw
    intensities: list[Any] = [""] * (6 + len(PERCENTILES))
    if values is not None:
        intensities = [
            values.dtype, values.bits, values.channels, values.low, values.high,
            *values.percentiles, round(values.top_share, 5),
        ]  # fmt: skip
    return [
        image.split, record.image_id, record.image_path, width, height, *intensities, len(cells),
        *(int(np.count_nonzero(flags)) for flags in (
            cells.on_border, (cells.area_px > 0) & (cells.area_px < tiny_px), cells.pieces > 1,
            cells.holes > 0,
        )),
        image.overlap_px, round(image.covered_px / max(1, height * width), 5), " ".join(kinds),
    ]  # fmt: skip


def _cell_rows(images: Sequence[ImageMeasures], names: Sequence[str]) -> Iterable[list[Any]]:
    for image in images:
        columns = [getattr(image.cells, name) for name in names]
        lists = [
            (np.round(column, 3) if column.dtype.kind == "f" else column).tolist()
            for column in columns
        ]
        for row in zip(*lists):
            yield [image.split, image.record.image_id, *row]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, UTF-8, with a first line of column names."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = CsvWriter(stream)
        writer.writerow(columns)
        writer.writerows(rows)
