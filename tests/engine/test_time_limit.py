"""CELLSEG.SOLVER.MAX_MINUTES, with a clock that the tests turn."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.engine.hooks import (
    BestCheckpoint,
    EarlyStopping,
    ProgressBar,
    RestoreWeights,
    TimeLimit,
    TrainingStopped,
    WeightAverage,
)
from cellseg.engine.hooks.time_limit import END, RatePosition
from cellseg.errors import ConfigError
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.engine.hooks import EvalHook, LRScheduler, PeriodicCheckpointer
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x).square().sum()}


def batches() -> Iterator[torch.Tensor]:
    while True:
        yield torch.tensor([1.0, 2.0])


def solver(max_iter: int, name: str = "WarmupCosineLR", warmup: int = 0) -> CfgNode:
    """A config whose rate falls at 60 % and 80 % of its iterations."""
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = name
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.MAX_ITER = max_iter
    cfg.SOLVER.STEPS = (max_iter * 6 // 10, max_iter * 8 // 10)
    cfg.SOLVER.WARMUP_ITERS = warmup
    return cfg


class Watch(HookBase):
    """A clock that every step, and every evaluation, turns on."""

    def __init__(self, seconds: list[float]) -> None:
        self.now = 1000.0
        self.seconds = seconds
        self.rates: list[float] = []

    def __call__(self) -> float:
        return self.now

    def before_step(self) -> None:
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        self.now += self.seconds[self.trainer.iter]


class Run:
    """A training of one layer, with a checkpoint every second iteration."""

    def __init__(
        self,
        folder: Path,
        cfg: CfgNode,
        seconds: list[float],
        minutes: float = 1,
        eval_period: int = 0,
        extra: tuple[HookBase, ...] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.cfg = cfg
        self.model = Line()
        optimizer = torch.optim.SGD([self.model.weight], lr=cfg.SOLVER.BASE_LR, momentum=0.9)
        self.trainer: Any = SimpleTrainer(self.model, batches(), optimizer)
        self.checkpointer = DetectionCheckpointer(self.model, str(folder), trainer=self.trainer)
        self.trainer.checkpointer = self.checkpointer
        self.watch = Watch(seconds)
        self.evaluations: list[int] = []
        rates = LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer))
        saving = PeriodicCheckpointer(self.checkpointer, 2)
        self.limit = TimeLimit(
            minutes,
            RatePosition(cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS),
            schedulers=[rates],
            checkpointers=[saving],
            clock=self.watch,
        )
        evaluating = EvalHook(eval_period, self.evaluate)
        average = WeightAverage(0.5, (2, eval_period))
        hooks = [rates, self.limit, average, saving, evaluating, *extra, RestoreWeights(average)]
        self.trainer.register_hooks([*hooks, self.watch])

    def evaluate(self) -> dict[str, float]:
        self.evaluations.append(self.trainer.iter)
        self.watch.now += 30
        return {"figure": -float(len(self.evaluations))}

    def train(self, *, resume: bool = False) -> Run:
        self.checkpointer.resume_or_load("", resume=resume)
        start = self.trainer.iter + 1 if resume else 0
        self.trainer.train(start, self.cfg.SOLVER.MAX_ITER)
        return self


def final(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "model_final.pth", weights_only=True))


def plain_rates(cfg: CfgNode, count: int) -> list[float]:
    """Of a training that its iterations bound."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler, rates = build_lr_scheduler(cfg, optimizer), []
    while True:
        rates.append(optimizer.param_groups[0]["lr"])
        if len(rates) == count:
            return rates
        optimizer.step()
        scheduler.step()


def test_position_by_hand() -> None:
    position = RatePosition(max_iter=1000, warmup_iters=100)
    found = [position.find(*state) for state in ((0, 0.0), (50, 0.01), (50, 0.08), (100, 0.02))]
    assert found == pytest.approx([0.0, 0.05, 0.08, 0.1])
    assert position.find(99, 0.5) == 0.5  # a tenth of the time has passed: no warm-up any more
    assert position.find(101, 0.05) == pytest.approx(0.101)  # not back into the warm-up
    assert position.find(700, 0.3) == 0.7  # the iterations run out first
    assert position.find(200, 1.3) == position.find(1000, 0.1) == END
    only_warmup = RatePosition(10, 50)
    assert only_warmup.find(5, 0.01) == pytest.approx(0.1, rel=1e-4)
    assert RatePosition(10, 0).find(0, 0.0) == 0.0


def test_position_grows_however_uneven_the_steps_are() -> None:
    random = np.random.default_rng(3)
    for warmup in (0, 7, 60, 300):
        position = RatePosition(200, warmup)
        shares = np.cumsum(random.exponential(size=200) ** 4)
        shares *= random.uniform(0.05, 1.1) / shares[-1]
        found = [position.find(k, share) for k, share in enumerate([0.0, *shares])]
        assert (np.diff(found) >= 0).all()
        assert 0 <= found[0] <= found[-1] <= 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_follows_the_share_of_the_time(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path, solver(1000, name), [6.0] * 1000)
    with pytest.raises(TrainingStopped, match="1 of 1 minutes"):
        run.train()
    assert run.watch.rates == pytest.approx(plain_rates(solver(10, name), 10))
    assert run.watch.rates[-1] < run.watch.rates[0]


@pytest.mark.parametrize("name", SCHEDULES[:2])  # fvcore's third fails at a planned end
def test_with_time_enough_the_rate_is_that_of_the_iterations(tmp_path: Path, name: str) -> None:
    cfg = solver(20, name, warmup=6)
    run = Run(tmp_path, cfg, [0.01] * 20).train()
    assert run.watch.rates == pytest.approx(plain_rates(cfg, 20), rel=1e-9)
    assert run.trainer.iter == 20
    assert final(tmp_path)["iteration"] == 19


def test_the_warm_up_counts_iterations(tmp_path: Path) -> None:
    """A first step of 4 s, as when something compiles, then 448 of an eighth of a second."""
    cfg = solver(10_000, warmup=10)
    run = Run(tmp_path, cfg, [4.0, *[0.125] * 2000])
    with pytest.raises(TrainingStopped):
        run.train()
    warm = run.watch.rates[1:11]
    assert (np.diff(warm) > 0).all()
    # 4 of 60 s are two thirds of the tenth that the warm-up may take
    assert warm[0] == pytest.approx(0.01 * (0.001 + 0.999 * 2 / 3), rel=1e-3)
    assert warm[-1] == pytest.approx(0.01, rel=0.02)
    assert len(run.watch.rates) == 449
    assert run.watch.rates[-1] < 1e-5


def test_the_iteration_in_which_time_ends_is_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, solver(1000), [25.0] * 9)
    with caplog.at_level(logging.INFO, "cellseg"), pytest.raises(TrainingStopped):
        run.train()
    assert run.trainer.iter == run.trainer.max_iter == 3
    assert run.evaluations == [3]
    saved = final(tmp_path)
    assert saved["iteration"] == 2
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    # the average, in the file and in the model
    assert torch.equal(saved["model"]["weight"], run.model.weight)
    outside = saved["trainer"]["hooks"]["WeightAverage"]["outside_of_model"]["weight"]
    assert not torch.equal(saved["model"]["weight"], outside)
    assert "Training ends after iteration 2 of 1000: 1.25 of 1 minutes" in caplog.text
    assert "Iteration 0 of about 2: 0.417 of 1 minutes" in caplog.text


def test_evaluations_in_between_count_and_the_last_one_does_not(tmp_path: Path) -> None:
    run = Run(tmp_path, solver(1000), [10.0] * 9, eval_period=2)
    with pytest.raises(TrainingStopped):
        run.train()
    # 20 s of steps, 30 of the evaluation, 10 of a step: the minute is over
    assert run.evaluations == [1, 3]
    assert final(tmp_path)["trainer"]["hooks"]["TimeLimit"] == {"seconds": 60.0}


def test_a_resumed_run_knows_what_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = Run(tmp_path / "whole", solver(1000), [7.0] * 99)
    with pytest.raises(TrainingStopped):
        whole.train()

    class Kill(HookBase):
        def before_step(self) -> None:
            if self.trainer.iter == 5:
                raise KeyboardInterrupt

    cut = Run(tmp_path / "cut", solver(1000), [7.0] * 99, extra=(Kill(),))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    second = Run(tmp_path / "cut", solver(1000), [7.0] * 99)
    with pytest.raises(TrainingStopped):
        second.train(resume=True)
    assert second.watch.rates == pytest.approx(whole.watch.rates[4:])
    assert final(tmp_path / "cut")["iteration"] == final(tmp_path / "whole")["iteration"] == 8

    third = Run(tmp_path / "cut", solver(1000), [7.0] * 99)
    with caplog.at_level(logging.WARNING, "cellseg"), pytest.raises(TrainingStopped):
        third.train(resume=True)
    assert "Nothing left to train: 1.05 of 1 minutes" in caplog.text
    assert (third.watch.rates, third.evaluations) == ([], [9])

    more = Run(tmp_path / "cut", solver(1000), [7.0] * 99, minutes=2)
    with pytest.raises(TrainingStopped):
        more.train(resume=True)
    assert final(tmp_path / "cut")["iteration"] == 17


def test_a_run_goes_on_without_a_limit_where_its_iterations_are(tmp_path: Path) -> None:
    run = Run(tmp_path, solver(40), [20.0] * 40)
    with pytest.raises(TrainingStopped):
        run.train()
    assert run.trainer.iter == 3
    unlimited = Run(tmp_path, solver(40), [0.0] * 40, minutes=1e9).train(resume=True)
    assert unlimited.watch.rates[1:] == pytest.approx(plain_rates(solver(40), 40)[4:])


def test_all_processes_follow_the_clock_of_the_main_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = iter([10.0, 20.0, 61.0])
    run = Run(tmp_path, solver(1000), [1.0] * 99)
    monkeypatch.setattr(comm, "all_gather", lambda own: [next(heard), own])
    with pytest.raises(TrainingStopped):
        run.train()
    assert run.trainer.iter == 3
    assert run.watch.rates[1:] == pytest.approx(
        [0.005 * (1 + np.cos(np.pi * used / 60)) for used in (10, 20)]
    )


def test_patience_ends_a_training_before_its_time(tmp_path: Path) -> None:
    best = BestCheckpoint(1, "figure")
    run = Run(tmp_path, solver(1000), [1.0] * 9, 30, 1, extra=(best, EarlyStopping(best, 2)))
    with pytest.raises(TrainingStopped, match="2 evaluations without a better value"):
        run.train()
    assert run.trainer.iter == 3
    assert run.evaluations == [0, 1, 2]


@pytest.fixture
def cfg(tiny_training: list[str]) -> CfgNode:
    tiny = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40")
    options = {
        "SOLVER.MAX_ITER": 50,
        "SOLVER.STEPS": "()",
        "SOLVER.CHECKPOINT_PERIOD": 1000,
        "CELLSEG.SOLVER.MAX_MINUTES": 1,
        "CELLSEG.TEST.PICTURES": 0,
        "CELLSEG.TRAIN.SAMPLE_PICTURES": 0,
    }
    pairs = [word for pair in options.items() for word in pair]
    return load_config(QUICK_START, [*tiny_training, *tiny, *pairs])


def limit_of(trainer: CellTrainer, seconds: float) -> TimeLimit:
    """The hook of a trainer, with a clock that every step turns on."""
    (limit,) = (hook for hook in trainer._hooks if isinstance(hook, TimeLimit))
    watch = Watch([seconds] * 99)
    trainer.register_hooks([watch])
    limit._clock = watch
    return limit


def test_a_mask_rcnn_ends_by_the_clock_with_all_that_belongs_to_an_end(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[Any] = []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(
        "cellseg.engine.hooks.progress.tqdm", lambda **_: bars.append(Bar()) or bars[-1]
    )
    trainer = CellTrainer(cfg)
    names = [type(hook).__name__ for hook in trainer._hooks]
    assert names.index("LRScheduler") + 1 == names.index("TimeLimit")
    limit_of(trainer, 31.0)
    results = trainer.train()
    folder = Path(cfg.OUTPUT_DIR)
    assert final(folder)["iteration"] == 1
    assert 0 <= results["cell_iou"]["ap_dsb"] <= 1
    (entry,) = json.loads((folder / "run.json").read_text())["runs"]
    assert (entry["status"], entry["end_iteration"]) == ("finished", 2)
    assert entry["reason"] == "1.03 of 1 minutes (CELLSEG.SOLVER.MAX_MINUTES) are used"
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert {line["iteration"] for line in lines} == {1, 2}
    assert not any("eta_seconds" in line for line in lines)
    assert bars[0].totals == [2, 2]

    cfg.CELLSEG.SOLVER.MAX_MINUTES = 2
    resumed = CellTrainer(cfg)
    resumed.resume_or_load(resume=True)
    limit_of(resumed, 31.0)
    resumed.train()
    assert final(folder)["iteration"] == 3


class Bar:
    """What the trainer says to a progress bar."""

    def __init__(self) -> None:
        self.total = 0
        self.totals: list[int] = []

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        pass

    def update(self) -> None:
        self.totals.append(self.total)


def test_zero_minutes_are_no_limit(cfg: CfgNode) -> None:
    cfg.CELLSEG.SOLVER.MAX_MINUTES = 0
    trainer = CellTrainer(cfg)
    assert not any(isinstance(hook, TimeLimit) for hook in trainer._hooks)
    assert any(isinstance(hook, ProgressBar) for hook in trainer._hooks)


def test_minutes_below_zero_are_an_error(tiny_training: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"SOLVER.MAX_MINUTES is -1.0; expected"):
        load_config(QUICK_START, [*tiny_training, "CELLSEG.SOLVER.MAX_MINUTES", -1])
