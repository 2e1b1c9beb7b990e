"""detectron2.config: files and configs of older VERSIONs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config

OLD_KEYS = {
    "MODEL.RPN.ANCHOR_SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.RPN.ANCHOR_ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RETINANET.ANCHOR_SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.RETINANET.ANCHOR_STRIDES": [],
    "MODEL.RETINANET.INFERENCE_TOPK_CANDIDATES": 1000,
    "MODEL.RETINANET.INFERENCE_NMS_THRESHOLD": 0.5,
    "MODEL.ROI_HEADS.NMS": 0.5,
    "MODEL.ROI_HEADS.SCORE_THRESH": 0.05,
    "MODEL.PANOPTIC_FPN.COMBINE_ON": True,
    "MODEL.PANOPTIC_FPN.COMBINE_STUFF_AREA_LIMIT": 4096,
    "MODEL.PANOPTIC_FPN.SEMANTIC_LOSS_SCALE": 1.0,
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_SCALE": 1.0,
    "MODEL.WEIGHT": "",
    "TEST.AUG_MAX_SIZE": 4000,
    "TEST.DETECTIONS_PER_IMG": 100,
}


def look_up(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def merged(folder: Path, text: str) -> CfgNode:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    cfg = get_cfg()
    cfg.USER_KEY = 1
    cfg.merge_from_file(str(folder / "c.yaml"))
    return cfg


def test_version_1_has_the_defaults_under_the_old_keys() -> None:
    old = downgrade_config(get_cfg(), to_version=1)
    assert {key: look_up(old, key) for key in OLD_KEYS} == OLD_KEYS
    assert old.VERSION == 1
    assert "ANCHOR_GENERATOR" in old.MODEL  # NAME, ANGLES and OFFSET are older than the move
    assert "SIZES" not in old.MODEL.ANCHOR_GENERATOR
    assert "AUG" not in old.TEST
    assert "COMBINE" not in old.MODEL.PANOPTIC_FPN
    assert old.MODEL.RPN.HEAD_NAME == "StandardRPNHead"


def test_version_0_names_the_head_elsewhere() -> None:
    old = downgrade_config(get_cfg(), to_version=0)
    assert (old.VERSION, old.MODEL.RPN_HEAD.NAME) == (0, "StandardRPNHead")
    assert "HEAD_NAME" not in old.MODEL.RPN


@pytest.mark.parametrize("version", [0, 1, 2])
def test_down_and_up_again_changes_nothing(version: int) -> None:
    cfg = get_cfg()
    cfg.USER_KEY = 1
    assert upgrade_config(downgrade_config(cfg, to_version=version)) == cfg
    assert cfg.VERSION == 2


def test_one_step_up() -> None:
    up = upgrade_config(downgrade_config(get_cfg(), to_version=0), to_version=1)
    assert up == downgrade_config(get_cfg(), to_version=1)


@pytest.mark.parametrize(
    ("architecture", "sizes"), [("GeneralizedRCNN", [[8]]), ("RetinaNet", [[16]])]
)
def test_anchors_come_from_the_part_that_uses_them(
    tmp_path: Path, architecture: str, sizes: list[list[int]]
) -> None:
    text = f"MODEL: {{META_ARCHITECTURE: {architecture}, RPN: {{ANCHOR_SIZES: [[8]]}}, "
    text += "RETINANET: {ANCHOR_SIZES: [[16]]}}\nVERSION: 1\n"
    cfg = merged(tmp_path, text)
    assert sizes == cfg.MODEL.ANCHOR_GENERATOR.SIZES
    assert not any(key.startswith("ANCHOR_") for key in (*cfg.MODEL.RPN, *cfg.MODEL.RETINANET))


def test_old_files_are_merged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        cfg = merged(tmp_path, "VERSION: 0\nMODEL: {RPN_HEAD: {NAME: Mine}}\n")
    expected = get_cfg()
    expected.USER_KEY = 1
    expected.MODEL.RPN.HEAD_NAME = "Mine"
    assert cfg == expected
    assert "c.yaml" in caplog.text


@pytest.mark.parametrize("text", ["MODEL: {WEIGHT: w.pkl}\n", "TEST: {AUG_ON: true}\n"])
def test_files_without_version_are_known_by_their_keys(tmp_path: Path, text: str) -> None:
    cfg = merged(tmp_path, text)
    assert cfg.VERSION == 2
    assert (cfg.MODEL.WEIGHTS == "w.pkl") != cfg.TEST.AUG.ENABLED


@pytest.mark.embedded_only
def test_versions_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c\.yaml has VERSION 3"):
        merged(tmp_path, "VERSION: 3\n")
    with pytest.raises(ValueError, match="newer than VERSION 1"):
        upgrade_config(get_cfg(), to_version=1)
    with pytest.raises(ValueError, match="older than VERSION 3"):
        downgrade_config(get_cfg(), to_version=3)
