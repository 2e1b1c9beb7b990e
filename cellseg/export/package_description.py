"""The description of a bioimage.io package, which becomes its bioimageio.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cellseg
import numpy as np
from cellseg.errors import ConfigError
from cellseg.export.onnx_file import SCRIPT
from cellseg.export.tracing import OPSET
from detectron2.config import CfgNode
from numpy.typing import NDArray

WEIGHTS, COVER, CONFIG = "model.onnx", "cover.png", "config.yaml"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"

_MASK_RCNN = {"text": "He et al.: Mask R-CNN. ICCV 2017", "doi": "10.1109/ICCV.2017.322"}
_AS_FLOATS = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
_LEAST_SIDE_PX = 32
# Pixels on an outline may fall to the other side where a processor rounds in another way.
_MISMATCHED_PER_MILLION = 1000


@dataclass(frozen=True)
class PackageTexts:
    """What a package says in words.

    Attributes:
        name: of the model, 5 to 128 characters.
        description: what it is for; made from the name where empty.
        authors: their names.
        licence: of the weights, as SPDX calls it, such as CC-BY-4.0.

    Raises:
        ConfigError: one of them is missing.
    """

    name: str | None
    description: str
    authors: Sequence[str]
    licence: str | None

    def __post_init__(self) -> None:
        needed = {"--name": self.name, "--author": self.authors, "--licence": self.licence}
        missing = [option for option, value in needed.items() if not value]
        if missing:
            raise ConfigError(
                f"a package for bioimage.io needs {', '.join(needed)}; missing: "
                f"{', '.join(missing)}"
            )


def describe_package(cfg: CfgNode, texts: PackageTexts, image: NDArray[Any]) -> dict[str, Any]:
    """A model of bioimage.io's specification 0.5, by its own keys.

    Args:
        cfg: of the model.
        texts: what the package says in words.
        image: the example, [H, W, C]; the type of its values is the type that the package takes.
    """
    authors = [{"name": name} for name in texts.authors]
    return {
        "type": "model",
        "format_version": "0.5.3",
        "name": texts.name,
        "description": texts.description or texts.name,
        "authors": authors,
        "license": texts.licence,
        "cite": [_MASK_RCNN],
        "documentation": "README.md",
        "covers": [COVER],
        "attachments": [{"source": SCRIPT.name}, {"source": CONFIG}],
        "tags": ["instance-segmentation", "cells", "2d", "mask-rcnn", "cellseg"],
        "inputs": [_describe_input(cfg, image)],
        "outputs": [_describe_output()],
        "weights": {"onnx": {"source": WEIGHTS, "opset_version": OPSET, "authors": authors}},
        "config": {
            "bioimageio": {
                "reproducibility_tolerance": [
                    {"mismatched_elements_per_million": _MISMATCHED_PER_MILLION}
                ]
            },
            "cellseg": {"version": cellseg.__version__},
        },
    }


def _describe_input(cfg: CfgNode, image: NDArray[Any]) -> dict[str, Any]:
    size = {"min": _LEAST_SIDE_PX, "step": 1}
    return {
        "id": "image",
        "description": "an image as the microscope gives it",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": _channel_names(cfg, image.shape[2])},
            {"type": "space", "id": "y", "size": size},
            {"type": "space", "id": "x", "size": size},
        ],
        "data": {"type": image.dtype.name},
        "test_tensor": {"source": TEST_INPUT},
        # Without the last step, what comes out would be cast back to the type of the image.
        "preprocessing": [
            _AS_FLOATS,
            *_describe_normalization(cfg.CELLSEG.INPUT, image.dtype),
            _AS_FLOATS,
        ],
    }


def _describe_output() -> dict[str, Any]:
    sides = [
        {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}}
        for axis in "yx"
    ]
    return {
        "id": "labels",
        "description": "0 for background, cells 1, 2, ... by descending score",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": ["labels"]},
            *sides,
        ],
        "data": {"type": "int32"},
        "test_tensor": {"source": TEST_OUTPUT},
    }


def _channel_names(cfg: CfgNode, count: int) -> list[str]:
    if cfg.CELLSEG.INPUT.CHANNELS:
        return [
            name if isinstance(name, str) else f"channel{name}"
            for name in cfg.CELLSEG.INPUT.CHANNELS
        ]
    return ["red", "green", "blue"] if count == 3 else ["intensity"]


def _describe_normalization(given: CfgNode, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """The steps of `cellseg.images.normalize_image`, from intensities to 0 to 255."""
    mode = given.NORMALIZE
    if mode == "none" or (mode == "auto" and dtype == np.uint8):
        return []
    if mode == "range":
        low, high = given.RANGE
        gain = 255 / (high - low)
        scaling = {"id": "scale_linear", "kwargs": {"gain": gain, "offset": -low * gain}}
        return [scaling, {"id": "clip", "kwargs": {"min": 0, "max": 255}}]
    low, high = (0, 100) if mode == "minmax" else given.PERCENTILES
    limits = {"min_percentile": low, "max_percentile": high, "axes": ["y", "x"]}
    return [
        {"id": "scale_range", "kwargs": limits},
        {"id": "clip", "kwargs": {"min": 0, "max": 1}},
        {"id": "scale_linear", "kwargs": {"gain": 255}},
    ]
