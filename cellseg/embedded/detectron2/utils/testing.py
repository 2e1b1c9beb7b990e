"""Helpers for writing tests of models."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils.torch_version_utils import min_torch_version

__all__ = [
    "assert_instances_allclose",
    "convert_scripted_instances",
    "get_model_no_weights",
    "has_dynamic_axes",
    "min_torch_version",
    "random_boxes",
    "reload_lazy_config",
    "reload_script_model",
]


def get_model_no_weights(config_path: str) -> torch.nn.Module:
    """A model of the model zoo as it is before any weights are loaded; on a GPU if there is one.

    Raises:
        RuntimeError: unknown config.
    """
    cfg = model_zoo.get_config(config_path)
    cfg.MODEL.DEVICE = cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"
    return build_model(cfg)


def random_boxes(
    num_boxes: int, max_coord: float = 100, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """float32 [num_boxes, 4] XYXY with coordinates in [1, max_coord], no side shorter than 1."""
    uniform = torch.rand(num_boxes, 4, device=device)
    corners, sides = (uniform * (max_coord / 2)).clamp(min=1).split(2, dim=1)
    return torch.cat([corners, corners + sides], dim=1)


def convert_scripted_instances(instances: Any) -> Instances:
    """Plain `Instances` with the fields that are set in a scripted one.

    Raises:
        TypeError: not the like of `Instances`.
    """
    if not hasattr(instances, "image_size"):
        raise TypeError(f"expected scripted Instances, got {type(instances).__name__}")
    values = {name: getattr(instances, f"_{name}", None) for name in instances._field_names}
    set_fields = {name: value for name, value in values.items() if value is not None}
    return Instances(instances.image_size, **set_fields)


def assert_instances_allclose(
    input: Any,
    other: Any,
    *,
    rtol: float = 1e-5,
    msg: str = "",
    size_as_tensor: bool = False,
) -> None:
    """Check that two `Instances`, plain or scripted, are the same up to rounding.

    Args:
        input: the one whose largest value the tolerance of a tensor of floats is relative to.
        other: compared with it.
        rtol: relative tolerance; boxes and masks of regions may differ by 100 times as much,
            absolutely. Other tensors must be equal.
        msg: put before the reason of a failure.
        size_as_tensor: sizes of images may be tensors, as in a traced model.

    Raises:
        AssertionError: they differ.
        ValueError: a field is of a type that has no comparison here.
    """
    first, second = (
        each if isinstance(each, Instances) else convert_scripted_instances(each)
        for each in (input, other)
    )
    sizes = [each.image_size for each in (first, second)]
    if size_as_tensor:
        sizes = [tuple(torch.as_tensor(size).tolist()) for size in sizes]
    start = f"{msg.rstrip()} " if msg else ""
    assert sizes[0] == sizes[1], f"{start}image sizes differ: {sizes[0]}, {sizes[1]}"
    names = [sorted(each.get_fields()) for each in (first, second)]
    assert names[0] == names[1], f"{start}fields differ: {names[0]}, {names[1]}"
    for name in names[0]:
        close = _is_close(first.get(name), second.get(name), rtol)
        assert close, f"{start}values of the field {name!r} differ"


def _is_close(value: Any, other: Any, rtol: float) -> bool:
    if isinstance(value, Boxes | ROIMasks):
        return torch.allclose(value.tensor, other.tensor, atol=rtol * 100)
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"no comparison for fields of type {type(value).__name__}")
    if not value.is_floating_point() or value.numel() == 0:
        return torch.equal(value, other)
    return torch.allclose(value, other, atol=rtol * float(value.abs().max()))


def reload_script_model(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A scripted model after it was saved and loaded, in memory."""
    saved = io.BytesIO()
    torch.jit.save(module, saved)
    return torch.jit.load(io.BytesIO(saved.getvalue()))


def reload_lazy_config(cfg: Any) -> Any:
    """A config of lazy calls after it was saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "config.yaml")
        LazyConfig.save(cfg, path)
        return LazyConfig.load(path)


def has_dynamic_axes(onnx_model: Any) -> bool:
    """Whether no side of any input or output of an ONNX model has a fixed length."""
    graph = onnx_model.graph
    sides = (
        side
        for tensor in (*graph.input, *graph.output)
        for side in tensor.type.tensor_type.shape.dim
    )
    return not any(side.dim_param.isnumeric() for side in sides)
