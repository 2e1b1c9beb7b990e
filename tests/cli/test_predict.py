"""tools/predict.py: once as a command, then its exit statuses from inside."""

from __future__ import annotations

import json
import logging
import shutil
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
from cellseg.io.tables import read_rows
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


@pytest.fixture(scope="module")
def run_dir(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves: a config, and weights of an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    none = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.DEVICE", "cuda"]
    lowest = ["CELLSEG.TEST.SCORE_THRESHOLD", "0.0", "TEST.DETECTIONS_PER_IMAGE", "5"]
    cfg = load_config(CONFIG, [*options, *none, *lowest])
    (folder / "config.yaml").write_text(cfg.dump())
    shutil.copyfile(cfg.MODEL.WEIGHTS, folder / "model_final.pth")
    return folder


def test_a_model_is_named_by_the_folder_of_its_run(
    main: Callable, images: Path, run_dir: Path, tmp_path: Path
) -> None:
    """Trained on a GPU, which is not here; the settings of the run hold."""
    out = tmp_path / "out"
    assert main([str(images), "-o", str(out), "--model", str(run_dir)]) == 0
    assert 0 < tifffile.imread(out / "field_1_labels.tif").max() <= 5


def test_sub_folders_tables_and_sizes(
    main: Callable, images: Path, run_dir: Path, tmp_path: Path
) -> None:
    (images / "plate").mkdir()
    shutil.move(images / "field_2.png", images / "plate" / "B03_s2.png")
    out = tmp_path / "out"
    words = ["--pixel-size-um", "0.5,0.5", str(images), "-o", str(out), "--model", str(run_dir)]
    assert main([*words, "--save", "labels,table", "--save", "parquet"]) == 0
    labels = tifffile.imread(out / "plate" / "B03_s2_labels.tif")
    rows = read_rows(out / "plate" / "B03_s2_cells.csv")
    assert [row["label"] for row in rows] == list(range(1, len(rows) + 1))
    assert set(np.unique(labels)) <= {0, *(row["label"] for row in rows)}
    assert {row["well"] for row in rows} == {"B03"}
    assert all(row["area_um2"] == pytest.approx(row["area_px"] / 4) for row in rows)
    assert read_rows(out / "plate" / "B03_s2_cells.parquet") == rows
    summary = {row["image"]: row for row in read_rows(out / "summary.csv")}
    assert summary.keys() == {"field_1", "plate/B03_s2"}
    assert summary["plate/B03_s2"]["num_cells"] == len(rows)
    assert [row["well"] for row in read_rows(out / "plates.csv")] == ["B03"]


def test_parts_and_resume(
    main: Callable,
    images: Path,
    run_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    words = [str(images), "-o", str(out), "--model", str(run_dir)]
    assert main([*words, "--part", "1/2"]) == 0
    assert not (out / "field_2_labels.tif").exists()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert main([*words, "--resume"]) == 0
    assert "2 of 2 images done" in caplog.text
    assert "1 of them were there already" in caplog.text
    results = json.loads((out / "coco_results.json").read_text())
    assert {result["image_id"] for result in results} == {"field_1", "field_2"}


@pytest.mark.parametrize("part", ["0/2", "3/2", "x", "1"])
def test_a_part_that_is_none(main: Callable, part: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["a", "-o", "b", "--part", part])
    assert "expected K/N with 1 <= K <= N" in capsys.readouterr().err


def test_a_time_lapse_is_linked(main: Callable, run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("laptrack")
    movie = np.stack([make_cells(3, (64, 80)).image] * 3)
    tifffile.imwrite(tmp_path / "movie.tif", movie, imagej=True, metadata={"axes": "TYX"})
    out = tmp_path / "out"
    words = [str(tmp_path / "movie.tif"), "-o", str(out), "--model", str(run_dir), "--link"]
    assert main(words) == 0
    tracks = tifffile.imread(out / "movie_tracks.tif")
    assert tracks.shape == (3, 64, 80)
    assert (tracks[0] == tracks[1]).all()
    assert (tracks[1] == tracks[2]).all()
    assert tracks.max() > 0


def test_tiles_by_the_command(
    main: Callable, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.tile(make_cells(3, (64, 80)).image, (5, 8))
    cv2.imwrite(str(tmp_path / "large.png"), image)
    out = tmp_path / "out"
    words = [str(tmp_path / "large.png"), "-o", str(out), "--model", str(run_dir), "--tile", "64"]
    with caplog.at_level(logging.INFO):
        assert main([*words, "CELLSEG.TEST.TILE_OVERLAP", "32"]) == 0
    assert "large: " in caplog.text
    assert "on seams" in caplog.text
    assert tifffile.imread(out / "large_labels.tif").shape == image.shape


@pytest.mark.parametrize("size", ["0", "-1", "x", "1,2,3", "inf", "nan", ""])
def test_a_size_of_pixels_that_is_none(
    main: Callable, size: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(["a", "-o", "b", f"--pixel-size-um={size}"])
    assert "expected a length in micrometres" in capsys.readouterr().err


def test_the_log_says_what_a_format_cannot_hold(
    main: Callable, images: Path, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [str(images), "-o", str(tmp_path / "out"), "--model", str(run_dir)]
    with caplog.at_level(logging.INFO):
        assert main([*words, "--save", "outlines,geojson,coco"]) == 0
    assert "outlines cannot hold scores" in caplog.text
    assert "geojson cannot" not in caplog.text


def test_a_name_too_long_and_a_line_of_pixels_do_not_end_a_folder(
    images: Path, options: list[str], tmp_path: Path
) -> None:
    tifffile.imwrite(images / "kymograph.tif", np.zeros((2, 5120), np.uint8))
    tifffile.imwrite(images / f"{'x' * 250}.tif", np.zeros((32, 32), np.uint8))
    out = tmp_path / "out"
    given = arguments(images, "-o", out, "--save", "labels,coco", *options)
    assert Command("predict").main(given) == 1
    assert len(list(out.glob("*_labels.tif"))) == 3
    assert (out / "coco_results.json").is_file()
    (failed,) = read_rows(out / "failed.csv")
    assert "File name too long; choose a shorter name" in failed["reason"]
