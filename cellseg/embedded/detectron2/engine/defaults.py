"""The standard training and the standard predictor."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.engine import hooks
from detectron2.engine._setup import (
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
)
from detectron2.engine.train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

__all__ = [
    "DefaultPredictor",
    "DefaultTrainer",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
]

_logger = logging.getLogger(__name__)


class DefaultPredictor:
    """One image in, one prediction out, with the weights of `cfg.MODEL.WEIGHTS`.

    Args:
        cfg: a complete config.

    Attributes:
        model: in evaluation mode.
        metadata: of the first test dataset; missing where there is none.
        aug: resizes as INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST say.

    Raises:
        ValueError: INPUT.FORMAT is neither "BGR" nor "RGB".
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg.clone()
        self.input_format = cfg.INPUT.FORMAT
        if self.input_format not in ("BGR", "RGB"):
            raise ValueError(f"INPUT.FORMAT must be BGR or RGB, got {self.input_format}")
        self.model = build_model(self.cfg)
        self.model.eval()
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        for dataset_name in cfg.DATASETS.TEST[:1]:
            self.metadata = MetadataCatalog.get(dataset_name)
        side = cfg.INPUT.MIN_SIZE_TEST
        self.aug = ResizeShortestEdge([side, side], cfg.INPUT.MAX_SIZE_TEST)

    @torch.no_grad()
    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """
        Args:
            original_image: (H, W, 3), blue first, values as in an 8-bit image.

        Returns:
            What the model returns for one image, in the size of `original_image`.
        """
        if self.input_format == "RGB":
            original_image = original_image[..., ::-1]
        height, width = original_image.shape[:2]
        resized = self.aug.get_transform(original_image).apply_image(original_image)
        channels_first = np.ascontiguousarray(np.moveaxis(resized, -1, 0), dtype=np.float32)
        image = torch.from_numpy(channels_first)
        return self.model([{"image": image, "height": height, "width": width}])[0]


class _Inner:
    """An attribute that the inner trainer has."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        return self if trainer is None else getattr(trainer._trainer, self._name)

    def __set__(self, trainer: Any, value: Any) -> None:
        setattr(trainer._trainer, self._name, value)


class DefaultTrainer(TrainerBase):
    """The standard training of a detector, from a config.

    Builds model, optimizer, data and schedule with its `build_*` methods, which subclasses
    replace one by one, and registers the hooks of `build_hooks`. To be used as
    `trainer = DefaultTrainer(cfg); trainer.resume_or_load(); trainer.train()`.

    Args:
        cfg: a complete config.

    Attributes:
        cfg: the config, scaled to the number of processes where it asks for that.
        checkpointer: saves the model and the state of this trainer ("trainer").
        scheduler: of the learning rate.
        model, data_loader, optimizer: those of the inner `SimpleTrainer` or `AMPTrainer`.
    """

    model: Any = _Inner()
    data_loader: Any = _Inner()
    optimizer: Any = _Inner()

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()  # the script has not
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())

        self._trainer = self._build_inner_trainer(cfg)
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer)
        self.checkpointer = DetectionCheckpointer(
            self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.cfg = cfg
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def _build_inner_trainer(self, cfg: CfgNode) -> SimpleTrainer:
        """Builds model, optimizer and data, in this order, on which overriding methods rely."""
        model = self.build_model(cfg)
        parts: dict[str, Any] = {"optimizer": self.build_optimizer(cfg, model)}
        parts["data_loader"] = self.build_train_loader(cfg)
        parts["model"] = create_ddp_model(model, broadcast_buffers=False)
        return AMPTrainer(**parts) if cfg.SOLVER.AMP.ENABLED else SimpleTrainer(**parts)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint, or load `cfg.MODEL.WEIGHTS` and start anew.

        Args:
            resume: take model, optimizer, schedule and iteration from the last checkpoint of
                OUTPUT_DIR. Where there is none, or if False, only the weights of the config are
                loaded.
        """
        continues = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=continues)
        if continues:
            self.start_iter = self.iter + 1  # `iter` is the one that was finished last

    def build_hooks(self) -> list[HookBase | None]:
        """Timer, schedule, batch norm statistics, checkpoints, evaluation, figures; in this order.

        Statistics come before the checkpoint, which is to contain them; the checkpoint before
        the evaluation, which may fail; figures last, so that all are written.
        """
        cfg = self.cfg
        result: list[HookBase | None] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            result.append(self._build_precise_bn())
        if comm.is_main_process():
            result.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )
        result.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
        if comm.is_main_process():
            result.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return result

    def _build_precise_bn(self) -> HookBase:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # a second loader beside that of the training
        return hooks.PreciseBN(
            period=cfg.TEST.EVAL_PERIOD,
            model=self.model,
            data_loader=self.build_train_loader(cfg),
            num_iter=cfg.TEST.PRECISE_BN.NUM_ITER,
        )

    def _evaluate(self) -> Any:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """Where figures go; see `default_writers`."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> Any:  # type: ignore[override]
        """Train to the end.

        Returns:
            The last evaluation if TEST.EXPECTED_RESULTS is set, in the main process; else None.

        Raises:
            SystemExit: the results are not those of TEST.EXPECTED_RESULTS.
            RuntimeError: TEST.EXPECTED_RESULTS is set and nothing was evaluated.
        """
        super().train(self.start_iter, self.max_iter)
        if not (self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process()):
            return None
        if not hasattr(self, "_last_eval_results"):
            raise RuntimeError("TEST.EXPECTED_RESULTS is set, but the training evaluated nothing")
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def run_step(self) -> None:
        """One iteration of the inner trainer."""
        inner = self._trainer
        inner.iter = self.iter
        inner.run_step()

    def state_dict(self) -> dict[str, Any]:
        """Iteration and hooks, and as "_trainer" the state of the inner trainer."""
        return super().state_dict() | {"_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._trainer.load_state_dict(state_dict["_trainer"])
        super().load_state_dict(state_dict)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model, see `detectron2.modeling.build_model`."""
        model = build_model(cfg)
        _logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer, see `detectron2.solver.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """The schedule, see `detectron2.solver.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[Any]:
        """Endless training batches, see `detectron2.data.build_detection_train_loader`."""
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[Any]:
        """Each image of a dataset once, see `detectron2.data.build_detection_test_loader`."""
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator | None:
        """The evaluator of a dataset; subclasses define it, without one nothing is evaluated."""
        raise NotImplementedError(f"{cls.__name__} does not define build_evaluator")

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate a model on the datasets of `cfg.DATASETS.TEST`.

        Args:
            cfg: a complete config.
            model: with its weights.
            evaluators: one per dataset; those of `build_evaluator` by default.

        Returns:
            Results by dataset; where there is one dataset, its results.

        Raises:
            ValueError: not as many evaluators as datasets.
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(names):
            raise ValueError(f"{len(evaluators)} evaluators for {len(names)} datasets")
        results = OrderedDict(
            (name, cls._test_one(cfg, model, name, evaluators[i] if evaluators else None))
            for i, name in enumerate(names)
        )
        return next(iter(results.values())) if len(results) == 1 else results

    @classmethod
    def _test_one(
        cls, cfg: CfgNode, model: nn.Module, dataset_name: str, evaluator: DatasetEvaluator | None
    ) -> dict[str, Any]:
        # The loader is first: it reads the dataset, which an evaluator may rely on.
        data_loader = cls.build_test_loader(cfg, dataset_name)
        if evaluator is None:
            try:
                evaluator = cls.build_evaluator(cfg, dataset_name)
            except NotImplementedError:
                _logger.warning(
                    "%s is not evaluated: give evaluators to `test`, or define `build_evaluator`",
                    dataset_name,
                )
                return {}
        results = inference_on_dataset(model, data_loader, evaluator)
        if comm.is_main_process():
            if not isinstance(results, Mapping):
                raise ValueError(f"An evaluator returns a dict of figures, got {results!r}")
            _logger.info("Evaluation results for %s in csv format:", dataset_name)
            print_csv_format(results)
        return results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Adapt a config that was made for another number of processes.

        With `k = num_workers / SOLVER.REFERENCE_WORLD_SIZE`, batch size and learning rate are
        multiplied by k (the linear rule of Goyal et al. 2017, "Accurate, Large Minibatch SGD"),
        everything that counts iterations is divided by it.

        Args:
            cfg: not changed.
            num_workers: processes of this training.

        Returns:
            A new config; `cfg` itself if REFERENCE_WORLD_SIZE is 0 or equals `num_workers`.

        Raises:
            ValueError: REFERENCE_WORLD_SIZE does not divide IMS_PER_BATCH.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference in (0, num_workers):
            return cfg
        if cfg.SOLVER.IMS_PER_BATCH % reference:
            raise ValueError(
                f"SOLVER.REFERENCE_WORLD_SIZE {reference} does not divide "
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}"
            )
        factor = num_workers / reference
        scaled = cfg.clone()
        scaled.defrost()
        solver = scaled.SOLVER
        solver.REFERENCE_WORLD_SIZE = num_workers
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * factor)
        solver.BASE_LR *= factor
        solver.STEPS = tuple(round(step / factor) for step in solver.STEPS)
        for node, key in (
            (solver, "MAX_ITER"),
            (solver, "WARMUP_ITERS"),
            (solver, "CHECKPOINT_PERIOD"),
            (scaled.TEST, "EVAL_PERIOD"),
        ):
            node[key] = round(node[key] / factor)
        _logger.info("Scaled for %d processes instead of %d:\n%s", num_workers, reference, solver)
        if cfg.is_frozen():
            scaled.freeze()
        return scaled
