"""configs/cell_types and configs/sartorius: load, build, and do what their comments say."""

from __future__ import annotations

import csv
from pathlib import Path

import builders
import numpy as np
import pytest
from cellseg import load_config
from cellseg.cells.selection import DetectionThresholds
from cellseg.datasets.declarations import read_declarations, read_declared_records
from detectron2.modeling import build_model

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "configs"
PATHS = [path for name in ("cell_types", "sartorius") for path in (CONFIGS / name).glob("*.yaml")]
SARTORIUS = CONFIGS / "sartorius" / "mask_rcnn_R_50_FPN_3_classes.yaml"


@pytest.mark.parametrize("path", sorted(PATHS), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_loads_and_builds(path: Path, tiny_model: list[str]) -> None:
    cfg = load_config(path, [*tiny_model, "MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    with_classifier = "classifier" in path.stem
    assert hasattr(model.roi_heads, "type_head") == with_classifier
    assert model.roi_heads.num_classes == (1 if with_classifier else 3)
    assert cfg.INPUT.MASK_FORMAT == "bitmask"


def test_anchors_of_sartorius(tiny_model: list[str]) -> None:
    """Two sizes and five ratios on each of five levels, the reported sizes among them."""
    cfg = load_config(SARTORIUS, [*tiny_model, "MODEL.DEVICE", "cpu"])
    rpn = build_model(cfg).proposal_generator
    cells = [anchors.numpy() for anchors in rpn.anchor_generator.cell_anchors]
    assert [len(anchors) for anchors in cells] == [10] * 5
    corners = np.concatenate(cells)
    sides = np.sqrt((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]))
    assert {4, 9, 17, 31, 64, 127} <= set(sides.round().astype(int).tolist())
    assert rpn.rpn_head.objectness_logits.out_channels == 10


def test_thresholds_of_sartorius_are_in_the_order_of_its_classes() -> None:
    cfg = load_config(SARTORIUS)
    declared = read_declarations(REPOSITORY / "datasets/sartorius.yaml")
    assert [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST] == [one.name for one in declared[1:]]
    assert {one.classes for one in declared} == {declared[0].classes}
    found = DetectionThresholds.from_config(cfg)
    by_type = dict(zip(declared[0].classes, zip(found.score, found.min_area_px)))
    assert by_type == {"shsy5y": (0.15, 75), "astro": (0.35, 150), "cort": (0.55, 75)}
    assert (found.vote, found.mask_nms) == ("image", 0.1)


def test_parts_of_sartorius_keep_cultures_together(tmp_path: Path) -> None:
    root = tmp_path / "sartorius-cell-instance-segmentation"
    rows = []
    for number in range(60):
        name, culture = f"{number:012x}", f"astro[nu]_A{number // 3}"
        builders.write_png(root / "train" / f"{name}.png", np.zeros((4, 6), np.uint8))
        rows += [[name, runs, 6, 4, "astro", culture] for runs in ("7 2", "15 3")]
    with (root / "train.csv").open("w", newline="") as file:
        header = ["id", "annotation", "width", "height", "cell_type", "sample_id"]
        csv.writer(file).writerows([header, *rows])
    ids = {
        one.name: {record.image_id for record in read_declared_records(one, tmp_path)}
        for one in read_declarations(REPOSITORY / "datasets/sartorius.yaml")
    }
    train, val = ids["sartorius_parts_train"], ids["sartorius_parts_val"]
    assert train | val == ids["sartorius_train"]
    assert 0 < len(val) < 30
    cultures = [{int(name, 16) // 3 for name in part} for part in (train, val)]
    assert not cultures[0] & cultures[1]
