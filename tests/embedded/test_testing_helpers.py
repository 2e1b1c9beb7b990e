"""detectron2.utils.testing."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace as Fields
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils import testing


def test_random_boxes_have_sides_and_stay_inside() -> None:
    boxes = testing.random_boxes(500, max_coord=20)
    assert boxes.shape == (500, 4)
    assert float(boxes.min()) >= 1
    assert float(boxes.max()) <= 20
    assert float((boxes[:, 2:] - boxes[:, :2]).min()) >= 1 - 1e-5
    assert testing.random_boxes(0).shape == (0, 4)


def test_random_boxes_of_one_seed() -> None:
    torch.manual_seed(0)  # the four numbers of torch.rand: 0.4963, 0.7682, 0.0885, 0.1320
    expected = torch.tensor([[24.8128, 38.4111, 24.8128 + 4.4239, 38.4111 + 6.6015]])
    assert torch.allclose(testing.random_boxes(1), expected, atol=1e-3)


def instances(score: float = 0.5, left: float = 1.0, label: int = 3, **fields: Any) -> Instances:
    made = Instances((4, 6), scores=torch.tensor([score]), labels=torch.tensor([label]), **fields)
    made.pred_boxes = Boxes(torch.tensor([[left, 2.0, 3.0, 4.0]]))
    return made


def test_equal_up_to_rounding() -> None:
    close = instances(score=0.5 + 1e-6, left=1.0005)
    testing.assert_instances_allclose(instances(), close)
    testing.assert_instances_allclose(instances(score=0.6), instances(), rtol=0.2)
    testing.assert_instances_allclose(instances(), scripted())


@pytest.mark.parametrize(
    "other",
    [
        instances(score=0.51),
        instances(left=1.1),
        instances(label=2),
        instances(more=torch.zeros(1)),
        Instances((4, 7)),
    ],
    ids=["score", "box", "label", "field", "size"],
)
def test_differences(other: Instances) -> None:
    with pytest.raises(AssertionError, match="image two"):
        testing.assert_instances_allclose(instances(), other, msg="image two")


def test_sizes_as_tensors() -> None:
    traced = Instances(torch.tensor([4, 6]))
    testing.assert_instances_allclose(Instances((4, 6)), traced, size_as_tensor=True)
    with pytest.raises(AssertionError):
        testing.assert_instances_allclose(Instances((4, 5)), traced, size_as_tensor=True)


def test_fields_without_a_comparison() -> None:
    with pytest.raises(ValueError, match="list"):
        testing.assert_instances_allclose(instances(names=["a"]), instances(names=["a"]))


@pytest.mark.embedded_only
def test_fields_without_a_value() -> None:
    none = Instances((4, 6), scores=torch.zeros(0))
    testing.assert_instances_allclose(none, none)


def scripted() -> Any:
    fields = instances().get_fields()
    private = {f"_{name}": value for name, value in fields.items()}
    return Fields(image_size=(4, 6), _field_names=[*fields, "unset"], _unset=None, **private)


def test_scripted_instances_become_plain() -> None:
    plain = testing.convert_scripted_instances(scripted())
    assert isinstance(plain, Instances)
    assert plain.image_size == (4, 6)
    assert sorted(plain.get_fields()) == ["labels", "pred_boxes", "scores"]


@pytest.mark.embedded_only
def test_other_objects_are_not_instances() -> None:
    with pytest.raises(TypeError, match="int"):
        testing.convert_scripted_instances(3)


def test_a_scripted_model_after_a_journey() -> None:
    model = torch.jit.script(torch.nn.Linear(2, 1))
    value = torch.ones(1, 2)
    assert torch.equal(testing.reload_script_model(model)(value), model(value))


def test_a_lazy_config_after_a_journey() -> None:
    pytest.importorskip("omegaconf")
    cfg = testing.reload_lazy_config(LazyCall(Fraction)(numerator=1, denominator="${numerator}"))
    assert instantiate(cfg) == 1
    cfg.numerator = "${denominator}"
    cfg.denominator = 4
    assert instantiate(cfg) == 1


def test_models_without_weights() -> None:
    model = testing.get_model_no_weights("Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml")
    assert isinstance(model.backbone.fpn_lateral2.norm, torch.nn.GroupNorm)
    assert isinstance(model.backbone.bottom_up.stem.conv1.norm, torch.nn.GroupNorm)
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize(("lengths", "expected"), [(["n", ""], True), (["n", "8"], False)])
def test_axes_of_onnx_models(lengths: list[str], expected: bool) -> None:
    sides = [Fields(dim_param=length) for length in lengths]
    tensor = Fields(type=Fields(tensor_type=Fields(shape=Fields(dim=sides))))
    for inputs, outputs in (([tensor], []), ([], [tensor])):
        model = Fields(graph=Fields(input=inputs, output=outputs))
        assert testing.has_dynamic_axes(model) is expected


def test_torch_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.10.1+cu121")
    assert testing.min_torch_version("2.9")
    assert testing.min_torch_version("2.10.1")
    assert not testing.min_torch_version("2.11")
