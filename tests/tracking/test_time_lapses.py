"""Which images are frames of one time-lapse."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg.cells.records import PlaceInFile
from cellseg.errors import DatasetError
from cellseg.tracking.time_lapses import TimeLapse, group_time_lapses, split_off_time


@pytest.mark.parametrize(
    ("stem", "time", "rest"),
    [
        ("frame_000", 0, "frame"),
        ("000", 0, ""),
        ("day1_t9", 9, "day1"),
        ("A01_T0012_z3_ch2", 12, "A01_z3_ch2"),
        ("t=3_movie", 3, "movie"),
        ("B02-0007", 7, "B02"),
        ("movie (12)", 12, "movie"),
        ("img_0003_ch00", 3, "img_ch00"),
        ("2024-05-01_004", 4, "2024-05-01"),
        ("set12", 12, "set"),
        ("f_3", 3, "f"),
        ("z_3", None, "z_3"),
        ("plate_A01", None, "plate_A01"),
        ("site3", None, "site3"),
        ("field", None, "field"),
    ],
)
def test_the_number_of_a_frame_in_a_name(stem: str, time: int | None, rest: str) -> None:
    assert split_off_time(stem) == (time, rest)


def group(*names: str) -> list[TimeLapse]:
    return group_time_lapses([(Path(name), PlaceInFile()) for name in names])


def test_files_in_order_of_their_numbers() -> None:
    [found] = group("d/frame_10_labels.tif", "d/frame_9_labels.tif", "d/frame_2_labels.tif")
    assert (found.name, found.folder) == ("frame", Path("d"))
    assert (found.frames, found.times) == ((2, 1, 0), (2, 9, 10))


def test_what_is_kept_apart() -> None:
    """Folders, channels, Z positions, endings, and names that differ in something else."""
    names = ["a/x_t0_z0.tif", "a/x_t1_z0.tif", "a/x_t0_z1.tif", "b/x_t1_z0.tif", "a/y_t0_z0.tif"]
    names += ["a/x_t1_z1.png", "a/x_z0.tif"]
    found = group(*names)
    assert [one.frames for one in found] == [(0, 1), (2,), (3,), (4,), (5,), (6,)]
    assert [one.name for one in found] == ["x_z0", "x_z1", "x_z0_2", "y_z0", "x_z1_2", "x_z0_3"]


def test_a_name_of_the_number_alone_is_called_by_its_folder(tmp_path: Path) -> None:
    [found] = group(str(tmp_path / "movie" / "000.png"), str(tmp_path / "movie" / "001.png"))
    assert found.name == "movie"


def test_planes_of_a_file() -> None:
    """T is time, Z and scenes are not; the number in the file's name is none of a frame."""
    places = [
        PlaceInFile((("T", t), ("Z", z)), scene)
        for scene in ("", "s2")
        for t in (1, 0)
        for z in (0, 1)
    ]
    found = group_time_lapses([(Path("movie_3_labels.tif"), place) for place in places])
    assert [one.frames for one in found] == [(2, 0), (3, 1), (6, 4), (7, 5)]
    assert [one.name for one in found] == [
        "movie_3_z0",
        "movie_3_z1",
        "movie_3_s2_z0",
        "movie_3_s2_z1",
    ]


def test_pages_without_a_name_are_times() -> None:
    places = [PlaceInFile((("Q", number),)) for number in range(3)]
    [found] = group_time_lapses([(Path("a.tif"), place) for place in places])
    assert found.times == (0, 1, 2)


def test_z_positions_alone_are_no_times() -> None:
    places = [PlaceInFile((("Z", number),)) for number in range(3)]
    found = group_time_lapses([(Path("a.tif"), place) for place in places])
    assert [len(one) for one in found] == [1, 1, 1]


def test_one_number_twice() -> None:
    with pytest.raises(DatasetError, match=r"frame 1 of a is there more than once: a_1.*, a_01"):
        group("d/a_1.tif", "d/a_01.tif")


def test_numbers_that_are_missing() -> None:
    assert group("a_1.tif", "a_2.tif", "a_5.tif")[0].missing == [3, 4]
    assert group("a_0.tif", "a_10.tif", "a_30.tif")[0].missing == [20]
    assert group("a_7.tif")[0].missing == []


def test_no_images() -> None:
    assert group_time_lapses([]) == []
