r"""Find the cells of images with a trained model.

    cellseg predict --config-file quick_start.yaml --input IMAGES --output DIR \
        MODEL.WEIGHTS output/quick_start/model_final.pth

Per image: <stem>_overlay.png and <stem>_labels.tif (uint16 or uint32); for all: coco_results.json.
With --format also the files of that format, such as QuPath's GeoJSON, zip files of ImageJ's ROIs or
the submission.csv of a competition. Image ids are the stems.
Exit status: 0 all went well, 1 something failed (the rest was done), 2 no input was found.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import AbstractContextManager, nullcontext

from cellseg.cli._model import load_model_config, log_engine_and_device
from cellseg.cli._parser import CommandParser, split_off_overrides
from cellseg.inference.files import find_images, predict_files
from cellseg.inference.predictor import CellPredictor
from cellseg.io import FORMATS, WriteRecord, open_predictions
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.logger import setup_logger

SUBMISSIONS = {"sartorius": "sartorius_table", "dsb2018": "dsb2018_table"}

logger = logging.getLogger("cellseg.predict")


def add_arguments(parser: CommandParser) -> None:
    parser.add_config_option()
    names = sorted(name for name, one in FORMATS.items() if one.open_predictions)
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH", help="files, folders, glob patterns"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="made if needed")
    parser.add_argument(
        "--score-threshold",
        type=float,
        help="detections below it are no cells (default: CELLSEG.TEST.SCORE_THRESHOLD)",
    )
    parser.add_argument(
        "--mask-threshold",
        type=float,
        help="a pixel belongs to a cell where its soft mask reaches it "
        "(default: CELLSEG.TEST.MASK_THRESHOLD, 0.5)",
    )
    parser.add_argument(
        "--format",
        choices=[*SUBMISSIONS, *names],
        metavar="F",
        help="also write the cells like this: %(choices)s",
    )
    parser.add_overrides()


def class_names(cfg: CfgNode) -> list[str]:
    """Those of the first data set of the config that has as many classes as the model."""
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = list(MetadataCatalog.get(name).get("thing_classes", []))
        if len(names) == number:
            return names
    return ["cell"] if number == 1 else [f"class_{k}" for k in range(1, number + 1)]


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
    with _open_writer(args, cfg) as write:
        problems = predict_files(
            predictor, images, args.output, read=predictor.read_image, write=write
        )
    logger.info("%d of %d images done: %s", len(images) - len(problems), len(images), args.output)
    return 1 if problems or missing else 0


def _open_writer(
    args: argparse.Namespace, cfg: CfgNode
) -> AbstractContextManager[WriteRecord | None]:
    if not args.format:
        return nullcontext()
    name = SUBMISSIONS.get(args.format, args.format)
    return open_predictions(args.output, name, class_names(cfg))
