"""The endless stream of training images: where a training is in it, and how it goes on there.

An image's place in the stream is its number, from 0, in each process of a run. Which image stands
there follows from the sampler, and how it is augmented from the seed and the number alone: neither
from how many processes load images nor from what was drawn before. So a training that was cut off
is given what it would have been given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from cellseg.engine.random_state import seeded, untouched_random_state
from cellseg.interrupts import is_watched, outlive_requests
from detectron2.data import ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler


class _Numbered(int):
    """The index of an image in its data set, with its number in the stream."""

    number: int


def _numbered(index: Any, number: int) -> _Numbered:
    made = _Numbered(index)
    made.number = number
    return made


class _Order(Sampler[int]):
    """What a sampler yields, numbered, from a place on.

    Args:
        sampler: yields the same whenever it is begun anew.

    Attributes:
        start: number that follows.
        waiting: numbers before `start` that come first, as they were read and not used.
    """

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler
        self.start = 0
        self.waiting: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[int]:
        indices = enumerate(self.sampler)
        wanted = frozenset(self.waiting)
        before = {number: each for number, each in islice(indices, self.start) if number in wanted}
        for number in self.waiting:
            yield _numbered(before[number], number)
        for number, index in indices:
            yield _numbered(index, number)


class _SeededImages(Dataset[Any]):
    """Images whose random numbers follow from their numbers in the stream."""

    def __init__(self, images: Any, seed: int) -> None:
        self._images = images
        self._seed = (seed, comm.get_rank())

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, _Numbered):
            return self._images[index]
        with seeded([*self._seed, index.number]):
            return self._images[int(index)]


def _begin_worker(engine_does: Callable[[int], None], outlives: bool, number: int) -> None:
    engine_does(number)
    if outlives:
        outlive_requests()


class _Watched:
    """A loader that uses up no random number, and tells what it gives."""

    def __init__(self, dataset: DataLoader[Any], given: Callable[[Any], None]) -> None:
        self.dataset = dataset
        self._given = given

    def __iter__(self) -> Iterator[Any]:
        with untouched_random_state():  # a loader draws a seed when it begins
            items = iter(self.dataset)
        for item in items:
            self._given(item)
            yield item


class TrainingStream:
    """The batches of a training, from wherever it is in its stream of images.

    Args:
        build: makes the loader, of Detectron2's `build_detection_train_loader`: called at once.
        seed: 0 or more, the same in all processes.

    Attributes:
        dataset: the loader, as loaders call what they are made of.
        seed: as given, or that of the training that goes on.
    """

    dataset: Any

    def __init__(self, build: Callable[[], Any], seed: int) -> None:
        self._build = build
        self.seed = seed
        self._giving: Generator[Any, None, None] | None = None
        self._open()

    def _open(self) -> None:
        with seeded([self.seed]):  # samplers may draw a seed of their own
            self.dataset = self._build()
        grouped = not isinstance(self.dataset, DataLoader)
        loader = self.dataset.dataset if grouped else self.dataset
        images: ToIterableDataset = loader.dataset
        images.dataset = _SeededImages(images.dataset, self.seed)
        # one by one, groups would be filled in an order that depends on the number of workers
        images.shard_chunk_size = loader.batch_size or 1
        loader.worker_init_fn = partial(_begin_worker, loader.worker_init_fn, is_watched())
        self._order = images.sampler = _Order(images.sampler)
        self._next = 0
        self._waiting: list[tuple[int, Any]] = []  # given, and kept by the groups
        self._again: list[int] = []  # to be read again, as another process kept them
        watched = _Watched(loader, self._note_image if grouped else self._note_batch)
        if grouped:
            self.dataset.dataset = watched
        self._batches = self.dataset if grouped else watched

    def __iter__(self) -> Iterator[Any]:
        """Batches from here on; images that were loaded ahead and not given are loaded again."""
        self.close()
        while True:
            if self._giving is None:
                self._order.start, self._order.waiting = self._next, tuple(self._again)
                self._giving = (batch for batch in self._batches)
            try:
                batch = next(self._giving)
            except StopIteration:
                return
            self._waiting = [(n, e) for n, e in self._waiting if not any(e is b for b in batch)]
            yield batch

    def close(self) -> None:
        """End the processes that load images; the next batch begins new ones."""
        if self._giving is not None:
            self._giving.close()
        self._giving = None

    def _note_batch(self, batch: list[Any]) -> None:
        self._next += len(batch)

    def _note_image(self, image: Any) -> None:
        """An image that waits for others of its shape."""
        if self._again:
            number = self._again.pop(0)
        else:
            number, self._next = self._next, self._next + 1
        self._waiting.append((number, image))

    def state_dict(self) -> dict[str, Any]:
        """The seed, the number of the next image, and those that wait for a batch."""
        waiting = [*(number for number, _ in self._waiting), *self._again]
        return {"seed": self.seed, "next": self._next, "waiting": waiting}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another stream was, with its seed; to be called before the first batch."""
        if state_dict["seed"] != self.seed:
            self.seed = state_dict["seed"]
            self._open()
        self._next, self._again = state_dict["next"], [*state_dict["waiting"]]
