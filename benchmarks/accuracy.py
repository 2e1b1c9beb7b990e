r"""Train and score variants of one config: what each ingredient adds, and what others reach.

    python benchmarks/accuracy.py --variants base anchors loss --opts SOLVER.MAX_ITER 400

Every variant trains on the same data for the same number of windows seen and is scored on the same
test images with the same code. A variant whose figures are there already is not trained again, so
the table grows run by run; without `--variants` it prints what is there. `--opts` holds for all;
`SOLVER.STEPS` of "plain" goes with its own MAX_ITER.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CPU_CONFIG = "configs/dsb2018/mask_rcnn_R_50_FPN_cpu_light.yaml"
# The last ranks all detections instead of cutting them at a score; it differs less between seeds.
FIGURES = ("cell_iou{}/ap_dsb@0.50", "cell_iou{}/ap_dsb", "segm{}/AP")
VALIDATION = "dsb2018_fluo_val"
TRAIN = "tools/train_net.py"


@dataclass(frozen=True)
class Variant:
    """How one row of the table comes about.

    Attributes:
        meaning: for the table.
        opts: of training and evaluation.
        of: another variant, whose weights are evaluated with `opts`; nothing is trained.
        config, script: what is run, in place of the config and of train_net.py.
        tuned: thresholds are fitted to the validation set before the evaluation.
        suffix: of the tasks whose figures are meant.
    """

    meaning: str
    opts: tuple[str, ...] = ()
    of: str = ""
    config: str = ""
    script: str = TRAIN
    tuned: bool = False
    suffix: str = ""


GENTLE = [
    f"CELLSEG.AUGMENTATION.{name}.ENABLED"
    for name in ("ROTATE90", "GAMMA", "BRIGHTNESS", "CONTRAST", "NOISE")
]
IOU_LOSSES = (
    *("CELLSEG.MASK_HEAD.LOSS", "bce+jaccard"),
    *("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou"),
    *("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", "10.0"),  # to the size of the one it replaces
)
SMALL_ANCHORS = ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8],[16],[32],[64],[128]]")
BATCH_NORM = ("MODEL.RESNETS.NORM", "BN", "MODEL.FPN.NORM", "BN")
NARROW_MASKS = ("MODEL.ROI_MASK_HEAD.NUM_CONV", "2", "MODEL.ROI_MASK_HEAD.CONV_DIM", "64")
NARROW = ("MODEL.FPN.OUT_CHANNELS", "64", "MODEL.ROI_BOX_HEAD.FC_DIM", "256", *NARROW_MASKS)
VARIANTS = {
    "base": Variant("the config"),
    "batch_norm": Variant("batch norm in backbone and pyramid", BATCH_NORM),
    "pyramid_64": Variant("pyramid 64 channels wide", ("MODEL.FPN.OUT_CHANNELS", "64")),
    "pyramid_256": Variant("pyramid 256 channels wide", ("MODEL.FPN.OUT_CHANNELS", "256")),
    "narrow_masks": Variant("mask head of two layers, 64 wide", NARROW_MASKS),
    "narrow": Variant("the same, pyramid 64, box head 256 wide", NARROW),
    "anchors": Variant(
        "Detectron2's anchors (32 to 512 px) in place of 16 to 256",
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64],[128],[256],[512]]"),
    ),
    "small_anchors": Variant("anchors of 8 to 128 px", SMALL_ANCHORS),
    "scale": Variant(
        "early stride 1, anchors of 8 to 128 px",
        ("MODEL.BACKBONE.NAME", "build_fine_resnet_fpn_backbone", *SMALL_ANCHORS),
    ),
    "loss": Variant("box loss GIoU, mask loss bce+jaccard", IOU_LOSSES),
    "mask_iou": Variant("MaskIoUHead", ("MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead")),
    "augmentation": Variant(
        "quarter turns, gamma, brightness, contrast, noise",
        tuple(word for key in GENTLE for word in (key, "True")),
    ),
    "tta": Variant(
        "each test image in eight versions",
        ("TEST.AUG.ENABLED", "True"),
        of="base",
        suffix="_TTA",
    ),
    "thresholds": Variant("score, NMS and area fitted on the val split", of="base", tuned=True),
    "torchvision": Variant(
        "torchvision's maskrcnn_resnet50_fpn", script="benchmarks/torchvision_baseline.py"
    ),
    "plain": Variant(
        "Detectron2's settings for training from scratch",
        config="benchmarks/plain_detectron2.yaml",
    ),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=CPU_CONFIG, help="default: %(default)s")
    parser.add_argument("--variants", nargs="*", default=[], choices=VARIANTS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--output", default="output/accuracy")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[])
    return parser.parse_args()


def read_figures(root: Path, name: str, seed: int) -> tuple[float, ...] | None:
    """The figures of the last evaluation of a run, or None."""
    folder, variant = root / f"{name}_{seed}", VARIANTS[name]
    path = folder / ("figures.json" if variant.of else "metrics.json")
    if not path.is_file():
        return None
    text = path.read_text("utf-8")
    keys = [figure.format(variant.suffix) for figure in FIGURES]
    lines = [text] if variant.of else text.splitlines()
    entries = [entry for entry in map(json.loads, lines) if keys[0] in entry]
    return tuple(entries[-1][key] for key in keys) if entries else None


def run(script: str, config: str, folder: Path, opts: Sequence[str]) -> None:
    command = [sys.executable, script, "--config-file", config, *opts, "OUTPUT_DIR", str(folder)]
    print("$", *command, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8") as log:
        subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=log, check=True)


def make(name: str, seed: int, args: argparse.Namespace) -> None:
    """Train, or evaluate, one variant with one seed, unless that was done."""
    variant, root = VARIANTS[name], Path(args.output).resolve()
    folder = root / f"{name}_{seed}"
    if read_figures(root, name, seed) is not None:
        return
    config = variant.config or args.config_file
    opts = [*args.opts, *variant.opts, "SEED", str(seed)]
    if not variant.of:
        run(variant.script, config, folder, opts)
        return
    make(variant.of, seed, args)
    weights = ["MODEL.WEIGHTS", str(root / f"{variant.of}_{seed}" / "model_final.pth")]
    evaluation = ["--eval-only", *opts, *weights]
    if variant.tuned:
        on_validation = root / f"{name}_{seed}_val"
        run(TRAIN, config, on_validation, [*evaluation, "DATASETS.TEST", f"('{VALIDATION}',)"])
        tune = [sys.executable, "tools/tune_thresholds.py", str(on_validation)]
        subprocess.run(tune, cwd=REPOSITORY, check=True)
        test = [*weights, "DATASETS.TEST", "('dsb2018_fluo_devtest',)"]
        evaluation, config = ["--eval-only", *test], str(on_validation / "thresholds.yaml")
    run(TRAIN, config, folder, evaluation)


def table(root: Path, seeds: Sequence[int]) -> str:
    """Markdown: figures of each seed, their mean, and the gain over "base" with the same seeds."""
    rows = {name: [read_figures(root, name, seed) for seed in seeds] for name in VARIANTS}
    lines = ["| variant | what | " + " | ".join(f"seed {s}" for s in seeds) + " | mean | gain |"]
    lines.append("| --- " * (4 + len(seeds)) + "|")
    for name, row in rows.items():
        found = [figures for figures in row if figures]
        if not found:
            continue
        pairs = [(mine, base) for mine, base in zip(row, rows["base"]) if mine and base]
        gains = [tuple(value - other for value, other in zip(*pair)) for pair in pairs]
        cells = [_join(figures) if figures else "not run" for figures in row]
        gain = _join(_means(gains), "+") if gains else ""
        words = [name, VARIANTS[name].meaning, *cells, _join(_means(found)), gain]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def _means(figures: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(statistics.fmean(column) for column in zip(*figures))


def _join(figures: Sequence[float], sign: str = "") -> str:
    *ratios, percent = figures
    return " / ".join([*(f"{value:{sign}.3f}" for value in ratios), f"{percent:{sign}.1f}"])


def main() -> None:
    args = parse()
    os.environ.setdefault("DETECTRON2_DATASETS", str(REPOSITORY / "datasets"))
    for seed in args.seeds:
        for name in args.variants:
            make(name, seed, args)
    print(f"`ap_dsb@0.50` / `ap_dsb` / COCO's segm AP in percent, seeds {args.seeds}\n")
    print(table(Path(args.output), args.seeds))


if __name__ == "__main__":
    main()
