"""Draw what augmentations do to an image and the outlines of its cells.

    python -m cellseg.cli.preview --output augmentations.png
    python -m cellseg.cli.preview --output mine.png --config-file F.yaml

The first shows every augmentation on made-up cells, the second what a config enables on an image
of its training set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cellseg.cells.drawing import write_picture
from cellseg.engine.setup import load_config
from cellseg.errors import CellsegError
from cellseg.training_data.augmentations.preview import draw_preview


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", required=True, help="PNG file to write")
    parser.add_argument("--config-file", help="show what this config enables, on its training set")
    parser.add_argument("--image", type=int, default=0, help="number in the training set")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        cfg = load_config(args.config_file) if args.config_file else None
        write_picture(args.output, draw_preview(cfg, args.image, args.seed))
    except CellsegError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
