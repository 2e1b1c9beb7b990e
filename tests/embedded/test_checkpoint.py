"""Checkpoints: saved whole or not at all, loaded without running code, matched by name."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import Checkpointer, DetectionCheckpointer, PeriodicCheckpointer
from detectron2.checkpoint.c2_model_loading import (
    _longest_common_prefix_str,
    align_and_update_state_dicts,
    convert_basic_c2_names,
    convert_c2_detectron_names,
)
from torch import nn


class Nested(nn.Module):
    """Parameters `backbone.conv.weight` (2, 3) and `backbone.conv.bias` (2)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv = nn.Linear(3, 2)


def weights(model: nn.Module) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def write_pickle(path: Path, content: object, protocol: int = 2) -> str:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


def test_what_is_saved_is_loaded_with_all_that_belongs_to_it(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("first", iteration=7)

    other = nn.Linear(2, 2)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=1.0, momentum=0.1)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    assert checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "first.pth")
    rest = checkpointer.resume_or_load("unused.pth", resume=True)
    assert rest["iteration"] == 7
    assert weights(other) == weights(model)
    assert other_optimizer.param_groups[0]["lr"] == 0.25
    momenta = [state["momentum_buffer"] for state in other_optimizer.state.values()]
    assert torch.equal(momenta[0], torch.ones(2, 2))


def test_without_resume_only_the_weights_are_loaded(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("pretrained")
    other = nn.Linear(1, 1)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
    DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer).resume_or_load(
        str(tmp_path / "pretrained.pth"), resume=False
    )
    assert weights(other) == weights(model)
    assert other_optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["bn_gamma", "bn_beta", "bn_rm"], "bn_"),
        (["ab", "abc"], "ab"),
        (["a", "b"], ""),
        (["x"], "x"),
    ],
)
def test_what_names_have_in_common(names, prefix):
    assert _longest_common_prefix_str(names) == prefix


def test_no_path_loads_nothing():
    model = nn.Linear(1, 1)
    before = weights(model)
    assert DetectionCheckpointer(model).load("") == {}
    assert weights(model) == before


def test_nothing_is_written_without_folder_or_permission(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DetectionCheckpointer(nn.Linear(1, 1)).save("model")
    DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path), save_to_disk=False).save("model")
    assert list(tmp_path.iterdir()) == []


def test_file_of_bare_weights_and_of_a_parallel_model(tmp_path):
    model = nn.Linear(2, 1)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    prefixed = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": prefixed}, tmp_path / "parallel.pth")
    for name in ("bare", "parallel"):
        other = nn.Linear(2, 1)
        DetectionCheckpointer(other).load(str(tmp_path / f"{name}.pth"))
        assert weights(other) == weights(model)


def test_missing_unexpected_and_misshapen_weights_are_reported(tmp_path, caplog):
    torch.save({"model": {"weight": torch.ones(3, 3), "extra": torch.ones(1)}}, tmp_path / "a.pth")
    model = nn.Linear(2, 2)
    before = weights(model)
    with caplog.at_level("WARNING"):
        DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert weights(model) == before
    assert "(3, 3)" in caplog.text
    assert "(2, 2)" in caplog.text
    assert "bias" in caplog.text
    assert "extra" in caplog.text


def test_pixel_statistics_and_old_anchors_are_not_worth_a_warning(tmp_path, caplog):
    model = nn.Linear(1, 1)
    model.register_buffer("pixel_mean", torch.zeros(3))
    state = dict(nn.Linear(1, 1).state_dict())
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    torch.save({"model": state}, tmp_path / "old.pth")
    with caplog.at_level("WARNING"):
        DetectionCheckpointer(model).load(str(tmp_path / "old.pth"))
    assert caplog.text == ""


def test_model_zoo_pickle_is_loaded(tmp_path):
    content = {
        "model": {"backbone.conv.weight": np.ones((2, 3), "f4"), "backbone.conv.bias": np.zeros(2)},
        "__author__": "zoo",
    }
    for protocol in (2, 4):
        model = Nested()
        path = write_pickle(tmp_path / f"zoo{protocol}.pkl", content, protocol)
        DetectionCheckpointer(model).load(path)
        assert weights(model) == {
            "backbone.conv.weight": [[1.0] * 3] * 2,
            "backbone.conv.bias": [0.0, 0.0],
        }


def test_pickle_may_ask_for_matching_by_ending(tmp_path):
    content = {
        "model": OrderedDict({"conv.weight": np.full((2, 3), 5, "f4"), "fc.weight": np.ones(1)}),
        "__author__": "torchvision",
        "matching_heuristics": True,
    }
    model = Nested()
    DetectionCheckpointer(model).load(write_pickle(tmp_path / "a.pkl", content))
    assert weights(model)["backbone.conv.weight"] == [[5.0] * 3] * 2


def test_caffe2_pickle_is_renamed_and_its_momentum_left_out(tmp_path):
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.res2 = nn.ModuleList([nn.Module()])
    model.backbone.res2[0].conv1 = nn.Linear(1, 2)
    blobs = {
        "res2_0_branch2a_w": np.full((2, 1), 3, "f4"),
        "res2_0_branch2a_b": np.full(2, 4, "f4"),
        "res2_0_branch2a_w_momentum": np.zeros((2, 1), "f4"),
    }
    for number, content in enumerate((blobs, {"blobs": blobs})):
        DetectionCheckpointer(model).load(write_pickle(tmp_path / f"{number}.pkl", content))
        assert weights(model) == {
            "backbone.res2.0.conv1.weight": [[3.0], [3.0]],
            "backbone.res2.0.conv1.bias": [4.0, 4.0],
        }
        model.backbone.res2[0].conv1.reset_parameters()


class RunsCode:
    """Unpickling it creates the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.embedded_only
def test_pickle_that_runs_code_is_refused_and_named(tmp_path):
    trap = tmp_path / "was-here"
    path = write_pickle(tmp_path / "evil.pkl", {"model": RunsCode(trap), "__author__": "me"})
    with pytest.raises(RuntimeError, match=r"evil\.pkl.*mkdir"):
        DetectionCheckpointer(nn.Linear(1, 1)).load(path)
    assert not trap.exists()


def test_pth_that_runs_code_is_refused(tmp_path):
    trap = tmp_path / "was-here"
    torch.save({"model": RunsCode(trap)}, tmp_path / "evil.pth")
    with pytest.raises((RuntimeError, pickle.UnpicklingError)) as caught:
        DetectionCheckpointer(nn.Linear(1, 1)).load(str(tmp_path / "evil.pth"))
    assert not trap.exists()
    assert "mkdir" in str(caught.value)


@pytest.mark.embedded_only
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.getattr", "torch.load"])
def test_only_arrays_and_containers_are_unpickled(tmp_path, name, protocol):
    module, _, function = name.partition(".")
    path = tmp_path / "a.pkl"
    if protocol < 4:
        path.write_bytes(f"c{module}\n{function}\n(S'0'\ntR.".encode())
    else:
        strings = b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, function))
        path.write_bytes(b"\x80\x04" + strings + b"\x93.")
    with pytest.raises(RuntimeError, match=name):
        DetectionCheckpointer(nn.Linear(1, 1)).load(str(path))


@pytest.mark.embedded_only
def test_codec_of_bytes_is_latin1_only(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVutf_16\ntR.")
    with pytest.raises(RuntimeError, match="utf_16"):
        DetectionCheckpointer(nn.Linear(1, 1)).load(str(path))


@pytest.mark.embedded_only
@pytest.mark.parametrize("ending", ["pth", "pkl"])
def test_damaged_empty_and_missing_files_are_named(tmp_path, ending):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1))
    with pytest.raises(FileNotFoundError, match=f"nowhere.{ending}"):
        checkpointer.load(str(tmp_path / f"nowhere.{ending}"))
    path = tmp_path / f"half.{ending}"
    torch.save({"model": nn.Linear(9, 9).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RuntimeError, match=f"half.{ending}"):
        checkpointer.load(str(path))
    path.write_bytes(b"")
    with pytest.raises(RuntimeError, match=f"half.{ending}"):
        checkpointer.load(str(path))


@pytest.mark.embedded_only
def test_file_that_holds_no_dict_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RuntimeError, match=r"list\.pth holds a list"):
        DetectionCheckpointer(nn.Linear(1, 1)).load(str(tmp_path / "list.pth"))


@pytest.mark.embedded_only
def test_numpy_numbers_in_a_checkpoint_can_be_read_back(tmp_path):
    model = nn.Linear(1, 1)
    DetectionCheckpointer(model, str(tmp_path)).save("a", best=np.float64(0.5), n=np.int64(3))
    rest = DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert (rest["best"], rest["n"]) == (0.5, 3)


def test_query_asks_for_matching_by_ending(tmp_path):
    torch.save({"model": {"conv.weight": torch.ones(2, 3)}}, tmp_path / "a.pth")
    model = Nested()
    DetectionCheckpointer(model).load(str(tmp_path / "a.pth?matching_heuristics=True"))
    assert weights(model)["backbone.conv.weight"] == [[1.0] * 3] * 2
    with pytest.raises(ValueError, match="colour"):
        DetectionCheckpointer(model).load(str(tmp_path / "a.pth?colour=red"))


@pytest.mark.embedded_only
def test_failed_load_does_not_spoil_the_next_one(tmp_path):
    torch.save({"model": {"conv.weight": torch.ones(2, 3)}}, tmp_path / "a.pth")
    model = Nested()
    before = weights(model)
    checkpointer = DetectionCheckpointer(model)
    (tmp_path / "bad.pth").write_bytes(b"x")
    with pytest.raises(RuntimeError, match="bad"):
        checkpointer.load(str(tmp_path / "bad.pth?matching_heuristics=True"))
    checkpointer.load(str(tmp_path / "a.pth"))
    assert weights(model) == before


def names(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}


def test_longest_ending_wins_and_ends_count_from_a_dot():
    model = names(a__res2__conv__weight=(1,), b__conv__weight=(1,), c__xconv__weight=(1,))
    found = {
        "conv.weight": torch.tensor([1.0]),
        "res2.conv.weight": torch.tensor([2.0]),
        "other": torch.tensor([3.0]),
    }
    aligned = align_and_update_state_dicts(model, found, c2_conversion=False)
    assert {name: tensor.item() for name, tensor in aligned.items()} == {
        "b.conv.weight": 1,
        "a.res2.conv.weight": 2,
        "other": 3,
    }


def test_one_weight_for_two_places_is_refused():
    model = names(a__conv__weight=(1,), b__conv__weight=(1,))
    with pytest.raises(ValueError, match=r"(?s)matc"):
        align_and_update_state_dicts(model, names(conv__weight=(1,)), c2_conversion=False)


def test_other_shapes_are_left_out_with_a_warning(caplog):
    model = names(a__conv__weight=(2,))
    with caplog.at_level("WARNING"):
        aligned = align_and_update_state_dicts(model, names(conv__weight=(1,)), c2_conversion=False)
    assert list(aligned) == ["conv.weight"]
    assert "a.conv.weight" in caplog.text


@pytest.mark.parametrize(
    ("caffe2", "ours"),
    [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_beta", "stem.conv1.norm.bias"),
        ("res2_0_branch1_w", "res2.0.shortcut.weight"),
        ("res2_0_branch2a_b", "res2.0.conv1.bias"),
        ("res3_1_branch2b_bn_riv", "res3.1.conv2.norm.running_var"),
        ("res3_1_branch2b_bn_running_mean", "res3.1.conv2.norm.running_mean"),
        ("res4_22_branch2c_gn_s", "res4.22.conv3.norm.weight"),
        ("pred_w", "linear.weight"),
    ],
)
def test_caffe2_names_of_backbones(caffe2, ours):
    assert convert_basic_c2_names([caffe2]) == [ours]


@pytest.mark.parametrize(
    ("caffe2", "ours"),
    [
        ("conv_rpn_fpn2_w", "proposal_generator.rpn_head.conv.weight"),
        ("rpn_bbox_pred_fpn2_b", "proposal_generator.rpn_head.anchor_deltas.bias"),
        ("rpn_cls_logits_w", "proposal_generator.rpn_head.objectness_logits.weight"),
        ("fc6_w", "box_head.fc1.weight"),
        ("fpn_inner_res5_2_sum_w", "fpn_lateral5.weight"),
        ("fpn_inner_res2_2_sum_lateral_gn_s", "fpn_lateral2.norm.weight"),
        ("fpn_res3_3_sum_b", "fpn_output3.bias"),
        ("_[mask]_fcn1_w", "mask_head.mask_fcn1.weight"),
        ("conv5_mask_w", "mask_head.deconv.weight"),
    ],
)
def test_caffe2_names_of_detectors(caffe2, ours):
    converted, origins = convert_c2_detectron_names({caffe2: torch.ones(1)})
    assert list(converted) == [ours]
    assert origins == {ours: caffe2}


def test_caffe2_background_class_moves_or_goes():
    rows = torch.arange(3.0)
    converted, _ = convert_c2_detectron_names(
        {"cls_score_b": rows, "bbox_pred_b": torch.arange(12.0), "mask_fcn_logits_b": rows}
    )
    assert converted["cls_score.bias"].tolist() == [1, 2, 0]
    assert converted["bbox_pred.bias"].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert converted["mask_head.predictor.bias"].tolist() == [1, 2]


@pytest.mark.embedded_only
def test_caffe2_names_that_become_one_are_refused():
    clash = {"conv1_w": torch.ones(1), "res_conv1_bn_s": torch.ones(1), "conv1.w": torch.ones(1)}
    with pytest.raises(ValueError, match=r"stem\.conv1\.weight"):
        convert_c2_detectron_names(clash)


def test_periodic_checkpointer_keeps_the_newest(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    assert isinstance(checkpointer, Checkpointer)
    periodic = PeriodicCheckpointer(checkpointer, period=2, max_iter=7, max_to_keep=2)
    for iteration in range(7):
        periodic.step(iteration)
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000003.pth",
        "model_0000005.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
