"""Random numbers of a process: kept, restored, left alone, and drawn for one thing by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def read_random_state(device: torch.device | str = "cpu") -> State:
    """Where the generators of Python, NumPy and PyTorch are, as tensors and plain numbers.

    Args:
        device: its generator is kept too, beside those of the CPU.

    Returns:
        What `write_random_state` takes, and `torch.load` reads with `weights_only=True`.
    """
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 -- what augmentations draw from
    assert isinstance(numpy, dict)
    state = {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "position": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    device = torch.device(device)
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def write_random_state(state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
    """Put the generators where `read_random_state` found them.

    Args:
        state: of a process on the same kind of device; a generator that it lacks stays as it is.
        device: as for `read_random_state`.
    """
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    words = numpy["words"].numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", words, numpy["position"], numpy["has_gauss"], numpy["gauss"])
    )
    torch.set_rng_state(state["torch"])
    device = torch.device(device)
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def untouched_random_state(device: torch.device | str = "cpu") -> Iterator[None]:
    """Random numbers that are drawn inside leave no trace in what is drawn afterwards.

    Args:
        device: its generator is restored too, beside those of the CPU, NumPy and Python.
    """
    python = random.getstate()
    numpy = np.random.get_state()  # noqa: NPY002 -- what is to be kept
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def seeded(numbers: Sequence[int]) -> Iterator[None]:
    """What is drawn inside, on the CPU, follows from some whole numbers alone.

    Args:
        numbers: 0 or more each; any other numbers give other draws.

    Example:
        >>> with seeded([1, 0, 7]):
        ...     first = random.random()
        >>> with seeded([1, 0, 7]):
        ...     first == random.random()
        True
    """
    for_python, for_numpy, low, high = np.random.SeedSequence(numbers).generate_state(4).tolist()
    with untouched_random_state():
        random.seed(for_python)
        np.random.seed(for_numpy)  # noqa: NPY002
        # not torch.manual_seed, which would seed the generators of GPUs too
        torch.default_generator.manual_seed(low | (high & 0x7FFFFFFF) << 32)
        yield
