"""Tables of tracks and of their cells."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.cells.tracks import Tracks
from cellseg.io.label_frames import LabelRecord
from cellseg.io.track_tables import write_track_tables
from time_lapse_scenes import HW, records, rectangles, squares


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written(tmp_path: Path, frames: list[ImageRecord], tracks: Tracks) -> Any:
    write_track_tables(frames, tracks, tmp_path / "tracks.csv", tmp_path / "points.csv")
    return rows_of(tmp_path / "points.csv"), rows_of(tmp_path / "tracks.csv")


def moving(pixel_size_um: tuple[float, float] | None = None) -> tuple[list[ImageRecord], Tracks]:
    """A cell that goes 3 right, is missing, then is 4 down; one that stays and shrinks to 4 x 6."""
    cells = [
        squares((10, 10), (60, 20)),
        squares((13, 10), (60, 20)),
        rectangles((60, 20, 64, 26)),
        squares((13, 14)),
    ]
    links = [(0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 3, 0), (1, 1, 2, 0)]
    tracks = Tracks.from_links([2, 2, 1, 1], links)
    return records(cells, pixel_size_um), tracks


def test_a_row_per_track(tmp_path: Path) -> None:
    _, tracks = written(tmp_path, *moving())
    assert tracks[0] == {
        "track": "1",
        "parent": "0",
        "first_frame": "0",
        "last_frame": "3",
        "frames": "3",
        "mean_area_px": "64.0",
        "path_px": "7.0",
        "net_px": "5.0",
        "mean_step_px": repr(7 / 3),
    }
    assert tracks[1]["mean_area_px"] == repr((64 + 64 + 24) / 3)
    assert len(tracks) == 2


def test_micrometres_where_they_are_known(tmp_path: Path) -> None:
    _, tracks = written(tmp_path, *moving(pixel_size_um=(0.5, 2)))
    assert (tracks[0]["path_px"], tracks[0]["path_um"]) == ("7.0", "8.0")
    assert float(tracks[0]["net_um"]) == pytest.approx(40**0.5)
    assert float(tracks[0]["mean_step_um"]) == pytest.approx(8 / 3)


def test_parents_and_tracks_of_one_frame(tmp_path: Path) -> None:
    frames = records([squares((10, 10)), squares((6, 10), (16, 10))])
    _, rows = written(tmp_path, frames, Tracks.from_links([1, 2], [(0, 0, 1, 0), (0, 0, 1, 1)]))
    assert [row["parent"] for row in rows] == ["0", "1", "1"]
    assert [(row["path_px"], row["mean_step_px"]) for row in rows] == [("0.0", "")] * 3


def test_a_row_per_cell_and_frame(tmp_path: Path) -> None:
    points, _ = written(tmp_path, *moving())
    assert len(points) == 6
    assert points[0] == {
        "track": "1",
        "frame": "0",
        "centroid_y_px": "13.5",
        "centroid_x_px": "13.5",
        "label": "1",
        "area_px": "64",
        "image": "frame_0",
    }
    assert [(row["track"], row["frame"], row["label"]) for row in points[4:]] == [
        ("2", "2", "1"),
        ("1", "3", "1"),
    ]


def test_labels_are_those_of_the_label_image(tmp_path: Path) -> None:
    image = squares((10, 10), (40, 10)).to_label_image() * 20
    cells = CellInstances.from_label_image(image)
    frame = LabelRecord("a", cells, labels=np.array([20, 40]))
    points, _ = written(tmp_path, [frame], Tracks.from_links([2], []))
    assert [row["label"] for row in points] == ["20", "40"]


def test_cells_without_a_track_and_no_cells(tmp_path: Path) -> None:
    frames = records([squares((10, 10), (40, 10)), CellInstances.empty(HW)])
    points, tracks = written(tmp_path, frames, Tracks.from_links([2, 0], [], [[True, False], []]))
    assert [(row["track"], row["label"]) for row in points] == [("1", "2")]
    assert len(tracks) == 1
    assert written(tmp_path, [], Tracks.from_links([], [])) == ([], [])
