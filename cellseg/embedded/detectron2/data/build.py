"""Loaders of batches, from a config or from parts."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils.data as torchdata
from detectron2._missing import left_out_names
from detectron2.config import configurable
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng

from ._require import left_out, require
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .dataset_dicts import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from .dataset_mapper import DatasetMapper
from .detection_utils import check_metadata_consistency as check_metadata_consistency
from .samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]

logger = logging.getLogger(__name__)


def build_batch_data_loader(
    dataset: Any,
    sampler: Any,
    total_batch_size: int | None,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int = 2,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    """A loader whose batches are lists, in the same order whatever the number of workers.

    Args:
        dataset: indexed or iterable.
        sampler: yields indices; None exactly where `dataset` is iterable.
        total_batch_size: over all processes; a multiple of their number.
        aspect_ratio_grouping: batches of images that are all wider than high, or all not; then
            elements are dicts with "width" and "height".
        num_workers, prefetch_factor, persistent_workers, pin_memory: as for a `DataLoader`.
        collate_fn: makes the batch from the list; None leaves the list.
        drop_last: leave out a last batch that is not full. Groups always do.
        single_gpu_batch_size: of this process, instead of `total_batch_size`.
        seed: of the loader's generator, from which the workers are seeded.
        **kwargs: for the `DataLoader`.
    """
    batch_size = _own_batch_size(total_batch_size, single_gpu_batch_size)
    logger.info(f"Batch size of this process: {batch_size}")
    if isinstance(dataset, torchdata.IterableDataset):
        require(sampler is None, "An iterable dataset has its own order: sampler must be None.")
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    options: dict[str, Any] = dict(
        num_workers=num_workers,
        prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=persistent_workers,
        pin_memory=pin_memory,
        worker_init_fn=worker_init_reset_seed,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
        **kwargs,
    )
    if not aspect_ratio_grouping:
        options.update(batch_size=batch_size, drop_last=drop_last)
        return torchdata.DataLoader(
            dataset, collate_fn=collate_fn or trivial_batch_collator, **options
        )
    require(drop_last, "Grouping by aspect ratio leaves out batches that are not full.")
    singles = torchdata.DataLoader(dataset, collate_fn=operator.itemgetter(0), **options)
    batches = AspectRatioGroupedDataset(singles, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def _own_batch_size(total: int | None, own: int | None) -> int:
    if own and total:
        raise ValueError(
            f"Give total_batch_size ({total}) or single_gpu_batch_size ({own}), not both."
        )
    if own:
        return own
    share, rest = divmod(total or 0, get_world_size())
    require(
        share > 0 and rest == 0,
        f"The total batch size ({total}) must be a positive multiple of the number of processes "
        f"({get_world_size()}).",
    )
    return share


def _load_training_dicts(cfg: Any, names: Sequence[str]) -> Any:
    if cfg.MODEL.LOAD_PROPOSALS:
        raise left_out("MODEL.LOAD_PROPOSALS")
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    return get_detection_dataset_dicts(
        names, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, min_keypoints=keypoints
    )


def _class_repeat_factors(cfg: Any, dataset: Any) -> torch.Tensor:
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
    )


def _weighted_sampler(cfg: Any, balance_classes: bool) -> RepeatFactorTrainingSampler:
    """Repeat each image as its dataset says in DATASETS.TRAIN_REPEAT_FACTOR (1 where it is not).

    With `balance_classes`, times the factor for rare classes in its dataset, relative to the
    smallest product.
    """
    weights = dict(cfg.DATASETS.TRAIN_REPEAT_FACTOR)
    unknown = weights.keys() - set(cfg.DATASETS.TRAIN)
    require(not unknown, f"DATASETS.TRAIN_REPEAT_FACTOR names {unknown}, DATASETS.TRAIN does not.")
    factors = []
    for name in cfg.DATASETS.TRAIN:
        images = _load_training_dicts(cfg, [name])
        of_class = (
            _class_repeat_factors(cfg, images) if balance_classes else torch.ones(len(images))
        )
        factors.append(of_class * weights.get(name, 1))
    products = torch.cat(factors)
    return RepeatFactorTrainingSampler(products / products.min() if balance_classes else products)


_TRAINING_SAMPLERS: dict[str, Callable[[Any, Any], torchdata.Sampler]] = {
    "TrainingSampler": lambda cfg, dataset: TrainingSampler(len(dataset), seed=cfg.SEED),
    "RepeatFactorTrainingSampler": lambda cfg, dataset: RepeatFactorTrainingSampler(
        _class_repeat_factors(cfg, dataset), seed=cfg.SEED
    ),
    "RandomSubsetTrainingSampler": lambda cfg, dataset: RandomSubsetTrainingSampler(
        len(dataset), cfg.DATALOADER.RANDOM_SUBSET_RATIO
    ),
    "WeightedTrainingSampler": lambda cfg, dataset: _weighted_sampler(cfg, False),
    "WeightedCategoryTrainingSampler": lambda cfg, dataset: _weighted_sampler(cfg, True),
}


def _build_training_sampler(cfg: Any, dataset: Any) -> torchdata.Sampler | None:
    if isinstance(dataset, torchdata.IterableDataset):
        return None
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name not in _TRAINING_SAMPLERS:
        raise ValueError(
            f"Unknown training sampler '{name}' in DATALOADER.SAMPLER_TRAIN; there are: "
            f"{', '.join(_TRAINING_SAMPLERS)}."
        )
    logger.info(f"Training sampler: {name}")
    return _TRAINING_SAMPLERS[name](cfg, dataset)


def _train_loader_from_config(
    cfg: Any, mapper: Any = None, *, dataset: Any = None, sampler: Any = None
) -> dict[str, Any]:
    images = _load_training_dicts(cfg, cfg.DATASETS.TRAIN) if dataset is None else dataset
    return {
        "dataset": images,
        "mapper": DatasetMapper(cfg, True) if mapper is None else mapper,
        "sampler": _build_training_sampler(cfg, images) if sampler is None else sampler,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: Any,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: torchdata.Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """An endless loader for training; also callable as `build_detection_train_loader(cfg)`.

    Args:
        dataset: a list of dicts in Detectron2's dataset format, or a torch dataset.
        mapper: makes of a dict what the model is given; None for no change.
        sampler: for an indexed dataset; None is a `TrainingSampler`.
        total_batch_size, ..., **kwargs: as for `build_batch_data_loader`.

    Returns:
        Iterable of lists, each as long as the batch of this process.
    """
    images = _mapped(dataset, mapper)
    return build_batch_data_loader(
        images,
        _fitting_sampler(images, sampler, TrainingSampler),
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(
    cfg: Any, dataset_name: str | Sequence[str], mapper: Any = None
) -> dict[str, Any]:
    if cfg.MODEL.LOAD_PROPOSALS:
        raise left_out("MODEL.LOAD_PROPOSALS")
    images = get_detection_dataset_dicts(dataset_name, filter_empty=False)
    return {
        "dataset": images,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "sampler": _fitting_sampler(images, None, InferenceSampler),
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: Any,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: torchdata.Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> torchdata.DataLoader:
    """Every image once, in order; also callable as `build_detection_test_loader(cfg, name)`.

    Args:
        dataset, mapper, num_workers, collate_fn: as for `build_detection_train_loader`.
        sampler: for an indexed dataset; None is an `InferenceSampler`.
        batch_size: of this process; the last batch may be shorter.
    """
    images = _mapped(dataset, mapper)
    return torchdata.DataLoader(
        images,
        sampler=_fitting_sampler(images, sampler, InferenceSampler),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _mapped(dataset: Any, mapper: Callable[[dict[str, Any]], Any] | None) -> Any:
    images = DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
    return images if mapper is None else MapDataset(images, mapper)


def _fitting_sampler(
    dataset: Any,
    sampler: torchdata.Sampler | None,
    default: Callable[[int], torchdata.Sampler],
) -> torchdata.Sampler | None:
    """The given sampler, else the default; None for an iterable dataset."""
    if isinstance(dataset, torchdata.IterableDataset):
        require(sampler is None, "An iterable dataset has its own order: sampler must be None.")
        return None
    return default(len(dataset)) if sampler is None else sampler


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """The batch as it is."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Give a worker its own random numbers, derived from the seed that torch gave it."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


__getattr__ = left_out_names(__name__, "load_proposals_into_dataset")
