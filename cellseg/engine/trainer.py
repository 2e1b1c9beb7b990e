"""Detectron2's trainer with what cells need: own loaders, both evaluators, safe checkpoints."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cellseg.arguments import check_argument, of_type
from cellseg.cells.selection import DetectionThresholds
from cellseg.config import check_keys
from cellseg.config.runs import METRICS_FILE
from cellseg.config.trained import ENTRY
from cellseg.engine.checkpoints import (
    AtomicWrites,
    CarriedConfig,
    remove_partial_files,
)
from cellseg.engine.determinism import make_deterministic
from cellseg.engine.freezing import build_freezing
from cellseg.engine.hooks import EndOfIteration, RunState, TrainingStopped, cell_hooks
from cellseg.engine.metrics_file import MetricsFile
from cellseg.engine.optimizer import build_optimizer
from cellseg.engine.random_state import untouched_random_state
from cellseg.engine.resuming import check_resumable, find_last_checkpoint, fit_trainer_state
from cellseg.engine.run_folder import (
    check_new,
    check_room,
    checkpoint_bytes,
    locked_folder,
    remove_run,
)
from cellseg.engine.steps import build_step
from cellseg.engine.stopping import (
    StopOnRequest,
    end_training,
    failures_in_words,
    find_hook,
    finish_iteration,
    stoppable_evaluation,
)
from cellseg.engine.stream import TrainingStream
from cellseg.engine.training_sets import check_training_sets
from cellseg.errors import CellsegError, DatasetError
from cellseg.evaluation.coco_evaluator import build_coco_evaluator
from cellseg.evaluation.iou_evaluator import CellIoUEvaluator
from cellseg.evaluation.pictures import PictureEvaluator
from cellseg.evaluation.registry import build_extra_evaluators
from cellseg.images import ImageInput
from cellseg.inference.augmented import AugmentedRCNN
from cellseg.inference.limits import LimitWatch
from cellseg.interrupts import finishing
from cellseg.modeling.building import checked_building
from cellseg.modeling.compilation import compile_convolutions
from cellseg.modeling.dataset_classes import check_classes
from cellseg.modeling.device import check_device
from cellseg.modeling.uncounted_regions import leave_out_uncounted
from cellseg.modeling.weights import start_from
from cellseg.names import why_unsafe_name
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, HookBase, default_writers
from detectron2.engine.hooks import EvalHook, PreciseBN
from detectron2.evaluation import DatasetEvaluators, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter

logger = logging.getLogger(__name__)


class CellTrainer(DefaultTrainer):
    """Trains and evaluates a cell segmentation model on either engine.

    Example:
        >>> trainer = CellTrainer(cfg)  # doctest: +SKIP
        >>> trainer.resume_or_load(resume=False)  # doctest: +SKIP
        >>> results = trainer.train()  # doctest: +SKIP
        >>> results["cell_iou"]["ap_dsb@0.50"]  # doctest: +SKIP
    """

    metrics_file: MetricsFile | None = None

    def __init__(self, cfg: CfgNode) -> None:
        check_argument("cfg", cfg, of_type(CfgNode, "a config, as load_config gives it"))
        check_keys(cfg)
        check_device(cfg)
        for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
            check_classes(cfg, name, read=True)
        if cfg.CELLSEG.DETERMINISTIC:
            make_deterministic(cfg.SEED)
        super().__init__(cfg)
        self._trainer = build_step(self.cfg, self._trainer)
        self.checkpointer.add_checkpointable(ENTRY, CarriedConfig(self.cfg))
        self.register_hooks([build_freezing(self.cfg, self.model)])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """The model of the config, compiled if CELLSEG.COMPILE says so.

        Its losses leave out the uncounted regions that the mapper gives. Its floor of scores is no
        higher than the threshold of cells, as when predicting.
        """
        lowest = DetectionThresholds.from_config(cfg).lowest_score
        if lowest < cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = lowest
        with checked_building(cfg):
            model = leave_out_uncounted(super().build_model(cfg))
        if cfg.CELLSEG.COMPILE:
            compile_convolutions(model)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Endless batches; the images and their augmentation follow from SEED, if there is one."""

        check_training_sets(cfg)

        def build() -> Any:
            return build_detection_train_loader(cfg, mapper=CellDatasetMapper(cfg, is_train=True))

        return TrainingStream(build, cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed())

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        mapper = CellDatasetMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer of SOLVER and CELLSEG.SOLVER; see `cellseg.engine.optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluators:
        """COCO's AP, the IoU metrics (`cell_iou`), pictures, and CELLSEG.TEST.EVALUATORS.

        Args:
            output_folder: where they write; `<OUTPUT_DIR>/inference/<dataset_name>` by default,
                so that several test sets do not overwrite each other.
        """
        if reason := why_unsafe_name(dataset_name):
            raise DatasetError(f"the data set {dataset_name!r} cannot name its folder: {reason}")
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        selection = DetectionThresholds.from_config(cfg)
        evaluators = [
            build_coco_evaluator(cfg, dataset_name, folder),
            CellIoUEvaluator(
                dataset_name,
                selection=selection,
                metrics=cfg.CELLSEG.TEST.METRICS,
                output_dir=folder,
            ),
        ]
        if cfg.CELLSEG.TEST.PICTURES > 0:
            evaluators.append(
                PictureEvaluator(
                    dataset_name,
                    folder,
                    max_images=cfg.CELLSEG.TEST.PICTURES,
                    selection=selection,
                    read=ImageInput.from_config(cfg).read,
                )
            )
        evaluators += build_extra_evaluators(cfg, dataset_name, folder)
        return DatasetEvaluators(evaluators)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> Any:
        """Detectron2's evaluation, then OUTPUT_DIR/report.html if CELLSEG.TEST.REPORT says so.

        A report that cannot be written is a warning: the metrics are there without it. Images are
        looked at as they are, whatever CELLSEG.TEST.DIAMETER says.
        """
        for name in cfg.DATASETS.TEST:
            known = MetadataCatalog.get(name).get("thing_classes")
            check_classes(cfg, name, read=not known)
        if cfg.CELLSEG.TEST.DIAMETER != "":
            logger.warning(
                "CELLSEG.TEST.DIAMETER is %r, which is for predicting: this evaluation looks at "
                "images as they are. To evaluate with it, `cellseg predict` the images and compare "
                "with `cellseg evaluate`",
                cfg.CELLSEG.TEST.DIAMETER,
            )
        # so that a training goes on in the same way whether an evaluation was repeated or not
        untouched = untouched_random_state(next(model.parameters()).device)
        with LimitWatch(cfg).watching(model, outputs=True), untouched:
            results = super().test(cfg, model, evaluators)
        if cfg.CELLSEG.TEST.REPORT and comm.is_main_process():
            from cellseg.report.build import write_report  # only who wants it waits for it

            try:
                path = write_report(cfg, cfg.OUTPUT_DIR, Path(cfg.OUTPUT_DIR) / "report.html")
                logger.info("Report: %s", path)
            except CellsegError as error:
                logger.warning("No report: %s", error)
        return results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: torch.nn.Module) -> dict[str, dict[str, float]]:
        """Evaluate `AugmentedRCNN`: on several views of every test image, as TEST.AUG says.

        Returns:
            The metrics of `test`, with "_TTA" behind the name of each task (of each data set where
            there are several). Files go to `<OUTPUT_DIR>/inference_TTA/<dataset_name>`.
        """
        evaluators = [
            cls.build_evaluator(cfg, name, os.path.join(cfg.OUTPUT_DIR, "inference_TTA", name))
            for name in cfg.DATASETS.TEST
        ]
        augmented = AugmentedRCNN(cfg, model)
        untouched = untouched_random_state(next(model.parameters()).device)
        with LimitWatch(cfg).watching(augmented, outputs=True), untouched:
            results = super().test(cfg, augmented, evaluators)
        return {f"{name}_TTA": metrics for name, metrics in results.items()}

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's, and `MetricsFile` in place of its `JSONWriter`.

        Without the time left where CELLSEG.SOLVER.MAX_MINUTES says it.
        """
        limited = self.cfg.CELLSEG.SOLVER.MAX_MINUTES > 0
        writers = default_writers(self.cfg.OUTPUT_DIR, None if limited else self.max_iter)
        for writer in writers:
            if isinstance(writer, JSONWriter):
                writer.close()
        others = [writer for writer in writers if not isinstance(writer, JSONWriter)]
        self.metrics_file = MetricsFile(Path(self.cfg.OUTPUT_DIR) / METRICS_FILE)
        return [self.metrics_file, *others]

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks and those of `cell_hooks`; checkpoints are whole or not there."""
        self._needed = checkpoint_bytes(
            self.model, self.optimizer, with_average=self.cfg.CELLSEG.TRAIN.EMA_DECAY > 0
        )
        self.checkpointer.path_manager = AtomicWrites(self.checkpointer.path_manager, self._needed)
        engine_hooks = super().build_hooks()
        if self.cfg.TEST.AUG.ENABLED:  # at the end only: it takes several times as long
            engine_hooks.append(EvalHook(0, lambda: self.test_with_TTA(self.cfg, self.model)))
        hooks = cell_hooks(self, engine_hooks, self.metrics_file)
        state = next(hook for hook in hooks if isinstance(hook, RunState))
        return [*hooks, EndOfIteration(state), StopOnRequest(state)]

    def image_loaders(self) -> dict[str, Any]:
        """What images of the training come from, by what they are for."""
        precise_bn = getattr(find_hook(self, PreciseBN), "_data_loader", None)
        return {"training": self.data_loader, "precise_bn": precise_bn}

    def resume_or_load(self, resume: bool = True, *, overwrite: bool = False) -> None:
        """Load the last checkpoint of OUTPUT_DIR (`resume`) or MODEL.WEIGHTS, and say which.

        Args:
            resume: go on from the newest whole checkpoint, if there is one.
            overwrite: without `resume`, throw away what an earlier training has left there.

        Raises:
            CheckpointError: MODEL.WEIGHTS is to be loaded and names no file or bundle; or no
                checkpoint is whole, or it is of another model: see `check_resumable`.
            TrainingError: OUTPUT_DIR holds a training, and neither is asked for.
        """
        folder = self.cfg.OUTPUT_DIR
        found = find_last_checkpoint(folder) if resume else None
        if found is None:
            if not overwrite:
                check_new(folder)
            start_from(self.checkpointer.model, self.cfg)
            if overwrite and comm.is_main_process():
                remove_run(folder)
        else:
            check_resumable(found, self.checkpointer.model, self.cfg)
            self.checkpointer.load(str(found))
            self.start_iter = self.iter + 1
            logger.info(
                "Resuming from %s at iteration %d of %d", found, self.start_iter, self.max_iter
            )
        if resume and found is None:
            logger.warning(
                "--resume, but %s holds no checkpoint: starting from MODEL.WEIGHTS=%r",
                self.cfg.OUTPUT_DIR,
                self.cfg.MODEL.WEIGHTS,
            )
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing left to train: the checkpoint is at iteration %d and SOLVER.MAX_ITER "
                "is %d. Raise SOLVER.MAX_ITER, or use --eval-only",
                self.start_iter,
                self.max_iter,
            )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a checkpoint's state; see `fit_trainer_state`."""
        base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]
        super().load_state_dict(fit_trainer_state(state_dict, self.optimizer, base_lrs))

    def train(self) -> dict[str, dict[str, float]]:  # type: ignore[override]
        """Train to SOLVER.MAX_ITER, or as long as MAX_MINUTES or PATIENCE of CELLSEG let it.

        Returns:
            The metrics of the last evaluation by task ("bbox", "segm", "cell_iou"); by dataset
            name first where there are several test sets; empty where nothing was evaluated.

        Raises:
            TrainingError: another process trains into OUTPUT_DIR, or a checkpoint has no room.
            Interrupted: a signal has come; only where the process is `watched` for signals.
        """
        stopped = False
        self._outer_error = sys.exc_info()[1]
        with locked_folder(self.cfg.OUTPUT_DIR), finishing(), failures_in_words():
            if comm.is_main_process():
                remove_partial_files(self.cfg.OUTPUT_DIR)
                check_room(self.cfg.OUTPUT_DIR, self._needed)
            try:
                super().train()
            except TrainingStopped:
                stopped = True
            finally:
                for loader in self.image_loaders().values():
                    if isinstance(loader, TrainingStream):
                        loader.close()
        results = getattr(self, "_last_eval_results", {})
        if stopped and comm.is_main_process():
            verify_results(self.cfg, results)
        return results

    def before_train(self) -> None:
        """All hooks' part, and then what a kill has cut off behind the last checkpoint."""
        super().before_train()
        state = find_hook(self, RunState)
        if state is not None and not state.is_complete:
            finish_iteration(self, state)

    def after_step(self) -> None:
        """All hooks' part; an evaluation that a signal has cut off is made up when resuming."""
        with stoppable_evaluation(self):
            super().after_step()

    def after_train(self) -> None:
        """All hooks' part of the end; what fails then does not hide what has failed before."""
        with stoppable_evaluation(self, saves=False):
            end_training(self, self._outer_error)
