"""docs/torchvision.md does what it says: its loop trains, its launcher finds the model."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cellseg
import cv2
import pytest
import torch
from cellseg.cells.synthetic import make_cells
from pages import Page

PAGE = Page("docs/torchvision.md")
TEXT = (Path(__file__).parents[2] / "docs" / "torchvision.md").read_text("utf-8")


def test_the_page_has_its_parts() -> None:
    assert list(PAGE.files) == ["finetune.py", "train_reference.py"]
    assert [command.split()[1] for command in PAGE.commands] == list(PAGE.files)


@pytest.mark.slow
def test_the_loop_trains_and_predicts(tmp_path: Path) -> None:
    PAGE.write_files(tmp_path)
    for part in ("images", "labels"):
        (tmp_path / "my_cells" / part).mkdir(parents=True)
    for seed in range(2):
        cells = make_cells(seed, (64, 64))
        cv2.imwrite(str(tmp_path / "my_cells" / "images" / f"{seed}.png"), cells.image)
        cv2.imwrite(str(tmp_path / "my_cells" / "labels" / f"{seed}.png"), cells.labels)

    first, second, shapes = PAGE.run(PAGE.commands[0], tmp_path).splitlines()[-3:]

    for line, epoch in ((first, 0), (second, 1)):
        assert re.fullmatch(rf"epoch {epoch}: loss \d\.\d{{3}}", line)
    found = ast.literal_eval(shapes)
    count = found["scores"][0]
    assert found == {
        "boxes": [count, 4],
        "labels": [count],
        "scores": [count],
        "masks": [count, 1, 64, 64],
    }
    model = cellseg.MaskRCNN(cellseg.load_config(tmp_path / "cells.yaml"))
    model.load_state_dict(torch.load(tmp_path / "cells.pth", weights_only=True))


def test_links_lead_somewhere() -> None:
    folder = Path(__file__).parents[2] / "docs"
    names = re.findall(r"\]\((\w+\.md)\)", TEXT)
    assert len(names) == 3
    assert all((folder / name).is_file() for name in names)
