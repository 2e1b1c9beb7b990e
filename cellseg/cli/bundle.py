r"""Pack a trained model as a bundle: one folder or zip to keep, to share, to predict with.

    cellseg bundle output/my_run --name my-cells
    cellseg bundle output/my_run --name my-cells -o my_cells.zip --precision half --card card.yaml

A bundle holds weights (weights.safetensors, about 28 MiB for a ResNet-50), config and a card
(model.yaml) that says what the model is, what it learned from and what it was measured at; no code.
`cellseg predict --model my_cells.zip` predicts with it, MODEL.WEIGHTS my_cells.zip starts a
training. What the run knows is filled in; --card adds what only people know. docs/models.md
describes all of it. Exit status: 0.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from cellseg.cli._parser import CommandParser
from cellseg.engine.bundling import bundle_model
from cellseg.engine.loading import find_classes, load_config_of_model
from cellseg.errors import ConfigError
from cellseg.files import check_no_pipe
from cellseg.models import ModelCard
from cellseg.models.archive import ZIP_SUFFIX
from cellseg.models.card import PRECISIONS, read_card_additions
from detectron2.utils.logger import setup_logger

logger = logging.getLogger("cellseg.bundle")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="OUTPUT_DIR of a run of `cellseg train`, or a checkpoint"
    )
    parser.add_argument("--name", required=True, help="what the model is called, such as my-cells")
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="folder, or zip if it ends in .zip (default: NAME)"
    )
    parser.add_argument("--zip", action="store_true", help="write a zip instead of a folder")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="int8",
        help="how weights are stored (default: %(default)s)",
    )
    parser.add_argument(
        "--model-version", metavar="V", help="of the model, such as 1.1 (default: 1.0)"
    )
    parser.add_argument(
        "--card",
        metavar="FILE",
        help="YAML with what the card shall say: description, licence, trained_on, metrics, ...",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    parser.add_overrides()


def choose_path(args: argparse.Namespace) -> Path:
    """Where the bundle is to be."""
    path = Path(args.output or args.name)
    if args.zip and path.suffix.lower() != ZIP_SUFFIX:
        return path.with_name(path.name + ZIP_SUFFIX)
    return path


def read_additions(args: argparse.Namespace) -> dict[str, Any]:
    """What `--card`, `--name` and `--model-version` say.

    Raises:
        ConfigError: the file of `--card` cannot be read or used.
    """
    additions: dict[str, Any] = {}
    if args.card:
        try:
            check_no_pipe(args.card)
            text = Path(args.card).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{args.card}: cannot be read: {error.strerror or error}; expected YAML"
            ) from error
        additions = read_card_additions(text, args.card)
    if args.model_version:
        additions["version"] = args.model_version
    return additions | {"name": args.name}


def run(args: argparse.Namespace) -> int:
    setup_logger(name="cellseg")
    path, additions = choose_path(args), read_additions(args)
    cfg = load_config_of_model(args.model, opts=args.opts)
    classes, _ = find_classes(cfg)
    card = ModelCard(args.name, tuple(classes), precision=args.precision)
    bundle = bundle_model(cfg, path, card, additions=additions, overwrite=args.overwrite)
    size = bundle.size_bytes / 2**20
    logger.info("Written: %s, %.1f MiB", bundle.path, size)
    return 0
