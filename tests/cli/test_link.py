"""The command `cellseg link`."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest
import tifffile
from commands import Command
from time_lapse_scenes import DIVISION, GAP, write_stack

pytest.importorskip("laptrack")


@pytest.fixture
def link() -> Command:
    return Command("link")


def write_frames(folder: Path) -> Path:
    for number, cells in enumerate(DIVISION):
        builders.write_png(folder / f"f_{number}_labels.png", cells.to_label_image())
        builders.write_png(folder / f"f_{number}.png", cells.to_label_image())  # the image
    return folder


def test_a_folder(link: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_frames(tmp_path / "predictions")
    assert link.main([folder, "-o", tmp_path / "out", "--ctc"]) == 0
    names = ["f_RES", "f_track_points.csv", "f_tracks.csv", "f_tracks.tif"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"f: 4 frames, 3 tracks, 1 divisions: {tmp_path / 'out' / 'f_tracks.tif'}"


def test_a_folder_again(link: Command, tmp_path: Path) -> None:
    """What an earlier call wrote beside the label images is none of them."""
    for number, cells in enumerate(DIVISION):
        builders.write_png(tmp_path / f"f_{number}.png", cells.to_label_image())
    for _ in range(2):
        assert link.main([tmp_path, "--ctc"]) == 0
    names = ["f_RES", "f_track_points.csv", "f_tracks.csv", "f_tracks.tif"]
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix != ".png") == names


def test_options(link: Command, tmp_path: Path) -> None:
    stack = write_stack(tmp_path / "gap.tif", [cells.to_label_image() for cells in GAP])
    for options, highest in (
        ([], 2),
        (["--max-gap", 0], 3),
        (["--max-distance", 2], 3),
        (["--link-by", "distance", "--no-divisions"], 2),
    ):
        assert link.main([stack, *options]) == 0
        assert tifffile.imread(tmp_path / "gap_tracks.tif").max() == highest


def test_no_time_lapse(link: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = builders.write_png(tmp_path / "a.png", DIVISION[0].to_label_image())
    assert link.main([path]) == 2
    assert "No time-lapse" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nothing.tif"], "ImageReadError: nothing.tif"),
        (["."], "DatasetError: .: no label image"),
        (["nothing.tif", "--max-gap", "-1"], "ConfigError: max_gap_frames is -1 frames"),
    ],
)
def test_bad_input(
    link: Command, words: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(link.main(words)).startswith(what)
