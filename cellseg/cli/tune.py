r"""Find the thresholds of each class (score, overlaps, minimum area) on a validation set.

    cellseg train --config-file FILE --eval-only MODEL.WEIGHTS W OUTPUT_DIR RUN_DIR
    cellseg tune RUN_DIR
    cellseg predict --config-file RUN_DIR/thresholds.yaml --input IMAGES --output DIR \
        MODEL.WEIGHTS W

It reads the predictions of that evaluation, RUN_DIR/inference/<dataset>/, or any file of COCO
results. The gain is given twice: on the images that the thresholds were fitted to, and, by
cross-validation, on images that they were not fitted to. docs/thresholds.md says more.
Exit status: 0 all went well, 1 nothing was written.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from cellseg.cells.selection import DetectionThresholds
from cellseg.cli._outputs import THRESHOLDS, Output, add_overwrite, check_outputs
from cellseg.cli._parser import CommandParser, add_category_ids, at_least
from cellseg.config.files import CONFIG_FILE
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.engine.setup import load_config
from cellseg.errors import DatasetError
from cellseg.evaluation.tuning import FEW_IMAGES, Tuning, tune_thresholds
from cellseg.files import write_whole
from cellseg.io.category_ids import parse_category_ids
from cellseg.io.coco_results import EVALUATED_NAME
from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

OUTPUT_NAME = "thresholds.yaml"

logger = logging.getLogger("cellseg.tune")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "predictions", metavar="RUN_DIR_OR_JSON", help="a run's folder, or a file of COCO results"
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="config of the run (default: config.yaml beside the predictions or above them)",
    )
    folds = "parts that the images are divided into for the cross-validation"
    for name, kind, default, metavar, text in (
        ("--metric", str, "ap_dsb", "NAME", "metric to improve, one of docs/metrics.md"),
        ("--folds", at_least(2), 5, "N", folds),
        ("--seed", at_least(0), 0, "N", "seed of that division"),
    ):
        described = f"{text} (default: {default})"
        parser.add_argument(name, type=kind, default=default, metavar=metavar, help=described)
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="data set that the predictions are of (default: the one in DATASETS.TEST)",
    )
    add_category_ids(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"config to write (default: {OUTPUT_NAME} beside the run's config)",
    )
    add_overwrite(parser)
    parser.add_overrides()


def find_config(args: argparse.Namespace) -> Path:
    """The config of the run that the predictions are of."""
    if args.config_file:
        return Path(args.config_file)
    start = Path(args.predictions).absolute()
    for folder in (start, *start.parents[:3]):
        if (folder / CONFIG_FILE).is_file():
            return folder / CONFIG_FILE
    raise DatasetError(
        f"{args.predictions}: no config.yaml in it or above it; name the run's with --config-file"
    )


def find_dataset(cfg: CfgNode, args: argparse.Namespace) -> str:
    """The dataset that the predictions are of."""
    names = [args.dataset] if args.dataset else list(cfg.DATASETS.TEST)
    if len(names) != 1:
        raise DatasetError(
            f"DATASETS.TEST names {len(names)} datasets ({', '.join(names)}); choose one with "
            "--dataset"
        )
    return str(names[0])


def find_results(given: str, dataset: str) -> Path:
    """The file of COCO results that is meant."""
    path = Path(given)
    if path.is_dir():
        path = path / "inference" / dataset / EVALUATED_NAME
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file; `cellseg train --eval-only` writes the predictions on "
            f"{dataset} there"
        )
    return path


def describe(tuning: Tuning, classes: Sequence[str]) -> list[str]:
    """What a person wants to know, one thing per line."""
    lines = [f"{tuning.metric} of {tuning.num_images} images: {tuning.before:.4f} as it was"]
    if tuning.held_out is not None:
        interval = ""
        if tuning.interval is not None:
            interval = f", 95 % interval {tuning.interval[0]:+.4f} to {tuning.interval[1]:+.4f}"
        lines.append(
            f"on held-out images ({len(tuning.of_folds)} folds): {tuning.held_out:.4f}, gain "
            f"{tuning.held_out_gain:+.4f}{interval}"
        )
    lines.append(
        f"on the images fitted to (optimistic): {tuning.after:.4f}, gain {tuning.gain:+.4f}"
    )
    if tuning.num_images < FEW_IMAGES:
        lines.append(
            f"only {tuning.num_images} images: what is found and its gain depend on which images "
            f"these are; {FEW_IMAGES} or more are better"
        )
    if tuning.held_out_gain is not None and tuning.held_out_gain > 0:
        if tuning.interval is not None and tuning.interval[0] <= 0:
            lines.append("the gain may be chance: its interval includes 0")
    else:
        lines.append("no gain is shown on held-out images: better keep the thresholds as they were")
    lines += [
        f"{name}: score >= {score:g}, mask NMS {nms:g}, covered <= {most:g}, "
        f"minimum area {area:g} px"
        for name, score, nms, most, area in zip(classes, *columns_of(tuning).values())
    ]
    return lines


def columns_of(tuning: Tuning) -> dict[str, list[float]]:
    """Config key to one number per class."""
    found = tuning.thresholds
    return {
        "SCORE_THRESHOLD": np.atleast_1d(found.score).tolist(),
        "MASK_NMS": np.atleast_1d(found.mask_nms).tolist(),
        "MAX_COVERED": np.atleast_1d(found.max_covered).tolist(),
        "MIN_AREA": np.atleast_1d(found.min_area_px).tolist(),
    }


def write_fragment(path: Path, config: Path, tuning: Tuning, lines: Sequence[str]) -> None:
    """Write a config on top of the run's, with the report as comments."""
    values = {key: each if len(each) > 1 else each[0] for key, each in columns_of(tuning).items()}
    base = os.path.relpath(config.resolve(), path.resolve().parent)
    content = {"_BASE_": base, "CELLSEG": {"TEST": values}}
    comments = "".join(f"# {line}\n" for line in ["cellseg tune", *lines])
    with write_whole(path) as partial:
        partial.write_text(comments + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def run(args: argparse.Namespace) -> int:
    setup_logger(name="cellseg")
    config = find_config(args)
    cfg = load_config(config, args.opts, plugins=args.plugin)
    dataset = find_dataset(cfg, args)
    results = find_results(args.predictions, dataset)
    output = Path(args.output) if args.output else config.parent / OUTPUT_NAME
    fragment = Output("--output", output, (".yaml", ".yml"), THRESHOLDS)
    check_outputs([fragment], [config, results], overwrite=args.overwrite)
    truth = GroundTruth.load(dataset)
    found = truth.read_predictions(results, parse_category_ids(args.category_ids))
    true = [truth.cells(key) for key in found]
    detections = list(found.values())
    if not any(map(len, detections)):
        raise DatasetError(
            f"{results}: no detection in any of {len(detections)} images; there is nothing that "
            "thresholds could choose from. Was it a trained model?"
        )
    logger.info("%s: %d detections", results, sum(map(len, detections)))
    start = DetectionThresholds.from_config(cfg)
    if start.mask != 0.5:
        logger.warning("Masks in %s are cut at 0.5, not at CELLSEG.TEST.MASK_THRESHOLD", results)
    tuning = tune_thresholds(
        true,
        detections,
        args.metric,
        start=start,
        num_classes=len(truth.classes),
        lowest_score=cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        folds=args.folds,
        seed=args.seed,
    )
    lines = describe(tuning, truth.classes)
    for line in lines:
        logger.info("%s", line)
    write_fragment(output, config, tuning, lines)
    logger.info("Written: %s", output)
    return 0
