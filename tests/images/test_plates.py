"""Plate, well and site from the names that microscopes give to files."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cellseg.errors import ConfigError
from cellseg.images.name_patterns import PATTERNS, find_pattern
from cellseg.images.plate_positions import (
    PlatePosition,
    row_column_to_well,
    well_to_row_column,
)
from cellseg.images.plates import detect_pattern, find_positions, group_channel_files

GUID = "07447158-AC92-4844-8453-2AEFA40B7A3B"
AT = PlatePosition
NAMES = [
    ("imagexpress", "A01_s1_w2.tif", AT(None, "A01", 1, 2)),
    ("imagexpress", "plate 7_P24_s12_w1.TIF", AT("plate 7", "P24", 12, 1)),
    ("imagexpress", "screen_2_b2_s1.tif", AT("screen_2", "B02", 1)),
    ("imagexpress", "Experiment1_A01_w1_s3.tif", AT("Experiment1", "A01", 3, 1)),
    ("imagexpress", f"Week1_150607_B02_s1_w1{GUID}.tif", AT("Week1_150607", "B02", 1, 1)),
    ("imagexpress", f"mcf-z-stacks_a01_s1_w2{GUID.lower()}.tif", AT("mcf-z-stacks", "A01", 1, 2)),
    ("imagexpress", "proto_t3_C05_s0_w1_z4.tif", AT("proto", "C05", 0, 1, 3, 4)),
    ("imagexpress", "P/TimePoint_2/ZStep_5/P_AF48_s1_w1.tif", AT("P", "AF48", 1, 1, 2, 5)),
    ("imagexpress", "A01_s1_w1_z7.tif", AT(None, "A01", 1, 1, None, 7)),
    ("opera_phenix", "r01c02f03p04-ch5sk6fk1fl1.tiff", AT(None, "A02", 3, 5, 6, 4)),
    ("operetta", "Images/r16c24f100p01-ch1sk1fk1fl1.tiff", AT(None, "P24", 100, 1, 1, 1)),
    ("operetta", "003012-7-002004001.tif", AT(None, "C12", 7, 1, 2, 4)),
    (
        "cv8000",
        "AssayPlate_Greiner_#781896_B02_T0003F004L01A02Z05C06.tif",
        AT("AssayPlate_Greiner_#781896", "B02", 4, 6, 3, 5),
    ),
    ("cv8000", "CP3-SC1-18_I22_T0001F003L01A03C04.tif", AT("CP3-SC1-18", "I22", 3, 4, 1)),
    ("cellomics", "AS_09125_050116030001_D03f07d2.TIF", AT("AS_09125_050116030001", "D03", 7, 2)),
    ("cellomics", "A01f00d0.C01", AT(None, "A01", 0, 0)),
    ("cellomics", "P1_Plate_M_p00_z02_0_A01f00d4.TIF", AT("P1_Plate", "A01", 0, 4, None, 2)),
    ("incucyte", "VID1607_C1_2_00d03h00m.tif", AT("VID1607", "C01", 2, None, "00d03h00m")),
    (
        "incucyte",
        "R2_MDF_green_B12_16_10d00h30m.tif",
        AT("R2_MDF_green", "B12", 16, None, "10d00h30m"),
    ),
    ("incucyte", "V1_C04_2_2026y10m05d_14h30m.tif", AT("V1", "C04", 2, None, "2026y10m05d_14h30m")),
    (
        "micromanager",
        "img_channel001_position014_time000000007_z002.tif",
        AT(None, None, 14, 1, 7, 2),
    ),
    ("micromanager", "run/Pos3/img_000000005_DAPI_001.tif", AT(None, None, 3, "DAPI", 5, 1)),
    (
        "micromanager",
        "B4-Site_2/img_000000000_Cy5_long_000.tif",
        AT(None, "B04", 2, "Cy5_long", 0, 0),
    ),
    ("micromanager", "plate_1_MMStack_A1-Site_0.ome.tif", AT("plate_1", "A01", 0)),
    ("micromanager", "plate_1_MMStack_H12-Site_10_2.ome.tif", AT("plate_1", "H12", 10)),
    ("micromanager", "run_MMStack_Pos12.ome.tif", AT("run", None, 12)),
    ("micromanager", "run_MMStack_1-Pos_000_002.ome.tif", AT("run", None, "1-Pos_000_002")),
    ("micromanager", "MMStack_Default.ome.tif", AT()),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), NAMES)
def test_names_of_microscopes(pattern: str, name: str, expected: PlatePosition) -> None:
    assert PATTERNS[pattern].parse(name) == expected
    assert PATTERNS[pattern].parse(Path("/data/A1/run_B2_s1") / name) == expected


@pytest.mark.parametrize(("pattern", "name", "expected"), NAMES)
def test_no_name_is_taken_for_another_microscopes(
    pattern: str, name: str, expected: PlatePosition
) -> None:
    found = {key for key, one in PATTERNS.items() if one.parse(name) is not None}
    assert pattern in found
    assert found <= {pattern} | {"operetta", "opera_phenix"}
    detected = detect_pattern([name])
    assert detected is not None
    assert detected.parse(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "vitamin_B12.tif",
        "field 1.tif",
        "A01.tif",
        "HeLa_s1.tif",
        "HeLa_s1_w1.tif",
        "C21_s9.png.txt.tif",
        f"P_A01_s1_w1_thumb{GUID}.tif",
        "t000_p000_c000_z000.tiff",
        "image_0001.png",
    ],
)
def test_other_names_are_left_alone(name: str) -> None:
    assert detect_pattern([name]) is None
    assert find_positions([name]) == {}


def test_wells() -> None:
    for row in range(1, 33):
        for column in (1, 9, 48):
            assert well_to_row_column(row_column_to_well(row, column)) == (row, column)
    assert [row_column_to_well(row, 3) for row in (1, 16, 26, 27, 32)] == [
        *("A03", "P03", "Z03", "AA03", "AF03"),
    ]
    position = PlatePosition("P", well="C07")
    assert (position.row, position.column) == (3, 7)
    assert list(position.columns()) == [
        *("plate", "well", "row", "column", "site", "channel", "t", "z"),
    ]
    assert PlatePosition().columns() == dict.fromkeys(position.columns())


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{plate}_{well}_s{site}_w{channel}", "x/P_1_c3_s4_wDAPI.tif", AT("P_1", "C03", 4, "DAPI")),
        ("{well}", "A1.ome.tiff", AT(None, "A01")),
        ("{plate}/{well}/*_{t}", "a/b/P9/H12/run_0007.png", AT("P9", "H12", t=7)),
        ("*-{row}-{column}-z{z}", "drug-B-11-z3.tif", AT(None, "B11", z=3)),
        ("{row}{column}.{site}", "b07.12.tif", AT(None, "B07", 12)),
        ("{well}-{site}-{channel}", "A1-1-Ph.tif", AT(None, "A01", 1, "Ph")),
        (r"well(?P<well>[A-H]\d+)", "my wellB7 image.tif", AT(None, "B07")),
        (
            r"/(?P<plate>[^/]+)/[^/]*_(?P<row>\d)x(?P<column>\d+)",
            "/d/P1/i_2x11.tif",
            AT("P1", "B11"),
        ),
        (r"^(?P<site>[a-z]+)\.tif$", "left.tif", AT(site="left")),
    ],
)
def test_patterns_of_the_user(pattern: str, path: str, expected: PlatePosition) -> None:
    assert find_pattern(pattern).parse(path) == expected
    assert find_positions([path], pattern) == {Path(path): expected}


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("imageexpress", "did you mean imagexpress"),
        ("a.tif", r"known are imagexpress, .*\. A pattern of your own is a template"),
        ("{wel}_{site}", "unknown field 'wel'; did you mean well"),
        ("(?P<Well>[A-H]1)", "unknown field 'Well'; did you mean well"),
        ("{well}_{well}", "redefinition of group name"),
        ("(?P<well>[A-H)", "unterminated character set"),
        ("{}_x", "names none of plate, well"),
    ],
)
def test_patterns_that_are_none(pattern: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_pattern(pattern)


def test_files_that_the_pattern_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    names = ["A01_s1.tif", "A02_s1.tif", "notes.tif", "well9.tif"]
    with caplog.at_level(logging.WARNING, "cellseg"):
        found = find_positions(names, "{well}_s{site}")
    assert [position.well for position in found.values()] == ["A01", "A02"]
    (message,) = caplog.messages
    assert message == "2 files are not named by the pattern '{well}_s{site}': notes.tif, well9.tif"
    with pytest.raises(ConfigError, match=r"no file is named by .*: A01_s1\.tif, .*, \.\.\."):
        find_positions([*names, "x.tif", "y.tif"], "opera_phenix")
    assert find_positions([], "opera_phenix") == {}
    assert find_pattern(r"(?P<well>\w+)\.tif").parse("notes.tif") is None
    caplog.clear()
    assert len(find_positions(names)) == 2
    assert not caplog.messages


def test_the_pattern_of_most_files() -> None:
    names = ["r01c01f01p01-ch1.tiff", "A01_s1_w1.tif", "A02_s1_w1.tif"]
    detected = detect_pattern(names)
    assert detected is not None
    assert detected.name == "imagexpress"
    assert detect_pattern([]) is None


def test_channels_of_one_image() -> None:
    names = [f"d/P_A01_s{s}_w{w}{GUID}.tif" for s in (1, 2) for w in (3, 1, 2)]
    names.insert(2, "e/P_A01_s1_w2.tif")
    names.append("d/P_A01_s3.tif")
    found = [[path.as_posix() for path in group] for group in group_channel_files(names)]
    assert found == [
        [names[1], names[3], names[0]],
        [names[2]],
        [names[5], names[6], names[4]],
        [names[7]],
    ]
    times = [f"r01c01f01p01-ch{c}sk{t}fk1fl1.tiff" for c in range(1, 12) for t in (1, 2)]
    first, second = group_channel_files(times)
    assert [path.name for path in first] == times[0::2]
    assert [path.name for path in second] == times[1::2]
