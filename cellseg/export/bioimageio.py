"""A package for the model zoo bioimage.io: ONNX weights with all that is to be known about them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cellseg
import numpy as np
from cellseg.cells.drawing import draw_overlay, write_picture
from cellseg.cells.instances import CellInstances
from cellseg.cells.synthetic import make_cells
from cellseg.errors import ExportError
from cellseg.export.onnx_file import export_onnx, load_packages, open_session
from cellseg.export.package_description import (
    COVER,
    TEST_INPUT,
    TEST_OUTPUT,
    WEIGHTS,
    PackageTexts,
    describe_package,
)
from cellseg.files import write_whole
from cellseg.images import ImageInput
from cellseg.io.category_ids import number_names
from detectron2.config import CfgNode
from numpy.typing import NDArray

_EXAMPLE_HW = (128, 128)
_README = """# {name}

{description}

Mask R-CNN, trained with cellseg {version}. From an image (1 x channels x height x width) to a label
image (1 x 1 x height x width): 0 is background, cells are 1, 2, ... by descending score. The
configuration of the training is attached as `config.yaml`; `cellseg_onnx.py` runs the weights with
numpy and onnxruntime alone.

Classes: {classes}. Cells below a score of {score} are left out.

## Validation

Compare with label images of your own: `cellseg evaluate` writes AP, panoptic quality and what kinds
of errors were made. The model is for images like those that it was trained on: cells of about the
same size in pixels, the same stain or contrast.
"""

logger = logging.getLogger(__name__)


def export_bioimageio(
    cfg: CfgNode,
    path: str | Path,
    texts: PackageTexts,
    *,
    classes: Sequence[str] = (),
    image_path: str | Path | None = None,
) -> None:
    """Write a trained model as a package of specification 0.5, tested by bioimageio.core.

    The weights are those of `export_onnx`. How intensities are normalised stands in the package's
    description, in steps that programs of bioimage.io know, for images of the kind of the example.

    Args:
        cfg: from `load_config`; `MODEL.WEIGHTS` names the checkpoint.
        path: of the file, `.zip`; folders are made as needed.
        texts: what it says in words.
        classes: names of the model's classes, for its documentation.
        image_path: the example that the package shows and is tested with: a file as the config says
            of images. Its type decides about CELLSEG.INPUT.NORMALIZE "auto". Made-up 8-bit nuclei
            by default.

    Raises:
        ConfigError, CheckpointError, ImageReadError: as `export_onnx` and `CellPredictor`.
        ExportError: as `export_onnx`; or the package is refused or does not pass its test.
    """
    spec, core = load_packages("bioimageio.spec", "bioimageio.core")
    image = _read_example(cfg, image_path)
    with tempfile.TemporaryDirectory() as name, write_whole(path) as partial:
        folder = Path(name)
        export_onnx(cfg, folder / WEIGHTS, labels_only=True)
        _write_example(folder, image, cfg)
        (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
        (folder / "README.md").write_text(_readme(cfg, texts, classes), "utf-8")
        content = describe_package(cfg, texts, image)
        _save_package(spec, content, folder, partial)
        summary = core.test_description(partial)
        if summary.status != "passed":
            raise ExportError(f"{path}: `bioimageio test` fails: {_describe_errors(summary)}")
    logger.info("bioimageio test: %s", summary.status)


def _read_example(cfg: CfgNode, path: str | Path | None) -> NDArray[Any]:
    """[H, W, C], the file's own values."""
    given = ImageInput.from_config(cfg)
    if path is None:
        made = make_cells(0, _EXAMPLE_HW).image
        image = np.repeat(made[..., None], len(given.channels) or 1, axis=2)
    else:
        image = given.read(path)
        given.prepare(image)  # what cannot be an input is an error of this file
    return image[..., None] if image.ndim == 2 else image


def _write_example(folder: Path, image: NDArray[Any], cfg: CfgNode) -> None:
    """Test tensors and cover; the script that is packed too finds the cells."""
    from cellseg.export.cellseg_onnx import find_cells

    labels = find_cells(open_session(folder / WEIGHTS), image)[0]
    np.save(folder / TEST_INPUT, image.transpose(2, 0, 1)[None])
    np.save(folder / TEST_OUTPUT, labels[None, None])
    picture = draw_overlay(_as_rgb(image, cfg), CellInstances.from_label_image(labels))
    side = min(picture.shape[:2])
    write_picture(folder / COVER, picture[:side, :side])


def _as_rgb(image: NDArray[Any], cfg: CfgNode) -> NDArray[Any]:
    prepared = ImageInput.from_config(cfg).prepare(image)
    return prepared[..., ::-1] if cfg.INPUT.FORMAT == "BGR" else prepared


def _readme(cfg: CfgNode, texts: PackageTexts, classes: Sequence[str]) -> str:
    return _README.format(
        name=texts.name,
        description=texts.description or texts.name,
        version=cellseg.__version__,
        classes=", ".join(classes or number_names(cfg.MODEL.ROI_HEADS.NUM_CLASSES)),
        score=cfg.CELLSEG.TEST.SCORE_THRESHOLD,
    )


def _save_package(spec: Any, content: dict[str, Any], folder: Path, path: Path) -> None:
    context = spec.ValidationContext(root=folder, perform_io_checks=True)
    described = spec.build_description(content, context=context)
    if isinstance(described, spec.InvalidDescr):
        problem = _describe_errors(described.validation_summary)
        raise ExportError(f"bioimage.io's specification refuses the package: {problem}")
    spec.save_bioimageio_package(described, output_path=path)


def _describe_errors(summary: Any) -> str:
    problems = [
        f"{'.'.join(map(str, error.loc))}: {error.msg}"
        for detail in summary.details
        for error in detail.errors
    ]
    return "; ".join(dict.fromkeys(problems))
