"""Weights that are stored small come back nearly as they were."""

from __future__ import annotations

import pytest
import torch
from cellseg.errors import CheckpointError
from cellseg.models.storage import SMALL, decode_weights, encode_weights
from torch import Tensor


@pytest.fixture
def kernel() -> Tensor:
    """Of channels with very different weights, among them one of zeros."""
    torch.manual_seed(0)
    size = torch.tensor([1e-6, 1.0, 300.0, 0.0]).view(4, 1, 1, 1)
    return torch.randn(4, 1024, 3, 3) * size


def test_eight_bits_are_within_half_a_step_of_each_channel(kernel: Tensor) -> None:
    stored = encode_weights({"w": kernel}, "int8")
    assert (stored["w"].dtype, stored["w::scale"].shape) == (torch.int8, (4, 1, 1, 1))
    found = decode_weights(stored)["w"]
    for before, after in zip(kernel, found):
        step = before.abs().max() / 127
        assert (before - after).abs().max() <= step * 0.5001
        assert after.abs().max() == pytest.approx(before.abs().max().item(), rel=1e-6)
    assert found.dtype == torch.float32


def test_half_precision(kernel: Tensor) -> None:
    found = decode_weights(encode_weights({"w": kernel}, "half"))["w"]
    assert torch.equal(found, kernel.half().float())
    assert found.dtype == torch.float32


def test_what_sixteen_bits_cannot_hold_stays_as_it_is(kernel: Tensor) -> None:
    stored = encode_weights({"w": kernel * 1e4}, "half")
    assert torch.equal(stored["w"], kernel * 1e4)


def test_full_precision_is_exact(kernel: Tensor) -> None:
    assert torch.equal(decode_weights(encode_weights({"w": kernel}, "full"))["w"], kernel)


@pytest.mark.parametrize("precision", ["int8", "half"])
def test_small_tensors_are_exact(precision: str) -> None:
    state = {
        "bias": torch.randn(2 * SMALL),
        "small": torch.randn(4, SMALL // 4 - 1),
        "steps": torch.tensor(12345678901),
        "is_on": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(0.1),
    }
    found = decode_weights(encode_weights(state, precision))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_any_float_type_and_layout(kernel: Tensor) -> None:
    """Transposed, shared between two names, of 64 or 16 bits."""
    flat = kernel.view(4, -1)
    state = {"a": flat.double().T, "b": flat, "c": flat, "d": flat.bfloat16()}
    found = decode_weights(encode_weights(state, "full"))
    assert torch.equal(found["a"], flat.T)
    assert torch.equal(found["d"], flat.bfloat16().float())
    stored = encode_weights(state, "full")
    assert stored["b"].data_ptr() != stored["c"].data_ptr()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", ["int8", "half", "full"])
def test_weights_of_a_diverged_training_are_refused(value: float, precision: str) -> None:
    with pytest.raises(CheckpointError, match=r"w: a weight is not finite.*earlier checkpoint"):
        encode_weights({"w": torch.full((200, 200), value)}, precision)


@pytest.mark.parametrize("scale", [torch.ones(3, 1), torch.ones(4), torch.ones(())])
def test_scales_that_fit_no_kernel(scale: Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"w::scale: scales .* that fit no kernel"):
        decode_weights({"w": torch.ones(4, 5, dtype=torch.int8), "w::scale": scale})
    with pytest.raises(CheckpointError, match="v::scale"):
        decode_weights({"v::scale": scale})
