"""From CELLSEG.AUGMENTATION to augmentations."""

from __future__ import annotations

from collections.abc import Callable

from cellseg.training_data.augmentations.base import CellAugmentation
from cellseg.training_data.augmentations.config import check_augmentation_config
from cellseg.training_data.augmentations.copy_paste import CopyPaste, IntArray, LabelledImage
from cellseg.training_data.augmentations.elastic import RandomElastic
from cellseg.training_data.augmentations.geometry import RandomRotate90, RandomScaleCrop
from cellseg.training_data.augmentations.intensity import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomInvert,
    RandomNoise,
)
from cellseg.training_data.augmentations.registry import build_extra_augmentations
from detectron2.config import CfgNode
from detectron2.data import transforms as T

# Those after which a box that is moved along is no longer tight around what is left of its mask.
_LOOSENING = ("SCALE", "ELASTIC")


def build_cell_augmentations(cfg: CfgNode) -> list[T.Augmentation | T.Transform]:
    """Build what CELLSEG.AUGMENTATION enables, less copy-paste, which takes two images.

    What EXTRA names comes last.

    Args:
        cfg: config with the keys of `add_cellseg_config`.

    Returns:
        For `T.AugmentationList`, behind Detectron2's own; empty where nothing is enabled.

    Raises:
        ConfigError: impossible values, or a name of EXTRA that is not registered.
    """
    check_augmentation_config(cfg)
    node = cfg.CELLSEG.AUGMENTATION
    builders: dict[str, Callable[[CfgNode], CellAugmentation]] = {
        "ROTATE90": lambda own: RandomRotate90(own.PROB),
        "SCALE": lambda own: RandomScaleCrop(_low_and_high(own.RANGE), own.PROB),
        "ELASTIC": lambda own: RandomElastic(
            _low_and_high(own.STRENGTH_PX), own.SIGMA_PX, own.PROB
        ),
        "GAMMA": lambda own: RandomGamma(_low_and_high(own.RANGE), own.PROB),
        "BRIGHTNESS": lambda own: RandomBrightness(_low_and_high(own.RANGE), own.PROB),
        "CONTRAST": lambda own: RandomContrast(_low_and_high(own.RANGE), own.PROB),
        "BLUR": lambda own: RandomBlur(_low_and_high(own.SIGMA_PX), own.PROB),
        "NOISE": lambda own: RandomNoise(_low_and_high(own.SIGMA), own.PROB),
        "INVERT": lambda own: RandomInvert(own.PROB),
    }
    own = [build(node[name]) for name, build in builders.items() if node[name].ENABLED]
    return [*own, *build_extra_augmentations(cfg)]


def build_copy_paste(
    cfg: CfgNode, get_other: Callable[[IntArray], LabelledImage | None]
) -> CopyPaste | None:
    """Build copy-paste, or return None where it is off.

    Args:
        cfg: config with the keys of `add_cellseg_config`.
        get_other: as in `CopyPaste`, usually a `SameClassImages`.

    Raises:
        ConfigError: impossible values.
    """
    check_augmentation_config(cfg)
    node = cfg.CELLSEG.AUGMENTATION.COPY_PASTE
    if not node.ENABLED:
        return None
    low, high = node.NUM_CELLS
    return CopyPaste(
        get_other,
        prob=node.PROB,
        num_cells=(int(low), int(high)),
        flip=node.FLIP,
        shift=node.SHIFT,
        edge_sigma_px=node.EDGE_SIGMA_PX,
        min_visible=node.MIN_VISIBLE,
        min_area_px=node.MIN_AREA_PX,
    )


def needs_tight_boxes(cfg: CfgNode) -> bool:
    """Whether boxes should be recomputed from the masks: something may cut or bend cells."""
    node = cfg.CELLSEG.AUGMENTATION
    return bool(node.EXTRA) or any(node[name].ENABLED for name in _LOOSENING)


def _low_and_high(values: list[float]) -> tuple[float, float]:
    return values[0], values[1]
