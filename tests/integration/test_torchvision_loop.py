"""A training loop written for torchvision's Mask R-CNN runs on ours, with all it wraps around it.

The loop is the one that torchvision's references and its finetuning tutorial share: SGD with
momentum, a linear warm-up over the first epoch, targets with more fields than are needed, and
COCO's AP of boxes and masks after each epoch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from cellseg.errors import ConfigError, InputTypeError
from cellseg.modeling import MaskRCNN
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops._utils import split_normalization_params
from torchvision_data import BuildModel, SyntheticCells, collate

Targets = list[dict[str, Any]]
CPU = torch.device("cpu")


def loader_of(dataset: Dataset, batch_size: int, *, shuffle: bool = False) -> DataLoader:
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, collate_fn=collate)


def to_device(batch: Any, device: torch.device) -> tuple[list[Tensor], Targets]:
    images, targets = batch
    moved = [
        {name: v.to(device) if isinstance(v, Tensor) else v for name, v in target.items()}
        for target in targets
    ]
    return [image.to(device) for image in images], moved


def train_one_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, *, warm_up: bool
) -> list[float]:
    """The total loss of each iteration."""
    model.train()
    scheduler = None
    if warm_up:
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=len(loader) - 1)
    totals = []
    for batch in loader:
        losses = model(*to_device(batch, CPU))
        total = sum(losses.values())
        totals.append(total.item())
        assert math.isfinite(totals[-1]), losses
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return totals


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader) -> dict[int, dict[str, Tensor]]:
    model.eval()
    found = {}
    for images, targets in loader:
        outputs = model([image.to(CPU) for image in images])
        outputs = [{name: value.to(CPU) for name, value in one.items()} for one in outputs]
        found |= {target["image_id"]: one for target, one in zip(targets, outputs)}
    return found


def average_precision(dataset: Dataset, found: dict[int, dict[str, Tensor]]) -> dict[str, float]:
    """COCO's AP at IoU 0.5 of boxes and of masks."""
    truth = COCO()
    targets = [dataset[index][1] for index in range(len(dataset))]
    truth.dataset = {
        "info": {},
        "images": [{"id": one["image_id"], "height": 64, "width": 64} for one in targets],
        "categories": [{"id": 1}],
        "annotations": [],
    }
    for target in targets:
        for box, mask, area in zip(target["boxes"], target["masks"], target["area"]):
            entry = {"id": len(truth.dataset["annotations"]) + 1, "iscrowd": 0, "category_id": 1}
            entry |= {"image_id": target["image_id"], "bbox": xywh(box), "area": area.item()}
            truth.dataset["annotations"].append({**entry, "segmentation": rle_of(mask)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        return {kind: _ap50(truth, found, kind) for kind in ("bbox", "segm")}


def _ap50(truth: COCO, found: dict[int, dict[str, Tensor]], kind: str) -> float:
    results = []
    for image_id, cells in found.items():
        for box, mask, score, label in zip(
            *(cells[k] for k in ("boxes", "masks", "scores", "labels"))
        ):
            one = {"image_id": image_id, "category_id": int(label), "score": float(score)}
            region = (
                {"bbox": xywh(box)} if kind == "bbox" else {"segmentation": rle_of(mask[0] > 0.5)}
            )
            results.append({**one, **region})
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[1])


def xywh(box: Tensor) -> list[float]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def rle_of(mask: Tensor) -> dict[str, Any]:
    return coco_masks.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def sgd(model: nn.Module, lr: float = 0.02) -> torch.optim.SGD:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trainable, lr=lr, momentum=0.9, weight_decay=0.0005)


@pytest.fixture
def batch() -> tuple[list[Tensor], Targets]:
    return to_device(next(iter(loader_of(SyntheticCells(2), 2))), CPU)


def test_two_epochs_with_an_evaluation_after_each(build_tiny: BuildModel) -> None:
    """The first evaluation, in inference mode, leaves nothing behind that training trips over."""
    dataset = SyntheticCells(4)
    train, test = loader_of(dataset, 2, shuffle=True), loader_of(dataset, 1)
    model = build_tiny()
    optimizer = sgd(model)
    totals, figures = [], []
    for epoch in range(2):
        for repeat in range(6):
            warm_up = epoch == 0 and repeat == 0
            totals += train_one_epoch(model, optimizer, train, warm_up=warm_up)
        figures.append(average_precision(dataset, predict(model, test)))
    assert np.mean(totals[-4:]) < 0.85 * np.mean(totals[:4])
    assert min(figures[-1].values()) > 0.1, figures


def test_it_counts_as_a_mask_model_of_torchvision(build_tiny: BuildModel) -> None:
    """By this the references' evaluation decides to score masks beside boxes."""
    model = build_tiny()
    assert isinstance(model, torchvision.models.detection.MaskRCNN)
    assert isinstance(copy.deepcopy(model), torchvision.models.detection.MaskRCNN)
    assert not hasattr(model, "transform")


def test_a_checkpoint_resumes_the_very_next_step(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets], tmp_path: Path
) -> None:
    def step(model: MaskRCNN, optimizer: torch.optim.Optimizer, seed: int) -> float:
        torch.manual_seed(seed)  # anchors and proposals are sampled
        total = sum(model(*batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.item()

    model = build_tiny()
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1], gamma=0.5)
    step(model, optimizer, seed=1)
    schedule.step()
    parts = {"model": model, "optimizer": optimizer, "lr_scheduler": schedule}
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**states, "epoch": 0}, tmp_path / "checkpoint.pth")
    expected = [step(model, optimizer, seed) for seed in (2, 3)]

    resumed = build_tiny()
    optimizer = sgd(resumed)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1], gamma=0.5)
    saved = torch.load(tmp_path / "checkpoint.pth", map_location="cpu", weights_only=True)
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["lr_scheduler"])
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert [step(resumed, optimizer, seed) for seed in (2, 3)] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_normalization_gets_a_weight_decay_of_its_own(build_tiny: BuildModel, norm: str) -> None:
    model = build_tiny(norm=norm)
    of_norms, others = split_normalization_params(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sorted(names[id(p)] for p in [*of_norms, *others]) == sorted(names.values())
    assert {names[id(p)] for p in of_norms} == {n for n in names.values() if ".norm." in n}
    assert all(p.dim() == 1 for p in of_norms)


def test_batch_norms_become_synchronized_ones(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets]
) -> None:
    plain = build_tiny(norm="BN")
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    model = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    assert isinstance(model, MaskRCNN)
    for tree in (model, model.detector):
        assert not any(type(module) is nn.BatchNorm2d for module in tree.modules())
        assert sum(isinstance(module, nn.SyncBatchNorm) for module in tree.modules()) == norms > 0
    assert len(model.eval()(batch[0])) == 2


def test_distributed_data_parallel(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets], tmp_path: Path
) -> None:
    """Two steps, since the second fails where a parameter had no gradient in the first."""
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        model = build_tiny()
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            sum(parallel(*batch).values()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert parallel.module is model
        assert len(parallel.eval()(batch[0])) == 2
    finally:
        torch.distributed.destroy_process_group()


def test_moving_average_of_weights(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets]
) -> None:
    model = build_tiny(box_score_thresh=0.0)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    before = next(model.parameters()).detach().clone()
    average.update_parameters(model)  # the first takes the values as they are
    with torch.no_grad():
        next(model.parameters()).add_(1)
    average.update_parameters(model)
    for root in (average.module, average.module.detector):
        torch.testing.assert_close(next(root.parameters()).detach(), before + 0.5)
    assert len(average.eval()(batch[0])) == 2


def test_mixed_precision(build_tiny: BuildModel, batch: tuple[list[Tensor], Targets]) -> None:
    model = build_tiny(box_score_thresh=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*batch)
        sum(losses.values()).backward()
        cells = model.eval()(batch[0])[0]
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    kinds = {name: value.dtype for name, value in cells.items()}
    assert kinds == {
        **dict.fromkeys(("boxes", "scores", "masks"), torch.float32),
        "labels": torch.int64,
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_refused(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets], dtype: torch.dtype
) -> None:
    with pytest.raises(InputTypeError, match=r"float32 and call the model under torch\.autocast"):
        build_tiny().to(dtype)(*batch)


def test_heads_of_the_finetuning_tutorial_are_refused(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets]
) -> None:
    model = build_tiny()
    heads = model.roi_heads
    heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, 3)
    with pytest.raises(ConfigError, match=r"^roi_heads\.box_predictor is torchvision's FastRCNN"):
        model(*batch)
    model = build_tiny()
    model.roi_heads.mask_predictor = MaskRCNNPredictor(32, 32, 3)
    with pytest.raises(ConfigError, match=r"^roi_heads\.mask_predictor is .*num_classes"):
        model.eval()(batch[0])


def test_more_classes_keep_the_rest_of_a_trained_model(
    build_tiny: BuildModel, tmp_path: Path
) -> None:
    """What replaces the tutorial's new heads."""
    trained = build_tiny()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    torch.save(trained.state_dict(), tmp_path / "two.pth")
    model = build_tiny(num_classes=4).load_weights(tmp_path / "two.pth", partial=True)
    old, new = trained.state_dict(), model.state_dict()
    changed = {name for name in old if old[name].shape != new[name].shape}
    assert {name.rpartition(".")[0] for name in changed} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_head.predictor",
    }
    assert all(torch.equal(old[name], new[name]) for name in old.keys() - changed)


def test_tensors_of_the_transforms_v2(
    build_tiny: BuildModel, batch: tuple[list[Tensor], Targets]
) -> None:
    images, targets = batch
    wrapped = [
        {
            **target,
            "boxes": tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(64, 64)),
            "masks": tv_tensors.Mask(target["masks"]),
        }
        for target in targets
    ]
    model = build_tiny(box_score_thresh=0.0)
    sum(model([tv_tensors.Image(image) for image in images], wrapped).values()).backward()
    cells = model.eval()([tv_tensors.Image(image) for image in images])[0]
    assert {type(value) for value in cells.values()} == {Tensor}
