"""Endless shuffled indices for training, every index once for inference.

All processes of a run compute the same stream from a shared seed and keep every
world-size-th index, so together they read the stream once.
"""

from __future__ import annotations

import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import Sampler

from .._require import require

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]

logger = logging.getLogger(__name__)


def _agreed_seed(seed: int | None) -> int:
    """The given seed, or one that all processes agree on."""
    return int(comm.shared_random_seed() if seed is None else seed)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _EndlessSampler(Sampler[int], ABC):
    """Epoch after epoch of indices, this process's share of them."""

    def __init__(self, shuffle: bool, seed: int | None) -> None:
        self._shuffle = shuffle
        self._seed = _agreed_seed(seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        """The stream of all processes together."""
        generator = _seeded(self._seed)
        while True:
            yield from self._get_epoch_indices(generator).tolist()

    @abstractmethod
    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        """The indices of the next epoch, in their order."""

    def _order(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randperm(count, generator=generator) if self._shuffle else torch.arange(count)


class TrainingSampler(_EndlessSampler):
    """All indices, then all again, newly shuffled each time.

    Args:
        size: number of elements, positive.
        shuffle: False gives 0, 1, ..., size - 1 over and over.
        seed: the same in all processes; None draws one that they agree on.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler: size must be an int, got {size!r}.")
        if size <= 0:
            raise ValueError(
                f"TrainingSampler: there must be something to sample, got size {size}."
            )
        super().__init__(shuffle, seed)
        self._size = size

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        return self._order(self._size, generator)


class RandomSubsetTrainingSampler(TrainingSampler):
    """A `TrainingSampler` over a random part of the data, chosen once.

    Args:
        size: number of elements of the whole.
        subset_ratio: share to keep, in (0, 1]; the number kept is rounded down.
        shuffle: whether the order changes from epoch to epoch.
        seed_shuffle: seed of the order; None draws one.
        seed_subset: seed of the choice; None draws one.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        super().__init__(size, shuffle, seed_shuffle)
        kept = int(size * subset_ratio)
        require(
            0 < kept <= size,
            f"subset_ratio must be in (0, 1] and keep something, got {subset_ratio} of {size}.",
        )
        choice = torch.randperm(size, generator=_seeded(_agreed_seed(seed_subset)))
        self._indexes_subset = choice[:kept]
        logger.info(f"Training on a random subset: {kept} of {size} elements.")

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        return self._indexes_subset[self._order(len(self._indexes_subset), generator)]


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Element i appears `repeat_factors[i]` times per epoch on average.

    The fraction of a factor is the chance of one more appearance, drawn anew each epoch.

    Args:
        repeat_factors: one non-negative number per element.
        shuffle: False keeps the elements in order.
        seed: the same in all processes; None draws one that they agree on.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(shuffle, seed)
        self._certain = repeat_factors.trunc().long()
        self._chance = repeat_factors - self._certain

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: Sequence[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Factors that show images with rare classes more often (LVIS, appendix B.2).

        A class that a share f of the images contains gets max(1, sqrt(repeat_thresh / f)), an
        image the largest factor of its classes, and 1 if it has none.

        Args:
            dataset_dicts: each with "annotations", each of which has a "category_id".
            repeat_thresh: classes in a smaller share of the images are repeated.
            sqrt: False leaves out the root.

        Returns:
            float32 tensor, one factor per image.
        """
        classes = [{a["category_id"] for a in image["annotations"]} for image in dataset_dicts]
        images_with = Counter(itertools.chain.from_iterable(classes))
        factors: dict[Any, float] = {}
        for category, count in sorted(images_with.items()):
            ratio = repeat_thresh / (count / len(classes))
            factors[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
            share = count / len(classes)
            logger.info(f"Class {category}: in {share:.2f} of images, x{factors[category]:.2f}")
        per_image = [max((factors[c] for c in found), default=1.0) for found in classes]
        return torch.tensor(per_image, dtype=torch.float32)

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        lucky = torch.rand(len(self._chance), generator=generator) < self._chance
        appearances = self._certain + lucky
        indices = torch.arange(len(appearances)).repeat_interleave(appearances)
        return indices[self._order(len(indices), generator)]


class InferenceSampler(Sampler[int]):
    """Every index exactly once over all processes, in consecutive and nearly equal shares.

    Args:
        size: number of elements, positive.
    """

    def __init__(self, size: int) -> None:
        require(size > 0, f"InferenceSampler: there must be something to read, got size {size}.")
        self._local_indices = self._get_local_indices(size, comm.get_world_size(), comm.get_rank())

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        """The first `total_size % world_size` processes read one more than the others."""
        share, extra = divmod(total_size, world_size)
        start = rank * share + min(rank, extra)
        return range(start, start + share + (rank < extra))

    def __iter__(self) -> Iterator[int]:
        return iter(self._local_indices)

    def __len__(self) -> int:
        return len(self._local_indices)
