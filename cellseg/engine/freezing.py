"""Parts of the model that do not learn in the first iterations, or never."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from cellseg.config import numbers_by_name
from cellseg.engine.name_prefixes import match_prefixes
from cellseg.errors import ConfigError
from detectron2.config import CfgNode
from detectron2.engine import HookBase, create_ddp_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

KEY = "CELLSEG.SOLVER.FREEZE"

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class FrozenPart:
    """What one entry of the schedule freezes.

    Attributes:
        iterations: frozen in the first so many; -1 for ever.
        statistics: layers that keep running statistics, which stand still as well.
        frozen: whether it is so now.
    """

    prefix: str
    iterations: int
    parameters: list[nn.Parameter] = field(default_factory=list)
    statistics: list[nn.Module] = field(default_factory=list)
    frozen: bool = False

    def is_due(self, iteration: int) -> bool:
        """Whether it is to be frozen in this iteration."""
        return self.iterations < 0 or iteration < self.iterations

    def set_frozen(self, frozen: bool) -> None:
        """Freeze or thaw."""
        self.frozen = frozen
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
            parameter.grad = None
        self.keep_statistics()

    def keep_statistics(self) -> None:
        """Running statistics stand still while it is frozen, whoever called `model.train()`."""
        for layer in self.statistics:
            layer.train(not self.frozen)


class FreezeSchedule(HookBase):
    """Freezes parts of the model before the first iteration and thaws each when its time comes.

    A frozen parameter takes part in no backward pass, has no gradient, and no optimizer changes
    it, not by weight decay either. All parameters stay in the optimizer, so that a checkpoint can
    be resumed at any time, with another schedule too: what is frozen follows from the iteration
    alone. With several processes the model is wrapped anew when something changes, for
    `DistributedDataParallel` waits for the gradients of those parameters that had one when it was
    made. What the model itself froze (MODEL.BACKBONE.FREEZE_AT) stays so.

    Args:
        model: the model itself, not wrapped for several processes.
        schedule: iterations by beginning of parameter names.

    Raises:
        ConfigError: a name is of no parameter, or nothing would be left to train.
    """

    def __init__(self, model: nn.Module, schedule: dict[str, int]) -> None:
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        names = [name for name, _ in model.named_parameters()]
        prefixes = match_prefixes(KEY, schedule, names)
        if trainable and trainable.keys() <= prefixes.keys():
            raise ConfigError(
                f"{KEY} freezes all parameters at the start: nothing could be trained"
            )
        parts = {prefix: FrozenPart(prefix, count) for prefix, count in schedule.items()}
        for name, parameter in trainable.items():
            if name in prefixes:
                parts[prefixes[name]].parameters.append(parameter)
        for name, layer in model.named_modules():
            # a layer belongs to the part that its own parameters belong to
            own = [
                prefixes.get(f"{name}.{last}") for last, _ in layer.named_parameters(recurse=False)
            ]
            if own and own[0] is not None and getattr(layer, "running_mean", None) is not None:
                parts[own[0]].statistics.append(layer)
        self.parts = list(parts.values())

    def before_step(self) -> None:
        """Freeze and thaw what is due."""
        if self.apply(self.trainer.iter):
            self._wrap_anew()

    def apply(self, iteration: int) -> bool:
        """Freeze and thaw what is due; whether anything changed."""
        changes = [part for part in self.parts if part.is_due(iteration) != part.frozen]
        for part in changes:
            part.set_frozen(not part.frozen)
            self._log_change(part, iteration)
        for part in self.parts:
            part.keep_statistics()
        return bool(changes)

    @staticmethod
    def _log_change(part: FrozenPart, iteration: int) -> None:
        size = sum(parameter.numel() for parameter in part.parameters)
        if not part.frozen:
            logger.info(
                "Iteration %d: %s thaws (%s parameters)", iteration, part.prefix, f"{size:,}"
            )
            return
        until = "for ever" if part.iterations < 0 else f"before iteration {part.iterations}"
        logger.info("Frozen %s: %s (%s parameters)", until, part.prefix, f"{size:,}")

    def _wrap_anew(self) -> None:
        model = self.trainer.model
        if isinstance(model, DistributedDataParallel):
            self.trainer.model = create_ddp_model(model.module, broadcast_buffers=False)


def build_freezing(cfg: CfgNode, model: torch.nn.Module) -> FreezeSchedule | None:
    """The hook of CELLSEG.SOLVER.FREEZE; None where it is empty.

    Args:
        model: may be wrapped for several processes.

    Raises:
        ConfigError: see `FreezeSchedule`.
    """
    schedule = numbers_by_name("SOLVER.FREEZE", cfg.CELLSEG.SOLVER.FREEZE)
    if not schedule:
        return None
    bare = getattr(model, "module", model)
    return FreezeSchedule(bare, {prefix: int(count) for prefix, count in schedule.items()})
