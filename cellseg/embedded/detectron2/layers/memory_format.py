"""Which memory format the convolutions of a model run in."""

from __future__ import annotations

import torch
from torch import nn


def prefer_channels_last(module: nn.Module) -> None:
    """Keep the weights of convolutions `channels_last`, in place; their outputs follow.

    oneDNN, which computes on the CPU, then need not rearrange what goes from layer to layer. A part
    with group norm stays as it is: PyTorch's kernel for it loses two digits in this format.
    """
    parts = list(module.modules())
    if not any(isinstance(part, nn.GroupNorm) for part in parts):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return
    for child in module.children():
        prefer_channels_last(child)
