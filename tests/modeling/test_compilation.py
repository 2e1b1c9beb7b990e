"""Compiling changes the speed, not names or numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.modeling.compilation import compile_convolutions

CONFIG = Path(__file__).resolve().parent.parent.parent / "configs" / "quick_start.yaml"


@pytest.mark.parametrize("wanted", ["True", "False"])
def test_the_trainer_compiles_if_the_config_says_so(tiny_model: list[str], wanted: str) -> None:
    opts = [*tiny_model, "MODEL.DEVICE", "cpu", "CELLSEG.COMPILE", wanted]
    model = CellTrainer.build_model(load_config(CONFIG, opts))
    parts = [model.backbone, model.proposal_generator.rpn_head]
    for part in parts:
        assert (part._compiled_call_impl is not None) == (wanted == "True")
    assert model.roi_heads._compiled_call_impl is None


@pytest.mark.filterwarnings("ignore")  # of the tracer, about torch itself
def test_compiled_parts_give_the_same_numbers(tiny_model: list[str]) -> None:
    model = CellTrainer.build_model(load_config(CONFIG, [*tiny_model, "MODEL.DEVICE", "cpu"]))
    model.eval()
    inputs = [{"image": torch.rand(3, 64, 96) * 255}]
    names = list(model.state_dict())
    traced: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        traced.append(graph)
        return graph

    with torch.no_grad():
        expected = model(inputs)[0]["instances"]
        compile_convolutions(model, backend)
        found = model(inputs)[0]["instances"]
    assert traced
    assert list(model.state_dict()) == names
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_masks, expected.pred_masks)
