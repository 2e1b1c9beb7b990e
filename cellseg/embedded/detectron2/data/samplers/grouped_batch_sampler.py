"""Batches of indices that belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import BatchSampler, Sampler

from .._require import require

__all__ = ["GroupedBatchSampler"]


class GroupedBatchSampler(BatchSampler):
    """Batches whose indices all have the same group, else in the order of the sampler.

    Args:
        sampler: yields indices in [0, N).
        group_ids: N integers, the group of each index.
        batch_size: length of the lists that come out; indices that do not fill one are kept
            for the next iteration.
    """

    def __init__(self, sampler: Sampler[int], group_ids: Sequence[int], batch_size: int) -> None:
        if not isinstance(sampler, Sampler):
            raise ValueError(f"GroupedBatchSampler needs a Sampler, got {sampler!r}.")
        self.group_ids = np.asarray(group_ids)
        require(self.group_ids.ndim == 1, f"group_ids must be flat, got {self.group_ids.shape}.")
        self.sampler = sampler
        self.batch_size = batch_size
        self.buffer_per_group: dict[int, list[int]] = defaultdict(list)

    def __iter__(self) -> Iterator[list[int]]:
        for index in self.sampler:
            group = int(self.group_ids[index])
            self.buffer_per_group[group].append(index)
            if len(self.buffer_per_group[group]) == self.batch_size:
                yield self.buffer_per_group.pop(group)

    def __len__(self) -> int:
        raise NotImplementedError("How many batches there will be depends on the order.")
