"""docs/cell_types.md: its commands run, and its head trains."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.config import KEYS
from detectron2.modeling import build_model
from pages import REPOSITORY, Page

PAGE = Page("docs/cell_types.md")


FEW_IMAGES = """
few_dishes:
  format: synthetic
  types: 3
  one_type_per_image: true
  image_hw: [64, 64]
  splits: {train: {images: 4, seed: 1}, val: {images: 3, seed: 2}}
  classes: [round, flat, spindle]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    PAGE.write_files(folder)
    (folder / "few.yaml").write_text(FEW_IMAGES)
    return folder


def test_the_default_vote() -> None:
    assert "The default is `none`" in (REPOSITORY / "docs/cell_types.md").read_text("utf-8")
    assert KEYS["CELL_TYPE.VOTE"].default == "none"


def test_commands_name_files_that_are_there_and_keys_that_load(project: Path) -> None:
    assert len(PAGE.commands) == 4
    for command in PAGE.commands:
        words = command.replace('"', "").split()
        assert words[:3] == ["cellseg", "train", "--config-file"]
        load_config(project / words[3], words[4:])


def test_the_head_is_built(project: Path, tiny_model: list[str]) -> None:
    model = build_model(load_config(project / "my_types" / "my_types.yaml", tiny_model))
    assert type(model.roi_heads.type_head).__name__ == "SmallHead"
    logits = model.roi_heads.type_head(torch.zeros(2, 32, 14, 14), torch.ones(2, 1, 28, 28))
    assert logits.shape == (2, 3)


@pytest.mark.slow
def test_with_classifier_and_vote(project: Path, tiny_training: list[str]) -> None:
    extra = [
        *tiny_training,
        *("OUTPUT_DIR", "run", "CELLSEG.TEST.SCORE_THRESHOLD", "0.0", "INPUT.MIN_SIZE_TEST", "64"),
        *("CELLSEG.DATASETS.DECLARATIONS", "['few.yaml']", "INPUT.MIN_SIZE_TRAIN", "(64,)"),
        *("DATASETS.TRAIN", "('few_dishes_train',)", "DATASETS.TEST", "('few_dishes_val',)"),
    ]
    PAGE.run(PAGE.commands[2], project, *extra)
    with (project / "run/inference/few_dishes_val/confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true type", "round", "flat", "spindle", "missed"]
    assert [row[0] for row in rows[1:]] == ["round", "flat", "spindle", "no cell"]
    metrics = (project / "run/metrics.json").read_text()
    assert '"loss_cell_type"' in metrics
    assert '"cell_iou/ap_dsb/spindle"' in metrics
