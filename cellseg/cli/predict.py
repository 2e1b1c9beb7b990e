r"""Find the cells of images with a trained model.

    cellseg predict --config-file quick_start.yaml --input IMAGES --output DIR \
        MODEL.WEIGHTS output/quick_start/model_final.pth

Per image: <stem>_overlay.png and <stem>_labels.tif (uint16 or uint32); for all: coco_results.json
and, with --format, submission.csv as that competition wants it, with the stems as image ids.
Exit status: 0 all went well, 1 something failed (the rest was done), 2 no input was found.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cli._model import load_model_config, log_engine_and_device
from cellseg.cli._parser import CommandParser, split_off_overrides
from cellseg.inference.files import find_images, output_stems, predict_files
from cellseg.inference.predictor import CellPredictor
from cellseg.io import FORMATS, ImageRecord, WriteRecord, open_predictions
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


def class_names(number: int) -> list[str]:
    return ["cell"] if number == 1 else [f"class_{k}" for k in range(1, number + 1)]


class Recorder:
    """A predictor that also hands the cells of each image to a writer."""

    def __init__(
        self, predictor: CellPredictor, images: Sequence[Path], write: WriteRecord
    ) -> None:
        self._predictor = predictor
        self._stems = dict(zip(images, output_stems(images)))
        self._stem = ""
        self._write = write

    def read_image(self, path: Path) -> Any:
        self._stem = self._stems[path]
        return self._predictor.read_image(path)

    def __call__(self, image: Any) -> CellInstances:
        cells = self._predictor(image)
        self._write(ImageRecord(self._stem, cells))
        return cells


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
    predict: CellPredictor | Recorder = predictor
    with ExitStack() as stack:
        if args.format:
            name = SUBMISSIONS.get(args.format, args.format)
            writer = open_predictions(
                args.output, name, class_names(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
            )
            predict = Recorder(predictor, images, stack.enter_context(writer))
        problems = predict_files(predict, images, args.output, read=predict.read_image)
    logger.info("%d of %d images done: %s", len(images) - len(problems), len(images), args.output)
    return 1 if problems or missing else 0
