"""docs/splits.md: its declarations and its script do what the page says."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest
from cellseg.datasets.declarations import read_declarations, read_declared_records
from pages import Page


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files and 60 images in `datasets/my_cells/all`."""
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    Page("docs/splits.md").write_files(tmp_path)
    add_images(tmp_path, range(30))
    return tmp_path


def add_images(folder: Path, wells: range) -> None:
    scenes = {f"plate1_well{well}_{k}": builders.touching() for well in wells for k in (1, 2)}
    builders.write_label_images(folder / "datasets/my_cells", "all", scenes)


def splits_of(folder: Path, name: str) -> dict[str, set[str]]:
    return {
        one.split_name: {r.image_id for r in read_declared_records(one, folder / "datasets")}
        for one in read_declarations(folder / name)
    }


def test_shares(workplace: Path) -> None:
    splits = splits_of(workplace, "my_cells.yaml")
    assert list(splits) == ["train", "val", "test"]
    assert sum(map(len, splits.values())) == 60
    wells = [{image_id.rpartition("_")[0] for image_id in ids} for ids in splits.values()]
    assert sum(map(len, wells)) == 30
