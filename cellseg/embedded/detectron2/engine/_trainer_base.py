"""The loop that every trainer shares, and the base of the hooks around it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.events import EventStorage

_logger = logging.getLogger(__name__)


def is_due(iteration: int, period: int) -> bool:
    """Whether the iteration just finished (counted from 0) completes a period; 0 means never."""
    return period > 0 and (iteration + 1) % period == 0


class HookBase:
    """Something to do at fixed points of a training; override the methods that are needed.

    For every trainer the order is: `before_train`; per iteration `before_step`, the step itself
    (with `after_backward` between gradients and update), `after_step`; at the end, also after an
    error, `after_train`. What takes time belongs into `after_step`, where timers count it as
    the hooks' and not as the step's.

    Attributes:
        trainer: the trainer, set when the hook is registered; a weak reference.
    """

    trainer: Any = None

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, or after the error that ended the training."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_backward(self) -> None:
        """When the gradients of an iteration are there."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this hook; a hook that keeps something has a
        `load_state_dict` too."""
        return {}


class TrainerBase:
    """Runs `run_step` again and again, and the hooks around it.

    Attributes:
        iter: the present iteration, from 0; equals `max_iter` after a complete training.
        start_iter: the first iteration of this run.
        max_iter: where training ends; this iteration is not run.
        storage: collects the figures of this run; exists while and after `train` runs.
    """

    storage: EventStorage
    max_iter: int

    def __init__(self) -> None:
        self.iter = self.start_iter = 0
        self._hooks: list[HookBase] = []

    def register_hooks(self, hooks: Sequence[HookBase | None]) -> None:
        """Append hooks; they run in this order. None is passed over.

        Raises:
            TypeError: one is not a `HookBase`; none is registered.
        """
        present = [hook for hook in hooks if hook is not None]
        if strange := [hook for hook in present if not isinstance(hook, HookBase)]:
            raise TypeError(f"hooks must be HookBase objects, got {strange}")
        for hook in present:
            # The trainer owns its hooks; a strong reference back would keep both alive.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> Any:
        """Run the iterations `start_iter` up to and without `max_iter`.

        `after_train` of all hooks runs in any case. They know success by `iter == max_iter`.
        """
        _logger.info("Starting training from iteration %d", start_iter)
        self.iter, self.start_iter, self.max_iter = start_iter, start_iter, max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for iteration in range(start_iter, max_iter):
                    self.iter = iteration
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max(start_iter, max_iter)
            except Exception:
                _logger.exception("Training failed in iteration %d", self.iter)
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        """Run the hooks of the same name."""
        self._call_hooks("before_train")

    def after_train(self) -> None:
        """Run the hooks of the same name."""
        self.storage.iter = self.iter
        self._call_hooks("after_train")

    def before_step(self) -> None:
        """Run the hooks of the same name; figures are now stored under this iteration."""
        self.storage.iter = self.iter
        self._call_hooks("before_step")

    def after_backward(self) -> None:
        """Run the hooks of the same name."""
        self._call_hooks("after_backward")

    def after_step(self) -> None:
        """Run the hooks of the same name."""
        self._call_hooks("after_step")

    def _call_hooks(self, moment: str) -> None:
        for hook in self._hooks:
            getattr(hook, moment)()

    def run_step(self) -> None:
        """One iteration; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define run_step")

    def state_dict(self) -> dict[str, Any]:
        """The iteration just run, and the state of the hooks by class name (the first of each)."""
        states: dict[str, Any] = {}
        for hook in self._hooks:
            name = type(hook).__qualname__
            if name not in states and (state := hook.state_dict()):
                states[name] = state
        return {"iteration": self.iter, **({"hooks": states} if states else {})}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; state of hooks that are not here is ignored."""
        self.iter = state_dict["iteration"]
        mine: dict[str, Any] = {}
        for hook in self._hooks:
            mine.setdefault(type(hook).__qualname__, hook)
        for name, state in state_dict.get("hooks", {}).items():
            if name in mine:
                mine[name].load_state_dict(state)
            else:
                _logger.warning("There is no hook %s here; its state is ignored", name)
