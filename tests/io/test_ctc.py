"""The Cell Tracking Challenge's layout: its rules, checked by code of the test's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.cells.records import ImageRecord
from cellseg.cells.tracks import Tracks
from cellseg.errors import DatasetError, LabelError
from cellseg.io import ctc
from cellseg.io.ctc import read_ctc, write_ctc
from time_lapse_scenes import DIVISION, GAP, ids_of, records, squares, table_of

DIVIDED = Tracks.from_links(
    [1, 1, 2, 2], [(0, 0, 1, 0), (1, 0, 2, 0), (1, 0, 2, 1), (2, 0, 3, 0), (2, 1, 3, 1)]
)
WITH_GAP = Tracks.from_links([2, 1, 2], [(0, 1, 1, 0), (1, 0, 2, 1), (0, 0, 2, 0)])


def lines_of(folder: Path) -> list[tuple[int, ...]]:
    lines = (folder / "res_track.txt").read_text().splitlines()
    return [tuple(map(int, line.split(" "))) for line in lines]


def check_rules(folder: Path) -> None:
    """Each number is in the masks of its frames and in no other; parents end before."""
    masks = [tifffile.imread(path) for path in sorted(folder.glob("mask*.tif"))]
    assert all(mask.dtype == np.uint16 and mask.ndim == 2 for mask in masks)
    lines = lines_of(folder)
    numbers = [line[0] for line in lines]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) == {int(n) for mask in masks for n in np.unique(mask)} - {0}
    for number, first, last, parent in lines:
        present = [k for k, mask in enumerate(masks) if (mask == number).any()]
        assert present == list(range(first, last + 1))
        assert parent == 0 or lines[numbers.index(parent)][2] < first


def test_a_division(tmp_path: Path) -> None:
    assert write_ctc(tmp_path / "01_RES", records(DIVISION), DIVIDED) == 3
    folder = tmp_path / "01_RES"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["mask000.tif", "mask001.tif", "mask002.tif", "mask003.tif", "res_track.txt"]
    assert lines_of(folder) == [(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)]
    check_rules(folder)


def test_what_comes_after_a_gap_is_a_track_of_its_own(tmp_path: Path) -> None:
    assert write_ctc(tmp_path / "r", records(GAP), WITH_GAP) == 3
    assert lines_of(tmp_path / "r") == [(1, 0, 0, 0), (2, 0, 2, 0), (3, 2, 2, 1)]
    check_rules(tmp_path / "r")


def test_daughters_of_a_cell_with_a_gap(tmp_path: Path) -> None:
    frames = [GAP[0][:1], GAP[0][:0], GAP[0][:1], squares((6, 10), (16, 10))]
    tracks = Tracks.from_links([1, 0, 1, 2], [(0, 0, 2, 0), (2, 0, 3, 0), (2, 0, 3, 1)])
    write_ctc(tmp_path / "r", records(frames), tracks)
    assert lines_of(tmp_path / "r") == [(1, 0, 0, 0), (4, 2, 2, 1), (2, 3, 3, 4), (3, 3, 3, 4)]
    check_rules(tmp_path / "r")


def test_a_cell_that_others_cover_is_missing_there(tmp_path: Path) -> None:
    covered = squares((10, 10), (10, 10)).replace(scores=[0.5, 0.9])
    frames = records([squares((10, 10), (40, 10)), covered, squares((10, 10), (40, 10))])
    links = [(frame, k, frame + 1, k) for frame in (0, 1) for k in (0, 1)]
    write_ctc(tmp_path / "r", frames, Tracks.from_links([2, 2, 2], links))
    assert lines_of(tmp_path / "r") == [(1, 0, 0, 0), (2, 0, 2, 0), (3, 2, 2, 1)]
    check_rules(tmp_path / "r")


@pytest.mark.parametrize(("frames", "tracks"), [(DIVISION, DIVIDED), (GAP, WITH_GAP)])
def test_what_was_written_is_read(tmp_path: Path, frames: list, tracks: Tracks) -> None:
    write_ctc(tmp_path / "r", records(frames), tracks)
    found, read = read_ctc(tmp_path / "r")
    assert len(found) == len(frames)
    masks = [tifffile.imread(path) for path in sorted((tmp_path / "r").glob("mask*.tif"))]
    numbers = [line[0] for line in sorted(lines_of(tmp_path / "r"))]
    for record, ids, mask in zip(found, read.ids, masks):
        assert record.labels.tolist() == [numbers[k - 1] for k in ids]
        table = np.zeros(mask.max() + 1, int)
        table[record.labels] = np.arange(1, len(ids) + 1)
        np.testing.assert_array_equal(record.cells.to_label_image(), table[mask])
    if tracks is DIVIDED:
        assert (ids_of(read), table_of(read)) == (ids_of(tracks), table_of(tracks))
        assert sorted(read.links) == sorted(tracks.links)
    else:
        assert table_of(read) == [(0, 0, 0), (0, 2, 0), (2, 2, 1)]
        assert (0, 0, 2, 1) in read.links  # over the gap; cells are in the order of numbers here


def write_truth(folder: Path, masks: list, lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        tifffile.imwrite(folder / f"man_track{number:03d}.tif", np.array(mask, np.uint16))
    (folder / "man_track.txt").write_text(lines)
    return folder


def test_a_truth_is_read(tmp_path: Path) -> None:
    masks = [[[5, 0, 0]], [[5, 0, 0]], [[7, 0, 9]]]
    folder = write_truth(tmp_path / "01_GT/TRA", masks, "9 2 2 5\n5 0 1 0\r\n7 2 2 5\n\n")
    frames, tracks = read_ctc(folder)
    assert table_of(tracks) == [(0, 1, 0), (2, 2, 1), (2, 2, 1)]
    assert ids_of(tracks) == [[1], [1], [2, 3]]
    assert [record.image_id for record in frames] == [
        "man_track000",
        "man_track001",
        "man_track002",
    ]


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("5 0 0 0", "track 5: frames 0 to 0; its masks are in 0, 1"),
        ("5 0 1 0\n6 0 1 0", "track 6: frames 0 to 1; its masks are in none"),
        ("5 0 1 0\n5 0 1 0", "track 5 has several lines"),
        ("5 1 0 0", "track 5: frames 1 to 0"),
        ("", "label 5 has no line"),
        ("5 0 1 3", "track 5 begins in frame 0; its parent 3 has no line"),
        ("5 0 1 5", "track 5 begins in frame 0; its parent 5 ends in frame 1"),
        ("5 0 1", "line 1: '5 0 1' is not four whole numbers"),
        ("5 0 1 -1", "is not four whole numbers"),
    ],
)
def test_rules_that_are_broken(tmp_path: Path, lines: str, what: str) -> None:
    folder = write_truth(tmp_path / "r", [[[5, 0]], [[5, 0]]], lines)
    with pytest.raises(DatasetError, match=what):
        read_ctc(folder)


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no res_track.txt or man_track.txt"):
        read_ctc(tmp_path)
    folder = write_truth(tmp_path / "r", [[[1]], [[1]], [[1]]], "1 0 2 0")
    (folder / "man_track001.tif").unlink()
    with pytest.raises(DatasetError, match=r"masks are missing: man_track001.tif"):
        read_ctc(folder)


def test_an_earlier_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "01_RES"
    write_ctc(folder, records(DIVISION), DIVIDED)
    write_ctc(folder, records(GAP), WITH_GAP)
    assert len(list(folder.iterdir())) == 4
    check_rules(folder)
    with pytest.raises(LabelError):
        write_ctc(folder, records(GAP[:2]), WITH_GAP)
    assert len(list(folder.iterdir())) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["01_RES"]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is there already"):
        write_ctc(tmp_path / "r", records(GAP), WITH_GAP)
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["notes.txt"]


def test_more_tracks_than_masks_can_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctc, "MAX_TRACKS", 2)
    with pytest.raises(LabelError, match="more than 2 tracks; the challenge's masks have 16 bits"):
        write_ctc(tmp_path / "r", records(DIVISION), DIVIDED)
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_thousand_frames(tmp_path: Path) -> None:
    cells = squares((1, 1))
    frames = [ImageRecord(str(number), cells) for number in range(1001)]
    tracks = Tracks.from_links([1] * 1001, [(k, 0, k + 1, 0) for k in range(1000)])
    write_ctc(tmp_path / "r", frames, tracks)
    assert (tmp_path / "r" / "mask1000.tif").is_file()
    assert (tmp_path / "r" / "mask0000.tif").is_file()
    assert lines_of(tmp_path / "r") == [(1, 0, 1000, 0)]
    assert len(read_ctc(tmp_path / "r")[0]) == 1001
