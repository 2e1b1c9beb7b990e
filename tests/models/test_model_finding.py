"""What names a model: a bundle, by path or by name, a run's folder, a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cellseg.config import ConfigTree, find_config_file
from cellseg.errors import CheckpointError, ConfigError
from cellseg.models import find_bundle, find_model, locate_bundle
from cellseg.shipped import CARD_FILE, shipped_models_folder


@pytest.fixture
def own_models(made_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user with two bundles, which is the current folder's neighbour."""
    folder, current = tmp_path / "models", tmp_path / "current"
    shutil.copytree(made_bundle, folder / "tiny-cells")
    shutil.make_archive(str(folder / "packed-cells"), "zip", made_bundle)
    current.mkdir()
    monkeypatch.chdir(current)
    monkeypatch.setenv("CELLSEG_MODELS", str(folder))
    return folder


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_a_run_or_a_checkpoint(tmp_path: Path) -> None:
    run = touch(tmp_path / "run", "config.yaml", "model_final.pth", "other.pth")
    for model, weights in ((run, "model_final.pth"), (run / "other.pth", "other.pth")):
        files = find_model(model)
        assert (files.config, files.weights) == (run / "config.yaml", str(run / weights))
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        find_model(touch(tmp_path / "empty", "config.yaml"))


def test_a_bundle_by_name_or_path(own_models: Path) -> None:
    folder, packed = own_models / "tiny-cells", own_models / "packed-cells.zip"
    for name, path in (
        ("tiny-cells", folder),
        (folder, folder),
        (folder / "weights.safetensors", folder),
        ("packed-cells", packed),
        (packed, packed),
    ):
        assert locate_bundle(name) == path
        assert find_bundle(name).card.name == "tiny-cells"
        files = find_model(name)
        assert isinstance(files.config, ConfigTree)
        assert files.config.place == f"{path}/config.yaml"
        assert files.weights == str(name)


def test_a_bundle_or_run_in_the_current_folder_wins(own_models: Path) -> None:
    touch(Path("tiny-cells"), "cells.png")  # a folder of images is no model
    assert locate_bundle("tiny-cells") == own_models / "tiny-cells"
    touch(Path("tiny-cells"), "config.yaml", "model_final.pth")
    assert locate_bundle("tiny-cells") is None
    assert find_model("tiny-cells").weights == str(Path("tiny-cells/model_final.pth"))
    touch(Path("tiny-cells"), CARD_FILE)
    assert locate_bundle("tiny-cells") == Path("tiny-cells")


def test_no_such_model_says_what_is_near(own_models: Path) -> None:
    with pytest.raises(ConfigError, match=r"tiny-cell: no such model;.*did you mean tiny-cells"):
        find_model("tiny-cell")
    with pytest.raises(ConfigError, match=r"no such model bundle.*did you mean packed-cells"):
        find_bundle("packed_cells")
    touch(Path("my_run"))
    with pytest.raises(ConfigError, match=r"my_rum: no such model;.*did you mean my_run"):
        find_model("my_rum")


def test_a_folder_of_the_user_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSEG_MODELS", "nowhere")
    with pytest.raises(ConfigError, match="CELLSEG_MODELS is 'nowhere', which is no folder"):
        find_model("nuclei")


def test_the_config_of_a_bundle_is_a_recipe(own_models: Path) -> None:
    config = own_models / "tiny-cells" / "config.yaml"
    assert find_config_file("tiny-cells") == config
    assert find_config_file(own_models / "tiny-cells") == config
    with pytest.raises(ConfigError, match="did you mean tiny-cells"):
        find_config_file("tiny-cell")


def test_bundles_that_ship_can_be_used() -> None:
    for card in sorted(shipped_models_folder().glob(f"*/{CARD_FILE}")):
        bundle = find_bundle(card.parent)
        assert bundle.card.name == card.parent.name
        assert bundle.card.description
        assert all(one.licence and one.attribution for one in bundle.card.trained_on)
        assert bundle.card.diameters_px
        assert bundle.card.metrics
        bundle.verify()
