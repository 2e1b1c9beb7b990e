"""How large images are looked at: by the diameter of their cells."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.cells.records import PlaceInFile
from cellseg.errors import ConfigError
from cellseg.inference.magnification import Look, Magnification
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor, resize_smoothly
from cellseg.io.tables import read_rows
from commands import Command
from detectron2.config import CfgNode

TEST = "CELLSEG.TEST."
KNOWN = (10.0, 26.0, 48.0)


@pytest.fixture
def cfg(cfg: CfgNode) -> CfgNode:
    """That of the small model, which knows cells of 10 to 48 px and looks at native pixels."""
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 0, "INPUT.MAX_SIZE_TEST", 4000])
    cfg.merge_from_list([TEST + "KNOWN_DIAMETERS", list(KNOWN)])
    return cfg


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def record_inputs(model: CellModel, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the network is given from here on."""
    seen: list[torch.Tensor] = []
    inference = model.predictor.model.inference

    def record(batch: list[dict[str, Any]], **options: Any) -> Any:
        seen.extend(one["image"] for one in batch)
        return inference(batch, **options)

    monkeypatch.setattr(model.predictor.model, "inference", record)
    return seen


@pytest.mark.parametrize(("diameter", "zoom"), [(13, 2.0), (26, 1.0), (104, 0.25)])
def test_cells_become_as_large_as_the_median(diameter: float, zoom: float) -> None:
    look = Magnification(diameter, KNOWN).fixed_look()
    assert look == Look(zoom, diameter, is_chosen=True)
    assert look.note_in(PlaceInFile()).zoom == zoom


@pytest.mark.parametrize("diameter", ["", "auto"])
def test_nothing_is_fixed_without_a_number(diameter: str) -> None:
    look = Magnification(diameter, KNOWN).fixed_look()
    assert look == Look(1.0, None, is_chosen=False)
    assert look.note_in(PlaceInFile()) == PlaceInFile()


@pytest.mark.parametrize("diameter", [30, "auto"])
def test_a_diameter_needs_known_ones(diameter: float | str) -> None:
    with pytest.raises(ConfigError, match="KNOWN_DIAMETERS is empty; expected the lowest, median"):
        Magnification(diameter, ())
    with pytest.raises(ConfigError, match="KNOWN_DIAMETERS is empty"):
        load_config("quick_start.yaml", [TEST + "DIAMETER", diameter])


@pytest.mark.parametrize("diameter", [0, -3, "large", True])
def test_an_impossible_diameter_is_refused(diameter: float | str) -> None:
    with pytest.raises(ConfigError, match=r"TEST\.DIAMETER is .* 'auto', or a number above 0"):
        Magnification(diameter, KNOWN)


@pytest.mark.parametrize("known", [[10, 26], [48, 26, 10], [0, 26, 48], 26])
def test_impossible_known_diameters_are_refused(known: Any) -> None:
    with pytest.raises(ConfigError, match=r"KNOWN_DIAMETERS is .* three numbers above 0"):
        load_config("quick_start.yaml", [TEST + "KNOWN_DIAMETERS", known])


@pytest.mark.parametrize(("diameter", "zoom"), [(13.0, 2.0), (52.0, 0.5)])
def test_the_network_sees_what_was_resized(
    cfg: CfgNode,
    image: np.ndarray,
    diameter: float,
    zoom: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = CellModel(CellPredictor(cfg))
    seen = record_inputs(model, monkeypatch)
    found = model.predict(image, diameter=diameter)
    assert found.image_hw == (60, 80)
    how = cv2.INTER_LINEAR if zoom > 1 else cv2.INTER_AREA
    resized = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=how)
    model.predict(resized)
    given, expected = seen
    assert given.shape == expected.shape == (3, 60 * zoom, 80 * zoom)
    assert torch.equal(given, expected)


def test_on_top_of_what_the_config_says_of_every_image(
    cfg: CfgNode, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg.INPUT.MIN_SIZE_TEST = 30
    model = CellModel(CellPredictor(cfg))
    seen = record_inputs(model, monkeypatch)
    model.predict(image)
    model.predict(image, diameter=13)
    assert [tuple(one.shape) for one in seen] == [(3, 30, 40), (3, 60, 80)]


def test_the_median_changes_nothing(cfg: CfgNode, image: np.ndarray) -> None:
    model = CellModel(CellPredictor(cfg))
    plain, found = model.predict(image), model.predict(image, diameter=26)
    assert len(plain) > 0
    assert plain.equals(found)


def test_what_is_made_smaller_keeps_its_mean() -> None:
    """One bright pixel of sixteen; single pixels of it would be black or white."""
    pixels = np.zeros((40, 40, 3), np.float32)
    pixels[::4, ::4] = 160
    assert np.array_equal(resize_smoothly(pixels, 0.25), np.full((10, 10, 3), 10, np.float32))
    assert resize_smoothly(pixels, 0.001).shape == (1, 1, 3)


def test_tiles_are_looked_at_so_too(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.merge_from_list([TEST + "TILE", 256, TEST + "TILE_OVERLAP", 32])
    cfg.CELLSEG.TEST.DIAMETER = 104
    model = CellModel(CellPredictor(cfg))
    seen = record_inputs(model, monkeypatch)
    image = np.random.default_rng(0).integers(0, 255, (900, 1300, 3), dtype=np.uint8)
    with caplog.at_level(logging.INFO):
        model.predict(image)
    assert "image: cells of about 104 px; looked at 0.25 times the size" in caplog.text
    assert sum(one.shape[1] * one.shape[2] for one in seen) >= 900 * 1300 / 16
    assert max(max(one.shape[1:]) for one in seen) <= (256 + 2 * 512) / 4


def test_tiles_overlap_by_the_cells_of_the_image(cfg: CfgNode) -> None:
    """The largest cell that the model knows is four times as large in an image shrunk to 1/4."""
    model = CellModel(CellPredictor(cfg))
    assert model._overlaps(0.25).cells == 4 * model._overlaps(1.0).cells
    assert model._overlaps(0.25).context >= 4 * 64
    assert model._overlaps(2.0) == model._overlaps(1.0)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int | str]:
    monkeypatch.setattr("cellseg.cli.predict.setup_logger", lambda name: None)
    return Command("predict").main


def test_the_command_tells_and_notes_it(
    main: Callable,
    checkpoint_options: list[str],
    image: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cv2.imwrite(str(tmp_path / "field.png"), image)
    out = tmp_path / "out"
    words = ["--config-file", "quick_start.yaml", str(tmp_path / "field.png"), "-o", str(out)]
    known = [TEST + "KNOWN_DIAMETERS", "[10, 26, 48]"]
    assert main([*words, *checkpoint_options, *known]) == 0
    assert "scale" not in read_rows(out / "summary.csv")[0]
    with caplog.at_level(logging.INFO):
        resumed = [*words, "--diameter", "52", "--resume"]
        assert main([*resumed, *checkpoint_options, *known]) == 0
    assert "field: cells of about 52 px; looked at 0.5 times the size" in caplog.text
    assert read_rows(out / "summary.csv")[0]["scale"] == 0.5


@pytest.mark.parametrize("word", ["0", "-4", "large", "inf"])
def test_the_command_refuses_other_words(
    main: Callable, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "-o", str(tmp_path / "out"), f"--diameter={word}"])
    assert "expected a number of pixels such as 30, or auto" in capsys.readouterr().err
