"""`cellseg bundle`: from a run to a bundle that predicts, evaluates and starts trainings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cellseg
import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from cellseg import load_config
from cellseg.cells.synthetic import make_cells
from cellseg.config import ConfigTree
from cellseg.config.trained import portable_config
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.engine import CellTrainer
from cellseg.engine.bundling import bundle_model
from cellseg.engine.loading import find_classes
from cellseg.evaluation import score
from cellseg.modeling import MaskRCNN
from cellseg.models import ModelCard, find_bundle, open_bundle
from commands import Command, run_program
from detectron2.config import CfgNode

CARD = """
description: Round things that a computer drew.
licence: CC0-1.0
trained_on:
  - name: synthetic_train
    licence: CC0-1.0
    attribution: cellseg makes them
"""


@pytest.fixture(scope="module")
def run_dir(tiny_model: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OUTPUT_DIR of a training of four iterations."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = [
        *("train", "--config-file", "quick_start.yaml", *tiny_model, "OUTPUT_DIR", str(folder)),
        *("SOLVER.MAX_ITER", "4", "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "1"),
        *("CELLSEG.TEST.PICTURES", "0", "MODEL.RPN.POST_NMS_TOPK_TEST", "50"),
        *("CELLSEG.TEST.SCORE_THRESHOLD", "0.0", "TEST.DETECTIONS_PER_IMAGE", "20"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
    ]
    done = run_program("-m", "cellseg", *words)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def bundle() -> Command:
    return Command("bundle")


@pytest.fixture(scope="module")
def full(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the run with its weights as they are."""
    path = tmp_path_factory.mktemp("bundles") / "drawn-cells"
    given = ["--name", "drawn-cells", "-o", path, "--precision", "full"]
    assert Command("bundle").main([run_dir, *given]) == 0
    return path


@pytest.mark.slow
def test_what_a_run_tells_by_itself(
    run_dir: Path, bundle: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card.yaml").write_text(CARD)
    given = ["--name", "drawn-cells", "--card", "card.yaml", "--model-version", "1.2", "--zip"]
    assert bundle.main([run_dir, *given]) == 0
    card = open_bundle("drawn-cells.zip").card
    assert (card.name, card.version, card.precision) == ("drawn-cells", "1.2", "int8")
    assert card.classes == ("cell",)
    assert card.description == "Round things that a computer drew."

    (data,) = card.trained_on
    truth = GroundTruth.load("synthetic_train")
    cells = [truth.cells(key) for key in truth.images]
    assert (data.images, data.cells) == (len(cells), sum(map(len, cells)))
    assert data.attribution == "cellseg makes them"
    cfg = load_config(run_dir / "config.yaml")
    assert not cfg.INPUT.CROP.ENABLED
    shorter = min(cells[0].image_hw)
    scale = np.median(cfg.INPUT.MIN_SIZE_TRAIN) / shorter if max(cfg.INPUT.MIN_SIZE_TRAIN) else 1
    areas = np.concatenate([one.areas_px for one in cells])
    expected = (
        np.percentile(2 * np.sqrt(areas / np.pi), [5, 50, 95]) * scale * cfg.CELLSEG.INPUT.SCALE
    )
    assert card.diameters_px == pytest.approx(expected, abs=0.06)
    tree = open_bundle("drawn-cells.zip").read_config().tree
    assert tree["CELLSEG"]["TEST"]["KNOWN_DIAMETERS"] == list(card.diameters_px)

    metrics = {one.name: one for one in card.metrics}
    last = json.loads((run_dir / "run.json").read_text())["runs"][-1]["figures"]
    assert metrics["ap_dsb"].value == pytest.approx(last["cell_iou/ap_dsb"], abs=1e-4)
    assert metrics["ap_dsb"].data == "synthetic_val"
    assert metrics["ap_dsb"].command.startswith("cellseg train --config-file quick_start.yaml")
    assert card.thresholds["SCORE_THRESHOLD"] == 0.0
    assert card.made_with["cellseg"] == cellseg.__version__
    assert card.made_with["engine"].split()[0] in ("embedded", "detectron2")


@pytest.mark.slow
def test_nothing_of_the_machine_is_in_it(run_dir: Path, full: Path) -> None:
    for name in ("config.yaml", "model.yaml"):
        text = (full / name).read_text("utf-8")
        tree = yaml.safe_load(text)
        tree.pop("metrics", None)  # their command is as it was given
        assert str(run_dir.parent) not in yaml.safe_dump(tree)
    config = yaml.safe_load((full / "config.yaml").read_text("utf-8"))
    assert "OUTPUT_DIR" not in config
    assert not {"WEIGHTS", "DEVICE"} & config["MODEL"].keys()
    assert "DATASETS" not in config
    assert "DATASETS" not in config["CELLSEG"]


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_it_finds_what_the_run_finds(
    run_dir: Path, full: Path, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELLSEG_MODELS", str(full.parent))
    model = "drawn-cells"
    if packed:
        model = shutil.make_archive(str(tmp_path / "packed"), "zip", full)
    cv2.imwrite("field.png", make_cells(1, (64, 80)).image)
    predict = Command("predict")
    assert predict.main(["field.png", "-o", "of_run", "--model", run_dir]) == 0
    assert predict.main(["field.png", "-o", "of_bundle", "--model", model]) == 0
    found = [tifffile.imread(f"{folder}/field_labels.tif") for folder in ("of_run", "of_bundle")]
    assert found[0].any()
    assert np.array_equal(*found)
    again = ["field.png", "-o", "of_bundle", "--model", model, "--resume"]
    assert predict.main(again) == 0


@pytest.mark.slow
def test_eight_bits_find_nearly_the_same(run_dir: Path, bundle: Command, tmp_path: Path) -> None:
    assert bundle.main([run_dir, "--name", "small", "-o", tmp_path / "small"]) == 0
    assert (
        find_bundle(tmp_path / "small").size_bytes * 3
        < (run_dir / "model_final.pth").stat().st_size
    )
    image = make_cells(1, (96, 128)).image
    # Untrained scores lie close together: all detections are kept, whatever their order.
    keep = ["MODEL.ROI_HEADS.NMS_THRESH_TEST", 1.0, "CELLSEG.TEST.MAX_COVERED", 1.0]
    keep += ["TEST.DETECTIONS_PER_IMAGE", 1000]
    before, after = (
        cellseg.load(path, keep).predict(image) for path in (run_dir, tmp_path / "small")
    )
    assert len(before) > 5
    metrics = score([before], [after], ["dice_foreground"])
    assert metrics["dice_foreground"] > 0.98


@pytest.mark.slow
def test_a_training_starts_from_it(full: Path, tiny_training: list[str]) -> None:
    """The config is the bundle's, by its path; the weights too."""
    data = ["DATASETS.TRAIN", "('synthetic_train',)", "DATASETS.TEST", "()"]
    data += ["DATALOADER.NUM_WORKERS", "0"]
    cfg = load_config(full, [*tiny_training, *data, "MODEL.WEIGHTS", str(full)])
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=False)
    weights = open_bundle(full).read_weights()
    state = trainer.model.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in weights)
    assert trainer.start_iter == 0


@pytest.mark.slow
def test_other_classes_keep_what_fits(
    full: Path, tiny_training: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.ROI_HEADS.NUM_CLASSES", "3"]
    cfg = load_config(full, [*tiny_training, *data])
    model = MaskRCNN(cfg)
    with pytest.raises(cellseg.errors.CheckpointError, match=r"cls_score\.weight: \[2, 64\] in"):
        model.load_weights(full)
    model.load_weights(full, partial=True)
    assert "cls_score.weight" in caplog.text
    name = "backbone.fpn_lateral2.weight"
    assert torch.equal(model.state_dict()[name], open_bundle(full).read_weights()[name])


@pytest.mark.slow
def test_its_own_classes_are_found_where_the_data_are_not_known(full: Path, tmp_path: Path) -> None:
    named = Path(shutil.copytree(full, tmp_path / "named"))
    card = (named / "model.yaml").read_text("utf-8")
    (named / "model.yaml").write_text(
        card.replace("classes:\n- cell", "classes:\n- drawn"), "utf-8"
    )
    cfg = load_config(named, weights=str(named))
    assert find_classes(cfg) == (["drawn"], [1])


def test_a_config_that_the_weights_do_not_fit(
    checkpoint_options: list[str], tmp_path: Path
) -> None:
    """Both files are as they were written, but not of one model."""
    cfg = load_config("quick_start.yaml", checkpoint_options)
    path = tmp_path / "mixed"
    bundle_model(cfg, path, ModelCard("mixed", ("nucleus",)))
    tree = open_bundle(path).read_config().tree
    tree["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] = 4
    other = load_config(ConfigTree("given", tree), weights=str(path))
    with pytest.raises(cellseg.errors.CheckpointError) as caught:
        cellseg.load(path, ["MODEL.ROI_HEADS.NUM_CLASSES", 4])
    assert "mixed/weights.safetensors: parameters that do not fit the model" in str(caught.value)
    assert other.MODEL.ROI_HEADS.NUM_CLASSES == 4


@pytest.fixture
def checkpoint(checkpoint_options: list[str], tmp_path: Path) -> Path:
    """A checkpoint with its config beside it."""
    cfg = load_config("quick_start.yaml", checkpoint_options)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    return Path(shutil.copy(cfg.MODEL.WEIGHTS, tmp_path / "run"))


def test_what_is_refused(checkpoint: Path, bundle: Command, tmp_path: Path) -> None:
    to = ["--name", "x", "-o", tmp_path / "x"]
    assert bundle.main([checkpoint, *to]) == 0
    assert "x: is there already" in str(bundle.main([checkpoint, *to]))
    assert bundle.main([checkpoint, *to, "--overwrite"]) == 0
    card = tmp_path / "card.yaml"
    card.write_text("sha256: {}\ndescripton: a\nclasses: [a, b]\n")
    said = str(bundle.main([checkpoint, *to, "--overwrite", "--card", card]))
    assert "sha256: is filled in by itself" in said
    assert "descripton: unknown key; did you mean description?" in said
    card.write_text("classes: [a, b]\n")
    said = str(bundle.main([checkpoint, *to, "--overwrite", "--card", card]))
    assert said.startswith("ConfigError: 2 classes are named (a, b); expected 1")
    assert "no such model" in str(bundle.main([tmp_path / "rum", *to]))
    assert "cannot be read" in str(bundle.main([checkpoint, *to, "--card", tmp_path / "none"]))


def test_a_name_that_cannot_be_one(checkpoint: Path, bundle: Command, tmp_path: Path) -> None:
    said = str(bundle.main([checkpoint, "--name", "My Cells", "-o", tmp_path / "x"]))
    assert "name: found 'My Cells', expected lower-case letters" in said
    assert not (tmp_path / "x").exists()


def test_listed_models(
    checkpoint: Path,
    bundle: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "models"
    card = tmp_path / "card.yaml"
    card.write_text(
        "description: Drawn.\ndiameters_px: [8, 16, 31]\n"
        "metrics: [{name: aji, value: 0.75, data: mine}]\n"
    )
    given = ["--name", "drawn", "-o", folder / "drawn.zip", "--card", card]
    assert bundle.main([checkpoint, *given]) == 0
    (folder / "broken").mkdir()
    (folder / "broken" / "model.yaml").write_text("name: broken\n")
    monkeypatch.setenv("CELLSEG_MODELS", str(folder))
    info = Command("info")
    capsys.readouterr()
    assert info.main(["--models"]) == 0
    said = capsys.readouterr().out
    assert "8 to 31, half below 16" in said
    assert "drawn: Drawn.\n  aji 0.75 on mine" in said
    assert "Cannot be used" in said
    assert "broken: no config.yaml and no weights.safetensors in it" in said
    assert info.main(["--models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert models["drawn"]["classes"] == ["cell"]
    assert "problem" in models["broken"]


def test_the_keys_of_another_machine_are_left_out(checkpoint_options: list[str]) -> None:
    cfg: CfgNode = load_config("quick_start.yaml", checkpoint_options)
    cfg.OUTPUT_DIR = "/home/me/run"
    tree = portable_config(cfg)
    assert "/home/me" not in yaml.safe_dump(tree)
    assert load_config(ConfigTree("given", tree)).MODEL.FPN == cfg.MODEL.FPN
