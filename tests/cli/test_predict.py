"""tools/predict.py: once as a command, then its exit statuses from inside."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.synthetic import make_cells
from cellseg.io import geojson, imagej_rois
from commands import REPOSITORY, Command, run_program
from detectron2.modeling import build_model

TOOL = REPOSITORY / "tools" / "predict.py"
CONFIG = REPOSITORY / "configs" / "quick_start.yaml"


@pytest.fixture(scope="module")
def options(tiny_model: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name the checkpoint of an untrained small model."""
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, tiny_model))
    torch.save({"model": model.state_dict()}, path)
    return [*tiny_model, "MODEL.WEIGHTS", str(path)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in (1, 2):
        cells = make_cells(seed, (64, 80))
        cv2.imwrite(str(folder / f"field_{seed}.png"), cells.image)
    return folder


def arguments(*arguments: str | Path) -> list[str]:
    return ["--config-file", str(CONFIG), *map(str, arguments)]


def test_a_folder_with_one_broken_image(images: Path, options: list[str], tmp_path: Path) -> None:
    (images / "broken.png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    given = arguments(
        *("--input", images, "--output", out),
        *("--score-threshold", "0", "--mask-threshold", "0.4", *options),
    )
    done = run_program(TOOL, *given)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Engine: " in done.stdout.splitlines()[0]
    assert "Device: cpu (" in done.stdout.splitlines()[1]
    assert "FutureWarning" not in done.stderr
    assert str(images / "broken.png") in done.stdout
    assert "2 of 3 images done" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "3/3" not in done.stderr  # no progress bar: the stream is no terminal
    for stem in ("field_1", "field_2"):
        assert cv2.imread(str(out / f"{stem}_overlay.png")) is not None
        labels = tifffile.imread(out / f"{stem}_labels.tif")
        assert labels.dtype == np.uint16
        assert labels.shape == (64, 80)
        assert labels.max() > 0
    results = json.loads((out / "coco_results.json").read_text())
    assert {result["image_id"] for result in results} == {"field_1", "field_2"}


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int | str]:
    """The command without its log handler, so that `caplog` sees what is logged."""
    monkeypatch.setattr("cellseg.cli.predict.setup_logger", lambda name: None)
    return Command("predict").main


def test_all_well_is_status_0(
    main: Callable, images: Path, options: list[str], tmp_path: Path
) -> None:
    pattern = images / "*_1.png"
    status = main(arguments("--input", pattern, "--output", tmp_path / "out", "--opts", *options))
    assert status == 0
    assert (tmp_path / "out" / "field_1_labels.tif").is_file()
    assert not (tmp_path / "out" / "field_2_labels.tif").exists()


def test_one_input_that_gives_nothing_is_status_1(
    main: Callable, images: Path, options: list[str], tmp_path: Path
) -> None:
    inputs = (images / "field_1.png", tmp_path / "gone.png")
    assert main(arguments("--input", *inputs, "--output", tmp_path, "--opts", *options)) == 1
    assert (tmp_path / "field_1_labels.tif").is_file()


def test_no_input_is_status_2(
    main: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status = main(arguments("--input", tmp_path / "nowhere", "--output", tmp_path / "out"))
    assert status == 2
    assert f"{tmp_path / 'nowhere'}: no image found" in caplog.text
    assert not (tmp_path / "out").exists()


def test_no_weights_is_one_clear_error(main: Callable, images: Path, tmp_path: Path) -> None:
    status = main(arguments("--input", images, "--output", tmp_path / "out"))
    assert isinstance(status, str)
    assert status.startswith("ConfigError: MODEL.WEIGHTS is empty")


@pytest.mark.parametrize(
    ("name", "ending"),
    [("geojson", ".geojson"), ("imagej_rois", "_rois.zip"), ("rois", "_rois.zip")],
)
def test_cells_in_another_format_are_read_back(
    name: str, ending: str, main: Callable, images: Path, options: list[str], tmp_path: Path
) -> None:
    """Compared with coco_results.json: both hold overlapping cells too."""
    out = tmp_path / "out"
    few = ["CELLSEG.TEST.SCORE_THRESHOLD", "0.0", "TEST.DETECTIONS_PER_IMAGE", "5"]
    found = ["--input", images, "--output", out, "--format", name]
    assert main(arguments(*found, *options, *few)) == 0
    results = json.loads((out / "coco_results.json").read_text())
    read = {".geojson": geojson.read_image_cells, "_rois.zip": imagej_rois.read_image_cells}[ending]
    for image_id in ("field_1", "field_2"):
        cells = read(out / f"{image_id}{ending}", (64, 80))
        rles = [one["segmentation"] for one in results if one["image_id"] == image_id]
        expected = CellInstances.from_rles(rles, (64, 80))
        expected = expected[expected.areas_px > 0]
        assert len(cells) == len(expected) > 0
        assert sorted(m.tobytes() for m in cells.to_bitmaps()) == sorted(
            m.tobytes() for m in expected.to_bitmaps()
        )
