"""Choose norm, pyramid and heads: time per image, parameters, and what heads cost in accuracy.

    python benchmarks/heads.py --repeats 5
    python benchmarks/heads.py --weights output/dsb2018_cpu_light/model_final.pth --steps 300

Time: networks with random weights take turns; in place of the boxes that they find stand those of
the true cells, so that all have the same masks to compute. Processor time of one thread, which
other programs on the machine change little.

Accuracy (with `--weights`): heads are trained anew, side by side, on what backbone, pyramid and RPN
of those weights give for the same windows and the same sampled proposals. Behind a new mask head
stands the old box head, and the other way round. What differs then is the head alone, so less
training and one seed tell more than whole models of their own. Whole models: `accuracy.py`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cellseg  # noqa: F401  (finds the engine)
import numpy as np
import torch
from accuracy import BATCH_NORM, NARROW
from cellseg.cells.instances import CellInstances
from cellseg.cells.synthetic import make_cells
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.engine.optimizer import build_optimizer
from cellseg.engine.setup import load_config
from cellseg.engine.trainer import CellTrainer
from cellseg.evaluation.scoring import score
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling.weights import load_weights
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

CONFIG = "dsb2018/mask_rcnn_R_50_FPN_cpu_light.yaml"
VALIDATION = "dsb2018_fluo_val"
CASES = ("256x256:20", "520x704:110", "520x704:400")
METRICS = ("ap_dsb@0.50", "ap_dsb", "ap_coco_mask")
MIB = 2**20
PYRAMID, FC = "MODEL.FPN.OUT_CHANNELS", "MODEL.ROI_BOX_HEAD.FC_DIM"


@dataclass(frozen=True)
class Variant:
    """One row: what differs from the config, and which head is trained anew, if one is."""

    opts: tuple[str, ...] = ()
    part: str = ""


def mask_head(layers: int, width: int) -> Variant:
    node = "MODEL.ROI_MASK_HEAD"
    return Variant((f"{node}.NUM_CONV", f"{layers}", f"{node}.CONV_DIM", f"{width}"), "mask")


VARIANTS = {
    "base": Variant(),
    "batch norm": Variant(BATCH_NORM),
    "pyramid 256": Variant((PYRAMID, "256")),
    "pyramid 64": Variant((PYRAMID, "64")),
    "mask head 4 x 256": mask_head(4, 256),
    "mask head 4 x 128": mask_head(4, 128),
    "mask head 2 x 128": mask_head(2, 128),
    "mask head 4 x 64": mask_head(4, 64),
    "mask head 2 x 64": mask_head(2, 64),
    "box head 1024": Variant((FC, "1024"), "box"),
    "box head 512": Variant((FC, "512"), "box"),
    "box head 256": Variant((FC, "256"), "box"),
    "narrow": Variant(NARROW),
    "narrow, batch norm": Variant(NARROW + BATCH_NORM),
}


def read_config(args: argparse.Namespace, opts: Sequence[str]) -> Any:
    fixed = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"]
    return load_config(args.config_file, [*fixed, *opts, *args.opts])


# Time: the same true boxes for all.


def build_untrained(args: argparse.Namespace, variant: Variant, folder: Path) -> CellPredictor:
    torch.manual_seed(0)
    cfg = read_config(args, ["DATASETS.TRAIN", "()", *variant.opts])
    weights = folder / "untrained.pth"
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    cfg.MODEL.WEIGHTS = str(weights)
    return CellPredictor(cfg)


def find_true_boxes(predictor: CellPredictor, cells: CellInstances) -> None:
    """From here on `predictor` does all that it did, and then finds these boxes."""
    found = Instances(cells.image_hw)
    found.pred_boxes = Boxes(torch.as_tensor(cells.boxes_xyxy, dtype=torch.float32))
    found.scores = torch.ones(len(cells))
    found.pred_classes = torch.zeros(len(cells), dtype=torch.int64)
    heads: Any = predictor.model.roi_heads
    heads.box_predictor.inference = lambda *_: ([found], [torch.arange(len(cells))])


def time_case(case: str, predictors: dict[str, CellPredictor], repeats: int) -> dict[str, float]:
    """Median seconds of each on an image of so many synthetic cells, in turns; one run warms up."""
    size, _, count = case.partition(":")
    height, width = map(int, size.split("x"))
    scene = make_cells(1, (height, width), num_cells=int(count), touching=0.5)
    cells = CellInstances.from_label_image(scene.labels)
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for predictor in predictors.values():
        find_true_boxes(predictor, cells)
    for turn in range(repeats + 1):
        for name, predictor in predictors.items():
            start = time.process_time()
            predictor(scene.image)
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


# Accuracy: heads side by side on one trunk.


@dataclass
class Head:
    """A whole model of which one head is its own, and that head's training."""

    cfg: Any
    model: Any
    optimizer: Any
    scheduler: Any
    losses: list[float] = field(default_factory=list)


def build_head(args: argparse.Namespace, variant: Variant, trunk: Any) -> Head:
    cfg = read_config(args, ["SOLVER.MAX_ITER", str(args.steps), *variant.opts])
    torch.manual_seed(args.seed)
    model: Any = build_model(cfg)
    model.backbone, model.proposal_generator = trunk.backbone, trunk.proposal_generator
    mine, old = model.roi_heads, trunk.roi_heads
    if variant.part == "mask":
        mine.box_head, mine.box_predictor = old.box_head, old.box_predictor
        part: nn.Module = mine.mask_head
    else:
        mine.mask_head = old.mask_head
        part = nn.ModuleList([mine.box_head, mine.box_predictor])
    optimizer = build_optimizer(cfg, part)
    return Head(cfg, model, optimizer, build_lr_scheduler(cfg, optimizer))


def train_side_by_side(args: argparse.Namespace, trunk: Any, heads: Sequence[Head]) -> None:
    torch.manual_seed(args.seed)
    loader = iter(CellTrainer.build_train_loader(read_config(args, ["SEED", str(args.seed)])))
    trunk.train()
    trunk.backbone.eval()  # whose statistics stay
    with EventStorage() as storage:
        for step in range(args.steps):
            batch = next(loader)
            images = trunk.preprocess_image(batch)
            targets = [one["instances"] for one in batch]
            with torch.no_grad():
                maps = trunk.backbone(images.tensor)
                proposals, _ = trunk.proposal_generator(images, maps, targets)
            for head in heads:
                torch.manual_seed(step)  # the same sample of proposals for all
                head.model.roi_heads.train()
                train_step(head, head.model.roi_heads(images, maps, proposals, targets)[1])
            storage.step()
            if step % 20 == 19:
                print(
                    step + 1, *(f"{np.mean(head.losses[-20:]):.3f}" for head in heads), flush=True
                )


def train_step(head: Head, losses: dict[str, Tensor]) -> None:
    own: Any = sum(loss for loss in losses.values() if loss.requires_grad)
    head.optimizer.zero_grad()
    own.backward()
    head.optimizer.step()
    head.scheduler.step()
    head.losses.append(own.item())


class Remembered:
    """A `forward` that knows what it gave for the last input."""

    def __init__(self, module: Any, is_same: Callable[[Any, Any], bool]) -> None:
        self.forward, self.is_same = module.forward, is_same
        self.given: Any = None
        self.result: Any = None
        vars(module)["forward"] = self

    def __call__(self, *given: Any) -> Any:
        if self.given is None or not self.is_same(given, self.given):
            self.given, self.result = given, self.forward(*given)
        return self.result


def score_side_by_side(heads: dict[str, Head], folder: Path) -> dict[str, dict[str, float]]:
    """The metrics of each on the validation images; all share what the trunk finds in an image."""
    predictors = {name: build_trained(head, folder) for name, head in heads.items()}
    trunk: Any = next(iter(predictors.values())).model
    Remembered(trunk.backbone, lambda a, b: a[0].shape == b[0].shape and torch.equal(a[0], b[0]))
    Remembered(trunk.proposal_generator, lambda a, b: a[1] is b[1])
    truth = GroundTruth.load(VALIDATION)
    found: dict[str, list[CellInstances]] = {name: [] for name in heads}
    for image in truth.images.values():
        for name, predictor in predictors.items():
            model: Any = predictor.model
            model.backbone, model.proposal_generator = trunk.backbone, trunk.proposal_generator
            found[name].append(predictor(predictor.read_image(image["file_name"])))
    true = [truth.cells(key) for key in truth.images]
    return {name: score(true, cells, METRICS) for name, cells in found.items()}


def build_trained(head: Head, folder: Path) -> CellPredictor:
    weights = folder / "trained.pth"
    torch.save({"model": head.model.state_dict()}, weights)
    cfg = head.cfg.clone()
    cfg.MODEL.WEIGHTS = str(weights)
    return CellPredictor(cfg)


def compare_accuracy(args: argparse.Namespace, names: Sequence[str], folder: Path) -> None:
    trunk: Any = build_model(read_config(args, []))
    load_weights(trunk, args.weights)
    trunk.requires_grad_(False)
    heads = {n: build_head(args, VARIANTS[n], trunk) for n in names if VARIANTS[n].part}
    print(f"losses of {', '.join(heads)}", flush=True)
    train_side_by_side(args, trunk, list(heads.values()))
    metrics = score_side_by_side(heads, folder)
    print(f"\n| variant | {' | '.join(f'`{name}`' for name in METRICS)} |\n|{' --- |' * 4}")
    for name, row in metrics.items():
        print(f"| {name} | {' | '.join(f'{row[metric]:.3f}' for metric in METRICS)} |", flush=True)


def compare_time(args: argparse.Namespace, names: Sequence[str], folder: Path) -> None:
    predictors = {name: build_untrained(args, VARIANTS[name], folder) for name in names}
    columns = {case: time_case(case, predictors, args.repeats) for case in args.cases}
    print(f"| variant | parameters [million] | 8 bit [MiB] | {' | '.join(columns)} |")
    print(f"|{' --- |' * (3 + len(columns))}")
    for name, predictor in predictors.items():
        count = sum(each.numel() for each in predictor.model.parameters())
        row = [f"{count / 1e6:.1f}", f"{count / MIB:.1f}"]
        row += [f"{column[name]:.2f}" for column in columns.values()]
        print(f"| {name} | {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=CONFIG, help="default: %(default)s")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--cases", nargs="*", default=CASES, metavar="HxW:CELLS")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--weights", default="", help="of the config; measures accuracy, not time")
    parser.add_argument("--steps", type=int, default=300, help="of training the heads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare = compare_accuracy if args.weights else compare_time
    with tempfile.TemporaryDirectory() as name:
        compare(args, args.variants, Path(name))


if __name__ == "__main__":
    main()
