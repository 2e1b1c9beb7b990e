"""Draws what augmentations do to an image and the outlines of its cells.

Without a config it takes made-up cells and shows every augmentation by itself, at the upper end of
its default range. With one it takes an image of the training set, and shows what the config
enables, each by itself and then all of them together, a few times. `cellseg preview` is the
command.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from cellseg.cells.drawing import Picture
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.synthetic import make_cells
from cellseg.config import add_cellseg_config
from cellseg.errors import ConfigError
from cellseg.images import normalize_image, to_model_input
from cellseg.training_data.augmentations.annotations import read_labelled_image
from cellseg.training_data.augmentations.build import build_cell_augmentations, build_copy_paste
from cellseg.training_data.augmentations.config import find_switches
from cellseg.training_data.augmentations.copy_paste import LabelledImage, SameClassImages
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T

NUM_TOGETHER = 3
_COLUMNS = 4
_PANEL_PX = 256
_GAP_PX = 6
_CAPTION_PX = 26
# The preview shows every cell in one colour: outlines must be told from the image, not apart.
_OUTLINE_RGB = (80, 240, 100)


def draw_preview(config: CfgNode | None = None, image_number: int = 0, seed: int = 0) -> Picture:
    """Draw the image as it is, then augmented; one panel each.

    Args:
        config: what it enables is shown on its first training set; without it every augmentation
            is shown on made-up cells. It is left unchanged.
        image_number: which image of the training set.
        seed: of the made-up cells, and of numpy's global generator.

    Returns:
        RGB uint8.

    Raises:
        ConfigError: the config enables nothing, or there is no such image.
    """
    cfg, original, others = _prepare_output(config, image_number, seed)
    node = cfg.CELLSEG.AUGMENTATION
    names = [name for name, own in find_switches(node).items() if own.ENABLED]
    names += dict.fromkeys(node.EXTRA)
    if not names:
        raise ConfigError("CELLSEG.AUGMENTATION enables nothing to show")
    panels = [("AS IT IS", original)]
    for name in names:
        np.random.seed(seed)  # noqa: NPY002 (the generator that augmentations draw from)
        panels.append((name, augment(original, _with_only(cfg, name), others)))
    for number in range(NUM_TOGETHER if config else 0):
        np.random.seed(seed + number)  # noqa: NPY002
        panels.append((f"TOGETHER {number + 1}", augment(original, cfg, others)))
    scale = _PANEL_PX / max(original.cells.image_hw)
    return _arrange_panels([_draw_panel(caption, shown, scale) for caption, shown in panels])


def augment(original: LabelledImage, cfg: CfgNode, others: SameClassImages) -> LabelledImage:
    """Apply what a config enables to an image and its cells."""
    paste = build_copy_paste(cfg, others)
    pasted = original if paste is None else paste(original)
    augmented = T.AugInput(pasted.image)
    transforms = T.AugmentationList(build_cell_augmentations(cfg))(augmented)
    planes = [transforms.apply_segmentation(plane) for plane in pasted.cells.planes]
    stack = np.stack(planes) if planes else np.zeros((0, *augmented.image.shape[:2]), np.int32)
    cells = LabelPlanes(stack, pasted.cells.layers)
    return LabelledImage(augmented.image, cells, pasted.classes)


def _prepare_output(
    config: CfgNode | None, image_number: int, seed: int
) -> tuple[CfgNode, LabelledImage, SameClassImages]:
    if config is None:
        return _all_enabled(), _made_up({"seed": seed}), _made_up_others(seed)
    cfg = config.clone()
    cfg.defrost()
    cfg.INPUT.FORMAT = "RGB"
    entries = [entry for name in cfg.DATASETS.TRAIN[:1] for entry in DatasetCatalog.get(name)]
    if not 0 <= image_number < len(entries):
        raise ConfigError(f"the training set has {len(entries)} images, no number {image_number}")
    load = functools.partial(read_labelled_image, cfg)
    return cfg, load(entries[image_number]), SameClassImages(lambda: entries, load)


def _all_enabled() -> CfgNode:
    """Every augmentation, always happening, each range reduced to its upper end."""
    cfg = get_cfg()
    add_cellseg_config(cfg)
    for own in find_switches(cfg.CELLSEG.AUGMENTATION).values():
        own.ENABLED, own.PROB = True, 1.0
        for key, value in own.items():
            if isinstance(value, list):
                own[key] = [value[1], value[1]]
    return cfg


def _with_only(cfg: CfgNode, name: str) -> CfgNode:
    """The config with one augmentation, always happening (one of EXTRA as often as it does)."""
    single = cfg.clone()
    single.defrost()
    node = single.CELLSEG.AUGMENTATION
    node.EXTRA = [name] if name in node.EXTRA else []
    for other, own in find_switches(node).items():
        own.ENABLED, own.PROB = other == name, 1.0
    return single


def _made_up(entry: Mapping[str, Any]) -> LabelledImage:
    scene = make_cells(entry["seed"], (128, 128), num_cells=16)
    image = to_model_input(normalize_image(scene.image, "percentile"), "RGB")
    return LabelledImage(image, LabelPlanes.from_label_image(scene.labels), scene.classes)


def _made_up_others(seed: int) -> SameClassImages:
    entry = {"seed": seed + 1, "annotations": [{"category_id": 0}]}
    return SameClassImages(lambda: [entry], _made_up)


def _draw_panel(caption: str, shown: LabelledImage, scale: float) -> Picture:
    """One image with its true intensities, the outlines of its cells, and a caption above."""
    height, width = shown.cells.image_hw
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = np.clip(shown.image[..., :3], 0, 255).astype(np.uint8)
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    for plane in shown.cells.planes:
        large = cv2.resize(plane.astype(np.float64), size, interpolation=cv2.INTER_NEAREST)
        picture[_label_borders(large)] = _OUTLINE_RGB
    panel = np.full((_PANEL_PX + _CAPTION_PX, _PANEL_PX, 3), 255, np.uint8)
    panel[_CAPTION_PX : _CAPTION_PX + size[1], : size[0]] = picture
    text = f"{caption}, {np.count_nonzero(shown.cells.areas_px)} cells"
    place, font = (4, _CAPTION_PX - 8), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(panel, text, place, font, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return panel


def _label_borders(labels: np.ndarray) -> np.ndarray:
    """Pixels of cells beside a pixel of another label, bool [H, W]."""
    kernel = np.ones((3, 3), np.uint8)
    lowest, highest = cv2.erode(labels, kernel), cv2.dilate(labels, kernel)
    return (labels > 0) & (lowest != highest)


def _arrange_panels(panels: Sequence[Picture]) -> Picture:
    """Panels of one size in rows, white between them."""
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    height, width = panels[0].shape[0] + _GAP_PX, panels[0].shape[1] + _GAP_PX
    sheet = np.full((rows * height - _GAP_PX, columns * width - _GAP_PX, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        row, col = (number // columns) * height, (number % columns) * width
        sheet[row : row + panel.shape[0], col : col + panel.shape[1]] = panel
    return sheet
