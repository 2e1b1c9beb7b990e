"""detectron2.utils.analysis, on layers whose costs are counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.utils.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    find_unused_parameters,
    flop_count_operators,
    parameter_count,
    parameter_count_table,
)
from torch import nn


class Small(nn.Module):
    """One convolution of 3 to 4 channels, 3x3, on images in dicts; and a layer without use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Linear(2, 2)

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        maps = self.norm(self.conv(batch[0]["image"][None]))
        return {"loss": maps.sum()} if self.training else [{"maps": maps}]


INPUTS = [{"image": torch.ones(3, 8, 10), "height": 80, "file_name": "a.png"}]
CONV = 8 * 10 * 4 * 3 * 9  # a multiplication per output, input channel and pixel of the kernel
NORM = 8 * 10 * 4 * 2  # one scale and one shift per output


def test_operations() -> None:
    model = Small()
    assert FlopCountAnalysis(model.eval(), INPUTS).total() == CONV + NORM
    counted = flop_count_operators(model.train(), INPUTS)
    assert counted == {"conv": CONV / 1e9, "batch_norm": NORM / 1e9}
    assert model.training


def test_activations() -> None:
    model = Small().eval()
    assert activation_count_operators(model, INPUTS) == {"conv": 8 * 10 * 4 / 1e6}
    assert not model.training
    with pytest.raises((ValueError, AssertionError)):
        activation_count_operators(model, INPUTS * 2)


def test_parameters() -> None:
    counts = parameter_count(Small())
    assert (counts["conv"], counts["norm"], counts["unused"]) == (108, 8, 6)
    assert "0.1K" in parameter_count_table(Small())


def test_unused_parameters() -> None:
    model = Small()
    assert find_unused_parameters(model, INPUTS) == ["unused.weight", "unused.bias"]
    assert find_unused_parameters(model, (INPUTS,)) == ["unused.weight", "unused.bias"]
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises((ValueError, AssertionError)):
        find_unused_parameters(model.eval(), INPUTS)
