"""From label images on disk to what a person opens."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cellseg.cells.records import PlaceInFile
from cellseg.errors import LabelError
from cellseg.inference.kept_cells import keep_cells, read_kept
from cellseg.io.ctc import read_ctc
from cellseg.tracking.linking import LinkRules
from cellseg.tracking.results import link_label_files, link_records, link_time_lapse
from time_lapse_scenes import DIVISION, GAP, HW, ids_of, records, table_of, write_stack

pytest.importorskip("laptrack")
LABELS = [cells.to_label_image() for cells in DIVISION]


def test_files_of_a_time_lapse(tmp_path: Path) -> None:
    tracks, files = link_time_lapse(records(DIVISION), tmp_path / "new", "a.b", ctc=True)
    assert ids_of(tracks) == [[1], [1], [2, 3], [2, 3]]
    names = ["a.b_tracks.tif", "a.b_tracks.csv", "a.b_track_points.csv", "a.b_RES"]
    assert [path.name for path in files] == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)
    assert np.unique(tifffile.imread(files[0])[3]).tolist() == [0, 2, 3]
    with files[1].open(newline="") as file:
        assert [row["parent"] for row in csv.DictReader(file)] == ["0", "1", "1"]
    assert ids_of(read_ctc(files[3])[1]) == ids_of(tracks)


def test_again_over_earlier_results(tmp_path: Path) -> None:
    for frames in (DIVISION, GAP):
        tracks, files = link_time_lapse(records(frames), tmp_path, "a", ctc=True)
    assert len(tifffile.imread(files[0])) == len(tracks.ids) == 3
    assert len(read_ctc(files[3])[0]) == 3


def test_time_lapses_are_found_among_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [
        builders.write_png(tmp_path / f"cells_{number}_labels.png", image)
        for number, image in zip((8, 9, 10, 12), LABELS)
    ]
    paths.append(write_stack(tmp_path / "movie_labels.tif", LABELS[2:]))
    paths.append(builders.write_png(tmp_path / "single.png", LABELS[0]))
    with caplog.at_level(logging.WARNING, logger="cellseg"):
        linked = link_label_files(paths[::-1])
    assert [one.time_lapse.name for one in linked] == ["movie", "cells"]
    assert [ids_of(one.tracks) for one in linked] == [
        [[1, 2], [1, 2]],
        [[1], [1], [2, 3], [2, 3]],
    ]
    assert linked[1].files[0] == tmp_path / "cells_tracks.tif"
    assert "single.png: belongs to no time-lapse" in caplog.text
    assert "cells: frames are missing: 11" in caplog.text


def test_time_lapses_are_found_among_records(tmp_path: Path) -> None:
    """Frames of two wells in mixed order, in sub-folders, and as planes of one file."""
    frames = records(DIVISION)
    plain = [replace(record, place=PlaceInFile()) for record in frames]
    paths = [tmp_path / f"day_1/B{k % 2}_t{k // 2}" for k in range(4)]
    linked = link_records([*plain, *frames], [*paths, *[tmp_path / "movie.nd2"] * 4])
    assert [one.time_lapse.name for one in linked] == ["B0", "B1", "movie"]
    assert [ids_of(one.tracks) for one in linked[:2]] == [[[1], [2, 3]]] * 2
    assert linked[0].files[0] == tmp_path / "day_1" / "B0_tracks.tif"
    assert table_of(linked[2].tracks) == [(0, 1, 0), (2, 3, 1), (2, 3, 1)]


def test_cells_on_disk(tmp_path: Path) -> None:
    """As `cellseg predict` keeps them: read anew each time they are gone through."""
    kept = []
    for record in records(DIVISION, pixel_size_um=(0.5, 0.5)):
        keep_cells(record, tmp_path / "kept" / record.image_id, [1])
        kept.append(read_kept(tmp_path / "kept" / record.image_id))
    [linked] = link_records(kept, [tmp_path / "movie.tif"] * 4, ctc=True)
    assert ids_of(linked.tracks) == [[1], [1], [2, 3], [2, 3]]
    expected = [cells.to_label_image() for cells in DIVISION]
    for image, labels, ids in zip(tifffile.imread(linked.files[0]), expected, linked.tracks.ids):
        np.testing.assert_array_equal(image, np.concatenate([[0], ids])[labels])
    with linked.files[1].open(newline="") as file:
        assert "path_um" in next(csv.DictReader(file))


def test_rules_reach_the_linking(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "a.tif", LABELS)
    [linked] = link_label_files([path], tmp_path / "out", rules=LinkRules(splitting=False))
    assert linked.tracks.divisions == 0
    assert linked.files[0].parent == tmp_path / "out"


def test_frames_of_two_sizes_leave_nothing(tmp_path: Path) -> None:
    for number, image in enumerate([LABELS[0], np.zeros((5, 5), np.uint8)]):
        builders.write_png(tmp_path / f"a_{number}.png", image)
    with pytest.raises(LabelError, match=rf"frame 1 has .* \(5, 5\), .* \({HW[0]}, {HW[1]}\)"):
        link_label_files(sorted(tmp_path.iterdir()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
