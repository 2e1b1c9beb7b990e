"""docs/time_lapse.md: its scripts run on what its commands write."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import builders
import numpy as np
import pytest
from cellseg.cli import run_command
from pages import Page
from time_lapse_scenes import DIVISION, write_stack

pytest.importorskip("laptrack")
pd = pytest.importorskip("pandas")
LABELS = [cells.to_label_image() for cells in DIVISION]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page in a folder with a stack and a folder of four predicted frames."""
    found = Page("docs/time_lapse.md")
    found.write_files(tmp_path)
    write_stack(tmp_path / "movie_labels.tif", LABELS)
    for number, image in enumerate(LABELS):
        builders.write_png(tmp_path / "predictions" / f"well_t{number}_labels.png", image)
    monkeypatch.chdir(tmp_path)
    return found


def run_commands(page: Page) -> None:
    [words] = [shlex.split(command) for command in page.commands if "cellseg link" in command]
    second = words.index("cellseg", 1)
    for part in (words[:second], words[second:]):
        assert run_command(part[1], part[2:]) == 0


def test_the_commands_write_what_the_page_lists(page: Page, tmp_path: Path) -> None:
    run_commands(page)
    endings = ["RES", "track_points.csv", "tracks.csv", "tracks.tif"]
    expected = [f"movie_{ending}" for ending in endings]
    expected += [f"well_{ending}" for ending in endings[1:]]
    assert sorted(path.name for path in (tmp_path / "tracks").iterdir()) == expected
    text = Path(builders.__file__).parents[1].joinpath("docs/time_lapse.md").read_text("utf-8")
    for name in ("tracks", "track_points"):
        for column in pd.read_csv(tmp_path / "tracks" / f"movie_{name}.csv").columns:
            assert f"`{column}`" in text, column


def test_tracks_are_joined_to_measurements(page: Page) -> None:
    run_commands(page)
    rows = {"image": ["movie_labels_t2"] * 2, "label": [1, 2], "area_px": [72, 72]}
    pd.DataFrame(rows).to_csv("cells.csv", index=False)
    found: dict = {}
    exec(page.files["join.py"], found)
    assert found["cells"][["track", "frame"]].to_numpy().tolist() == [[2, 2], [3, 2]]


def test_what_napari_is_given(page: Page) -> None:
    run_commands(page)
    viewer = mock.Mock()
    napari = SimpleNamespace(Viewer=lambda: viewer, run=lambda: None)
    with mock.patch.dict(sys.modules, {"napari": napari}):
        exec(page.files["show_tracks.py"], {})
    [stack] = viewer.add_labels.call_args.args
    assert stack.shape == (4, *LABELS[0].shape)
    [points] = viewer.add_tracks.call_args.args
    assert points[:, :2].tolist() == [[1, 0], [1, 1], [2, 2], [2, 3], [3, 2], [3, 3]]
    for track, frame, row, column in points:
        assert stack[int(frame), round(row), round(column)] == track
    assert viewer.add_tracks.call_args.kwargs["graph"] == {2: [1], 3: [1]}


def test_the_python_example(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict = {}
    exec(page.files["link.py"], found)
    assert "3 tracks, 1 divisions\n[1]\n" in capsys.readouterr().out
    assert [one.time_lapse.name for one in found["linked"]] == ["well"]
    np.testing.assert_array_equal(found["linked"][0].tracks.parents, [0, 1, 1])
