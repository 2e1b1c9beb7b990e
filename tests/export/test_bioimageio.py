"""Packages for bioimage.io, judged by its own programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from cellseg.cells.synthetic import make_cells
from cellseg.errors import ConfigError, ExportError
from cellseg.export import bioimageio
from cellseg.export.package_description import PackageTexts, describe_package
from cellseg.images import normalize_image
from commands import REPOSITORY, Command
from detectron2.config import CfgNode
from PIL import Image

pytest.importorskip("bioimageio.core", reason="pip install 'cellseg[export]'")
TEXTS = PackageTexts("Nuclei of a test", "Finds nothing of use", ["A. Person"], "CC-BY-4.0")


@pytest.mark.slow
def test_bioimageio_test_accepts_a_package_of_the_command(
    checkpoint_options: list[str], tmp_path: Path
) -> None:
    """With a 16-bit image of one's own, so that percentiles stand in the description."""
    image = make_cells(5, (96, 120), dtype="uint16").image
    tifffile.imwrite(tmp_path / "image.tif", image)
    package = tmp_path / "model.zip"
    words = ["--config-file", REPOSITORY / "configs/quick_start.yaml", "--to", "bioimageio"]
    words += ["--output", package, "--image", tmp_path / "image.tif", "--name", TEXTS.name or ""]
    words += ["--author", "A. Person", "--licence", "MIT"]
    assert Command("export-model").main([*words, *checkpoint_options]) == 0

    program = Path(sys.executable).with_name("bioimageio")
    done = subprocess.run(
        [program, "test", package], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    check_content(package, image)


def check_content(package: Path, image: np.ndarray) -> None:
    with zipfile.ZipFile(package) as packed:
        names = set(packed.namelist())
        (description,) = names & {"rdf.yaml", "bioimageio.yaml"}
        described = yaml.safe_load(packed.read(description))
        with packed.open("test_input.npy") as file:
            assert np.array_equal(np.load(file), image[None, None])
        with packed.open("test_output.npy") as file:
            labels = np.load(file)
        with packed.open("cover.png") as file:
            width, height = Image.open(file).size
    assert {"model.onnx", "README.md", "config.yaml", "cellseg_onnx.py"} <= names
    assert width == height
    assert labels.shape == (1, 1, 96, 120)
    assert labels.max() > 2
    (given,), (found,) = described["inputs"], described["outputs"]
    assert given["data"]["type"] == "uint16"
    assert given["axes"][2]["size"] == {"min": 32, "step": 1}
    steps = [step["id"] for step in given["preprocessing"]]
    assert steps == ["ensure_dtype", "scale_range", "clip", "scale_linear", "ensure_dtype"]
    assert found["data"]["type"] == "int32"
    assert len(described["weights"]["onnx"]["sha256"]) == 64


@pytest.mark.parametrize("mode", ["auto", "minmax", "percentile", "range", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_steps_of_a_description_normalize_as_cellseg_does(
    cfg: CfgNode, mode: str, dtype: str
) -> None:
    """The steps by the words of the specification."""
    cfg.CELLSEG.INPUT.NORMALIZE, cfg.CELLSEG.INPUT.RANGE = mode, [30.0, 150.0]
    image = np.random.default_rng(0).integers(3, 200, (40, 50, 3)).astype(dtype)
    described = describe_package(cfg, TEXTS, image)["inputs"][0]
    found: Any = image
    for step in described["preprocessing"]:
        kwargs = step["kwargs"]
        if step["id"] == "ensure_dtype":
            found = found.astype(kwargs["dtype"])
        elif step["id"] == "scale_linear":
            found = found * kwargs["gain"] + kwargs.get("offset", 0)
        elif step["id"] == "clip":
            found = found.clip(kwargs["min"], kwargs["max"])
        else:
            assert kwargs["axes"] == ["y", "x"]
            limits = [kwargs["min_percentile"], kwargs["max_percentile"]]
            low, high = np.percentile(found, limits, axis=(0, 1))
            found = (found - low) / (high - low + 1e-6)
    own = cfg.CELLSEG.INPUT
    expected = normalize_image(image, mode, own.PERCENTILES, own.RANGE)
    assert np.allclose(found, expected, atol=1e-3)
    assert described["axes"][1]["channel_names"] == ["red", "green", "blue"]


def test_what_a_package_says_has_to_be_given() -> None:
    with pytest.raises(ConfigError, match="missing: --author, --licence"):
        PackageTexts("Nuclei", "", [], None)


def test_what_the_specification_refuses_is_said(
    exported: tuple[CfgNode, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_exported(_cfg: CfgNode, path: Path, **_options: Any) -> None:
        for file in exported[1].parent.iterdir():
            shutil.copy(file, path.parent)

    monkeypatch.setattr(bioimageio, "export_onnx", copy_exported)
    texts = PackageTexts("Nuclei of a test", "", ["A. Person"], "Free for all")
    with pytest.raises(ExportError, match="license"):
        bioimageio.export_bioimageio(exported[0], tmp_path / "model.zip", texts)
    assert list(tmp_path.iterdir()) == []


def test_no_model_is_one_clear_error(tmp_path: Path) -> None:
    status = Command("export-model").main(["--output", tmp_path / "model.onnx"])
    assert str(status).startswith("ConfigError: no model is named; expected --model")
