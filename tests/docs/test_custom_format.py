"""docs/custom_format.md: its format goes through conversion, declaration and configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import builders
import numpy as np
import pytest
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cli import run_command
from cellseg.datasets.declarations import read_declarations, read_declared_records
from cellseg.io import FORMATS, ImageRecord, write_predictions
from pages import Page

PAGE = Page("docs/custom_format.md")
SCENES = {"a": builders.touching(), "b": builders.many_cells()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    PAGE.write_files(tmp_path)
    for split in ("train", "val"):
        builders.write_label_images(tmp_path / "my_cells", split, SCENES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("CELLSEG_CACHE", "off")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "yolo", None)  # taken back afterwards
        yield tmp_path


def test_from_label_images_to_a_training(project: Path) -> None:
    [command] = PAGE.commands
    _, name, *words = shlex.split(command)
    for split in ("train", "val"):
        assert run_command(name, [word if word != "train" else split for word in words]) == 0
    train, _ = read_declarations(project / "yolo_cells.yaml")
    for record in read_declared_records(train, project):
        truth = SCENES[record.image_id]
        assert len(record.cells) == len(truth.masks)
        found = {bitmap.tobytes() for bitmap in record.cells.to_bitmaps()}
        assert found == {np.asarray(mask, bool).tobytes() for mask in truth.masks}
    assert load_config("yolo_config.yaml").DATASETS.TEST == ("yolo_cells_val",)

    cells = CellInstances.from_label_image(SCENES["a"].labels)
    assert write_predictions([ImageRecord("a", cells)], project / "found", "yolo") == 1
    assert len((project / "found/labels/a.txt").read_text().splitlines()) == len(cells)
