"""docs/models.md: its recipe starts from a bundle, and its tables are those of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.engine.bundling import bundle_model
from cellseg.modeling.weights import find_weights_file
from cellseg.models import MeasuredMetric, ModelCard, TrainingSet
from cellseg.models.card import FORMAT_VERSION, PRECISIONS
from cellseg.models.storage import SMALL
from pages import REPOSITORY, Page

PAGE = Page("docs/models.md")
TEXT = (REPOSITORY / "docs/models.md").read_text("utf-8")


def test_the_recipe_starts_from_a_bundle(
    checkpoint_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load_config("quick_start.yaml", checkpoint_options)
    bundle_model(cfg, "models/my_cells", ModelCard("my_cells", ("cell",)))
    PAGE.write_files(tmp_path)
    data = ["DATASETS.TRAIN", "('synthetic_train',)", "DATASETS.TEST", "()"]
    mine = load_config("fine_tune.yaml", data)
    assert (mine.SOLVER.MAX_ITER, mine.MODEL.RESNETS.DEPTH) == (300, 18)
    file = Path(find_weights_file(mine.MODEL.WEIGHTS))
    assert file == Path("models/my_cells/weights.safetensors")


def test_the_keys_of_the_card() -> None:
    table = TEXT.partition("**`model.yaml`** has these keys")[2]
    keys = re.findall(r"^\| (?:\*\*)?`(\w+)`", table, flags=re.MULTILINE)
    assert sorted(keys) == sorted(field.name for field in fields(ModelCard))
    for part, row in ((TrainingSet, "trained_on"), (MeasuredMetric, "metrics")):
        line = re.search(rf"^\| `{row}` .*$", table, flags=re.MULTILINE)
        assert line is not None
        assert all(f"`{field.name}`" in line[0] for field in fields(part))


def test_numbers() -> None:
    assert f"`format_version` of this page is {FORMAT_VERSION}." in TEXT
    assert f"fewer than {SMALL:,} values" in TEXT
    assert re.findall(r"^\| `(\w+)`[^|]*\| \d \|", TEXT, flags=re.MULTILINE) == list(PRECISIONS)
