"""When hooks act, and how they end a training."""

from __future__ import annotations

from detectron2.engine import HookBase


def is_due(iteration: int, period: int) -> bool:
    """Whether iteration number `iteration`, from 0, ends a period; 0 is never."""
    return period > 0 and (iteration + 1) % period == 0


class AfterEvaluation(HookBase):
    """Something to do whenever Detectron2's `EvalHook`, which stands before it, has evaluated.

    Args:
        period: iterations between evaluations, TEST.EVAL_PERIOD.
    """

    def __init__(self, period: int) -> None:
        self._period = period

    def act(self) -> None:
        """To be defined; called in all processes of a run."""
        raise NotImplementedError

    def after_step(self) -> None:
        is_last = self.trainer.iter + 1 == self.trainer.max_iter
        if is_due(self.trainer.iter, self._period) and not is_last:
            self.act()

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:  # it did not fail
            self.act()


class TrainingStopped(BaseException):
    """Ends the loop of a trainer early; `CellTrainer.train` catches it.

    Not an `Exception`: Detectron2 logs those as failures. Hooks' `after_train` runs all the same.
    """
