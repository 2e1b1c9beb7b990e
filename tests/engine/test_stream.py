"""The stream of training images goes on where it was, whoever loads the images."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from cellseg.engine.random_state import read_random_state, seeded, write_random_state
from cellseg.engine.stream import TrainingStream
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RandomSubsetTrainingSampler, TrainingSampler

SHAPES = [(8, 4), (4, 8), (8, 4), (4, 8), (4, 8), (8, 4), (4, 8)]
ENTRIES = [{"image_id": n, "width": w, "height": h} for n, (w, h) in enumerate(SHAPES)]


def draw(entry: dict[str, Any]) -> dict[str, Any]:
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    return {**entry, "drawn": drawn}


def make(*, grouped: bool, workers: int = 0, seed: int = 3, subset: bool = False) -> TrainingStream:
    def build() -> Any:
        sampler = RandomSubsetTrainingSampler(7, 0.8) if subset else TrainingSampler(7, seed=5)
        return build_detection_train_loader(
            ENTRIES,
            mapper=draw,
            sampler=sampler,
            total_batch_size=2,
            aspect_ratio_grouping=grouped,
            num_workers=workers,
        )

    return TrainingStream(build, seed)


def take(stream: TrainingStream, count: int) -> list[Any]:
    taken = [
        [(image["image_id"], image["drawn"]) for image in batch]
        for batch in islice(iter(stream), count)
    ]
    stream.close()
    return taken


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("cut", [1, 2, 3, 6])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_another_was(grouped: bool, cut: int, workers: int) -> None:
    expected = take(make(grouped=grouped), 12)
    first = make(grouped=grouped, workers=workers)
    assert take(first, cut) == expected[:cut]
    second = make(grouped=grouped)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert take(second, 12 - cut) == expected[cut:]


def test_a_stream_goes_on_after_it_was_closed() -> None:
    expected = take(make(grouped=True), 9)
    stream = make(grouped=True)
    assert [*take(stream, 4), *take(stream, 5)] == expected


def test_the_seed_is_that_of_the_training_that_goes_on() -> None:
    first = make(grouped=False, seed=8, subset=True)
    expected = take(make(grouped=False, seed=8, subset=True), 6)
    take(first, 2)
    second = make(grouped=False, seed=1, subset=True)
    second.load_state_dict(first.state_dict())
    assert take(second, 4) == expected[2:]
    assert take(make(grouped=False, seed=1, subset=True), 6) != expected


def test_loading_uses_no_random_number_up() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    take(make(grouped=True), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_states_survive_a_file(tmp_path: Any) -> None:
    np.random.randn()  # noqa: NPY002 -- so that half a pair of normal numbers is kept
    torch.save(read_random_state(), tmp_path / "state.pth")

    def numbers() -> list[float]:
        return [random.gauss(0, 1), *np.random.randn(3), *torch.randn(3).tolist()]  # noqa: NPY002

    expected = numbers()
    with seeded([1, 2]):
        numbers()
    write_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert numbers() == expected
