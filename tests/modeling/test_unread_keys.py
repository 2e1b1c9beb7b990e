"""Settings of heads that are not selected."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from cellseg import load_config
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"


class OwnROIHeads(StandardROIHeads):
    """May read any key."""


@pytest.mark.parametrize(
    ("options", "setting", "reader"),
    [
        (["CELLSEG.BOX_HEAD.IOU_WEIGHT", 1.5], "BOX_HEAD.IOU_WEIGHT 1.5", "CellROIHeads"),
        (
            ["CELLSEG.BOX_HEAD.IOU_WEIGHT", 1.5, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads"],
            "BOX_HEAD.IOU_WEIGHT 1.5",
            "NAME is CascadeROIHeads, and it takes CellROIHeads",
        ),
        (
            [
                "CELLSEG.MASK_HEAD.LOSS",
                "dice",
                "MODEL.ROI_MASK_HEAD.NAME",
                "MaskRCNNConvUpsampleHead",
            ],
            "MASK_HEAD.LOSS 'dice'",
            "CellMaskHead",
        ),
        (["CELLSEG.MASK_IOU.FC_DIM", 64], "MASK_IOU.FC_DIM 64", "MaskIoUHead"),
        (["CELLSEG.CELL_TYPE.DETACH", True], "CELL_TYPE.DETACH True", "CellTypeROIHeads"),
    ],
)
def test_one_warning(
    options: list[Any], setting: str, reader: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_config(QUICK_START, options)
    (record,) = caplog.records
    assert f"CELLSEG.{setting} has no effect" in record.getMessage()
    assert reader in record.getMessage()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["MODEL.ROI_HEADS.NAME", "CellROIHeads", "CELLSEG.BOX_HEAD.IOU_WEIGHT", 1.5],
        ["MODEL.ROI_HEADS.NAME", "CellTypeROIHeads", "CELLSEG.BOX_HEAD.IOU_WEIGHT", 1.5],
        ["MODEL.ROI_HEADS.NAME", "OwnROIHeads", "CELLSEG.BOX_HEAD.IOU_WEIGHT", 1.5],
        ["MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead", "CELLSEG.MASK_HEAD.LOSS", "dice"],
        ["CELLSEG.CELL_TYPE.VOTE", "image"],
    ],
    ids=str,
)
def test_settings_that_are_read(options: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    if "OwnROIHeads" not in ROI_HEADS_REGISTRY:
        ROI_HEADS_REGISTRY.register(OwnROIHeads)
    with caplog.at_level(logging.WARNING):
        load_config(QUICK_START, options)
    assert not caplog.records


def test_keys_that_a_plugin_adds_to_a_node(tmp_path: Path) -> None:
    plugin = tmp_path / "own_key.py"
    plugin.write_text("def add_config(cfg):\n    cfg.CELLSEG.BOX_HEAD.OWN = 1\n", "utf-8")
    cfg = load_config(QUICK_START, ["CELLSEG.PLUGINS", [str(plugin)], "CELLSEG.BOX_HEAD.OWN", 2])
    assert cfg.CELLSEG.BOX_HEAD.OWN == 2
