"""CELLSEG.AUGMENTATION.EXTRA: augmentations of plug-ins, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cellseg.training_data.augmentations as A
import numpy as np
import pytest
from cellseg import add_cellseg_config
from cellseg.errors import ConfigError
from cellseg.training_data.augmentations import preview
from detectron2.config import CfgNode, configurable, get_cfg
from detectron2.data import transforms as T


class AddLight(T.Augmentation):
    @configurable
    def __init__(self, *, amount: int) -> None:
        self.amount = amount

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"amount": cfg.CELLSEG.AUGMENTATION.LIGHT.AMOUNT}

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return T.ColorTransform(lambda pixels: pixels + np.uint8(self.amount))


def mirror(cfg: CfgNode) -> T.Transform:
    return T.HFlipTransform(4)


def returns_nothing(cfg: CfgNode) -> None:
    return None


@pytest.fixture
def cfg() -> Iterator[CfgNode]:
    """A config with a plug-in's own group of keys among those of cellseg."""
    parts = (AddLight, mirror, returns_nothing)
    for part in parts:
        A.AUGMENTATION_REGISTRY.register(part)
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.CELLSEG.AUGMENTATION.LIGHT = CfgNode({"AMOUNT": 10})
    yield cfg
    for part in parts:
        del A.AUGMENTATION_REGISTRY._obj_map[part.__name__]


def test_classes_and_functions_come_last_in_their_order(cfg: CfgNode) -> None:
    node = cfg.CELLSEG.AUGMENTATION
    node.INVERT.ENABLED, node.INVERT.PROB = True, 1.0
    node.EXTRA = ["mirror", "AddLight", "AddLight"]
    built = A.build_cell_augmentations(cfg)
    assert [type(one).__name__ for one in built] == [
        "RandomInvert",
        "HFlipTransform",
        "AddLight",
        "AddLight",
    ]
    given = T.AugInput(np.array([[250, 100, 200, 50]], np.uint8))
    T.AugmentationList(built)(given)  # 255 less each, from right to left, and 10 twice
    assert given.image.tolist() == [[225, 75, 175, 25]]


def test_a_name_that_is_not_registered(cfg: CfgNode) -> None:
    cfg.CELLSEG.AUGMENTATION.EXTRA = ["AddLigth"]
    cfg.CELLSEG.AUGMENTATION.NOISE.SIGMA = []
    for use in (lambda: A.build_cell_augmentations(cfg), lambda: A.build_copy_paste(cfg, None)):
        with pytest.raises(ConfigError, match=r"\(2\)") as caught:  # beside what else is wrong
            use()
        assert "CELLSEG.AUGMENTATION.EXTRA[0] is 'AddLigth'; did you mean AddLight?" in str(
            caught.value
        )
        assert "CELLSEG.PLUGINS" in str(caught.value)


def test_what_is_registered_has_to_give_an_augmentation(cfg: CfgNode) -> None:
    cfg.CELLSEG.AUGMENTATION.EXTRA = ["returns_nothing"]
    with pytest.raises(ConfigError, match="names 'returns_nothing', which gave a NoneType"):
        A.build_cell_augmentations(cfg)


def test_boxes_are_made_tight_because_it_may_move_pixels(cfg: CfgNode) -> None:
    assert not A.needs_tight_boxes(cfg)
    cfg.CELLSEG.AUGMENTATION.EXTRA = ["mirror"]
    assert A.needs_tight_boxes(cfg)


def test_preview_shows_each_by_itself(cfg: CfgNode) -> None:
    node = cfg.CELLSEG.AUGMENTATION
    node.GAMMA.ENABLED = True
    node.EXTRA = ["AddLight", "mirror"]
    alone = preview._with_only(cfg, "AddLight")
    assert alone.CELLSEG.AUGMENTATION.EXTRA == ["AddLight"]
    assert not alone.CELLSEG.AUGMENTATION.GAMMA.ENABLED
    without = preview._with_only(cfg, "GAMMA")
    assert without.CELLSEG.AUGMENTATION.EXTRA == []
    assert without.CELLSEG.AUGMENTATION.GAMMA.ENABLED
