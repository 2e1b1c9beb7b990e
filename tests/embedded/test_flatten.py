"""detectron2.export: models between tuples of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.export.flatten import flatten_to_tuple
from detectron2.structures import Boxes, Instances
from torch import nn


def cells(count: int) -> Instances:
    numbers = torch.arange(count * 4.0).reshape(count, 4)
    return Instances((20, 30), pred_boxes=Boxes(numbers), scores=torch.rand(count))


class Halves(nn.Module):
    """Takes a list of dicts, as detectors do."""

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"half": each["image"] / 2, "cells": [each["image"].sum()]} for each in batch]


def test_containers_and_instances_come_back() -> None:
    found = cells(2)
    values, schema = flatten_to_tuple([{"b": (found, "name"), "a": torch.zeros(1)}])
    assert len(values) == 5
    assert "name" in values
    ((again, name),) = (each["b"] for each in schema(values))
    assert name == "name"
    assert [int(edge) for edge in again.image_size] == [20, 30]
    assert torch.equal(again.pred_boxes.tensor, found.pred_boxes.tensor)
    assert torch.equal(again.scores, found.scores)
    assert flatten_to_tuple([{"b": (cells(3), "x"), "a": torch.ones(1)}])[1] == schema
    assert flatten_to_tuple([{"b": [found, "name"], "a": torch.zeros(1)}])[1] != schema


def test_too_few_values_and_strange_keys_are_refused() -> None:
    _, schema = flatten_to_tuple([1, 2])
    with pytest.raises((ValueError, AssertionError), match="1"):
        schema((1,))
    with pytest.raises(KeyError, match="str"):
        flatten_to_tuple({1: 2})


def test_a_model_of_dicts_can_be_traced() -> None:
    inputs = [{"image": torch.rand(3, 4, 4)}, {"image": torch.rand(3, 2, 2)}]
    adapter = TracingAdapter(Halves(), inputs)
    traced = torch.jit.trace(adapter, adapter.flattened_inputs)
    other = [torch.rand(3, 4, 4), torch.rand(3, 2, 2)]
    assert adapter.outputs_schema is not None
    outputs = adapter.outputs_schema(traced(*other))
    for output, image in zip(outputs, other):
        assert torch.equal(output["half"], image / 2)
        assert torch.equal(output["cells"][0], image.sum())


def test_what_is_no_tensor_is_refused_or_left_out() -> None:
    inputs = [{"image": torch.ones(1), "height": 7}]
    with pytest.raises(ValueError, match="int"):
        TracingAdapter(Halves(), inputs)
    adapter = TracingAdapter(Halves(), inputs, allow_non_tensor=True)
    half, total = sorted(adapter(*adapter.flattened_inputs))
    assert (half.item(), total.item()) == (0.5, 1.0)
    with pytest.raises(ValueError, match="inputs"):
        adapter(torch.ones(1))


def test_outputs_must_be_put_together_alike() -> None:
    sizes = iter([1, 2])
    adapter = TracingAdapter(
        nn.Identity(), torch.ones(1), lambda model, x: [model(x)] * next(sizes)
    )
    adapter(torch.ones(1))
    with pytest.raises((RuntimeError, AssertionError), match=r"outputs|structure"):
        adapter(torch.ones(1))
    named = TracingAdapter(nn.Identity(), torch.ones(1), lambda model, x: ("a", model(x)))
    with pytest.raises(ValueError, match="outputs"):
        named(torch.ones(1))
