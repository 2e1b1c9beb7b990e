r"""Write a trained model for other programs: as ONNX, or as a package for bioimage.io.

    cellseg export-model --model output/my_run --output model.onnx
    cellseg export-model --model output/my_run --to bioimageio --output nuclei.zip \
        --name "Nuclei in fluorescence" --author "A. Person" --licence CC-BY-4.0

The ONNX file goes from image to label image; `cellseg_onnx.py`, written beside it, runs it with
numpy and onnxruntime alone. Either is compared with PyTorch before it is there (docs/export.md).
Exit status: 0.
"""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path

from cellseg.cli._model import log_engine_and_device, model_config_of
from cellseg.cli._outputs import (
    ONNX,
    PACKAGE,
    Output,
    add_overwrite,
    check_outputs,
)
from cellseg.cli._parser import CommandParser
from cellseg.engine.loading import find_classes
from cellseg.export.bioimageio import export_bioimageio
from cellseg.export.onnx_file import SCRIPT, export_onnx
from cellseg.export.package_description import PackageTexts
from detectron2.utils.logger import setup_logger

OWN_SCRIPT = re.compile(rb"\A" + re.escape(SCRIPT.read_bytes().split(b"\n")[0]))

logger = logging.getLogger("cellseg.export")


def add_arguments(parser: CommandParser) -> None:
    parser.add_model_options()
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--to", choices=("onnx", "bioimageio"), default="onnx", help="what to write (default: onnx)"
    )
    package = parser.add_argument_group("for --to bioimageio")
    package.add_argument("--name", help="what the model is called, 5 to 128 characters")
    package.add_argument("--description", default="", help="in a sentence, what it is for")
    package.add_argument(
        "--author", action="append", default=[], metavar="NAME", help="may be given several times"
    )
    package.add_argument(
        "--licence", metavar="SPDX", help="of the weights, such as CC-BY-4.0 or MIT"
    )
    package.add_argument(
        "--image",
        metavar="FILE",
        help="an image that the package shows and is tested with, as the model takes it "
        "(default: made-up nuclei)",
    )
    add_overwrite(parser)
    parser.add_overrides()


def run(args: argparse.Namespace) -> int:
    setup_logger(name="cellseg")
    path = Path(args.output)
    if args.to == "onnx":
        outputs = [
            Output("--output", path, (".onnx",), ONNX),
            Output("the script beside --output", path.with_name(SCRIPT.name), (".py",), OWN_SCRIPT),
        ]
    else:
        outputs = [Output("--output", path, (".zip",), PACKAGE)]
    inputs = [args.model, args.image, *(args.config_file or ())]
    check_outputs(outputs, inputs, overwrite=args.overwrite)
    cfg = model_config_of(args)
    check_outputs(outputs, [cfg.MODEL.WEIGHTS], overwrite=args.overwrite)
    log_engine_and_device(logger, cfg)
    if args.to == "onnx":
        export_onnx(cfg, args.output)
    else:
        texts = PackageTexts(args.name, args.description, tuple(args.author), args.licence)
        classes, _ = find_classes(cfg)
        export_bioimageio(cfg, args.output, texts, classes=classes, image_path=args.image)
    logger.info("Written: %s", args.output)
    return 0
