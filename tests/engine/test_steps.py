"""CellStep: the numbers of Detectron2's own step, in parts, in mixed precision; when it stops."""

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
from cellseg.engine.non_finite import replay_step
from cellseg.engine.steps import CellStep, amp_precision, build_step, split_batch
from cellseg.errors import TrainingError
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage, get_event_storage
from PIL import Image
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[2]


class Regression(nn.Module):
    """Two losses, each a mean over the images; no batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.seen: list[int] = []

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.seen.append(len(batch))
        x = torch.stack([entry["image"].mean(dim=(1, 2)) for entry in batch])
        y = self.layers(x)
        return {"loss_a": (y - 1).square().mean(), "loss_b": y.abs().mean()}


def batches(*, images: int, spoiled: int | None = None) -> Iterator[list[dict[str, Any]]]:
    generator = torch.Generator().manual_seed(1)
    for number in range(100):
        batch = [
            {"image": torch.rand(3, 4, 5, generator=generator), "file_name": f"{number}_{k}.png"}
            for k in range(images)
        ]
        if number == spoiled:
            batch[-1]["image"][1, 2, 3] = torch.nan
        yield batch


def run(step: SimpleTrainer, iterations: int, start: int = 0) -> list[float]:
    losses = []
    for step.iter in range(start, start + iterations):
        with EventStorage(step.iter):
            step.run_step()
            losses.append(get_event_storage().latest().get("total_loss", (None,))[0])
    return losses


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)


def make(kind: type[SimpleTrainer] = CellStep, images: int = 4, **options: Any) -> SimpleTrainer:
    model = Regression()
    return kind(model, batches(images=images), sgd(model), **options)


def weights(step: SimpleTrainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in step.model.parameters()])


def test_with_everything_off_the_numbers_are_those_of_detectron2() -> None:
    ours, theirs = make(), make(SimpleTrainer)
    assert run(ours, 6) == run(theirs, 6)
    assert torch.equal(weights(ours), weights(theirs))


@pytest.fixture
def cfg(tiny_training: list[str]) -> CfgNode:
    tiny = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40")
    return load_config(REPOSITORY / "configs/quick_start.yaml", [*tiny_training, *tiny])


def test_with_everything_off_a_mask_rcnn_gets_the_weights_of_the_engines_step(
    cfg: CfgNode,
) -> None:
    found = []
    for theirs in (True, False):
        torch.manual_seed(4)
        np.random.seed(4)  # noqa: NPY002  # augmentations draw from it
        model = CellTrainer.build_model(cfg)
        optimizer = CellTrainer.build_optimizer(cfg, model)
        step = SimpleTrainer(model, CellTrainer.build_train_loader(cfg), optimizer)
        run(step if theirs else build_step(cfg, step), 2)
        found.append(weights(step))
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_parts_give_the_gradients_of_the_whole(count: int) -> None:
    whole, parts = make(images=5), make(images=5, accumulate=count)
    np.testing.assert_allclose(run(parts, 4), run(whole, 4), rtol=1e-6)
    torch.testing.assert_close(weights(parts), weights(whole))
    assert parts.model.seen[:count] == [len(part) for part in split_batch([0] * 5, count)]
    assert len(parts.model.seen) == 4 * count  # one iteration, one update


def test_a_batch_is_split_without_empty_parts() -> None:
    assert split_batch([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4, 5]]
    assert split_batch([1], 3) == [[1]]
    assert split_batch((1, 2), 2) == [(1, 2)]


# As in test_distributed.py: images that weigh the same in every loss.
EQUAL_WEIGHTS = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 100_000,
    "MODEL.RPN.POSITIVE_FRACTION": 1.0,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "[0.99]",
    "MODEL.DEVICE": "cpu",
}


def test_parts_give_the_gradients_of_the_whole_in_a_mask_rcnn(tiny_model: list[str]) -> None:
    from detectron2.structures import BitMasks, Boxes, Instances

    opts = [*tiny_model, *(str(word) for item in EQUAL_WEIGHTS.items() for word in item)]
    cfg = load_config(REPOSITORY / "configs/base_mask_rcnn_R_50_FPN.yaml", opts)
    batch = []
    for shift in (0, 1):
        corners = torch.tensor([[4.0, 6.0], [30.0, 10.0], [12.0, 40.0]]) + shift
        cells = Instances((64, 64), gt_boxes=Boxes(torch.cat([corners, corners + 16], dim=1)))
        cells.gt_classes = torch.zeros(3, dtype=torch.int64)
        masks = torch.zeros(3, 64, 64, dtype=torch.bool)
        for mask, (x, y) in zip(masks, corners.int().tolist()):
            mask[y : y + 16, x : x + 12] = True
        cells.gt_masks = BitMasks(masks)
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(shift)) * 255
        batch.append({"image": image, "instances": cells})
    gradients = []
    for count in (1, 2):
        torch.manual_seed(3)
        model = build_model(cfg)
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        run(CellStep(model, iter([batch]), optimizer, accumulate=count), 1)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    whole, parts = gradients
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        error = (parts[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        # those of the mask head are so small at first that older versions of PyTorch differ by 1e-3
        assert error < 5e-3, name


def test_a_checkpoint_goes_from_detectron2s_step_to_this_and_back() -> None:
    straight, theirs = make(), make(SimpleTrainer)
    run(straight, 6)
    run(theirs, 2)
    ours = make()
    for old, new in ((theirs, ours), (ours, theirs)):
        new.model.load_state_dict(old.model.state_dict())
        state = old.state_dict()
        assert state.keys() == straight.state_dict().keys() == {"iteration", "optimizer"}
        new.load_state_dict(state)
        assert new.iter == old.iter
        next(new.data_loader), next(new.data_loader)  # what the other one has seen
        run(new, 2, start=old.iter + 1)
    assert torch.equal(weights(theirs), weights(straight))


def test_the_gradient_scaler_goes_from_detectron2s_step_to_this_and_back() -> None:
    theirs = make(AMPTrainer, grad_scaler=torch.amp.GradScaler("cpu", init_scale=64.0))
    plain = make().state_dict()
    for precision in (torch.float16, torch.bfloat16):
        ours = make(precision=precision)
        ours.load_state_dict(plain)  # which has no scale
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
    half = make(precision=torch.float16)
    half.load_state_dict(theirs.state_dict())
    assert half.state_dict()["grad_scaler"]["scale"] == theirs.grad_scaler.get_scale()
    half.load_state_dict(make(precision=torch.bfloat16).state_dict())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_near_full_precision(precision: torch.dtype) -> None:
    full, mixed = make(), make(precision=precision)
    scales = mixed.grad_scaler.is_enabled()
    assert scales == (precision is torch.float16)
    if scales:  # at 2**16 the first update would be left out
        mixed.grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    np.testing.assert_allclose(run(mixed, 5), run(full, 5), rtol=0.03)
    assert not torch.equal(weights(mixed), weights(full))
    assert all(parameter.dtype == torch.float32 for parameter in mixed.model.parameters())


def test_an_overflow_of_float16_is_skipped_and_does_not_stop() -> None:
    step = make(precision=torch.float16)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = weights(step)
    run(step, 1)
    assert torch.equal(weights(step), before)
    assert step.grad_scaler.get_scale() < 2.0**40


@pytest.mark.parametrize(
    ("wanted", "device", "capability", "expected"),
    [
        ("auto", "cpu", None, torch.bfloat16),
        ("auto", "cuda", (7, 5), torch.float16),
        ("auto", "cuda", (8, 0), torch.bfloat16),
        ("float16", "cuda", (9, 0), torch.float16),
        ("bfloat16", "cuda", (7, 0), torch.bfloat16),
    ],
)
def test_precision_of_the_config(
    cfg: CfgNode,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    device: str,
    capability: tuple[int, int] | None,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    cfg.CELLSEG.SOLVER.AMP_DTYPE = wanted
    assert amp_precision(cfg, torch.device(device)) is None
    cfg.SOLVER.AMP.ENABLED = True
    assert amp_precision(cfg, torch.device(device)) is expected


def test_bfloat16_trains_a_mask_rcnn_in_parts_on_the_cpu(cfg: CfgNode) -> None:
    cfg.SOLVER.AMP.ENABLED = True
    cfg.CELLSEG.SOLVER.ACCUMULATE = 2
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 2, ()
    trainer = CellTrainer(cfg)
    assert isinstance(trainer._trainer, CellStep)
    assert trainer._trainer.precision is torch.bfloat16
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert after.dtype == torch.float32
    assert not torch.equal(before, after)
    saved = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=False)
    assert set(saved["trainer"]["_trainer"]) == {"iteration", "optimizer", "grad_scaler"}
    # what remains is a state that Detectron2's own trainer resumes from
    cfg.SOLVER.AMP.ENABLED = False
    DefaultTrainer.resume_or_load(CellTrainer(cfg), resume=True)


def spoil(tmp_path: Path, **options: Any) -> tuple[CellStep, str]:
    model = Regression()
    step = CellStep(model, batches(images=3, spoiled=2), sgd(model), output_dir=tmp_path, **options)
    run(step, 2)
    with pytest.raises(TrainingError) as caught:
        run(step, 1, start=2)
    return step, str(caught.value)


@pytest.mark.parametrize("options", [{}, {"gather_metric_period": 50}, {"accumulate": 2}])
def test_a_loss_that_is_not_finite_stops_and_leaves_what_explains_it(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    step, message = spoil(tmp_path, **options)
    folder = tmp_path / "non_finite" / "iteration_0000002_rank0"
    for part in ("Iteration 2", "loss_a nan", "2_0.png, 2_1.png, 2_2.png", "BASE_LR", str(folder)):
        assert part in message
    untouched = make(images=3)
    run(untouched, 2)
    if "accumulate" not in options:
        assert torch.equal(weights(step), weights(untouched))

    report = json.loads((folder / "report.json").read_text())
    assert report["losses"] == {"loss_a": "nan", "loss_b": "nan"}
    assert [image["pixels_not_finite"] for image in report["images"]] == [0, 0, 1]
    assert "layers.0.weight" in report["gradients_not_finite"]
    assert report["parameters_not_finite"] == []
    assert np.asarray(Image.open(folder / "image_1.png")).shape == (4, 5, 3)

    again = replay_step(Regression(), folder)
    assert len(again) == options.get("accumulate", 1)
    assert np.isnan(again[-1]["loss_a"])


def test_a_gradient_that_is_not_finite_stops(tmp_path: Path) -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch: Any) -> torch.Tensor:
            return self.weight.sqrt().sum()  # 0, with an infinite slope

    model = Root()
    step = CellStep(model, iter([[{}]]), sgd(model), output_dir=tmp_path)
    with pytest.raises(TrainingError, match="the gradient is not finite, the losses are"):
        run(step, 1)
    assert model.weight.item() == 0


def test_what_the_model_itself_finds_stops_too(tmp_path: Path) -> None:
    class Diverged(nn.Linear):
        def forward(self, batch: Any) -> torch.Tensor:
            raise FloatingPointError("boxes are infinite")

    model = Diverged(1, 1)
    batch = [{"image": torch.zeros(1, 2, 2), "file_name": "a.png"}]
    step = CellStep(model, iter([batch]), sgd(model), output_dir=tmp_path)
    with pytest.raises(TrainingError, match=r"boxes are infinite\. Losses: not computed.*a\.png"):
        run(step, 1)
    assert (tmp_path / "non_finite" / "iteration_0000000_rank0" / "batch.pth").is_file()


def test_a_batch_that_cannot_be_saved_does_not_hide_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "non_finite").write_text("a file where a folder should be")
    with caplog.at_level(logging.ERROR, "cellseg"):
        _, message = spoil(tmp_path)
    assert "loss_a nan" in message
    assert "The batch could not be saved" in message


def test_a_training_that_stops_keeps_its_checkpoints_and_can_be_repeated(cfg: CfgNode) -> None:
    cfg.DATASETS.TEST = ()
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    trainer = CellTrainer(cfg)
    loader = iter(trainer.data_loader)

    def spoiled() -> Iterator[Any]:
        yield next(loader)
        batch = next(loader)
        batch[1]["image"] = batch[1]["image"].float() * torch.inf
        yield batch

    trainer.data_loader = spoiled()
    with pytest.raises(TrainingError):
        trainer.train()
    run_dir = Path(cfg.OUTPUT_DIR)
    assert sorted(path.name for path in run_dir.glob("*.pth")) == ["model_0000000.pth"]
    folder = next((run_dir / "non_finite").iterdir())
    saved = torch.load(folder / "model.pth", weights_only=True)["model"]
    checkpoint = torch.load(run_dir / "model_0000000.pth", weights_only=False)["model"]
    assert all(torch.equal(saved[name], value) for name, value in checkpoint.items())
    images = json.loads((folder / "report.json").read_text())["images"]
    assert len(images) == 2
    assert len(images[0]["boxes_xyxy"]) == len(images[0]["classes"]) > 0
    with pytest.raises(FloatingPointError):
        replay_step(build_model(cfg), folder)
