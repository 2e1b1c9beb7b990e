"""Opt-in compilation of the parts that are all convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def compile_convolutions(model: Any, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let `torch.compile` take the backbone and the head of the RPN, in place.

    Names of parameters, checkpoints and results stay what they are. The first batch of every new
    shape takes a minute or more: worth it for long runs on images of one size. Not compiled is what
    depends on how many objects an image has.

    Args:
        model: a model as `detectron2.modeling.build_model` gives it; changed in place.
        backend: which compiler `torch.compile` is to use.

    Raises:
        RuntimeError: with the first batch, where there is no C++ compiler (CPU) or Triton (GPU).
    """
    head = getattr(getattr(model, "proposal_generator", None), "rpn_head", None)
    parts: list[nn.Module | None] = [getattr(model, "backbone", None), head]
    for part in parts:
        if part is not None:
            part.compile(backend=backend)
