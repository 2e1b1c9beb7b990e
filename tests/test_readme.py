"""The README does what it says: its files are written and its commands run, with a tiny model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import builders
import pytest
from cellseg.shipped import sample_images
from pages import REPOSITORY, Page

PAGE = Page("README.md")
README = (REPOSITORY / "README.md").read_text("utf-8")
SHORT = [*("SOLVER.MAX_ITER", "3"), *("SOLVER.STEPS", "()"), *("SOLVER.WARMUP_ITERS", "1")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    PAGE.write_files(folder)
    cells = folder / "datasets" / "my_cells"
    for split in ("train", "test"):
        scenes = {split: builders.sixteen_bit((150, 160)), f"{split}_2": builders.many_cells()}
        builders.write_label_images(cells, split, scenes)
    return folder


@pytest.fixture(autouse=True)
def _datasets_below_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)


def command(name: str, config: str = "") -> str:
    """The one command of the page that runs `name` with `config`."""
    lines = [line for line in PAGE.commands if line.startswith(("python ", "cellseg "))]
    found = [line for line in lines if line.split()[1] == name and config in line]
    assert len(found) == 1, found
    return found[0]


def test_every_file_of_the_page_is_used() -> None:
    files = ["my_cells.yaml", "my_config.yaml", "my_heads.py", "in_python.py", "engine.py"]
    assert list(PAGE.files) == files


def test_every_command_is_run_by_a_test_or_by_ci() -> None:
    demo, first, suggest, install, test, *others = PAGE.commands
    assert (demo, first) == (command("demo"), command("predict", "my_images"))
    assert suggest == command("suggest")
    assert install.endswith("python tools/train_net.py --config-file configs/quick_start.yaml")
    assert test == "pip install -e '.[dev]' && pytest"
    assert others == [
        command("train", "my_config"),
        command("predict", "--model"),
        command("inspect"),
        command("train", "DropoutMaskHead"),
        command("in_python.py"),
        command("engine.py"),
    ]


@pytest.mark.slow
def test_own_data(project: Path, tiny_model: list[str]) -> None:
    overrides = [*tiny_model, *SHORT]
    log = PAGE.run(command("train", "my_config"), project, *overrides)
    assert "ap_dsb" in log
    PAGE.run(command("predict", "--model"), project, *tiny_model)
    written = {path.name for path in (project / "predictions").iterdir()}
    assert {"test_labels.tif", "test_overlay.png", "test_cells.csv", "summary.csv"} <= written


@pytest.mark.slow
def test_cells_without_training(tmp_path: Path) -> None:
    assert "monolayer_overlay.png" in PAGE.run(command("demo"), tmp_path)
    (tmp_path / "my_images").mkdir()
    shutil.copy(sample_images()[0], tmp_path / "my_images")
    PAGE.run(command("predict", "my_images"), tmp_path)
    written = {path.name for path in (tmp_path / "cells").iterdir()}
    assert {"crowded_labels.tif", "crowded_overlay.png", "crowded_cells.csv"} <= written
    assert "crowded" in PAGE.run(command("suggest"), tmp_path)


def test_a_look_at_the_data(project: Path) -> None:
    PAGE.run(command("inspect"), project)
    written = {path.name for path in (project / "output" / "inspect").iterdir()}
    assert any(name.endswith(".png") for name in written)
    assert any(name.endswith(".csv") for name in written)


@pytest.mark.slow
def test_own_head(project: Path, tiny_model: list[str]) -> None:
    overrides = [*tiny_model, *SHORT, "OUTPUT_DIR", "output/my_head"]
    log = PAGE.run(command("train", "DropoutMaskHead"), project, *overrides)
    assert "DropoutMaskHead(" in log  # the model as it was built


def test_in_python_and_the_engine(project: Path) -> None:
    printed = PAGE.run(command("in_python.py"), project)
    for name in ("loss_classifier", "loss_objectness", "loss_rpn_box_reg", "torch.bool"):
        assert name in printed
    assert "torchvision" in PAGE.run(command("engine.py"), project)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
