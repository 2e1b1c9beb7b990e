"""docs/custom_parts.md: each of its files is short, and trains, evaluates and predicts."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cellseg
import cv2
import numpy as np
import pytest
import torch
from cellseg import add_cellseg_config, load_config
from cellseg.cells.synthetic import make_cells
from cellseg.cli import run_command
from cellseg.engine import CellTrainer
from cellseg.errors import ConfigError
from cellseg.evaluation import EVALUATOR_REGISTRY
from cellseg.modeling import MASK_LOSS_REGISTRY
from cellseg.training_data.augmentations import AUGMENTATION_REGISTRY, build_cell_augmentations
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.registry import Registry
from pages import REPOSITORY, Page

PAGE = Page("docs/custom_parts.md")
PARTS = [name for name in PAGE.files if name.endswith(".py")]
MAX_LINES = 39
REGISTRIES = (
    AUGMENTATION_REGISTRY,
    BACKBONE_REGISTRY,
    EVALUATOR_REGISTRY,
    MASK_LOSS_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
# What the small model of the tests needs beside `tiny_model`.
SMALL = [
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", "32"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("DATASETS.TRAIN", "('few_train',)", "DATASETS.TEST", "('few_val',)"),
    *("CELLSEG.DATASETS.DECLARATIONS", "['few.yaml']"),
    *("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()", "CELLSEG.TEST.PICTURES", "0"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "4"),
    *("CELLSEG.TEST.SCORE_THRESHOLD", "0.0"),
]
FEW = """
few:
  format: synthetic
  image_hw: [64, 64]
  splits:
    train: {images: 2, seed: 1}
    val: {images: 2, seed: 2}
  classes: [cell]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the page, which are imported once for this module."""
    folder = tmp_path_factory.mktemp("project")
    PAGE.write_files(folder)
    (folder / "few.yaml").write_text(FEW)
    yield folder
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(folder))]
    modules = {Path(part).stem for part in PARTS}
    for registry in REGISTRIES:
        for name in [name for name, part in registry if part.__module__ in modules]:
            del registry._obj_map[name]
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def small(
    project: Path, tiny_model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Overrides for a run that takes a second, in the project's folder."""
    monkeypatch.chdir(project)
    return [*tiny_model, *SMALL, "OUTPUT_DIR", str(tmp_path)]


def config_of(part: str, small: list[str]) -> CfgNode:
    """What the command of the page that names this file loads, made small."""
    (command,) = [each for each in PAGE.commands if f"['{part}']" in each]
    words = shlex.split(command)
    assert words[:4] == ["cellseg", "train", "--config-file", "configs/quick_start.yaml"]
    return load_config(words[3], [*words[4:], *small])


def test_each_file_is_short() -> None:
    assert len(PARTS) == 8
    for name in PARTS:
        assert len(PAGE.files[name].splitlines()) <= MAX_LINES, name


def test_the_table_names_registries_and_keys_that_exist() -> None:
    cfg = get_cfg()
    add_cellseg_config(cfg)
    rows = [
        line.split("|")[2:4]
        for line in (REPOSITORY / "docs/custom_parts.md").read_text("utf-8").splitlines()
        if line.startswith("| [")
    ]
    assert len(rows) == len(PARTS)
    for registry, key in rows:
        module, _, name = registry.strip(" `").rpartition(".")
        module = module or "detectron2.modeling"
        assert isinstance(getattr(importlib.import_module(module), name), Registry)
        node: Any = cfg
        for part in key.partition(",")[0].strip(" `").split("."):
            node = node[part]


def test_each_command_sets_a_plug_in_and_little_else() -> None:
    lengths = {}
    for part in PARTS:
        (command,) = [each for each in PAGE.commands if f"['{part}']" in each]
        words = shlex.split(command)[4:]
        assert words[0] == "CELLSEG.PLUGINS"
        lengths[part] = len(words) // 2 - 1
    # the loss of masks names the head that reads it, too; the focal loss sets its own key
    assert lengths == {part: 2 if part == "parts/focal_heads.py" else 1 for part in PARTS}


def trained(part: str, small: list[str], *more: str) -> tuple[CellTrainer, dict[str, Any]]:
    """One step of training and an evaluation; the trainer and all figures that were written."""
    torch.manual_seed(0)
    trainer = CellTrainer(config_of(part, [*small, *more]))
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = (Path(trainer.cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    figures = {key: value for line in lines for key, value in json.loads(line).items()}
    assert np.isfinite(figures["total_loss"])
    assert "cell_iou/ap_dsb" in figures
    return trainer, figures


def gradients(module: torch.nn.Module) -> list[bool]:
    return [bool((p.grad is not None) and p.grad.abs().sum() > 0) for p in module.parameters()]


def test_box_head(small: list[str]) -> None:
    trainer, _ = trained("parts/attention_box_head.py", small)
    head = trainer.model.roi_heads.box_head
    assert type(head).__name__ == "AttentionBoxHead"
    assert any(isinstance(layer, torch.nn.GroupNorm) for layer in head)
    assert all(gradients(head))
    alone = type(head)(ShapeSpec(8, 3, 3), channels=32, num_conv=2, num_outputs=5)
    assert alone(torch.rand(0, 8, 3, 3)).shape == (0, 5)
    assert alone(torch.rand(2, 8, 3, 3)).shape == (2, alone.output_shape.channels)


def test_mask_head(small: list[str]) -> None:
    trainer, _ = trained("parts/coordinate_mask_head.py", small)
    head = trainer.model.roi_heads.mask_head
    assert type(head).__name__ == "CoordinateMaskHead"
    assert head.mask_fcn1.weight.shape[1] == 32 + 3
    assert all(gradients(head))
    head.eval()
    with torch.no_grad():  # the same features everywhere, and yet not the same logits
        logits = head.layers(torch.ones(2, 32, 14, 14))
    assert logits.shape == (2, 1, 28, 28)
    assert torch.equal(logits[0], logits[1])
    inner = logits[0, 0, 4:-4, 4:-4]  # without the coordinates only the padded border differs
    assert inner.std() > 0


def test_embeddings(small: list[str]) -> None:
    trainer, figures = trained("parts/embedding_heads.py", small)
    assert figures["loss_embedding"] > 0
    heads = trainer.model.roi_heads
    assert all(gradients(heads.embedding))
    batch = [{"image": torch.rand(3, 64, 64) * 255, "height": 64, "width": 64}]
    with torch.no_grad():
        found = trainer.model.eval()(batch)[0]["instances"]
    assert found.pred_embeddings.shape == (len(found), 16)
    assert len(found) > 0
    assert found.pred_embeddings.norm(dim=1).tolist() == pytest.approx([1.0] * len(found), abs=1e-5)


def test_embeddings_of_an_image_without_cells(small: list[str]) -> None:
    model = cellseg.MaskRCNN(config_of("parts/embedding_heads.py", small))
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64, dtype=torch.uint8),
    }
    losses = model([torch.rand(3, 64, 64)], [nothing])
    assert losses["loss_embedding"].item() == 0
    sum(losses.values()).backward()
    assert model.detector.roi_heads.embedding.weight.grad is not None


def test_focal_loss(small: list[str]) -> None:
    trainer, _ = trained("parts/focal_heads.py", small)
    predictor = trainer.model.roi_heads.box_predictor
    assert (type(predictor).__name__, predictor.gamma) == ("FocalBoxPredictor", 1.5)
    assert all(gradients(predictor))
    proposals = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[0.0, 0, 8, 8]] * 3)))
    proposals.gt_boxes, proposals.gt_classes = proposals.proposal_boxes, torch.tensor([0, 1, 1])
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.6, 0.4]]))
    with EventStorage():
        loss = predictor.losses((logits, torch.zeros(3, 4)), [proposals])["loss_cls"]
    right = np.array([0.5, 0.9, 0.4])  # probability of what is true; one of them is a cell
    assert loss.item() == pytest.approx((-((1 - right) ** 1.5) * np.log(right)).sum(), rel=1e-5)


def test_backbone(small: list[str]) -> None:
    name = ["MODEL.TORCHVISION_NAME", "mobilenet_v3_small"]
    trainer, _ = trained("parts/torchvision_backbone.py", small, *name)
    backbone = trainer.model.backbone
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert gradients(backbone.bottom_up.stages["res2"])[0]  # it reaches the first convolution
    shapes = {name: (one.channels, one.stride) for name, one in backbone.output_shape().items()}
    assert shapes == {f"p{level}": (32, 2**level) for level in range(2, 7)}
    with torch.no_grad():
        maps = backbone.eval()(torch.rand(1, 3, 64, 128))
    assert {name: tuple(one.shape[2:]) for name, one in maps.items()} == {
        f"p{level}": (64 // 2**level, 128 // 2**level) for level in range(2, 7)
    }


def test_backbones_of_other_names(small: list[str]) -> None:
    cfg = config_of("parts/torchvision_backbone.py", small)
    assert cfg.MODEL.TORCHVISION_NAME == "convnext_tiny"
    part = importlib.import_module("torchvision_backbone")
    cfg.MODEL.TORCHVISION_NAME = "efficientnet_b0"
    bottom_up = part.build_torchvision_fpn_backbone(cfg, ShapeSpec(channels=3)).bottom_up
    shapes = [(one.channels, one.stride) for one in bottom_up.output_shape().values()]
    assert shapes == [(24, 4), (40, 8), (112, 16), (1280, 32)]


def test_mask_loss(small: list[str]) -> None:
    trainer, figures = trained("parts/tversky_loss.py", small)
    assert type(trainer.model.roi_heads.mask_head).__name__ == "CellMaskHead"
    assert figures["loss_mask"] > 0.7  # that of bce alone is log 2 at most in the beginning
    loss = MASK_LOSS_REGISTRY.get("tversky")
    targets = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]] * 2)
    logits = torch.tensor([[[20.0, 20.0], [20.0, -20.0]], [[20.0, -20.0], [-20.0, -20.0]]])
    extra, missed = loss(logits, targets).tolist()  # one pixel too many, one too few
    assert extra == pytest.approx((1 - 3 / 3.3) ** 0.75, rel=1e-4)
    assert missed == pytest.approx((1 - 2 / 2.7) ** 0.75, rel=1e-4)
    with pytest.raises(ConfigError, match="tversky"):
        load_config("configs/quick_start.yaml", ["CELLSEG.MASK_HEAD.LOSS", "bce+tverski"])


def test_augmentation(small: list[str]) -> None:
    cfg = config_of("parts/uneven_light.py", small)
    (light,) = build_cell_augmentations(cfg)
    assert type(light).__name__ == "UnevenLight"
    for dtype in (np.uint8, np.float32):
        image = np.full((40, 60, 3), 200, dtype)
        given = T.AugInput(image, sem_seg=np.eye(40, 60, dtype=np.uint8))
        T.AugmentationList([light])(given)
        assert given.image.dtype == dtype
        assert np.array_equal(given.sem_seg, np.eye(40, 60))
        assert 200 * (1 - 0.6) <= given.image.min() < given.image.max() <= 200
        assert np.ptp(given.image, axis=2).max() == 0  # grey stays grey
    trained("parts/uneven_light.py", small)


def test_evaluator(small: list[str]) -> None:
    best = ["CELLSEG.TRAIN.BEST_METRIC", "culture/count_error", "CELLSEG.TRAIN.BEST_MODE", "min"]
    trainer, figures = trained("parts/count_evaluator.py", small, *best)
    assert (Path(trainer.cfg.OUTPUT_DIR) / "model_best.pth").is_file()
    assert figures["culture/count_error"] >= abs(figures["culture/count_bias"])
    assert 0 <= figures["culture/confluence_error"] <= 1

    cfg = config_of("parts/count_evaluator.py", small)
    evaluator = EVALUATOR_REGISTRY.get("CultureEvaluator")(cfg, "few_val", "")
    evaluator.reset()
    for key in evaluator.truth.images:
        true = evaluator.truth.cells(key).counted
        masks = torch.from_numpy(true.to_bitmaps())[1:]  # all but the first
        found = Instances(true.image_hw, pred_masks=masks, scores=torch.ones(len(masks)))
        found.pred_boxes = Boxes(torch.from_numpy(true.boxes_xyxy)[1:])
        found.pred_classes = torch.zeros(len(masks), dtype=torch.int64)
        evaluator.process([{"image_id": key}], [{"instances": found}])
    culture = evaluator.evaluate()["culture"]
    assert (culture["count_error"], culture["count_bias"]) == (1, -1)
    lost = [
        evaluator.truth.cells(key).counted.areas_px[0] / 64**2 for key in evaluator.truth.images
    ]
    assert culture["confluence_error"] == pytest.approx(np.mean(lost))


def run(command: str, *more: str) -> int:
    """Run a `cellseg ...` command of the page in this process."""
    _, name, *words = shlex.split(command)
    return run_command(name, [*words, *more])


@pytest.mark.slow
def test_all_together_through_the_commands(small: list[str], project: Path, tmp_path: Path) -> None:
    train, evaluate, predict = PAGE.commands[-3:]
    assert run(train, *small) == 0
    weights = tmp_path / "model_final.pth"
    state = torch.load(weights, weights_only=True)["model"]
    assert "roi_heads.embedding.weight" in state
    assert any(name.startswith("backbone.bottom_up.stages.res5.") for name in state)
    again = ["MODEL.WEIGHTS", str(weights)]
    assert run(evaluate, *small, *again) == 0
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    figures = {key: value for line in lines for key, value in json.loads(line).items()}
    assert {"culture/count_error", "cell_iou/ap_dsb", "loss_embedding"} <= set(figures)

    (project / "my_images").mkdir()
    cv2.imwrite(str(project / "my_images/field.png"), make_cells(3, (64, 64)).image)
    assert run(predict, *small, *again) == 0
    assert (project / "predictions/field_labels.tif").is_file()


@pytest.fixture
def spawning() -> Iterator[None]:
    """Processes are spawned, as on macOS and Windows, and not forked."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_spawned_workers_know_the_plug_ins(small: list[str], spawning: None) -> None:
    cfg = config_of("parts/uneven_light.py", [*small, "DATALOADER.NUM_WORKERS", "1"])
    batch = next(iter(CellTrainer.build_train_loader(cfg)))
    assert [tuple(item["image"].shape) for item in batch] == [(3, 64, 64)] * 2


@pytest.mark.parametrize(
    ("key", "wrong", "near"),
    [
        ("CELLSEG.AUGMENTATION.EXTRA", "UnevenLigt", "UnevenLight"),
        ("CELLSEG.TEST.EVALUATORS", "CultureEvaluater", "CultureEvaluator"),
    ],
)
def test_a_wrong_name_is_one_error_with_the_nearest(
    small: list[str], key: str, wrong: str, near: str
) -> None:
    config_of("parts/uneven_light.py", small)
    config_of("parts/count_evaluator.py", small)  # registers them
    with pytest.raises(ConfigError) as caught:
        load_config("configs/quick_start.yaml", [*small, key, f"['{wrong}', 'Zzz']"])
    text = str(caught.value)
    assert f"{key}[0] is '{wrong}'; did you mean {near}? Registered: " in text
    assert f"{key}[1] is 'Zzz'; Registered: " in text
    assert "(2)" in text
    assert "CELLSEG.PLUGINS" in text
    with pytest.raises(ConfigError, match=key):
        load_config("configs/quick_start.yaml", [*small, key, f"'{near}'"])  # no list
