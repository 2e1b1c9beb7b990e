"""`cellseg suggest`: what it writes, what it refuses to write over, and its exit statuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from cellseg.cells.synthetic import make_cells
from cellseg.inference.suggestions import COLUMNS
from commands import REPOSITORY, Command

CONFIG = REPOSITORY / "configs" / "quick_start.yaml"
NUMBERS = ("score", "doubt", "novelty", "uncertainty", "disagreement")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in (1, 2):
        cv2.imwrite(str(folder / f"field_{seed}.png"), make_cells(seed, (64, 80)).image)
    stack = np.stack([make_cells(seed, (64, 64)).image for seed in (3, 4)])
    grey = stack if stack.ndim == 3 else stack[..., 0]
    tifffile.imwrite(folder / "movie.tif", grey, imagej=True, metadata={"axes": "TYX"})
    return folder


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, checkpoint_options: list[str]
) -> Callable[..., int | str]:
    """The command with a small untrained model, without its log handler."""
    monkeypatch.setattr("cellseg.cli.suggest.setup_logger", lambda name: None)
    model = ["--config-file", str(CONFIG), "--opts", *checkpoint_options]
    return lambda *words: Command("suggest").main([*map(str, words), *model])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_table_json_and_what_is_shown(
    main: Callable, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, content = tmp_path / "next.csv", tmp_path / "next.json"
    status = main(images, "-o", table, "--json", content, "--top", 2)
    assert status == 0
    rows = read(table)
    assert tuple(rows[0]) == COLUMNS
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    names = {"field_1", "field_2", "movie_t0", "movie_t1"}
    assert {row["image"] for row in rows} == names
    assert {row["plane"] for row in rows} == {"", "t0", "t1"}
    for name in NUMBERS:
        assert all(0 <= float(row[name]) <= 1 for row in rows), name
    assert {row["odd_sizes"] for row in rows} == {""}  # the model does not say what it knows
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    written = json.loads(content.read_text("utf-8"))
    assert written["failed"] == []
    assert [one["image"] for one in written["suggestions"]] == [row["image"] for row in rows]
    assert written["suggestions"][0]["odd_sizes"] is None
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    head = lines.index(["rank", "image", "score", "reason"])  # behind the log
    assert [line[1] for line in lines[head + 1 :]] == [row["image"] for row in rows[:2]]


def test_a_bad_file_is_named_and_the_rest_ranked(
    main: Callable, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (images / "broken.png").write_bytes(b"not a picture")
    content = tmp_path / "next.json"
    assert main(images, "--json", content, "--views", 1) == 1
    written = json.loads(content.read_text("utf-8"))
    assert len(written["suggestions"]) == 4
    ((path, image, reason),) = (one.values() for one in written["failed"])
    assert (path, image) == (str(images / "broken.png"), "")
    assert path in reason
    assert reason in caplog.text


def test_nothing_found_is_status_2(main: Callable, tmp_path: Path) -> None:
    assert main(tmp_path / "gone", "-o", tmp_path / "next.csv") == 2
    assert not (tmp_path / "next.csv").exists()


def test_only_its_own_tables_are_replaced(main: Callable, images: Path, tmp_path: Path) -> None:
    one = images / "field_1.png"
    table, content = tmp_path / "next.csv", tmp_path / "next.json"
    table.write_text("name,count\nmine,3\n")
    assert "--overwrite" in main(one, "-o", table)
    assert table.read_text() == "name,count\nmine,3\n"
    assert main(one, "-o", table, "--json", content, "--overwrite") == 0
    assert main(one, "-o", table, "--json", content) == 0  # its own ones
    assert len(read(table)) == 1
    content.write_text('{"annotations": [1]}')
    assert "--overwrite" in main(one, "--json", content)
    assert "this command reads" in main(one, "-o", one, "--overwrite")


@pytest.mark.parametrize(
    "words", [["--views", "9"], ["--tile", "8"], ["--spread", "2"], ["--diameter", "0"]]
)
def test_wrong_numbers_are_bad_usage(main: Callable, images: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(images, *words)
    assert stopped.value.code == 2
