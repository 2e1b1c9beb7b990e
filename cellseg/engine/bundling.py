"""A bundle of a trained model: what of a run goes into it, and what its card says by itself."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cellseg
import numpy as np
import yaml
from cellseg.cells.selection import TEST_KEYS
from cellseg.config.trained import portable_config
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.engine.hooks.run_record import FIGURES_FILE, RUN_FILE
from cellseg.errors import CellsegError, ConfigError
from cellseg.evaluation import DEFAULT_METRICS
from cellseg.json_text import read_json
from cellseg.modeling.building import build_model
from cellseg.modeling.weights import find_weights_file, load_weights
from cellseg.models import Bundle, MeasuredMetric, ModelCard, TrainingSet, write_bundle
from cellseg.training_data.augmentations import input_scale
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from numpy.typing import NDArray

_TASK = "cell_iou/"
_PERCENTILES = (5, 50, 95)

logger = logging.getLogger(__name__)

Tree = dict[str, Any]


def bundle_model(
    cfg: CfgNode,
    path: str | Path,
    card: ModelCard,
    *,
    additions: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle of a trained model.

    Args:
        cfg: of the model; `MODEL.WEIGHTS` names its checkpoint.
        path: folder, or zip where it ends in ".zip".
        card: name, classes and precision. What the run knows is filled in: data sets, diameters
            (CELLSEG.TEST.KNOWN_DIAMETERS, else those of the training sets), thresholds, metrics,
            versions. The diameters become KNOWN_DIAMETERS of the bundle's config.
        additions: keys of the card with values that win, as YAML gives them; data sets in
            `trained_on` are completed with what the run knows of those of the same name.
        overwrite: replace a bundle that is there.

    Raises:
        ConfigError: something is there already; a plug-in is a file; as many classes are named as
            the model does not have.
        CheckpointError: the weights cannot be read, or do not fit the config.
    """
    model = build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, cfg=cfg)
    filled = fill_card(cfg, card)
    tree = yaml.safe_load(filled.to_yaml())
    known = {one["name"]: one for one in tree["trained_on"]}
    tree |= additions or {}
    tree["trained_on"] = [known.get(one["name"], {}) | one for one in tree["trained_on"]]
    complete = ModelCard.from_tree(tree)
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if len(complete.classes) != number:
        raise ConfigError(
            f"{len(complete.classes)} classes are named ({', '.join(complete.classes)}); expected "
            f"{number}, as MODEL.ROI_HEADS.NUM_CLASSES says"
        )
    config = portable_config(cfg)
    config["CELLSEG"]["TEST"]["KNOWN_DIAMETERS"] = list(complete.diameters_px)
    return write_bundle(path, complete, config, model.state_dict(), overwrite=overwrite)


def fill_card(cfg: CfgNode, card: ModelCard) -> ModelCard:
    """A card with what a run knows by itself."""
    folder = Path(find_weights_file(cfg.MODEL.WEIGHTS)).parent
    entry = read_last_entry(folder)
    test = yaml.safe_load(cfg.CELLSEG.TEST.dump())
    trained_on, diameters = look_at_training_sets(cfg, entry)
    return replace(
        card,
        trained_on=trained_on,
        diameters_px=tuple(test["KNOWN_DIAMETERS"]) or diameters,
        thresholds={key: test[key] for key in TEST_KEYS},
        metrics=tuple(find_metrics(cfg, entry)),
        made_with=describe_maker(),
    )


def describe_maker() -> dict[str, str]:
    """Versions of the engine and of the packages, by name."""
    made = asdict(cellseg.engine_info())
    return {"engine": f"{made['name']} {made['version']}"} | made["packages"]


def read_last_entry(folder: Path) -> Tree:
    """What `run.json` says of the last training into a folder; {} where it says nothing."""
    try:
        entries = read_json(folder / RUN_FILE)["runs"]
        return dict(entries[-1])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        logger.info("%s: nothing is known of the training (%s)", folder / RUN_FILE, error)
        return {}


def find_metrics(cfg: CfgNode, entry: Tree) -> Iterator[MeasuredMetric]:
    """The metrics of a run's own evaluation, of the checkpoint that `cfg` names.

    `figures.json` of an evaluation after the checkpoint was written, else what the training ended
    with, if it is its last checkpoint.

    Args:
        cfg: of the run.
        entry: `read_last_entry` of its folder.
    """
    checkpoint = Path(find_weights_file(cfg.MODEL.WEIGHTS))
    measured = checkpoint.with_name(FIGURES_FILE)
    figures, command = {}, ""
    if measured.is_file() and measured.stat().st_mtime >= checkpoint.stat().st_mtime:
        figures, command = read_json(measured), "cellseg train --eval-only"
    elif checkpoint.name == "model_final.pth":
        figures, command = entry.get("figures", {}), _portable_command(entry.get("command", ()))
    sets = list(cfg.DATASETS.TEST)
    for data in sets:
        prefix = f"{data}/{_TASK}" if len(sets) > 1 else _TASK
        for name in DEFAULT_METRICS:
            value = figures.get(prefix + name)
            if isinstance(value, float) and math.isfinite(value):
                yield MeasuredMetric(name, round(value, 4), data, command)


def _portable_command(words: Sequence[str]) -> str:
    """A command line without the folders of its program."""
    if not words:
        return ""
    program = Path(words[0]).name
    named = "cellseg" if program == "__main__.py" else program
    return shlex.join([named, *words[1:]])


def look_at_training_sets(
    cfg: CfgNode, entry: Tree
) -> tuple[tuple[TrainingSet, ...], tuple[float, ...]]:
    """What a model was trained on, as far as the data are here.

    The diameter of a cell is that of the circle of its area, sqrt(4 area / pi), in pixels as the
    network saw them in training: those of the file times what the sides of a training image are
    multiplied by.

    Args:
        cfg: of the run; its training sets are read.
        entry: `read_last_entry` of its folder, which tells the numbers of sets that are not here.

    Returns:
        The sets; and percentiles 5, 50 and 95 of the diameters, rounded to a tenth, or () where
        there are no cells or a set is not here.
    """
    sets, diameters, is_complete = [], [np.empty(0)], True
    for name in cfg.DATASETS.TRAIN:
        try:
            found = _diameters_of(cfg, name)
        except (CellsegError, OSError) as error:
            logger.warning("The diameters of the cells are not known: %s", error)
            known, is_complete = entry.get("datasets", {}).get(name, {}), False
            sets.append(TrainingSet(name, known.get("images", 0), known.get("cells", 0)))
            continue
        sets.append(TrainingSet(name, len(found), sum(map(len, found))))
        diameters += found
    sizes = np.concatenate(diameters)
    if not is_complete or not len(sizes):
        return tuple(sets), ()
    percentiles = np.percentile(sizes, _PERCENTILES)
    return tuple(sets), tuple(round(float(size), 1) for size in percentiles)


def _diameters_of(cfg: CfgNode, dataset_name: str) -> list[NDArray[np.float64]]:
    """The diameters of the cells of each image of a data set."""
    truth = GroundTruth.load(dataset_name)
    found = []
    for key in truth.images:
        cells = truth.cells(key).counted
        found.append(cells.diameters_px * training_scale(cfg, cells.image_hw))
    return found


def training_scale(cfg: CfgNode, image_hw: tuple[int, int]) -> float:
    """What the sides of a training image are multiplied by, in the middle of what is drawn.

    Args:
        cfg: its INPUT keys, and CELLSEG.INPUT.SCALE.
        image_hw: (height, width) of the image, pixels.

    Example:
        >>> import cellseg
        >>> cfg = cellseg.load_config("quick_start.yaml")
        >>> cfg.INPUT.CROP.ENABLED, cfg.INPUT.MIN_SIZE_TRAIN = True, (96, 128, 192)
        >>> cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute", [128, 128]
        >>> training_scale(cfg, (520, 696))
        1.0
    """
    crop, seen_hw = cfg.INPUT.CROP, image_hw
    if crop.ENABLED:
        seen_hw = T.RandomCrop(crop.TYPE, crop.SIZE).get_crop_size(image_hw)
    shorter, longer = min(seen_hw), max(seen_hw)
    sizes = [size or shorter for size in cfg.INPUT.MIN_SIZE_TRAIN]
    scale = float(np.median(sizes)) / shorter
    if cfg.INPUT.MAX_SIZE_TRAIN:
        scale = min(scale, cfg.INPUT.MAX_SIZE_TRAIN / longer)
    return scale * input_scale(cfg)
