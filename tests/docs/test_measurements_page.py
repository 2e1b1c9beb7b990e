"""docs/measurements.md: its columns and patterns are those of the code, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import builders
import numpy as np
from cell_records import make_record
from cellseg.cells.instances import CellInstances
from cellseg.cells.intensities import STATISTICS
from cellseg.cells.measurements import MeasurementSettings, measure_cells
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.images.name_patterns import PATTERNS, find_pattern
from cellseg.images.plate_positions import FIELDS
from cellseg.io.summaries import summarize_image, summarize_wells
from cellseg.io.tables import read_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "measurements.md"


def cells_of_tables(title: str, column: int = 0) -> list[list[str]]:
    """What is written as code in a column of the tables of a section, row by row."""
    section = PAGE.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", line.split("|")[1 + column]) for line in lines]


def names_in(title: str) -> list[str]:
    return [name for row in cells_of_tables(title) for name in row]


def record_of_two_classes() -> ImageRecord:
    cells = CellInstances.from_label_image([[1, 0], [0, 2]], classes=[0, 1])
    return ImageRecord("a", cells, place=PlaceInFile(pixel_size_um=(1, 1)))


def test_columns_of_cells_are_those_of_the_code() -> None:
    record = record_of_two_classes()
    (table,) = measure_cells(record, ("a", "b"), lambda r, c: np.ones((1, 2, 2))[:, r, c], ["C"])
    named = [
        name.replace("*", unit).replace("<channel>", "C")
        for name in names_in("Cells")
        for unit in (("px", "um") if "*" in name else ("",))
    ]
    assert sorted(named) == sorted(table)
    assert [f"<channel>_{what}" for what in STATISTICS] == names_in("Cells")[-len(STATISTICS) :]


def test_columns_of_images_and_wells_are_those_of_the_code() -> None:
    row = summarize_image(record_of_two_classes(), ("a", "b"))
    named = [name for name in names_in("Images") if name != "num_cells_<class>"]
    assert named == [name for name in row if name not in ("num_cells_a", "num_cells_b")]
    (well,) = summarize_wells([{**row, "well": "A01"}])
    named = [name for name in names_in("Wells") if name != "num_cells_<class>"]
    assert named == [name for name in well if name not in ("num_cells_a", "num_cells_b")]


def test_distances_are_the_defaults() -> None:
    settings, text = MeasurementSettings(), PAGE.read_text("utf-8")
    assert f"at most {settings.neighbour_distance_px:g} px away" in text
    ring = settings.ring
    assert f"further than {ring.gap_px:g} px from it, at most {ring.reach_px:g} px" in text


def test_names_of_files_are_read_by_their_patterns() -> None:
    rows = cells_of_tables("Plates")
    examples = cells_of_tables("Plates", column=2)
    named = [name for row in rows[: rows.index(["plate"])] for name in row]
    assert sorted(named) == sorted(PATTERNS)
    for row, files in zip(rows, examples[: rows.index(["plate"])]):
        paths = [name for name in files if "." in name]
        assert paths
        for path in paths:
            found = PATTERNS[row[0]].parse(path)
            assert found is not None
            assert found.well or found.site is not None
    fields = [name for row in rows[rows.index(["plate"]) :] for name in row if name in FIELDS]
    assert fields == list(FIELDS)


def test_templates_fit_what_they_are_said_to_fit() -> None:
    rows = zip(cells_of_tables("Plates"), cells_of_tables("Plates", column=1))
    templates = [(row[0], fits[0]) for row, fits in rows if "{" in row[0]]
    assert len(templates) == 3
    for template, name in templates:
        assert find_pattern(template).parse(name) is not None
    (regex,) = re.findall(r"`(well\(\?P.*?)`", PAGE.read_text("utf-8"))
    found = find_pattern(regex).parse("my wellB7.tif")
    assert found is not None
    assert found.well == "B07"


def test_the_code_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    scene = builders.touching()
    names = ("P_A01_s1_w1", "P_A01_s2_w1", "P_B01_s1_w1")
    paths = [builders.write_png(tmp_path / f"{name}.png", scene.image) for name in names]
    records = [make_record(path.stem, path, scene.masks) for path in paths]
    room = {"records": records, "classes": ("cell",), "out": tmp_path / "out"}
    exec(code, room)
    assert room["area"].tolist() == [30, 24]
    wells = read_rows(tmp_path / "out" / "plates.csv")
    assert [(row["well"], row["num_cells"]) for row in wells] == [("A01", 4), ("B01", 2)]
    rows = read_rows(tmp_path / "out" / "P_B01_s1_w1_cells.csv")
    assert [row["well"] for row in rows] == ["B01", "B01"]
    assert rows[0]["channel_0_mean"] == scene.image[scene.masks[0]].mean()
