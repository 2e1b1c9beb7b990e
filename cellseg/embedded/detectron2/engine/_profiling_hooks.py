"""Hooks that look at time and memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.engine._trainer_base import HookBase, is_due
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

_logger = logging.getLogger(__name__)


class TorchProfiler(HookBase):
    """Profiles chosen iterations with `torch.profiler`.

    Args:
        enable_predicate: gets the trainer, says whether to profile the coming iteration.
        output_dir: for `profiler-trace-iter<N>.json`, or `log/` for TensorBoard.
        activities: as in `torch.profiler.profile`.
        save_tensorboard: write for TensorBoard.
    """

    def __init__(
        self,
        enable_predicate: Callable[[Any], bool],
        output_dir: str,
        *,
        activities: Iterable[torch.profiler.ProfilerActivity] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        """Start if this iteration is wanted."""
        if not self._enable_predicate(self.trainer):
            return
        on_ready = None
        if self._save_tensorboard:
            folder = os.path.join(
                self._output_dir, "log", f"profiler-tensorboard-iter{self.trainer.iter}"
            )
            on_ready = torch.profiler.tensorboard_trace_handler(folder, f"worker{comm.get_rank()}")
        self._profiler = torch.profiler.profile(
            activities=self._activities,
            on_trace_ready=on_ready,
            profile_memory=True,
            record_shapes=True,
            with_flops=True,
            with_stack=True,
        )
        self._profiler.start()

    def after_step(self) -> None:
        """Stop and write."""
        if self._profiler is None:
            return
        self._profiler.stop()
        if not self._save_tensorboard:
            PathManager.mkdirs(self._output_dir)
            name = f"profiler-trace-iter{self.trainer.iter}.json"
            self._profiler.export_chrome_trace(os.path.join(self._output_dir, name))
        self._profiler = None


class TorchMemoryStats(HookBase):
    """Logs the GPU memory in use every `period` iterations, `max_runs` times at most."""

    def __init__(self, period: int = 20, max_runs: int = 10) -> None:
        self._period = period
        self._runs_left = max_runs

    def after_step(self) -> None:
        """Log if it is time; nothing on a machine without CUDA."""
        is_last = self.trainer.iter + 1 == self.trainer.max_iter
        if not (is_last or is_due(self.trainer.iter, self._period)):
            return
        if self._runs_left > 0 and torch.cuda.is_available():
            self._runs_left -= 1
            figures = {
                f"{extreme}{kind}": getattr(torch.cuda, f"{extreme}memory_{kind}")()
                for kind in ("reserved", "allocated")
                for extreme in ("max_", "")
            }
            text = ", ".join(f"{name} {size / 2**20:.0f} MB" for name, size in figures.items())
            _logger.info("GPU memory in iteration %d: %s", self.trainer.iter, text)
            torch.cuda.reset_peak_memory_stats()
