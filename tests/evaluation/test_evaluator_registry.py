"""CELLSEG.TEST.EVALUATORS: evaluators of plug-ins, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cellseg.errors import ConfigError
from cellseg.evaluation import EVALUATOR_REGISTRY
from cellseg.evaluation.registry import build_extra_evaluators, check_evaluator_names
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator


class CountsNothing(DatasetEvaluator):
    def __init__(self, *given: Any) -> None:
        self.given = given


def built_by_a_function(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    return CountsNothing(dataset_name)


def returns_a_dict(cfg: CfgNode, dataset_name: str, output_folder: str) -> dict[str, float]:
    return {}


@pytest.fixture
def cfg() -> Iterator[CfgNode]:
    parts = (CountsNothing, built_by_a_function, returns_a_dict)
    for part in parts:
        EVALUATOR_REGISTRY.register(part)
    yield CfgNode({"CELLSEG": {"TEST": {"EVALUATORS": []}}})
    for part in parts:
        del EVALUATOR_REGISTRY._obj_map[part.__name__]


def test_none_by_default(cfg: CfgNode) -> None:
    assert build_extra_evaluators(cfg, "cells_val", "folder") == []


def test_classes_and_functions_are_called_alike(cfg: CfgNode) -> None:
    cfg.CELLSEG.TEST.EVALUATORS = ["built_by_a_function", "CountsNothing"]
    by_function, by_class = build_extra_evaluators(cfg, "cells_val", "folder")
    assert isinstance(by_function, CountsNothing)
    assert by_function.given == ("cells_val",)
    assert isinstance(by_class, CountsNothing)
    assert by_class.given == (cfg, "cells_val", "folder")


def test_wrong_names_are_told_together(cfg: CfgNode) -> None:
    cfg.CELLSEG.TEST.EVALUATORS = ["CountNothing", "Zzz", "CountsNothing", "CountsNothing"]
    with pytest.raises(ConfigError, match=r"\(3\)") as caught:
        check_evaluator_names(cfg)
    text = str(caught.value)
    assert "CELLSEG.TEST.EVALUATORS[0] is 'CountNothing'; did you mean CountsNothing?" in text
    assert "CELLSEG.TEST.EVALUATORS[1] is 'Zzz'; Registered: " in text
    assert "names 'CountsNothing' twice" in text
    assert "CELLSEG.PLUGINS" in text
    with pytest.raises(ConfigError):
        build_extra_evaluators(cfg, "cells_val", "folder")


def test_what_is_registered_has_to_give_an_evaluator(cfg: CfgNode) -> None:
    cfg.CELLSEG.TEST.EVALUATORS = ["returns_a_dict"]
    with pytest.raises(ConfigError, match="names 'returns_a_dict', which gave a dict"):
        build_extra_evaluators(cfg, "cells_val", "folder")
