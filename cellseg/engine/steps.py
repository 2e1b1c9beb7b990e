"""One iteration of a training: in parts, in mixed precision, and only with finite numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from cellseg.engine.non_finite import (
    StepInputs,
    find_not_finite,
    mixed_precision,
    random_state,
    stop_training,
)
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

_AMPERE = (8, 0)  # first compute capability with bfloat16


class CellStep(SimpleTrainer):
    """What Detectron2's `SimpleTrainer` and `AMPTrainer` do, with gradient accumulation and a stop.

    One iteration is one batch and one update, however many parts the batch is computed in. The
    losses of a part weigh as much as its share of the images, so that the gradient is that of the
    whole batch wherever the losses are means over images. Detectron2's are, but for masks and
    boxes, which are means over the cells of what is computed at once, a part here as a GPU there.
    Without accumulation and mixed precision all numbers are those of `SimpleTrainer`.

    Losses and gradients are looked at in every iteration, before the update, at the cost of one
    wait for the GPU; Detectron2 waits once per loss, and stores those read here. With float16 a
    gradient may overflow: the gradient scaler then skips the update, and no one stops.

    Args:
        model: may be wrapped for several processes.
        data_loader: yields lists; anything else is computed in one part.
        optimizer: over the parameters of `model`.
        accumulate: how many parts a batch is computed in, one after the other.
        precision: of the mixed precision; None without.
        output_dir: where a batch that gave no finite number is saved; None: nowhere.
        gather_metric_period: iterations between gatherings of metrics, as in `SimpleTrainer`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        precision: torch.dtype | None = None,
        output_dir: str | Path | None = None,
        gather_metric_period: int = 1,
    ) -> None:
        super().__init__(model, data_loader, optimizer, gather_metric_period)
        self.accumulate = accumulate
        self.precision = precision
        self.output_dir = output_dir
        self.device = next(model.parameters()).device
        scales = precision is torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=scales)

    def run_step(self) -> None:
        """One iteration.

        Raises:
            TrainingError: a loss or gradient is not finite; the model is as it was before.
            RuntimeError: the model is not in training mode.
        """
        if not self.model.training:
            raise RuntimeError(
                "the model is in evaluation mode: who called eval() must call train()"
            )
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_seconds = time.perf_counter() - start
        parts = split_batch(batch, self.accumulate)
        inputs = StepInputs(self.iter, parts, random_state(self.device), self.precision)
        self.optimizer.zero_grad()
        losses = self._add_gradients(inputs)
        self.after_backward()
        known = self._check_finite(losses, inputs)
        self._write_metrics(
            {name: torch.tensor(each) for name, each in known.items()}, data_seconds
        )
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _add_gradients(self, inputs: StepInputs) -> dict[str, torch.Tensor]:
        """The losses of the batch; their gradients are added to those of the parameters."""
        parts = inputs.parts
        shares = [len(part) / sum(map(len, parts)) for part in parts] if len(parts) > 1 else [1.0]
        totals: dict[str, torch.Tensor] = {}
        for number, (part, share) in enumerate(zip(parts, shares), start=1):
            with self._exchange_gradients(number == len(parts)):
                losses = self._losses_of(part, inputs)
                total: torch.Tensor = sum(losses.values()) * share  # type: ignore[assignment]
                self.grad_scaler.scale(total).backward()
            for name, loss in losses.items():
                weighted = loss.detach() * share
                totals[name] = totals[name] + weighted if name in totals else weighted
        return totals

    def _losses_of(self, part: Any, inputs: StepInputs) -> dict[str, torch.Tensor]:
        try:
            with mixed_precision(self.device.type, self.precision):
                losses = self.model(part)
        except FloatingPointError as error:  # Detectron2's proposals, before there is a loss
            self._stop_training(inputs, str(error), {}, together=comm.get_world_size() == 1)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def _exchange_gradients(self, now: bool) -> Any:
        """Between processes, once per iteration."""
        if now or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _check_finite(
        self, losses: Mapping[str, torch.Tensor], inputs: StepInputs
    ) -> dict[str, float]:
        """The losses as numbers.

        All processes stop if one has to, since none could go on alone.
        """
        values = torch.stack([*(loss.double() for loss in losses.values()), self._gradient_norm()])
        all_finite = values.isfinite().all().double()[None]
        if comm.get_world_size() > 1:
            dist.all_reduce(all_finite, dist.ReduceOp.MIN)
        *numbers, norm, finite = torch.cat([values, all_finite]).tolist()
        known = dict(zip(losses, numbers))
        if not finite:
            reason = find_not_finite(known, norm) or "another process found what is not finite"
            self._stop_training(inputs, reason, known)
        return known

    def _gradient_norm(self) -> torch.Tensor:
        """Zero with a gradient scaler, which looks at the gradients itself."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.grad_scaler.is_enabled() or not gradients:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        return torch.stack(torch._foreach_norm(gradients)).norm().double()

    def _stop_training(
        self,
        inputs: StepInputs,
        reason: str,
        losses: Mapping[str, float],
        together: bool = True,
    ) -> NoReturn:
        stop_training(
            inputs,
            self.model,
            reason,
            losses=losses,
            output_dir=self.output_dir,
            together=together,
        )

    def state_dict(self) -> dict[str, Any]:
        """What `SimpleTrainer` or, in mixed precision, `AMPTrainer` keeps, under the same keys."""
        state = super().state_dict()
        if self.precision is not None:
            # Detectron2's AMPTrainer cannot resume from an empty one
            fresh = torch.amp.GradScaler(self.device.type)
            state["grad_scaler"] = self.grad_scaler.state_dict() or fresh.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a step of any precision, Detectron2's or this."""
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler") and self.grad_scaler.is_enabled():
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def split_batch(batch: Any, count: int) -> list[Any]:
    """A batch in up to `count` parts of nearly equal size, none empty; whole if it is no list."""
    if count == 1 or not isinstance(batch, list):
        return [batch]
    bounds = [len(batch) * number // count for number in range(count + 1)]
    return [batch[low:high] for low, high in pairwise(bounds) if low < high]


def amp_precision(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """What SOLVER.AMP and CELLSEG.SOLVER.AMP_DTYPE mean on a device; None without AMP."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    wanted = cfg.CELLSEG.SOLVER.AMP_DTYPE
    if wanted == "auto":
        old_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) < _AMPERE
        wanted = "float16" if old_gpu else "bfloat16"
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def build_step(cfg: CfgNode, engine_step: SimpleTrainer) -> CellStep:
    """The step of a config, with the model, data and optimizer of the engine's own."""
    model = engine_step.model
    return CellStep(
        model,
        engine_step.data_loader,
        engine_step.optimizer,
        accumulate=cfg.CELLSEG.SOLVER.ACCUMULATE,
        precision=amp_precision(cfg, next(model.parameters()).device),
        output_dir=cfg.OUTPUT_DIR,
        gather_metric_period=engine_step.gather_metric_period,
    )
