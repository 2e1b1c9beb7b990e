# ruff: noqa: NPY002 (the engine draws from numpy's global generator)
"""In which order images are read."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from torch.utils.data import SequentialSampler


def take(sampler: Any, count: int) -> list[Any]:
    """At most `count` of what it yields; `list` would ask for a length first."""
    return list(itertools.islice(sampler, count))


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)


def test_training_reads_permutations_of_everything() -> None:
    order = take(TrainingSampler(5, seed=3), 15)
    epochs = [order[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    generator = torch.Generator()
    generator.manual_seed(3)
    assert epochs == [torch.randperm(5, generator=generator).tolist() for _ in range(3)]
    assert order == take(TrainingSampler(5, seed=3), 15)
    assert order != take(TrainingSampler(5, seed=4), 15)


def test_training_without_shuffling() -> None:
    assert take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_training_seed_comes_from_numpy_if_not_given() -> None:
    np.random.seed(0)
    first = take(TrainingSampler(20), 40)
    np.random.seed(0)
    assert take(TrainingSampler(20), 40) == first


def test_processes_share_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(TrainingSampler(7, seed=1), 20)
    shares = []
    for rank in range(2):
        as_process(monkeypatch, rank, 2)
        shares.append(take(TrainingSampler(7, seed=1), 10))
    assert shares == [whole[0::2], whole[1::2]]


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_training_needs_something_to_read(size: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        TrainingSampler(size)


def test_random_subset_stays_the_same() -> None:
    sampler = RandomSubsetTrainingSampler(10, 0.35, seed_shuffle=1, seed_subset=2)
    order = take(sampler, 9)
    generator = torch.Generator()
    generator.manual_seed(2)
    subset = torch.randperm(10, generator=generator)[:3].tolist()  # 10 * 0.35, rounded down
    assert [sorted(order[i : i + 3]) for i in (0, 3, 6)] == [sorted(subset)] * 3
    unshuffled = RandomSubsetTrainingSampler(10, 0.35, shuffle=False, seed_subset=2)
    assert take(unshuffled, 6) == subset * 2


@pytest.mark.parametrize("ratio", [0.0, 1.5, 0.01])
def test_random_subset_ratio_is_checked(ratio: float) -> None:
    with pytest.raises(AssertionError):
        RandomSubsetTrainingSampler(10, ratio)


def test_repeat_factors_hold_on_average() -> None:
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.5, 0.25]), seed=5)
    counts = Counter(take(sampler, 3750))  # 1000 epochs of 3.75 on average
    assert counts[0] == pytest.approx(1000, abs=30)
    assert counts[1] == pytest.approx(2500, abs=60)
    assert counts[2] == pytest.approx(250, abs=60)


def test_whole_repeat_factors_are_exact() -> None:
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 3.0]), shuffle=False, seed=0)
    assert take(sampler, 8) == [0, 1, 1, 1, 0, 1, 1, 1]
    shuffled = take(RepeatFactorTrainingSampler(torch.tensor([1.0, 3.0]), seed=0), 8)
    assert sorted(shuffled[:4]) == [0, 1, 1, 1]


def test_repeat_factors_from_classes() -> None:
    # class 0 in 2 of 4 images, class 1 in 1 of 4
    images = [
        {"annotations": [{"category_id": 0}, {"category_id": 1}, {"category_id": 1}]},
        {"annotations": [{"category_id": 0}]},
        {"annotations": []},
        {"annotations": []},
    ]
    compute = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    factors = compute(images, repeat_thresh=0.75)
    assert factors.dtype == torch.float32
    assert factors.tolist() == pytest.approx([math.sqrt(3), math.sqrt(1.5), 1, 1])
    assert compute(images, 0.75, sqrt=False).tolist() == pytest.approx([3, 1.5, 1, 1])
    assert compute(images, 0.1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("size", [1, 7, 8, 42])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_inference_reads_everything_once(
    monkeypatch: pytest.MonkeyPatch, size: int, world_size: int
) -> None:
    shares = []
    for rank in range(world_size):
        as_process(monkeypatch, rank, world_size)
        sampler = InferenceSampler(size)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    assert list(itertools.chain.from_iterable(shares)) == list(range(size))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_inference_needs_something_to_read() -> None:
    with pytest.raises(AssertionError):
        InferenceSampler(0)


def test_grouped_batches() -> None:
    sampler = GroupedBatchSampler(SequentialSampler(range(6)), [0, 1, 0, 1, 1, 1], batch_size=2)
    assert take(sampler, 9) == [[0, 2], [1, 3], [4, 5]]
    with pytest.raises(NotImplementedError):
        len(sampler)
    with pytest.raises(ValueError, match="ampler"):
        GroupedBatchSampler([0, 1], [0, 0], 1)
    with pytest.raises(AssertionError):
        GroupedBatchSampler(SequentialSampler(range(2)), [[0, 1]], 1)


def test_grouped_batches_keep_what_is_left() -> None:
    sampler = GroupedBatchSampler(SequentialSampler(range(3)), [0, 0, 0], batch_size=2)
    assert take(sampler, 9) == [[0, 1]]
    assert take(sampler, 9) == [[2, 0], [1, 2]]
