"""A built wheel, installed in a folder of its own, trains and predicts from an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import cellseg
import cv2
import pytest
import tifffile
import torch
from cellseg.cells.synthetic import make_cells
from cellseg.models import ModelCard, write_bundle
from commands import REPOSITORY

pytestmark = pytest.mark.slow

SOURCES = ["cellseg", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
SOURCES += ["MANIFEST.in", "datasets"]
BUNDLE = "test-cells"
"""A model that ships in this wheel only."""


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, words), "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that neither an earlier build nor this one leaves a trace."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        path = REPOSITORY / name
        if name == "datasets":  # no images that lie there
            (sources / name).mkdir()
            for declaration in path.glob("*.*"):
                shutil.copy(declaration, sources / name)
        elif path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(path, sources / name, ignore=ignored)
        else:
            shutil.copy(path, sources)
    shipped = sources / "cellseg" / "models" / "shipped" / BUNDLE
    write_bundle(shipped, ModelCard(BUNDLE, ("cell",)), {}, {"w": torch.ones(2)})
    pip("wheel", sources, "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder that the wheel is installed in."""
    pip("install", wheel, "--target", wheel.parent / "installed")
    return wheel.parent / "installed"


def run_installed(installed: Path, folder: Path, *words: str) -> str:
    """Run `python -m cellseg WORDS` in `folder`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "cellseg", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(REPOSITORY) not in done.stdout
    return done.stdout


def test_what_is_in_the_wheel(wheel: Path) -> None:
    names = {PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()}
    described = f"cellseg-{cellseg.__version__}.dist-info"
    assert {name.parts[0] for name in names} == {"cellseg", described}
    files = {name.relative_to("cellseg") for name in names if name.parts[0] == "cellseg"}
    source = REPOSITORY / "cellseg"
    there = [path for path in source.rglob("*") if path.is_file()]
    wanted = {path.relative_to(source) for path in there if path.suffix not in (".pyc", ".md")}
    wanted.add(Path("samples/README.md"))
    yaml_files = [*REPOSITORY.glob("configs/**/*.yaml"), *REPOSITORY.glob("datasets/*.yaml")]
    wanted |= {Path("shipped") / path.relative_to(REPOSITORY) for path in yaml_files}
    bundle = ("model.yaml", "config.yaml", "weights.safetensors")
    wanted |= {Path("models/shipped", BUNDLE, name) for name in bundle}
    assert {Path(file) for file in files} == wanted
    with zipfile.ZipFile(wheel) as archive:
        found = archive.read(f"{described}/entry_points.txt").decode().split()
    scripts = ["[console_scripts]", "cellseg", "=", "cellseg.__main__:main"]
    assert found == [*scripts, "[napari.manifest]", "cellseg", "=", "cellseg.napari:napari.yaml"]


def test_training_and_prediction_from_an_empty_folder(
    installed: Path, tiny_training: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    small = [*tiny_training, "OUTPUT_DIR", "run"]
    (folder / "mine.yaml").write_text("SEED: 7\n")
    config = ("--config-file", "quick_start.yaml", "mine.yaml")
    log = run_installed(installed, folder, "train", *config, *small)
    assert "Device: cpu (" in log
    assert (folder / "run" / "model_final.pth").is_file()
    assert "SEED: 7\n" in (folder / "run" / "config.yaml").read_text()
    metrics = [json.loads(line) for line in (folder / "run/metrics.json").read_text().splitlines()]
    assert any("cell_iou/ap_dsb" in line for line in metrics)

    cv2.imwrite(str(folder / "field.png"), make_cells(1, (64, 80)).image)
    weights = ("MODEL.WEIGHTS", "run/model_final.pth")
    given = ("--input", "field.png", "--output", "found")
    run_installed(installed, folder, "predict", *config, *given, *small, *weights)
    assert tifffile.imread(folder / "found" / "field_labels.tif").shape == (64, 80)
    assert isinstance(json.loads((folder / "found" / "coco_results.json").read_text()), list)


def test_what_comes_with_it_is_listed(installed: Path, tmp_path: Path) -> None:
    info = json.loads(run_installed(installed, tmp_path, "info", "--json"))
    configs = REPOSITORY / "configs"
    recipes = {path.relative_to(configs).as_posix() for path in configs.rglob("*.yaml")}
    assert set(info["recipes"]) == recipes
    assert info["recipes_folder"] == str(installed / "cellseg" / "shipped" / "configs")
    assert "synthetic_train" in info["datasets"]
    assert BUNDLE in info["models"]
    models = json.loads(run_installed(installed, tmp_path, "info", "--models", "--json"))
    assert models[BUNDLE]["path"] == str(installed / "cellseg" / "models" / "shipped" / BUNDLE)
    assert models[BUNDLE]["classes"] == ["cell"]
    assert info["packages"]["cellseg"] == cellseg.__version__
    (described,) = metadata.distributions(name="cellseg", path=[str(installed)])
    for_users = r"""^([\w.-]+).*extra == "(?!dev|docs|fuzz|napari-test)"""
    lines = described.requires or []
    of_extras = {found[1] for line in lines if (found := re.match(for_users, line))}
    of_all = {re.split("[<>=]", line)[0] for line in lines if "extra ==" not in line}
    assert "torch" in of_all
    assert of_extras >= {"napari", "dask", "zarr"}
    assert of_extras - {"dask"} <= set(info["optional_packages"])  # distributed comes with it
    assert not of_all & set(info["optional_packages"])


def test_the_script(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "bin" / "cellseg", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"cellseg {cellseg.__version__}\n")
