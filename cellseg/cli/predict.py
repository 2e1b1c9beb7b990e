r"""Find the cells of images with a trained model.

    cellseg predict IMAGES... -o DIR
    cellseg predict IMAGES... -o DIR --model output/quick_start
    cellseg predict plate_1 'day_*/*.czi' @list.txt -o DIR --model output/quick_start \
        --save labels,table,geojson --resume

Without --model it is `nuclei`, a model that comes with cellseg. IMAGES are files, folders (with all
that is below them), patterns in quotes, OME-Zarr folders, and lists of these (.txt, or @FILE). Each
plane of a stack or time-lapse is an image. Results are named as the images, sub-folders are kept,
and each image's files are written when it is done: <name>_labels.tif, <name>_overlay.png, and what
--save asks for. For all images together there are coco_results.json, summary.csv with a row for
each, failed.csv with the reason of each that failed, and inputs.csv, which says what file each of
them is of. docs/predict.md describes it all.

Exit status: 0 all went well, 1 something failed (the rest was done), 2 no input was found.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

from cellseg.cells.measurements import DEFAULTS, MeasurementSettings
from cellseg.cli._cluster import add_cluster_options, open_prediction
from cellseg.cli._inputs import add_diameter, add_scene, log_inputs
from cellseg.cli._linking import add_link_options, read_link_rules
from cellseg.cli._model import log_engine_and_device, model_config_of
from cellseg.cli._parser import CommandParser, at_least, number_in
from cellseg.engine.loading import find_classes
from cellseg.images.plates import find_positions
from cellseg.inference.file_work import Outcome
from cellseg.inference.inputs import InputFile, find_inputs, take_part
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.result_folder import ResultFolder, describe_source, hash_text
from cellseg.inference.saving import DEFAULT_SAVE, ResultWriter, Saving, saveable_names
from cellseg.interrupts import Interrupted, finishing
from cellseg.modeling.weights import find_weights_file
from cellseg.rules import number
from cellseg.shipped import DEFAULT_MODEL
from cellseg.tracking.linking import LinkRules, load_laptrack
from cellseg.tracking.results import link_records
from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

logger = logging.getLogger("cellseg.predict")


def add_arguments(parser: CommandParser) -> None:
    parser.add_inputs_and_overrides("image files, folders, patterns, lists")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help="folder for results; made if needed",
    )
    parser.add_model_options()
    parser.add_argument(
        "--save",
        action="append",
        default=[],
        type=_split_names,
        metavar="NAME,...",
        help=f"what is written of the cells: {', '.join(saveable_names())} "
        f"(default: {','.join(DEFAULT_SAVE)})",
    )
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="F",
        help="save this as well",
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out images that are done with these settings"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that an earlier prediction did not write",
    )
    parser.add_argument(
        "--part",
        type=_parse_part,
        default=(1, 1),
        metavar="K/N",
        help="only every N-th image from the K-th on: one of N jobs on the same folders",
    )
    add_cluster_options(parser)
    add_scene(parser)
    parser.add_argument(
        "--tile",
        type=at_least(0),
        metavar="PX",
        help="look at larger images in tiles of so many pixels (default: as memory allows)",
    )
    add_diameter(parser)
    parser.add_argument(
        "--at-pixel-size-um",
        type=number_in(number(above=0)),
        metavar="UM",
        help="look at slides and other pyramids at the level whose pixels are this large, or the "
        "next finer one (default: the finest)",
    )
    parser.add_argument(
        "--pattern",
        default="",
        metavar="P",
        help="how files of plates are named: imagexpress, ... or a template such as "
        "{plate}_{well}_s{site} (default: found by itself)",
    )
    parser.add_argument(
        "--neighbour-distance",
        type=number_in(number(above=0)),
        default=DEFAULTS.neighbour_distance_px,
        metavar="PX",
        help="cells are neighbours up to this distance of their centroids, in tables (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--link", action="store_true", help="link the cells of time-lapses to tracks"
    )
    add_link_options(parser)
    parser.add_argument(
        "--pixel-size-um",
        type=_parse_pixel_size,
        metavar="UM",
        help="size of a pixel in micrometres, or height,width (default: what files say)",
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
        "--batch",
        type=at_least(1),
        default=1,
        metavar="N",
        help="images of one size that go through the network together (default: %(default)s)",
    )


def _split_names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parse_part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match and 1 <= int(match[1]) <= int(match[2]):
        return int(match[1]), int(match[2])
    raise argparse.ArgumentTypeError(f"{text!r}: expected K/N with 1 <= K <= N, such as 3/8")


def _parse_pixel_size(text: str) -> tuple[float, float]:
    """(height, width) in micrometres."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or not 0 < min(sizes) < max(sizes) + 1 < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a length in micrometres, or height,width, such as 0.325"
        )
    return sizes[0], sizes[-1]


def choose_saving(args: argparse.Namespace, cfg: CfgNode) -> Saving:
    """What `--save` and `--format` ask for, with the classes of the model."""
    classes, category_ids = find_classes(cfg)
    names = [name for names in args.save for name in names] or list(DEFAULT_SAVE)
    names = list(dict.fromkeys([*names, *args.format]))
    measurements = MeasurementSettings(neighbour_distance_px=args.neighbour_distance)
    return Saving(tuple(names), tuple(classes), tuple(category_ids), measurements)


def describe_settings(predictor: CellPredictor, saving: Saving, args: argparse.Namespace) -> str:
    """All that results depend on beside the image, for `--resume`."""
    cfg = predictor.cfg.clone()
    weights = find_weights_file(cfg.MODEL.WEIGHTS)
    cfg.MODEL.DEVICE = cfg.OUTPUT_DIR = ""  # jobs on other machines give the same results
    chosen = (args.pixel_size_um, args.scene, args.at_pixel_size_um)
    parts = [cfg.dump(), *map(str, (predictor.thresholds, saving, chosen))]
    return hash_text([*parts, str(describe_source(weights))])


def run(args: argparse.Namespace) -> int:
    setup_logger(name="cellseg")
    if args.tile is not None:
        args.opts += ["CELLSEG.TEST.TILE", args.tile]
    if args.diameter is not None:
        args.opts += ["CELLSEG.TEST.DIAMETER", args.diameter]
    cfg = model_config_of(args, DEFAULT_MODEL)
    log_engine_and_device(logger, cfg)
    saving = choose_saving(args, cfg)
    for sentence in saving.describe_losses():
        logger.info("%s", sentence)
    rules = read_link_rules(args)
    if args.link:
        load_laptrack()  # before hours of work
    found = find_inputs(args.inputs, result_suffixes=saving.suffixes)
    log_inputs(logger, found)
    if not found.files:
        return 2
    predictor = CellPredictor(
        cfg, score_threshold=args.score_threshold, mask_threshold=args.mask_threshold
    )
    results = ResultFolder(args.output, describe_settings(predictor, saving, args))
    files = results.claim_names(found.files)
    places = find_positions([file.path for file in files], args.pattern)
    images = [file.path for file in files]
    writer = ResultWriter(results, saving, places=places, overwrite=args.overwrite, images=images)
    writer.claim_files_of_all()
    model = CellModel(predictor, args.scene, args.at_pixel_size_um, results.state_folder)
    part = take_part(files, *args.part)
    predict = open_prediction(args)
    try:
        with finishing():
            try:
                outcome = predict(
                    model,
                    part,
                    results,
                    writer,
                    resume=args.resume,
                    batch_size=args.batch,
                    pixel_size_um=args.pixel_size_um,
                )
            finally:
                writer.write_all(files, found.passed_over)
    except Interrupted as asked:
        done = sum(1 for _ in results.done_images(part))
        told = f"the results of {done} images are in {args.output}; go on with --resume"
        raise Interrupted(asked.signum, told) from None
    log_outcome(outcome, args.output)
    if args.link:
        link_predictions(writer, files, rules, args)
    return 1 if outcome.failed or found.missing else 0


def link_predictions(
    writer: ResultWriter, files: Sequence[InputFile], rules: LinkRules, args: argparse.Namespace
) -> None:
    """Link the cells of time-lapses, once every image of the task is done."""
    done = {file.name for file, _, _ in writer.results.done_images(files)}
    if len(done) < len(files):
        logger.warning(
            "--link: %d of %d files are not done; with --part or after failures, run once more "
            "with --resume when they are",
            len(files) - len(done),
            len(files),
        )
        return
    images = [file for file, _, _ in writer.results.done_images(files)]
    paths = [Path(args.output, f"{file.name}{file.path.suffix}") for file in images]
    records = list(writer.records(files))
    linked = link_records(records, paths, rules=rules, ctc=args.ctc, overwrite=args.overwrite)
    if not linked:
        logger.warning("--link: no time-lapse among the images: each has one frame")


def log_outcome(outcome: Outcome, folder: str) -> None:
    """Say what was done, left out and failed, and where the results are."""
    total = outcome.done + outcome.skipped + len(outcome.failed)
    logger.info(
        "%d of %d images done, %d cells: %s",
        outcome.done + outcome.skipped,
        total,
        outcome.cells,
        folder,
    )
    if outcome.skipped:
        logger.info("%d of them were there already", outcome.skipped)
    if outcome.failed:
        logger.error("%d failed; the reasons are in %s/failed.csv", len(outcome.failed), folder)
