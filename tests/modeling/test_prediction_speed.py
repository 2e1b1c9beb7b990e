"""Layers made fast for prediction: the same numbers, the same model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg.engine.setup import load_config
from cellseg.modeling import prediction_speed
from cellseg.modeling.prediction_speed import prepare_for_prediction
from cellseg.modeling.rearranged_weights import RearrangedWeights, can_rearrange_weights
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from detectron2.modeling import build_model
from torch import Tensor, nn

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
HW = (96, 64)

needs_bfloat16 = pytest.mark.skipif(
    not prediction_speed.computes_in_bfloat16(), reason="the processor does not have it"
)


@pytest.fixture
def build(tiny_model: list[str]) -> Callable[..., Any]:
    def build(*options: Any) -> Any:
        torch.manual_seed(0)
        none = ("DATASETS.TRAIN", (), "DATASETS.TEST", ())
        return build_model(load_config(QUICK_START, [*tiny_model, *none, *options])).eval()

    return build


def image(seed: int = 0, hw: tuple[int, int] = HW) -> Tensor:
    return torch.rand((3, *hw), generator=torch.Generator().manual_seed(seed)) * 255


def maps_of(model: Any, *images: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        batch = model.preprocess_image([{"image": each} for each in images])
        maps: dict[str, Tensor] = model.backbone(batch.tensor)
        return maps


def detections_of(model: Any, *images: Tensor) -> list[Any]:
    with torch.inference_mode():
        found: list[Any] = model.inference([{"image": i} for i in images], do_postprocess=False)
        return found


def assert_same_detections(found: Any, expected: Any) -> None:
    """But for one in twenty: an untrained model has pairs of which NMS may take either."""
    assert len(found) == len(expected) > 0
    ours, theirs = found.pred_boxes.tensor, expected.pred_boxes.tensor
    apart, nearest = torch.cdist(theirs, ours, p=torch.inf).min(dim=1)
    same = (apart <= 1e-3) & ((found.scores[nearest] - expected.scores).abs() <= 1e-5)
    masks = (found.pred_masks[nearest] - expected.pred_masks).abs().flatten(1)
    assert (same & (masks <= 1e-5).all(dim=1)).float().mean() >= 0.95


def test_this_pytorch_can_be_made_fast() -> None:
    assert can_rearrange_weights()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", ""),
        ("MODEL.RESNETS.NORM", "BN", "MODEL.FPN.NORM", "BN"),
        ("MODEL.ROI_BOX_HEAD.NUM_CONV", 1, "MODEL.ROI_BOX_HEAD.NORM", "GN"),
        ("MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead", "CELLSEG.MASK_IOU.CONV_DIM", 8),
        ("MODEL.ROI_HEADS.NAME", "CellTypeROIHeads", "CELLSEG.CELL_TYPE.CONV_DIM", 8),
        (
            *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
            *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        ),
    ],
)
def test_same_detections(build: Callable[..., Any], options: tuple[Any, ...]) -> None:
    plain = build(*options)
    for layer in plain.modules():  # fixed norms that do something
        if isinstance(layer, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for values in (layer.running_mean, layer.running_var):
                assert values is not None
                values.add_(0.2 * torch.rand_like(values))
    fast = copy.deepcopy(plain)
    prepare_for_prediction(fast)
    expected = detections_of(plain, image())
    for found, wanted in zip(detections_of(fast, image()), expected):
        assert_same_detections(found, wanted)


def test_maps_differ_by_rounding_alone(build: Callable[..., Any]) -> None:
    plain, fast = build(), build()
    prepare_for_prediction(fast)
    for images in ([image()], [image(), image(1)], [image(2, (64, 128))], [image()]):
        expected, found = maps_of(plain, *images), maps_of(fast, *images)
        for name, values in expected.items():
            assert (found[name] - values).abs().max() < 2e-5 * values.abs().max()


def test_what_was_there_before_does_not_matter(build: Callable[..., Any]) -> None:
    fast, fresh = build(), build()
    for model in (fast, fresh):
        prepare_for_prediction(model)
    for hw in ((64, 128), (128, 96), HW, (64, 64)):
        detections_of(fast, image(1, hw))
    (found,), (again,), (first,) = (detections_of(m, image()) for m in (fast, fast, fresh))
    for one in (found, again):
        assert torch.equal(one.scores, first.scores)
        assert torch.equal(one.pred_boxes.tensor, first.pred_boxes.tensor)
        assert torch.equal(one.pred_masks, first.pred_masks)


def test_an_even_image_stays_even(build: Callable[..., Any]) -> None:
    """Where a mean square less the square of the mean would leave rounding errors alone."""
    plain, fast = build(), build()
    prepare_for_prediction(fast)
    even = torch.full((3, *HW), 200.0)
    for name, values in maps_of(plain, even).items():
        torch.testing.assert_close(maps_of(fast, even)[name], values, rtol=0, atol=1e-3)


def test_group_norm_against_double_precision() -> None:
    torch.manual_seed(1)
    layer = nn.GroupNorm(4, 16)
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.bias)
    x = torch.randn(2, 16, 9, 7) * 0.1 + torch.arange(16.0)[:, None, None]
    expected = copy.deepcopy(layer).double()(x.double())
    prepare_for_prediction(layer)
    with torch.inference_mode():
        found = layer(x.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["BN", "SyncBN", "naiveSyncBN", "FrozenBN"])
def test_fixed_norms_are_part_of_the_weights(kind: str) -> None:
    torch.manual_seed(1)
    norm = get_norm(kind, 3)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 2.0)
    layer = Conv2d(2, 3, 3, norm=norm, activation=nn.functional.relu).eval()
    x = torch.randn(2, 2, 9, 7)
    expected = copy.deepcopy(layer).double()(x.double())
    prepare_for_prediction(layer)
    vars(norm)["forward"] = None  # nobody calls it
    with torch.inference_mode():
        found = layer(x)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert (found > 0).any()


def test_the_model_itself_stays(build: Callable[..., Any], tmp_path: Path) -> None:
    plain, fast = build(), build()
    prepare_for_prediction(fast)
    detections_of(fast, image())
    detections_of(fast, image())
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, values in plain.state_dict().items():
        assert torch.equal(fast.state_dict()[name], values)
    assert [*map(type, fast.modules())] == [*map(type, plain.modules())]


def test_weights_that_are_loaded_later_are_seen(build: Callable[..., Any]) -> None:
    fast, other = build(), build()
    prepare_for_prediction(fast)
    for _ in range(2):
        detections_of(fast, image())
    with torch.no_grad():
        for values in other.parameters():
            values.mul_(1.1)
    fast.load_state_dict(other.state_dict())
    assert_same_detections(*detections_of(fast, image()), *detections_of(other, image()))


def test_copies_and_pickles_of_the_model_predict_the_same(build: Callable[..., Any]) -> None:
    fast = build()
    prepare_for_prediction(fast)
    for _ in range(2):
        (expected,) = detections_of(fast, image())
    copied = copy.deepcopy(fast)
    with torch.no_grad():
        for values in fast.parameters():
            values.zero_()
    assert_same_detections(*detections_of(copied, image()), expected)
    layer = copied.backbone.bottom_up.stem.conv1
    again = pickle.loads(pickle.dumps(layer))
    with torch.inference_mode():
        assert torch.equal(again(image()[None]), layer(image()[None]))


def test_gradients_are_those_of_the_plain_model(build: Callable[..., Any]) -> None:
    plain, fast = build(), build()
    prepare_for_prediction(fast)
    for model in (plain, fast):
        sum(values.square().sum() for values in model.backbone(image()[None]).values()).backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), fast.named_parameters()):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, msg=name)


class Doubling(nn.Conv2d):
    """A layer of one's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_of_ones_own_work_as_ever(precision: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(
                nn.Conv2d(3, 8, 3), Doubling(8, 8, 3), nn.Conv2d(8, 8, 3, padding="same")
            )

    torch.manual_seed(0)
    plain = Model()
    fast = copy.deepcopy(plain)
    prepare_for_prediction(fast, precision)
    rounded = precision == "bfloat16" and prediction_speed.computes_in_bfloat16()
    with torch.inference_mode():
        expected, found = (model.backbone(image()[None]) for model in (plain, fast))
    assert found.dtype == torch.float32
    allowed = (0.02 if rounded else 1e-5) * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed)


def test_hooks_on_layers_and_norms_see_what_they_saw() -> None:
    layer = Conv2d(2, 3, 1, norm=FrozenBatchNorm2d(3))
    seen: list[tuple[int, ...]] = []
    layer.norm.register_forward_hook(lambda *given: seen.append(given[2].shape))
    layer.register_forward_hook(lambda *given: seen.append(given[2].shape))
    prepare_for_prediction(layer)
    with torch.inference_mode():
        layer(torch.ones(1, 2, 4, 4))
    assert seen == [(1, 3, 4, 4)] * 2


def test_weights_for_few_shapes_are_kept() -> None:
    weights = RearrangedWeights((1, 1), (0, 0), torch.float32, places=2)
    weight = torch.ones(1, 1, 1, 1)
    with torch.inference_mode():
        for side in (3, 3, 4, 4, 5, 5, 3):
            x = torch.ones(1, 1, side, side)
            found = weights.convolve(x, [weight], lambda: (weight, None))
            assert torch.equal(found, x)
    assert len(weights._rearranged) == 2


def test_where_nothing_can_be_rearranged_nothing_changes(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prediction_speed, "can_rearrange_weights", lambda: False)
    model = build()
    prepare_for_prediction(model, "bfloat16")
    assert not any("forward" in vars(layer) for layer in model.modules())
    assert "CELLSEG.TEST.PRECISION bfloat16 has no effect" in caplog.text


@needs_bfloat16
def test_bfloat16_differs_by_its_rounding(build: Callable[..., Any]) -> None:
    plain, fast = build(), build()
    prepare_for_prediction(fast, "bfloat16")
    for _ in range(2):
        for name, values in maps_of(plain, image()).items():
            found = maps_of(fast, image())[name]
            assert found.dtype == torch.float32
            assert 0 < (found - values).norm() < 0.05 * values.norm()
    (found,) = detections_of(fast, image())
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert found.pred_masks.dtype == torch.float32
