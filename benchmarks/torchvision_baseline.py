"""Train torchvision's own Mask R-CNN on what a config trains on, and evaluate it alike.

    python benchmarks/torchvision_baseline.py --config-file configs/dsb2018/... [KEY VALUE ...]

The data loader, the number and size of batches, the test images and the evaluators are those of
the config; the model is `torchvision.models.detection.maskrcnn_resnet50_fpn` as its authors left it
(anchors from 32 px, 100 detections), with the optimizer and the schedule of its reference scripts.
It starts from nothing unless `--weights` names a file with its parameters. Two things are not its
own: images are seen as the config resizes them, not enlarged to 800 pixels, and as many anchors and
proposals per image are sampled as the config says.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import cellseg  # noqa: F401  before detectron2: it makes `import detectron2` work
import torch
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.modeling.device import check_device
from detectron2.config import CfgNode
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn

SCORE_THRESHOLD = 0.05
REFERENCE_LR = 0.02 / 16  # per image of a batch, of torchvision's references/detection
WARMUP_ITERS = 100

logger = logging.getLogger("cellseg.torchvision_baseline")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--weights", default="", help="a state_dict of the model")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    return parser.parse_args()


def build(cfg: CfgNode, weights: str) -> torch.nn.Module:
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1,
        trainable_backbone_layers=5,
        box_score_thresh=SCORE_THRESHOLD,
        rpn_batch_size_per_image=cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE,
        box_batch_size_per_image=cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
    )
    if weights:
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model.to(cfg.MODEL.DEVICE)


def forward(model: torch.nn.Module, items: list[dict[str, Any]], device: str) -> Any:
    """Call the model on a batch of Detectron2's; images keep their size."""
    images = [item["image"].to(device).float() / 255 for item in items]
    sides = [side for image in images for side in image.shape[1:]]
    model.transform.min_size, model.transform.max_size = (min(sides),), 2 * max(sides)
    if not model.training:
        return model(images)
    return model(images, [_target(item["instances"], device) for item in items])


def _target(instances: Instances, device: str) -> dict[str, Tensor]:
    if len(instances) == 0:
        masks = torch.zeros(0, *instances.image_size, dtype=torch.uint8)
    else:
        masks = instances.gt_masks.to_bitmasks().tensor.to(torch.uint8)
    return {
        "boxes": instances.gt_boxes.tensor.to(device).float(),
        "labels": instances.gt_classes.to(device) + 1,
        "masks": masks.to(device),
    }


def train(cfg: CfgNode, model: torch.nn.Module) -> None:
    solver = cfg.SOLVER
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=REFERENCE_LR * solver.IMS_PER_BATCH,
        momentum=0.9,
        weight_decay=1e-4,
    )
    steps = torch.optim.lr_scheduler
    # the last third of the training at a tenth and a hundredth, as 26 epochs with 16 and 22
    decay = steps.MultiStepLR(optimizer, [solver.MAX_ITER * 16 // 26, solver.MAX_ITER * 22 // 26])
    warmup = steps.LinearLR(optimizer, 1e-3, total_iters=min(WARMUP_ITERS, solver.MAX_ITER - 1))
    model.train()
    start = time.perf_counter()
    with EventStorage(0):
        for number, items in enumerate(CellTrainer.build_train_loader(cfg), 1):
            losses = forward(model, items, cfg.MODEL.DEVICE)
            total = sum(losses.values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            warmup.step()
            decay.step()
            if number % 20 == 0 or number == solver.MAX_ITER:
                seconds = (time.perf_counter() - start) / number
                logger.info("iter: %d loss: %.4f time: %.3f", number, float(total), seconds)
            if number == solver.MAX_ITER:
                return


@torch.no_grad()
def evaluate(cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
    (name,) = cfg.DATASETS.TEST
    evaluator = CellTrainer.build_evaluator(cfg, name)
    evaluator.reset()
    model.eval()
    for items in CellTrainer.build_test_loader(cfg, name):
        found = forward(model, items, cfg.MODEL.DEVICE)
        outputs = [_output(cells, item) for cells, item in zip(found, items)]
        evaluator.process(items, outputs)
    return dict(evaluator.evaluate())


def _output(cells: dict[str, Tensor], item: dict[str, Any]) -> dict[str, Instances]:
    if item["image"].shape[1:] != (item["height"], item["width"]):
        raise SystemExit("INPUT.MIN_SIZE_TEST must be 0: the baseline predicts at the native size")
    return {
        "instances": Instances(
            (item["height"], item["width"]),
            pred_boxes=Boxes(cells["boxes"]),
            scores=cells["scores"],
            pred_classes=cells["labels"] - 1,
            pred_masks=cells["masks"][:, 0] >= 0.5,
        )
    }


def main() -> None:
    args = parse()
    cfg = load_config(args.config_file, args.opts)
    check_device(cfg)
    setup_logger(cfg.OUTPUT_DIR, name="cellseg")
    torch.manual_seed(max(cfg.SEED, 0))
    model = build(cfg, args.weights)
    train(cfg, model)
    folder = Path(cfg.OUTPUT_DIR)
    torch.save(model.state_dict(), folder / "model_final.pth")
    figures = flatten_results_dict(evaluate(cfg, model)) | {"iteration": cfg.SOLVER.MAX_ITER - 1}
    with (folder / "metrics.json").open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
