"""Binary masks taken for label images: warned of, and what is meant by an option."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pytest
import yaml
from cellseg.cli import main
from cellseg.datasets.declarations import read_declarations, read_declared_records
from cellseg.io import read_records

MASK = np.zeros((20, 20), np.uint8)
MASK[1:4, 1:4], MASK[8:12, 8:12], MASK[15, 15:19] = 255, 255, 255


@pytest.fixture
def root(tmp_path: Path) -> Path:
    builders.write_png(tmp_path / "train/images/a.png", MASK)
    builders.write_png(tmp_path / "train/labels/a.png", MASK)
    return tmp_path


def test_declared(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = {"format": "label_images", "root": ".", "splits": ["train"]}
    found = {}
    for wanted in (False, True):
        file = root / f"{wanted}.yaml"
        file.write_text(yaml.safe_dump({"cells": {**content, "connected_components": wanted}}))
        (declaration,) = read_declarations(file)
        (record,) = read_declared_records(declaration, root)
        found[wanted] = record.cells.areas_px.tolist()
    assert found == {False: [29], True: [9, 16, 4]}
    assert caplog.text.count("1 of 1 cells (100 %) are in several pieces, up to 3") == 1


def test_converted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = ["convert", "--from", "label_images", "--input", str(root), "--split", "train"]
    where += ["--to", "stardist", "--output"]
    assert main([*where, str(root / "one")]) == 0
    assert main([*where, str(root / "all"), "--connected-components"]) == 0
    sizes = [
        read_records("stardist", root / name, "train")[0].cells.areas_px.tolist()
        for name in ("one", "all")
    ]
    assert sizes == [[29], [9, 16, 4]]
