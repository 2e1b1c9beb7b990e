"""Weights as they are stored, and back.

Nearly all of a model's 30 million weights are in the kernels of a few dozen layers. With "int8"
each output channel of a kernel has a scale, the greatest absolute value in it divided by 127, and
each weight is stored as the nearest whole number of scales, -127 to 127: a quarter of the size, and
errors of at most half a scale. With "half" kernels are rounded to 16-bit floats. Biases, norms and
small kernels, such as those of the first layer and of the last ones, are always stored as they are.

A scale below the greatest value, which clips some weights so that the others are nearer, was tried
on a trained Mask R-CNN R50-FPN: the scale of least squared error is the greatest value's in nearly
every channel, and the relative error of the kernels stays 0.008.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from cellseg.errors import CheckpointError
from cellseg.models.card import PRECISIONS
from torch import Tensor

SCALE_SUFFIX = "::scale"
"""Behind a kernel's name: the name of its scales, which no parameter can have."""

SMALL = 16384
"""A tensor of fewer values is stored as it is."""

_LEVELS = 127
_GREATEST_HALF = torch.finfo(torch.float16).max


def encode_weights(state: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Tensors to be stored.

    Args:
        state: by name, as of `state_dict()`; on any device, of any type.
        precision: "int8", "half" or "full" (float32).

    Returns:
        Tensors on the CPU that share no memory. A kernel `w` [O, ...] of "int8" is int8 under its
        own name and float32 [O, 1, ...] under `w::scale`.

    Raises:
        CheckpointError: a weight is not finite.

    Example:
        >>> kernel = torch.ones(2, 8192) * torch.tensor([[254.0], [0.5]])
        >>> kernel[0, 0] = 3.0
        >>> stored = encode_weights({"w": kernel}, "int8")
        >>> stored["w"][:, :2].tolist(), stored["w::scale"][0].item()
        ([[2, 127], [127, 127]], 2.0)
        >>> decode_weights(stored)["w"][0, :2].tolist()
        [4.0, 254.0]
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    stored: dict[str, Tensor] = {}
    for name, value in state.items():
        stored |= _encode(name, value.detach().cpu(), precision)
    return stored


def _encode(name: str, value: Tensor, precision: str) -> dict[str, Tensor]:
    if not value.is_floating_point():
        return {name: value.contiguous().clone()}
    exact = value.to(torch.float32, copy=True).contiguous()
    if not torch.isfinite(exact).all():
        raise CheckpointError(
            f"{name}: a weight is not finite; expected numbers. The training has diverged: take "
            "an earlier checkpoint"
        )
    is_kernel = exact.ndim > 1 and exact.numel() >= SMALL
    if is_kernel and precision == "int8":
        greatest = exact.flatten(1).abs().amax(1).view(-1, *[1] * (exact.ndim - 1))
        scale = torch.where(greatest > 0, greatest / _LEVELS, torch.ones_like(greatest))
        levels = torch.round(exact / scale).clamp(-_LEVELS, _LEVELS)
        return {name: levels.to(torch.int8), name + SCALE_SUFFIX: scale}
    if is_kernel and precision == "half" and exact.abs().max() <= _GREATEST_HALF:
        return {name: exact.to(torch.float16)}
    return {name: exact}


def check_tensors(weights: Mapping[str, Any], own: Mapping[str, Tensor] | None = None) -> None:
    """Refuse what a network cannot have as a weight; copying it would make numbers of it.

    Args:
        weights: by name, of a file.
        own: the model's, by name. Of the file's only those that the model has are looked at, and
            whole numbers are right where the model has whole numbers; without it all are.

    Raises:
        CheckpointError: names the first that is not dense, of another kind of number than the
            model's, NaN or infinite, and says how many are.

    Example:
        >>> check_tensors({"w": torch.tensor([1, 2])}, {"w": torch.zeros(2)})
        Traceback (most recent call last):
        ...
        cellseg.errors.CheckpointError: 1 of 1 weights unfit: w is of int64; expected floats
    """
    looked_at = [name for name in weights if own is None or name in own]
    found = [
        (name, _fault_of(weights[name], None if own is None else own[name])) for name in looked_at
    ]
    wrong = [f"{name} {fault}" for name, fault in found if fault]
    if wrong:
        raise CheckpointError(f"{len(wrong)} of {len(found)} weights unfit: {wrong[0]}")


def _fault_of(value: Any, own: Tensor | None) -> str:
    if not isinstance(value, Tensor):
        return f"is {type(value).__name__} and no tensor"
    if value.is_meta or value.layout != torch.strided or value.is_quantized:
        kind = "without numbers" if value.is_meta else "sparse or quantized"
        return f"is {kind}; expected a dense tensor"
    if own is not None and not own.is_floating_point():
        return "" if not value.is_complex() else "is complex; expected whole numbers"
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        return "" if own is None and value.ndim == 0 else f"is of {kind}; expected floats"
    if not torch.isfinite(value).all():
        count = int((~torch.isfinite(value)).sum())
        return (
            f"has {count} values that are NaN or infinite. A training has diverged: take an "
            "earlier checkpoint"
        )
    return ""


def decode_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, floats widened to float32: the inverse of `encode_weights`, but rounded.

    Raises:
        CheckpointError: scales without a kernel that they fit.
    """
    scales = {
        name.removesuffix(SCALE_SUFFIX): value
        for name, value in stored.items()
        if name.endswith(SCALE_SUFFIX)
    }
    weights = {}
    for name, value in stored.items():
        if not name.endswith(SCALE_SUFFIX):
            weights[name] = value.float() if value.is_floating_point() else value
    for name, scale in scales.items():
        wanted = (len(weights[name]), *[1] * (weights[name].ndim - 1)) if name in weights else None
        if tuple(scale.shape) != wanted:
            raise CheckpointError(
                f"{name}{SCALE_SUFFIX}: scales {list(scale.shape)} that fit no kernel; expected "
                f"{name} with as many output channels"
            )
        weights[name] = weights[name].float() * scale.float()
    return weights
