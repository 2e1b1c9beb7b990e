"""Writers of what an `EventStorage` holds: a line of text, a JSON file, TensorBoard."""

from __future__ import annotations

import datetime
import json
import logging
import os
import time
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.event_storage import EventStorage, get_event_storage
from detectron2.utils.file_io import PathManager

ETA_WINDOW = 1000
"""The remaining time follows from the median over this many iterations."""


class EventWriter:
    """Base of writers: `write` takes what is new in the storage of the running block."""

    def write(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Called once, at the end of training."""


class _UnwrittenScalars:
    """Scalars that were put since the last call."""

    def __init__(self, window_size: int) -> None:
        self._window_size = window_size
        self._last_iteration = -1

    def take(self) -> dict[int, dict[str, float]]:
        """{iteration: {name: value}}, smoothed as hinted, in order of iterations."""
        new: defaultdict[int, dict[str, float]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_iteration:
                new[iteration][name] = value
        self._last_iteration = max(new, default=self._last_iteration)
        return dict(sorted(new.items()))


class JSONWriter(EventWriter):
    """Appends scalars to a file, one JSON object per line and iteration.

    A run that was killed leaves whole lines; should the last one be cut nevertheless, the next
    run begins on a line of its own.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        """
        Args:
            json_file: path; an existing file is continued.
            window_size: iterations over which noisy scalars are smoothed, by their median.
        """
        repair = "\n" if _ends_within_a_line(json_file) else ""
        self._file = PathManager.open(json_file, "a")
        self._file.write(repair)
        self._scalars = _UnwrittenScalars(window_size)

    def write(self) -> None:
        lines = [
            json.dumps({**scalars, "iteration": iteration}, sort_keys=True) + "\n"
            for iteration, scalars in self._scalars.take().items()
        ]
        if lines:
            self._file.write("".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _ends_within_a_line(path: str) -> bool:
    file = Path(path)
    if not file.is_file() or file.stat().st_size == 0:
        return False
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() != b"\n"


class TensorboardXWriter(EventWriter):
    """Writes scalars, pictures and histograms for TensorBoard."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """
        Args:
            log_dir: folder of the event files; nothing is created before the first write.
            window_size: iterations over which noisy scalars are smoothed, by their median.
            kwargs: further arguments of `torch.utils.tensorboard.SummaryWriter`.
        """
        self._arguments = {"log_dir": log_dir, **kwargs}
        self._scalars = _UnwrittenScalars(window_size)

    @cached_property
    def _writer(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorboardXWriter needs the package tensorboard: `pip install tensorboard`, or "
                "train without this writer"
            ) from error
        return SummaryWriter(**self._arguments)

    def write(self) -> None:
        for iteration, scalars in self._scalars.take().items():
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, iteration)
        storage = get_event_storage()
        for name, image, iteration in storage.images():
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage.histograms():
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if "_writer" in vars(self):
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line of what one wants to see: remaining time, losses, speed, rate, memory.

    Scalars with "loss" or "[metric]" in their names appear, as medians; "time", "data_time" and
    "lr" where the trainer puts them; max_mem on a GPU only.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """
        Args:
            max_iter: iterations in all, for the remaining time; None leaves that out.
            window_size: iterations over which the numbers are smoothed.
        """
        self.logger = logging.getLogger("detectron2.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # training is over: nothing to report on it
            return
        parts = [*self._eta(storage), f"iter: {storage.iter}"]
        parts += self._medians(storage, "loss") + self._medians(storage, "[metric]")
        parts += self._times(storage)
        latest_lr = storage.latest().get("lr")
        parts.append(f"lr: {latest_lr[0]:.5g}" if latest_lr else "lr: N/A")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self.logger.info(" " + "  ".join(parts))

    def _medians(self, storage: EventStorage, mark: str) -> list[str]:
        return [
            f"{name}: {history.median(storage.count_samples(name, self._window_size)):.4g}"
            for name, history in storage.histories().items()
            if mark in name
        ]

    def _times(self, storage: EventStorage) -> list[str]:
        """Seconds per iteration: over all of training, the last one, and those spent on data."""
        means = {"time": None, "data_time": self._window_size}
        parts = []
        for name, window in means.items():
            if name not in storage.latest():
                continue  # the first iterations are not timed
            history = storage.history(name)
            mean_s = (
                history.avg(storage.count_samples(name, window)) if window else history.global_avg()
            )
            parts += [f"{name}: {mean_s:.4f}", f"last_{name}: {history.latest():.4f}"]
        return parts

    def _eta(self, storage: EventStorage) -> list[str]:
        if self._max_iter is None:
            return []
        if "time" in storage.latest():
            seconds_per_iter = storage.history("time").median(ETA_WINDOW)
        else:
            seconds_per_iter = self._own_seconds_per_iter(storage.iter)
        if seconds_per_iter is None:
            return []
        eta_s = seconds_per_iter * (self._max_iter - storage.iter - 1)
        if "time" in storage.latest():
            storage.put_scalar("eta_seconds", eta_s, smoothing_hint=False)
        return [f"eta: {datetime.timedelta(seconds=int(eta_s))}"]

    def _own_seconds_per_iter(self, iteration: int) -> float | None:
        """From the time since the last call; None in the first one."""
        before, self._last_write = self._last_write, (iteration, time.perf_counter())
        if before is None or before[0] >= iteration:
            return None
        return (self._last_write[1] - before[1]) / (iteration - before[0])
