"""detectron2.model_zoo."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2 import model_zoo

R50_1X, R50_3X, R101_3X = (
    f"COCO-InstanceSegmentation/mask_rcnn_{name}.yaml"
    for name in ("R_50_FPN_1x", "R_50_FPN_3x", "R_101_FPN_3x")
)
SCRATCH = "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml"
PUBLIC = "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation"


@pytest.mark.parametrize(
    ("config", "depth", "max_iter"),
    [(R50_1X, 50, 90000), (R50_3X, 50, 270000), (R101_3X, 101, 270000)],
)
def test_configs(config: str, depth: int, max_iter: int) -> None:
    cfg = model_zoo.get_config(config)
    model, solver = cfg.MODEL, cfg.SOLVER
    assert (depth, max_iter) == (model.RESNETS.DEPTH, solver.MAX_ITER)
    assert model.WEIGHTS.endswith(f"/R-{depth}.pkl")
    assert model.WEIGHTS.startswith("detectron2://ImageNetPretrained/MSRA/")
    assert cfg.MODEL.MASK_ON
    assert cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32], [64], [128], [256], [512]]
    assert cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION == 7
    assert ((60000, 80000) if max_iter == 90000 else (210000, 250000)) == solver.STEPS
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",)


@pytest.mark.parametrize(
    ("config", "file"),
    [
        (R50_1X, "mask_rcnn_R_50_FPN_1x/137260431/model_final_a54504.pkl"),
        (R50_3X, "mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"),
        (R101_3X, "mask_rcnn_R_101_FPN_3x/138205316/model_final_a3ec72.pkl"),
    ],
)
def test_weights(config: str, file: str) -> None:
    assert model_zoo.get_checkpoint_url(config) == f"{PUBLIC}/{file}"
    trained = model_zoo.get_config(config, trained=True).MODEL
    assert f"{PUBLIC}/{file}" == trained.WEIGHTS


def test_the_model_from_scratch() -> None:
    cfg = model_zoo.get_config(SCRATCH)
    model = cfg.MODEL
    assert (model.WEIGHTS, model.MASK_ON, model.BACKBONE.FREEZE_AT) == ("", True, 0)
    assert (model.RESNETS.DEPTH, model.RESNETS.STRIDE_IN_1X1) == (50, False)
    parts = (model.RESNETS, model.FPN, model.ROI_BOX_HEAD, model.ROI_MASK_HEAD)
    assert [part.NORM for part in parts] == ["GN"] * 4
    assert (model.ROI_BOX_HEAD.NUM_CONV, model.ROI_BOX_HEAD.NUM_FC) == (4, 1)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == ((210000, 250000), 270000)
    url = f"{PUBLIC.rpartition('/')[0]}/{SCRATCH[:-5]}/138602908/model_final_01ca85.pkl"
    assert model_zoo.get_checkpoint_url(SCRATCH) == url
    assert model_zoo.get_checkpoint_url(SCRATCH.replace(".yaml", ".py")) == url


CASCADE = "Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml"
C4 = "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x.yaml"
LVIS = "LVISv0.5-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_1x.yaml"


def test_other_kinds_of_models() -> None:
    """All keys of all configs are compared with Detectron2's in tests/parity."""
    assert model_zoo.get_config(CASCADE).MODEL.ROI_HEADS.NAME == "CascadeROIHeads"
    c4 = model_zoo.get_config(C4)
    assert (c4.MODEL.ROI_HEADS.NAME, c4.SOLVER.MAX_ITER) == ("Res5ROIHeads", 270000)
    lvis = model_zoo.get_config(LVIS)
    assert (lvis.MODEL.ROI_HEADS.NUM_CLASSES, lvis.TEST.DETECTIONS_PER_IMAGE) == (1230, 300)
    assert lvis.MODEL.RESNETS.NUM_GROUPS == 32
    for config, file in (
        (CASCADE, "144998488/model_final_480dd8.pkl"),
        (LVIS, "144219108/model_final_5e3439.pkl"),
    ):
        url = f"{PUBLIC.rpartition('/')[0]}/{config[:-5]}/{file}"
        assert model_zoo.get_checkpoint_url(config) == url


def test_weights_that_were_not_published() -> None:
    with pytest.raises(RuntimeError, match="cls_agnostic"):
        model_zoo.get_checkpoint_url("Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic.yaml")


def test_config_files_exist() -> None:
    for config in (R50_1X, R50_3X, R101_3X, "Base-RCNN-FPN.yaml"):
        assert Path(model_zoo.get_config_file(config)).is_file()


def test_unknown_configs() -> None:
    for find in (model_zoo.get_config_file, model_zoo.get_checkpoint_url, model_zoo.get_config):
        with pytest.raises(RuntimeError, match=r"no/such\.yaml"):
            find("no/such.yaml")


@pytest.mark.embedded_only
def test_unknown_configs_come_with_a_list() -> None:
    with pytest.raises(RuntimeError, match=rf"{R50_3X}.*full Detectron2"):
        model_zoo.get("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml")


def test_get_builds_and_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a download: a small model without weights."""
    config = tmp_path / "small.yaml"
    config.write_text(
        f"_BASE_: {model_zoo.get_config_file('Base-RCNN-FPN.yaml')}\n"
        "MODEL:\n"
        "  FPN: {OUT_CHANNELS: 8}\n"
        "  RESNETS: {RES2_OUT_CHANNELS: 8, STEM_OUT_CHANNELS: 8}\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(
        "detectron2.model_zoo.model_zoo.get_config_file", lambda config_path: str(config)
    )
    model = model_zoo.get("small.yaml", device="cpu")
    assert model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
