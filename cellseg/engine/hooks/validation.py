"""The training's losses on images that are not trained on."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from cellseg.engine.hooks.schedule import AfterEvaluation
from cellseg.engine.random_state import untouched_random_state
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.config import CfgNode
from detectron2.data import (
    build_detection_test_loader,
    detection_utils,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_SEED = 0
_AS_IN_EVALUATION = (_BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._NormBase)

logger = logging.getLogger(__name__)


class ValidationLoss(AfterEvaluation):
    """Stores "validation_loss" and, as "validation/<part>", each loss, at every evaluation.

    The losses are those of training, on images as the evaluation sees them, averaged over images.
    Which anchors and proposals count is drawn from the same random numbers each time. Nothing is
    changed by it: not the weights, no statistics of norms, no random numbers.

    With several datasets the names begin with "<dataset>/".

    Args:
        period: iterations between evaluations, TEST.EVAL_PERIOD.
        loaders: by dataset; each yields batches with annotations, in every process its own part.
    """

    def __init__(self, period: int, loaders: Mapping[str, Iterable[list[dict[str, Any]]]]) -> None:
        super().__init__(period)
        self._loaders = loaders

    def act(self) -> None:
        """Compute the losses now, and store them."""
        model = self.trainer.checkpointer.model
        for name, loader in self._loaders.items():
            losses = average_losses(model, loader)
            prefix = f"{name}/" if len(self._loaders) > 1 else ""
            if not losses or not comm.is_main_process():
                continue
            total = sum(losses.values())
            parts = {
                f"{prefix}validation/{_short_loss_name(key)}": value
                for key, value in losses.items()
            }
            metrics = {f"{prefix}validation_loss": total, **parts}
            self.trainer.storage.put_scalars(**metrics, smoothing_hint=False)
            logger.info(
                "Validation loss on %s: %.4g (%s)",
                *(name, total),
                ", ".join(f"{_short_loss_name(key)} {value:.4g}" for key, value in losses.items()),
            )


def _short_loss_name(name: str) -> str:
    """Without "loss": every log line repeats all names that have it."""
    return name.removeprefix("loss_")


def build_validation_loaders(cfg: CfgNode) -> dict[str, Iterable[list[dict[str, Any]]]]:
    """The images of each of DATASETS.TEST, not augmented, with their cells, one by one."""
    mapper = CellDatasetMapper(
        is_train=True,
        augmentations=detection_utils.build_augmentation(cfg, False),
        **{
            key: value
            for key, value in CellDatasetMapper.from_config(cfg, False).items()
            if key not in ("is_train", "augmentations")
        },
    )
    most = cfg.CELLSEG.TRAIN.VALIDATION_IMAGES or None
    return {
        name: build_detection_test_loader(
            get_detection_dataset_dicts([name], filter_empty=False)[:most],
            mapper=mapper,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        for name in cfg.DATASETS.TEST
    }


def average_losses(
    model: nn.Module, loader: Iterable[Sequence[dict[str, Any]]]
) -> dict[str, float]:
    """Losses of a model in training mode, averaged over the images of all processes.

    Args:
        model: not wrapped for several processes.
        loader: yields batches as in training.

    Returns:
        By name of the loss; empty if there was no image.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    count = 0
    device = next(model.parameters()).device
    with torch.no_grad(), untouched_random_state(device), _as_in_training(model), EventStorage():
        torch.manual_seed(_SEED)
        for batch in loader:
            losses = model(batch)
            for name, value in losses.items():
                sums[name] += float(value) * len(batch)
            count += len(batch)
    parts = comm.all_gather((dict(sums), count))
    images = sum(number for _, number in parts)
    names = dict.fromkeys(name for part, _ in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part, _ in parts) / images for name in names}


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """Training mode, but without dropout and with the norms' statistics as they are."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    for module in model.modules():
        if isinstance(module, _AS_IN_EVALUATION):
            module.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for buffer, before in buffers:
            buffer.copy_(before)
