"""Configuration: cellseg's own keys, loading, and checks that fail before any training starts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from cellseg.cells.selection import TEST_KEYS, DetectionThresholds
from cellseg.config.solver import add_solver_config, check_solver_config
from cellseg.config.training import add_training_config, check_training_config
from cellseg.datasets.registration import (
    builtin_declarations,
    datasets_root,
    register_declarations,
)
from cellseg.errors import ConfigError, LabelError
from cellseg.evaluation import score
from cellseg.evaluation.registry import check_evaluator_names
from cellseg.images import ImageInput
from cellseg.inference.augmented import check_test_augmentation_config
from cellseg.modeling.cell_types import add_cell_type_config, check_cell_type_config
from cellseg.modeling.mask_iou_head import add_mask_iou_config, check_mask_iou_config
from cellseg.modeling.mask_losses import parse_loss
from cellseg.modeling.registry_check import check_registered_names
from cellseg.modeling.roi_heads import check_box_head_config
from cellseg.modeling.torchvision_weights import (
    register_torchvision_weights,
    torchvision_mismatches,
)
from cellseg.modeling.unread_keys import unread_keys
from cellseg.plugins import import_plugins
from cellseg.training_data.augmentations.config import (
    add_augmentation_config,
    check_augmentation_config,
)
from cellseg.training_data.augmentations.resizing import check_input_scale
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

OPTIMIZERS = ("SGD", "ADAMW")

logger = logging.getLogger(__name__)


def add_cellseg_config(cfg: CfgNode) -> None:
    """Add every key of cellseg, all below `cfg.CELLSEG`, with its default; changes `cfg`."""
    node = cfg.CELLSEG = CfgNode()

    # Modules or .py files of the user, imported before the model is built. A plug-in that has
    # keys of its own defines `add_config(cfg)`.
    node.PLUGINS = []

    # torch.compile for backbone and RPN head in train_net.py: slow to start, then faster.
    node.COMPILE = False

    node.DATASETS = CfgNode()
    # YAML declarations of datasets beside those that come with cellseg.
    node.DATASETS.DECLARATIONS = []

    node.INPUT = CfgNode()
    # How intensities become 0..255: "auto" (percentile for anything but 8-bit), "percentile",
    # "minmax", "range" or "none". docs/images.md explains these keys.
    node.INPUT.NORMALIZE = "auto"
    # Lower and upper percentile of "percentile", per channel.
    node.INPUT.PERCENTILES = [1.0, 99.8]
    # The two intensities that become 0 and 255 in "range", such as [0, 4095].
    node.INPUT.RANGE = []
    # Up to three channels of the file, by number from 0 or by name, in the order of R, G, B: one is
    # repeated, two leave B black. Empty: grey (repeated) and RGB images.
    node.INPUT.CHANNELS = []
    # Page of a multi-page file or stack, from 0; -1: every file has one page.
    node.INPUT.PAGE = -1
    # "max": the brightest value along Z, before pages are counted. "none": no projection.
    node.INPUT.PROJECTION = "none"
    # Factor of the sizes that INPUT.MIN_SIZE_* and MAX_SIZE_* give, or of the native size where
    # they are 0: 2.0 for cells of 10 to 30 px. Results are in pixels of the file; docs/recipes.md.
    node.INPUT.SCALE = 1.0

    # Changes of training images beside Detectron2's own, all off (docs/augmentation.md).
    node.AUGMENTATION = CfgNode()
    add_augmentation_config(node.AUGMENTATION)

    # Of MODEL.ROI_MASK_HEAD.NAME: CellMaskHead.
    node.MASK_HEAD = CfgNode()
    # "bce" (Detectron2's), "dice", "jaccard", "lovasz", a sum such as "bce+dice" or
    # "0.5*bce+2*jaccard", or a name that a plug-in has put into MASK_LOSS_REGISTRY.
    node.MASK_HEAD.LOSS = "bce"
    # What a pixel beside the outline weighs more in "bce"; 0 for none.
    node.MASK_HEAD.BOUNDARY_WEIGHT = 0.0

    # Of MODEL.ROI_MASK_HEAD.NAME: MaskIoUHead, which has the keys of MASK_HEAD too.
    node.MASK_IOU = CfgNode()
    add_mask_iou_config(node.MASK_IOU)

    # Of MODEL.ROI_HEADS.NAME: CellROIHeads (and what is derived from it).
    node.BOX_HEAD = CfgNode()
    # Exponent of the IoU by which a proposal's class counts: those that fit their cell better weigh
    # more (Wu et al., arXiv:1908.05641, who use 1.5); 0.0: all the same, as in Detectron2.
    node.BOX_HEAD.IOU_WEIGHT = 0.0

    # Several types of cells: the vote over an image, and the keys of CellTypeROIHeads.
    node.CELL_TYPE = CfgNode()
    add_cell_type_config(node.CELL_TYPE)

    node.SOLVER = CfgNode()
    # SGD is Detectron2's own; ADAMW uses SOLVER.BASE_LR and SOLVER.WEIGHT_DECAY too.
    node.SOLVER.OPTIMIZER = "SGD"
    # Parts of a batch, precision, learning rates by layer, freezing (docs/optimizer.md).
    add_solver_config(node)

    # Best checkpoint, early end, validation loss, averaged weights ... (docs/training.md).
    node.TRAIN = CfgNode()
    add_training_config(node.TRAIN)

    node.TEST = CfgNode()
    # Which detections are cells, for predict.py, the pictures and `cell_iou`; COCO's AP ranks all
    # detections and is not touched. Each of the five is one number, or a list with one number per
    # class; tools/tune_thresholds.py finds them (docs/thresholds.md).
    # A detection below this score is no cell.
    node.TEST.SCORE_THRESHOLD = 0.5
    # A pixel belongs to a cell where the soft mask reaches this, in predict.py.
    node.TEST.MASK_THRESHOLD = 0.5
    # Of two detections of a class whose masks have an IoU above this, that of the lower score is
    # no cell; 1.0: off.
    node.TEST.MASK_NMS = 1.0
    # A detection of which a larger share lies in cells of its class with a higher score is a piece
    # of them; 1.0: off.
    node.TEST.MAX_COVERED = 1.0
    # A detection with fewer pixels is no cell; 0: off.
    node.TEST.MIN_AREA = 0
    # Further figures of `cell_iou`, over all cells and per class: names of docs/metrics.md.
    node.TEST.METRICS = []
    # Registered names of evaluators of your own, beside those of cellseg (docs/custom_parts.md).
    node.TEST.EVALUATORS = []
    # With TEST.AUG.ENABLED: look at all four turns by 90 degrees of each version; cells have no
    # upright. See cellseg/inference/augmented.py.
    node.TEST.AUG_ROTATE90 = True
    # Write OUTPUT_DIR/report.html after every evaluation (docs/report.md).
    node.TEST.REPORT = False
    # How many images of each test set are drawn, prediction beside truth.
    node.TEST.PICTURES = 8


def load_config(
    config_file: str | Path, opts: Sequence[Any] = (), *, weights: str | None = None
) -> CfgNode:
    """Read a YAML file and command-line overrides, import plug-ins, register datasets, check.

    Args:
        config_file: YAML with Detectron2's keys and those below `CELLSEG`; `_BASE_` is followed.
        opts: KEY VALUE pairs, alternating; they win over the file.
        weights: sets `MODEL.WEIGHTS`, last of all.

    Returns:
        A CfgNode, not frozen. Plug-ins are imported and datasets registered (both once).

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown, a value cannot be used.
        PluginError: a plug-in cannot be imported.
        DatasetError: a declaration is wrong.
    """
    path = Path(config_file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file (looked in {Path.cwd()})")
    cfg = get_cfg()
    if not torch.cuda.is_available():  # Detectron2's default is "cuda"; a device named stays named
        cfg.MODEL.DEVICE = "cpu"
    add_cellseg_config(cfg)
    for plugin in import_plugins(_plugins_named(path, opts), base_dir=path.parent):
        if hasattr(plugin, "add_config"):
            plugin.add_config(cfg)
    _merge(cfg, path, opts)
    if weights is not None:
        cfg.MODEL.WEIGHTS = weights
    register_torchvision_weights()
    register_declarations(
        [*builtin_declarations(), *map(Path, cfg.CELLSEG.DATASETS.DECLARATIONS)], datasets_root()
    )
    check_config(cfg)
    return cfg


def _plugins_named(path: Path, opts: Sequence[Any]) -> list[str]:
    """CELLSEG.PLUGINS as file and overrides will set it, read before other keys are merged.

    Plug-ins may add keys, so they have to be known before a file that uses those keys is merged.
    """
    try:
        tree = CfgNode.load_yaml_with_base(str(path), allow_unsafe=False)
    except Exception as error:
        raise ConfigError(f"{path}: cannot be read as a YAML config: {error}") from error
    probe = CfgNode()
    add_cellseg_config(probe)
    named = (tree.get("CELLSEG") or {}).get("PLUGINS", [])
    pairs = list(opts)
    try:
        probe.merge_from_other_cfg(CfgNode({"CELLSEG": {"PLUGINS": named}}))
        for key, value in zip(pairs[::2], pairs[1::2]):
            if key == "CELLSEG.PLUGINS":
                probe.merge_from_list([key, value])
    except Exception as error:
        raise ConfigError(f"{path}: CELLSEG.PLUGINS must be a list of names: {error}") from error
    return list(probe.CELLSEG.PLUGINS)


def _merge(cfg: CfgNode, path: Path, opts: Sequence[Any]) -> None:
    """Merge file and overrides into `cfg`; the engine's many error types become ConfigError."""
    try:
        with _numbers_or_lists(cfg):
            cfg.merge_from_file(str(path))
    except Exception as error:
        raise ConfigError(f"{path}: {_explain(error, cfg)}") from error
    try:
        with _numbers_or_lists(cfg):
            cfg.merge_from_list(list(opts))
    except Exception as error:
        raise ConfigError(f"command line: {_explain(error, cfg)}") from error


@contextmanager
def _numbers_or_lists(cfg: CfgNode) -> Iterator[None]:
    """Let the thresholds of CELLSEG.TEST be a number or a list, whatever they are now.

    A merge refuses a change of type, except from None.
    """
    before = {key: cfg.CELLSEG.TEST[key] for key in TEST_KEYS}
    cfg.CELLSEG.TEST.update(dict.fromkeys(TEST_KEYS))
    yield
    for key, value in before.items():
        if cfg.CELLSEG.TEST[key] is None:
            cfg.CELLSEG.TEST[key] = value


def _explain(error: Exception, cfg: CfgNode) -> str:
    """The merge error's text, with the nearest known keys where a key was not found."""
    text = str(error).strip("'\"")
    if "Non-existent" not in text:
        return text
    wanted = text.split(":")[-1].strip().strip("'\"")
    near = difflib.get_close_matches(wanted, list(_flat_keys(cfg)), n=3, cutoff=0.6)
    return f"{text}; did you mean {' or '.join(near)}?" if near else text


def _flat_keys(cfg: CfgNode, prefix: str = "") -> Iterable[str]:
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _flat_keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def check_config(cfg: CfgNode) -> None:
    """Check what would otherwise fail, or silently go wrong, in the middle of a run.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    node = cfg.CELLSEG
    ImageInput.from_config(cfg)
    check_input_scale(cfg)
    _check_choice("CELLSEG.SOLVER.OPTIMIZER", node.SOLVER.OPTIMIZER, OPTIMIZERS)
    check_solver_config(cfg)
    check_cell_type_config(cfg)
    DetectionThresholds.from_config(cfg)
    _check_augmentations(cfg)
    parse_loss(node.MASK_HEAD.LOSS, node.MASK_HEAD.BOUNDARY_WEIGHT)
    check_mask_iou_config(cfg)
    check_box_head_config(cfg)
    check_test_augmentation_config(cfg)
    _check_metrics(node.TEST.METRICS)
    check_evaluator_names(cfg)
    check_registered_names(cfg)
    for mismatch in torchvision_mismatches(cfg):
        logger.warning("%s (docs/weights.md)", mismatch)
    defaults = CfgNode()
    add_cellseg_config(defaults)
    for setting in unread_keys(cfg, defaults.CELLSEG):
        logger.warning("%s", setting)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        _check_dataset(cfg, name)
    check_training_config(cfg)


def _check_augmentations(cfg: CfgNode) -> None:
    node = cfg.CELLSEG.AUGMENTATION
    check_augmentation_config(node)
    if node.COPY_PASTE.ENABLED and (cfg.INPUT.MASK_FORMAT != "bitmask" or not cfg.MODEL.MASK_ON):
        raise ConfigError(
            "CELLSEG.AUGMENTATION.COPY_PASTE.ENABLED needs masks as bitmaps; expected "
            f"MODEL.MASK_ON True and INPUT.MASK_FORMAT 'bitmask', found {cfg.MODEL.MASK_ON} and "
            f"{cfg.INPUT.MASK_FORMAT!r}"
        )


def _check_metrics(names: Sequence[str]) -> None:
    try:
        score([], [], names)
    except LabelError as error:
        raise ConfigError(f"CELLSEG.TEST.METRICS: {error} (docs/metrics.md)") from error


def _check_choice(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key} is {value!r}; expected one of {', '.join(allowed)}")


def _check_dataset(cfg: CfgNode, name: str) -> None:
    known = list(DatasetCatalog.list())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(
            f"DATASETS names {name!r}, which is not registered; {hint} Declare your own in a "
            "YAML file and name it in CELLSEG.DATASETS.DECLARATIONS (see datasets/README.md)"
        )
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "cellseg":
        return  # registered by the user's own code: its classes and formats are theirs to know
    classes = list(metadata.thing_classes)
    if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT != "bitmask":
        raise ConfigError(
            f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}, but {name} holds run-length masks; "
            "expected 'bitmask'"
        )
    if len(classes) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, but {name} has "
            f"{len(classes)} ({', '.join(classes)}); set it to {len(classes)}"
        )
