"""`cellseg demo`, and the model that `cellseg predict` takes by itself."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.cli import command_names
from cellseg.shipped import DEFAULT_MODEL, named_bundles, sample_images
from commands import Command

DRAWN_BY_PEOPLE = {"crowded": 56, "large": 20, "monolayer": 136}
"""Nuclei of each image, from the labels of the data set that it comes from."""


@pytest.mark.slow
def test_it_finds_the_nuclei_and_names_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert Command("demo").main(["-o", tmp_path / "out", "--show"]) == 0
    said = capsys.readouterr().out
    for name, number in DRAWN_BY_PEOPLE.items():
        labels = tifffile.imread(tmp_path / "out" / f"{name}_labels.tif")
        assert abs(len(np.unique(labels)) - 1 - number) <= 0.25 * number
        picture = tmp_path / "out" / f"{name}_overlay.png"
        assert picture.is_file()
        assert picture.as_uri() in opened
        assert f"Picture: {picture}" in said
    with open(tmp_path / "out" / "summary.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(DRAWN_BY_PEOPLE)


@pytest.mark.slow
def test_predict_says_what_the_model_was_made_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image, *_) = sample_images()
    assert Command("predict").main([image, "-o", tmp_path]) == 0
    said = capsys.readouterr().out
    assert "No --model is given: taking nuclei" in said
    assert "fluorescence" in said


def test_samples_and_model_are_there() -> None:
    assert [path.stem for path in sample_images()] == sorted(DRAWN_BY_PEOPLE)
    sources = (sample_images()[0].parent / "README.md").read_text("utf-8")
    assert all(f"`{path.name}`" in sources for path in sample_images())
    assert DEFAULT_MODEL in named_bundles()
    assert "demo" in command_names()
