"""The pixels of ROIs are those that ImageJ counts; the pictures are by ImageJ 1.54u itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.io import imagej_rois, outline_lines

roifile = pytest.importorskip("roifile")

# Corners, and what `Roi.getMask` of ImageJ gives in a window of 12 x 12, from its first row.
DIAMOND = (
    [(5, 1), (10, 6), (5, 11), (0, 6)],
    """
.....#......
....###.....
...#####....
..#######...
.#########..
.#########..
..#######...
...#####....
....###.....
.....#......
""",
)
STEPS = (
    [(2, 1), (5, 1), (5, 2), (8, 5), (11, 5), (11, 8), (8, 11), (2, 8), (1, 4)],
    """
..###.......
..####......
.######.....
.#######....
.##########.
..#########.
..#########.
...########.
.....#####..
.......##...
""",
)
HALVES = (
    [(1.5, 1.5), (8.5, 1.5), (10.5, 6.5), (4.5, 9.5)],
    """
............
..#######...
..#######...
...#######..
...#######..
...########.
....#####...
....###.....
""",
)


def picture(cells: CellInstances) -> str:
    (mask,) = cells.to_bitmaps()
    lines = ["".join(".#"[pixel] for pixel in row.tolist()) for row in mask.astype(int)]
    return "\n".join(lines[1:]).rstrip(".\n")


@pytest.mark.parametrize("kind", ["POLYGON", "FREEHAND"])
@pytest.mark.parametrize(("corners", "expected"), [DIAMOND, STEPS, HALVES])
def test_outlines(
    tmp_path: Path, kind: str, corners: list[tuple[float, float]], expected: str
) -> None:
    whole = all(float(number).is_integer() for corner in corners for number in corner)
    roi = roifile.ImagejRoi.frompoints(np.array(corners, np.int32 if whole else np.float32))
    roi.roitype = roifile.ROI_TYPE[kind]
    roi.tofile(tmp_path / "a.roi")
    cells = imagej_rois.read_image_cells(tmp_path / "a.roi", (12, 12))
    assert picture(cells) == expected.strip("\n").rstrip(".\n")
    line = ",".join(f"{x:g},{y:g}" for x, y in corners)
    (tmp_path / "a.txt").write_text(line)
    assert outline_lines.read_image_cells(tmp_path / "a.txt", (12, 12)).equals(cells)


def test_an_oval_between_pixels_counts_in_the_box_of_whole_numbers(tmp_path: Path) -> None:
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.OVAL, version=227)
    roi.options |= roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    roi.left, roi.top, roi.right, roi.bottom = 1, 2, 9, 8
    roi.xd, roi.yd, roi.widthd, roi.heightd = 1.7, 2.2, 7.5, 5.1
    roi.tofile(tmp_path / "a.roi")
    cells = imagej_rois.read_image_cells(tmp_path / "a.roi", (12, 12))
    expected = "\n...####.....\n..######....\n.########...\n.########...\n..######....\n...####"
    assert picture(cells).lstrip(".") == expected
