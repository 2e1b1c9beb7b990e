"""A progress bar that gets along with the log."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from typing import Any

from cellseg.engine.hooks.time_limit import TimeLimit
from detectron2.engine import HookBase
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

_LOGGERS = ("cellseg", "detectron2", "fvcore")


class ProgressBar(HookBase):
    """Shows iterations, speed, the time left and the loss on the last line of a terminal.

    Nothing is shown where the error stream is no terminal. Log lines scroll above the bar; what
    they go to, and how they look, stays as it is.

    Args:
        limit: the hook that ends the training by the clock, if there is one.
    """

    def __init__(self, limit: TimeLimit | None = None) -> None:
        self._limit = limit
        self._open = ExitStack()
        self._bar: Any = None

    def before_train(self) -> None:
        if not sys.stderr.isatty():
            return
        trainer = self.trainer
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        self._open.enter_context(logging_redirect_tqdm(loggers))
        self._bar = self._open.enter_context(
            tqdm(
                total=trainer.max_iter,
                initial=trainer.start_iter,
                unit="it",
                dynamic_ncols=True,
                file=sys.stderr,
            )
        )

    def after_step(self) -> None:
        if self._bar is None:
            return
        loss = self.trainer.storage.latest().get("total_loss")
        if loss is not None:
            self._bar.set_postfix_str(f"loss {loss[0]:.4g}", refresh=False)
        if self._limit is not None:
            self._bar.total = self._limit.expected_iterations()
        self._bar.update()

    def after_train(self) -> None:
        self._open.close()
        self._bar = None
