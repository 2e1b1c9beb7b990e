"""Operations, activations and parameters of models, counted by fvcore."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import fvcore.nn
import torch
from detectron2.export import TracingAdapter
from fvcore.nn import activation_count, parameter_count, parameter_count_table
from torch import nn

__all__ = [
    "FlopCountAnalysis",
    "activation_count_operators",
    "find_unused_parameters",
    "flop_count_operators",
    "parameter_count",
    "parameter_count_table",
]


class FlopCountAnalysis(fvcore.nn.FlopCountAnalysis):
    """fvcore's count of multiplications with additions, for models whose inputs are no tensors.

    Args:
        model: module.
        inputs: what it is called with: one argument, or a tuple of arguments.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        adapter = TracingAdapter(model, inputs, allow_non_tensor=True)
        super().__init__(adapter, adapter.flattened_inputs)
        self.unsupported_ops_warnings(False)  # additions, resizing and sorting count nothing


def flop_count_operators(model: nn.Module, inputs: Sequence[Any]) -> dict[str, float]:
    """Billions of multiplications with additions by kind of operator, in testing.

    What a detector computes depends on how much it finds, so take the mean over many images.

    Args:
        model: a detector; it stays in its mode.
        inputs: as for the detector.
    """
    was_training = model.training
    counts = FlopCountAnalysis(model.eval(), inputs).by_operator()
    model.train(was_training)
    return defaultdict(float, {name: count / 1e9 for name, count in counts.items()})


def activation_count_operators(
    model: nn.Module, inputs: Sequence[Any], **kwargs: Any
) -> dict[str, float]:
    """Millions of numbers that operators give out, by kind of operator, in testing.

    Args:
        model: a detector; it stays in its mode.
        inputs: as for the detector, of one image; only "image" is used.
        kwargs: of `fvcore.nn.activation_count`.

    Raises:
        ValueError: not one image.
    """
    if len(inputs) != 1:
        raise ValueError(f"Activations are counted for one image, got {len(inputs)}.")
    was_training = model.training
    adapter = TracingAdapter(model.eval(), [{"image": inputs[0]["image"]}], allow_non_tensor=True)
    counts, _ = activation_count(adapter, adapter.flattened_inputs, **kwargs)
    model.train(was_training)
    return counts


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """Names of the parameters that the losses do not depend on.

    Args:
        model: in training mode, giving a loss or a dict of losses; its gradients are cleared.
        inputs: what it is called with: one argument, or a tuple of arguments.

    Raises:
        ValueError: the model is in evaluation mode.
    """
    if not model.training:
        raise ValueError("A model has losses in training mode only: model.train().")
    model.zero_grad()
    losses = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    total = sum(losses.values()) if isinstance(losses, dict) else losses
    torch.as_tensor(total).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad()
    return unused
