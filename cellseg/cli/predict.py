r"""Find the cells of images with a trained model.

    cellseg predict --config-file quick_start.yaml --input IMAGES --output DIR \
        MODEL.WEIGHTS output/quick_start/model_final.pth

Per image: <stem>_overlay.png and <stem>_labels.tif (uint16 or uint32); for all: coco_results.json
(coco_results.categories.json says what its category ids mean), with the stems as image ids. With
--format the cells are written in further formats: geojson for QuPath, imagej_rois for ImageJ and
Fiji, sartorius and dsb2018 for submission.csv as these competitions want it.
Exit status: 0 all went well, 1 something failed (the rest was done), 2 no input was found.
"""

from __future__ import annotations

import argparse
import logging

from cellseg.cli._model import load_model_config, log_engine_and_device
from cellseg.cli._parser import CommandParser, split_off_overrides
from cellseg.datasets.registration import category_ids_of
from cellseg.errors import ConfigError
from cellseg.inference.files import find_images, predict_files
from cellseg.inference.predictor import CellPredictor
from cellseg.io import FORMATS
from cellseg.io.category_ids import choose_category_ids, number_names
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger

SUBMISSIONS = {"sartorius": "sartorius_table", "dsb2018": "dsb2018_table"}

logger = logging.getLogger("cellseg.predict")


def add_arguments(parser: CommandParser) -> None:
    parser.add_config_option()
    writable = sorted(name for name, one in FORMATS.items() if one.open_predictions)
    names = ", ".join([*SUBMISSIONS, *writable])
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="image files, folders of images, glob patterns",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the results; made if needed"
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="count detections of this score or more as cells (default: "
        "CELLSEG.TEST.SCORE_THRESHOLD)",
    )
    parser.add_argument(
        "--mask-threshold",
        type=float,
        metavar="P",
        help="a pixel belongs to a cell where its soft mask reaches it "
        "(default: CELLSEG.TEST.MASK_THRESHOLD, 0.5)",
    )
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="F",
        help=f"also write the cells like this (may be repeated): {names}",
    )
    parser.add_overrides()


def find_classes(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Names and category ids of the model's classes: those of its data set, where it is known."""
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = MetadataCatalog.get(dataset).get("thing_classes") or ()
        if dataset in DatasetCatalog.list() and len(names) == number:
            ids = category_ids_of(dataset)
            return list(names), sorted(ids, key=lambda category: ids[category])
    return number_names(number), list(choose_category_ids(number))


def run(args: argparse.Namespace) -> int:
    setup_logger(name="cellseg")
    args.input, overrides = split_off_overrides(args.input)
    args.opts = [*overrides, *args.opts]
    cfg = load_model_config(args)
    log_engine_and_device(logger, cfg)
    images, missing = find_images(args.input)
    for name in missing:
        logger.error("%s: no image found", name)
    if not images:
        return 2
    predictor = CellPredictor(
        cfg, score_threshold=args.score_threshold, mask_threshold=args.mask_threshold
    )
    formats = [SUBMISSIONS.get(name, name) for name in args.format]
    if set(SUBMISSIONS.values()) <= set(formats):
        raise ConfigError("--format: both tables would be submission.csv; ask for one of them")
    classes, category_ids = find_classes(cfg)
    problems = predict_files(
        predictor,
        images,
        args.output,
        read=predictor.read_image,
        classes=classes,
        category_ids=category_ids,
        formats=formats,
    )
    logger.info("%d of %d images done: %s", len(images) - len(problems), len(images), args.output)
    return 1 if problems or missing else 0
