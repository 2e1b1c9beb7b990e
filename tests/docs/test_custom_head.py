"""docs/custom_head.md does what it says: its files are written and its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import pytest
import torch
from cellseg.cells.synthetic import make_cells
from pages import Page

PAGE = Page("docs/custom_head.md")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    PAGE.write_files(tmp_path)
    (tmp_path / "my_images").mkdir()
    cv2.imwrite(str(tmp_path / "my_images" / "field.png"), make_cells(3, (64, 64)).image)
    return tmp_path


def test_the_page_has_its_parts() -> None:
    assert list(PAGE.files) == [
        "my_head/dilated_head.py",
        "my_head/my_head.yaml",
        "my_head/try_it.py",
    ]
    assert [shlex.split(command)[1] for command in PAGE.commands] == [
        "my_head/try_it.py",
        "train",
        "predict",
    ]


@pytest.mark.slow
def test_from_an_empty_file_to_a_trained_head(
    project: Path, tiny_model: list[str], tiny_training: list[str]
) -> None:
    try_it, train, predict = PAGE.commands
    first, losses, shape = PAGE.run(try_it, project).splitlines()[-3:]
    assert first == "DilatedMaskHead"
    assert "'loss_mask'" in losses
    assert re.fullmatch(r"torch\.Size\(\[\d+, 1, 96, 96\]\)", shape)

    PAGE.run(train, project, *tiny_training, "OUTPUT_DIR", "output/my_head")
    weights = torch.load(project / "output/my_head/model_final.pth", weights_only=True)["model"]
    assert weights["roi_heads.mask_head.trunk.0.weight"].shape == (32, 32, 3, 3)
    assert "roi_heads.mask_head.trunk.6.weight" in weights  # three convolutions, as in the YAML
    assert (project / "output/my_head/metrics.json").is_file()

    PAGE.run(predict, project, *tiny_model)
    assert (project / "predictions" / "field_labels.tif").is_file()
