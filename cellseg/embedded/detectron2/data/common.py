"""Datasets that wrap datasets: mapped, stored compactly, streamed, grouped by shape."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from ._require import require

__all__ = ["AspectRatioGroupedDataset", "DatasetFromList", "MapDataset", "ToIterableDataset"]

logger = logging.getLogger(__name__)

_RETRIES_BEFORE_WARNING = 3


class _MappedStream(IterableDataset):
    """`MapDataset` over an iterable dataset: elements mapped to None are left out."""

    def __init__(self, dataset: Any, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        mapped = (self._map_func(element) for element in self._dataset)
        return (result for result in mapped if result is not None)


class MapDataset(Dataset):
    """A dataset with a function applied to each element.

    `map_func` may return None to refuse an element. From an indexed dataset another one, drawn
    at random, then takes its place; an iterable dataset (for which the result is iterable too)
    goes on with the next. Lambdas and local functions survive the way into worker processes.
    """

    def __new__(cls, dataset: Any, map_func: Callable[[Any], Any]) -> Any:
        if isinstance(dataset, IterableDataset):
            return _MappedStream(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset: Any, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)
        self._rng = random.Random(42)
        self._usable = set(range(len(dataset)))

    def __getnewargs__(self) -> tuple[Any, Callable[[Any], Any]]:
        return self._dataset, self._map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        """The mapped element `idx`, or another one if the function refuses it.

        Raises:
            ValueError: every element was refused.
        """
        chosen = int(idx)
        for attempt in itertools.count(1):
            result = self._map_func(self._dataset[chosen])
            if result is not None:
                self._usable.add(chosen)
                return result
            self._usable.discard(chosen)
            if not self._usable:
                raise ValueError(f"The mapper returned None for all {len(self)} elements.")
            chosen = self._rng.choice(list(self._usable))
            if attempt >= _RETRIES_BEFORE_WARNING:
                logger.warning(f"The mapper refused element {idx} and {attempt - 1} in its place.")


class _TorchSerializedList:
    """A list kept as pickles in one tensor.

    Worker processes share the tensor's memory. A plain list would be copied into each of them
    bit by bit, because reading an object writes its reference count.
    """

    def __init__(self, lst: list[Any]) -> None:
        pickles = [pickle.dumps(element, protocol=-1) for element in lst]
        ends = itertools.accumulate(map(len, pickles), initial=0)
        self._bounds = torch.tensor(list(ends), dtype=torch.int64)
        self._bytes = torch.from_numpy(np.frombuffer(bytearray().join(pickles), dtype=np.uint8))
        logger.info(f"{len(lst)} dataset elements take {self._bytes.numel() / 2**20:.2f} MiB.")

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, idx: int) -> Any:
        start, end = self._bounds[range(len(self))[idx] :][:2].tolist()
        return pickle.loads(self._bytes[start:end].numpy().data)


_default_serialize: Callable[[list[Any]], Any] = _TorchSerializedList


@contextlib.contextmanager
def set_default_dataset_from_list_serialize_method(
    new: Callable[[list[Any]], Any],
) -> Iterator[None]:
    """Inside the `with`, `DatasetFromList(..., serialize=True)` stores its list as `new(list)`."""
    global _default_serialize
    previous, _default_serialize = _default_serialize, new
    try:
        yield
    finally:
        _default_serialize = previous


class DatasetFromList(Dataset):
    """A list as a dataset.

    Args:
        lst: the elements.
        copy: hand out deep copies, so that a caller may change them. Without effect where the
            list is serialized, which gives fresh objects anyway.
        serialize: True keeps the elements as bytes that worker processes share, False keeps the
            list, a callable makes the storage from the list.
    """

    def __init__(
        self,
        lst: list[Any],
        copy: bool = True,
        serialize: bool | Callable[[list[Any]], Any] = True,
    ) -> None:
        if not (callable(serialize) or isinstance(serialize, bool)):
            raise TypeError(f"serialize must be a bool or a callable, got {serialize!r}.")
        store = _default_serialize if serialize is True else serialize
        self._lst = store(lst) if callable(store) else lst
        self._copies = copy and serialize is False

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        element = self._lst[idx]
        return copy.deepcopy(element) if self._copies else element


class ToIterableDataset(IterableDataset):
    """An indexed dataset read in the order of a sampler.

    Inside a DataLoader every worker runs the whole sampler, so each must keep its own share.

    Args:
        dataset: has `__getitem__`.
        sampler: yields indices; cheap, since every worker runs through all of them.
        shard_sampler: False where the sampler itself already differs between workers.
        shard_chunk_size: a worker takes this many consecutive indices, then the next worker
            does. With the batch size here, a batch holds what it would hold without workers.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: Sampler,
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        require(
            not isinstance(dataset, IterableDataset),
            f"ToIterableDataset needs an indexed dataset, got the iterable {dataset!r}.",
        )
        require(
            isinstance(sampler, Sampler), f"ToIterableDataset needs a Sampler, not {sampler!r}."
        )
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        indices = _own_share(self.sampler, self.shard_chunk_size)
        return map(self.dataset.__getitem__, indices if self.shard_sampler else self.sampler)


def _own_share(indices: Iterable[int], chunk_size: int) -> Iterator[int]:
    """Of consecutive chunks, dealt to the DataLoader's workers in turn, those of this worker."""
    worker = get_worker_info()
    if worker is None:
        yield from indices
        return
    for position, index in enumerate(indices):
        if position // chunk_size % worker.num_workers == worker.id:
            yield index


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all wider than high, or all not.

    Such batches need less padding. An element waits until its group has enough for a batch,
    also from one iteration to the next.

    Args:
        dataset: iterable of dicts with "width" and "height".
        batch_size: length of the lists that come out.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: list[list[dict[str, Any]]] = [[], []]

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for element in self.dataset:
            group = int(element["width"] <= element["height"])
            self._buckets[group].append(element)
            if len(self._buckets[group]) == self.batch_size:
                # emptied before the yield: a caller that stops there never comes back
                batch, self._buckets[group] = self._buckets[group], []
                yield batch
