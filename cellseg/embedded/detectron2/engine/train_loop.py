"""The training loop: a trainer repeats a step, hooks do everything else around it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from detectron2.engine._trainer_base import HookBase, TrainerBase, is_due
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]


class SimpleTrainer(TrainerBase):
    """One model, one optimizer, one source of data.

    A step takes a batch, computes the losses, their gradients, and updates the model.

    Args:
        model: returns a dict of scalar losses, or one scalar loss, in training mode (it is put
            into it here).
        data_loader: yields what the model takes; must not end before the training does.
        optimizer: updates the model.
        gather_metric_period: losses are averaged over the processes, and stored, every so many
            iterations.
        zero_grad_before_forward: clear the gradients before the model runs instead of after.
        async_write_metrics: store the losses from another thread, so that the step does not
            wait for the GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.model.train()
        self.optimizer = optimizer
        self.data_loader = data_loader
        self._data_loader_iter_obj: Iterator[Any] | None = None
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._executor: ThreadPoolExecutor | None = None
        self._writes: deque[Future[None]] = deque()

    def run_step(self) -> None:
        """One iteration.

        Raises:
            RuntimeError: the model is not in training mode any more.
            FloatingPointError: a loss is not finite.
        """
        self._check_before_step()
        before = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_seconds = time.perf_counter() - before
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        losses = self._compute_losses(batch)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(sum(losses.values()))  # type: ignore[arg-type]
        self.after_backward()
        self._store_losses(losses, data_seconds)
        self._update()

    def _check_before_step(self) -> None:
        if not self.model.training:
            raise RuntimeError(
                f"{type(self).__name__}: the model is in evaluation mode; "
                "whoever called model.eval() has to call model.train() again"
            )

    def _compute_losses(self, batch: Any) -> dict[str, torch.Tensor]:
        losses = self.model(batch)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        self.optimizer.step()

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        iterator = self._data_loader_iter_obj
        if iterator is None:  # workers start with the first batch, not before
            iterator = self._data_loader_iter_obj = iter(self.data_loader)
        return iterator

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Replace the data loader by a new one; the old one is let go first."""
        self.data_loader = ()
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    @property
    def concurrent_executor(self) -> ThreadPoolExecutor:
        """One thread that works off what it is given in order."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1)
        return self._executor

    def _store_losses(self, losses: Mapping[str, torch.Tensor], data_seconds: float) -> None:
        if not self.async_write_metrics:
            self._write_metrics(losses, data_seconds)
            return
        self._raise_failed_writes()
        self._writes.append(
            self.concurrent_executor.submit(
                self._write_metrics, losses, data_seconds, iter=self.iter
            )
        )

    def _raise_failed_writes(self) -> None:
        while self._writes and self._writes[0].done():
            self._writes.popleft().result()

    def _write_metrics(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        iteration = iter if iter is not None else self.iter
        if is_due(iteration, self.gather_metric_period):
            SimpleTrainer.write_metrics(loss_dict, data_time, iteration, prefix)

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Store the losses, averaged over the processes, and the time spent on data.

        All processes must call it together. The main one stores "data_time" (seconds, of the
        slowest process), "total_loss" (with `prefix`) and, if there are several, each loss.

        Raises:
            FloatingPointError: the total loss is infinite or not a number.
        """
        own = {name: loss.item() for name, loss in loss_dict.items()}
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        of_all = comm.gather((data_time, own))
        if not of_all:
            return
        storage.put_scalar("data_time", max(seconds for seconds, _ in of_all), cur_iter=cur_iter)
        means = {name: float(np.mean([losses[name] for _, losses in of_all])) for name in own}
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(
                f"The loss is not finite in iteration {cur_iter}: {means}. A lower learning rate, "
                "a longer warm-up or gradient clipping may help."
            )
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
        if len(means) > 1:
            storage.put_scalars(cur_iter=cur_iter, **means)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """State of the loop and of the optimizer."""
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])

    def after_train(self) -> None:
        """Wait for what is still to be stored, then run the hooks of the same name."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None
        super().after_train()
        self._raise_failed_writes()


class AMPTrainer(SimpleTrainer):
    """Computes the losses in mixed precision, on the device that the model is on.

    Args:
        model: as in `SimpleTrainer`, but not spread over several devices by one process.
        data_loader: as in `SimpleTrainer`, like the arguments that are not named here.
        optimizer: as in `SimpleTrainer`.
        grad_scaler: scales the loss, so that small gradients survive; None makes one.
        precision: type of the cheap part of the computation.
        log_grad_scaler: store the scale in every iteration.

    Raises:
        ValueError: one process spreads the model over several devices.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: Any = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        if isinstance(model, nn.DataParallel) or len(getattr(model, "device_ids", None) or ()) > 1:
            raise ValueError("AMPTrainer needs one process per device")
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        self._device_type = next(iter(model.parameters())).device.type
        self.grad_scaler = grad_scaler or torch.amp.GradScaler(self._device_type)
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler

    def _compute_losses(self, batch: Any) -> dict[str, torch.Tensor]:
        with torch.autocast(self._device_type, dtype=self.precision):
            return super()._compute_losses(batch)

    def _backward(self, loss: torch.Tensor) -> None:
        self.grad_scaler.scale(loss).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State of the loop, the optimizer and the scale."""
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
