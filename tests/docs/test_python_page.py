"""docs/python.md: its scripts find cells, score them and train."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from cellseg import load_config
from cellseg.cells.synthetic import make_cells
from detectron2.modeling import build_model
from pages import Page

PAGE = Page("docs/python.md")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    PAGE.write_files(tmp_path)
    (tmp_path / "my_images").mkdir()
    cv2.imwrite(str(tmp_path / "my_images" / "field.png"), make_cells(3, (64, 64)).image)
    return tmp_path


def test_the_page_has_its_parts() -> None:
    assert list(PAGE.files) == ["find.py", "cells.py", "train.py"]
    assert [command.split()[1] for command in PAGE.commands] == list(PAGE.files)


def test_cells(project: Path) -> None:
    said = PAGE.run(PAGE.commands[1], project)
    assert "'precision@0.50': 1.0" in said
    assert "'recall@0.50': 0.5" in said


@pytest.mark.slow
def test_finding(project: Path, tiny_model: list[str]) -> None:
    cfg = load_config("configs/quick_start.yaml", tiny_model)
    weights = project / "output/quick_start/model_final.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    (weights.parent / "config.yaml").write_text(cfg.dump())
    assert PAGE.run(PAGE.commands[0], project).split()[0].isdigit()


@pytest.mark.slow
def test_training(project: Path, tiny_model: list[str], tiny_training: list[str]) -> None:
    log = PAGE.run(PAGE.commands[2], project, *tiny_model, *tiny_training, "OUTPUT_DIR", "out")
    float(log.splitlines()[-1])
    assert (project / "out/model_final.pth").is_file()
