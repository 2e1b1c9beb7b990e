"""Kind 1: values of Detectron2's own keys, and faults of YAML files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness import Trial
from stock import TRAIN

LOAD = "from cellseg import load_config; load_config('quick_start.yaml', {opts!r})"

# Key, what it is set to, and what is expected of it in words.
VALUES: tuple[tuple[str, object, str], ...] = (
    ("OUTPUT_DIR", "''", "the name of a folder"),
    ("SEED", 2**70, "at most 4,000,000,000"),
    ("SEED", "abc", "a whole number"),
    ("CUDNN_BENCHMARK", 2, "True or False"),
    ("FLOAT32_PRECISION", "hihg", "one of highest, high, medium"),
    ("INPUT.FORMAT", "RGBA", "'BGR' or 'RGB'"),
    ("INPUT.MASK_FORMAT", "bitmaks", "one of polygon, bitmask"),
    ("INPUT.MIN_SIZE_TRAIN", "()", "a list of lengths"),
    ("INPUT.MIN_SIZE_TRAIN", "(1000000000,)", "0 to 100,000 pixels"),
    ("INPUT.MIN_SIZE_TRAIN", "800", "a list of lengths"),
    ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "chioce", "one of choice, range"),
    ("INPUT.MAX_SIZE_TRAIN", 0, "at least 8 pixels"),
    ("INPUT.MIN_SIZE_TEST", -1, "0 to 100,000"),
    ("INPUT.MAX_SIZE_TEST", -1, "0 or more"),
    ("INPUT.RANDOM_FLIP", "diagonal", "one of none, horizontal, vertical"),
    ("INPUT.CROP.TYPE", "relativ", "one of relative_range, relative"),
    ("INPUT.CROP.SIZE", "-1", "two numbers above 0"),
    ("INPUT.CROP.SIZE", "(-1, 5)", "two numbers above 0"),
    ("DATASETS.TRAIN", "synthetic_train", "a list of names"),
    ("DATASETS.TRAIN", "(5,)", "a list of names"),
    ("DATALOADER.NUM_WORKERS", -1, "0 to 256"),
    ("DATALOADER.NUM_WORKERS", 10**6, "0 to 256"),
    ("DATALOADER.SAMPLER_TRAIN", "TrainSampler", "one of TrainingSampler"),
    ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler", "RANDOM_SUBSET_RATIO"),
    ("DATALOADER.REPEAT_THRESHOLD", -1, "0 or more"),
    ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", "maybe", "True or False"),
    ("MODEL.META_ARCHITECTURE", "GeneralizedRCN", "GeneralizedRCNN"),
    ("MODEL.DEVICE", "gpu", "cpu, cuda"),
    ("MODEL.MASK_ON", 2, "True or False"),
    ("MODEL.PIXEL_MEAN", "[1.0, 2.0]", "3 each"),
    ("MODEL.PIXEL_STD", "[0.0, 1.0, 1.0]", "above 0"),
    ("MODEL.BACKBONE.NAME", "build_resnet", "build_resnet_backbone"),
    ("MODEL.BACKBONE.FREEZE_AT", -4, "0 or more"),
    ("MODEL.RESNETS.DEPTH", 51, "one of 18, 34, 50"),
    ("MODEL.RESNETS.NORM", "Gn", "one of BN"),
    ("MODEL.RESNETS.OUT_FEATURES", "['res6']", "stem, res2"),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", "[False]", "four of True and False"),
    ("MODEL.RESNETS.RES5_DILATION", 3, "one of 1, 2"),
    ("MODEL.RESNETS.WIDTH_PER_GROUP", 0, "1 to 65,536"),
    ("MODEL.RESNETS.STEM_OUT_CHANNELS", 10**9, "1 to 65,536"),
    ("MODEL.FPN.NORM", "LayerNorm", "one of BN"),
    ("MODEL.FPN.FUSE_TYPE", "mean", "one of sum, avg"),
    ("MODEL.FPN.IN_FEATURES", "['res2', 'res4']", "without a gap"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16], [32]]", "5 feature maps"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "[[0], [8], [16], [32], [64]]", "above 0"),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[]", "a list for each"),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 1.0, "below 1"),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RNP", "RPN"),
    ("MODEL.RPN.IN_FEATURES", "['p2', 'p9']", "the pyramid has"),
    ("MODEL.RPN.NMS_THRESH", 5, "0 to 1"),
    ("MODEL.RPN.IOU_THRESHOLDS", "[0.7, 0.3]", "ascend"),
    ("MODEL.RPN.IOU_LABELS", "[0, 1]", "3, one more than"),
    ("MODEL.RPN.IOU_LABELS", "[0, 2, 1]", "left out"),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", "(1.0, 1.0)", "four numbers above 0"),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", "(1.0, 1.0, 1.0, 1.0, 1.0)", "expected 4"),
    ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "l1", "one of smooth_l1"),
    ("MODEL.RPN.CONV_DIMS", "[0]", "-1 for as many"),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", 0, "1 or more"),
    ("MODEL.ROI_HEADS.NAME", "StandartROIHeads", "StandardROIHeads"),
    ("MODEL.ROI_HEADS.NUM_CLASSES", 0, "1 to 100,000"),
    ("MODEL.ROI_HEADS.IOU_LABELS", "[0]", "one more than"),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.5, "0 to 1"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "RoIAlign", "one of ROIAlignV2"),
    ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 10**4, "1 to 256"),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "GIOU", "one of smooth_l1"),
    ("MODEL.ROI_MASK_HEAD.NAME", "CellMaskHaed", "CellMaskHead"),
    ("MODEL.ROI_MASK_HEAD.NUM_CONV", 10**6, "0 to 100"),
    ("SOLVER.MAX_ITER", 0, "1 or more"),
    ("SOLVER.MAX_ITER", -1, "1 or more"),
    ("SOLVER.MAX_ITER", "None", "is null"),
    ("SOLVER.IMS_PER_BATCH", 0, "1 to 65,536"),
    ("SOLVER.IMS_PER_BATCH", -2, "1 to 65,536"),
    ("SOLVER.IMS_PER_BATCH", 10**7, "1 to 65,536"),
    ("SOLVER.CHECKPOINT_PERIOD", 0, "1 or more"),
    ("SOLVER.CHECKPOINT_PERIOD", -3, "1 or more"),
    ("SOLVER.BASE_LR", float("nan"), "0 or more"),
    ("SOLVER.BASE_LR", -0.1, "0 or more"),
    ("SOLVER.BASE_LR", "1e400", "0 or more"),
    ("SOLVER.MOMENTUM", 1, "below 1"),
    ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosine", "one of WarmupMultiStepLR"),
    ("SOLVER.BASE_LR_END", 5, "which it falls from"),
    ("SOLVER.WARMUP_METHOD", "linaer", "one of linear, constant"),
    ("SOLVER.REFERENCE_WORLD_SIZE", 3, "a divisor of"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "vlaue", "one of value, norm"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1, "more than 0"),
    ("TEST.DETECTIONS_PER_IMAGE", 0, "or -1 for no limit"),
    ("TEST.EXPECTED_RESULTS", "[['segm', 'AP', 40]]", "tolerance"),
    ("TEST.AUG.MIN_SIZES", "(-5,)", "0 to 100,000"),
    ("TEST.PRECISE_BN.NUM_ITER", 0, "1 or more"),
    ("CELLSEG.TEST.TILE", "None", "is null"),
    ("SOLVR.MAX_ITER", 1, "is no key of the config"),
    ("SOLVER", "{'MAX_ITER': 1}", "expected a section"),
    ("SOLVER.MAX_ITER.MORE", 1, "is a section with the keys MORE"),
    ("MODEL.RESNETS.NORM", "x" * 5000, "xxx[.][.][.]; expected one of"),
)

BASE = '_BASE_: "quick_start.yaml"\n'
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]\n" for one, two in zip("abcdefgh", "bcdefghi")
)
# Name, text of mine.yaml (with other files behind `=== name`), and what is said.
FILES: tuple[tuple[str, str | bytes, str], ...] = (
    ("a list for a section", BASE + "SOLVER: [1, 2]\n", "mine.yaml, line 2: SOLVER is .* section"),
    ("a number for a section", BASE + "\nSOLVER: 5\n", "mine.yaml, line 3: SOLVER is 5"),
    ("a section of nothing", BASE + "MODEL:\n", "MODEL has nothing below it"),
    ("a section of cellseg's own", BASE + "CELLSEG: {TEST: 3}\n", "CELLSEG.TEST is 3"),
    ("a section for a number", BASE + "SEED: {A: 1}\n", "SEED is a section with the keys A"),
    ("null", BASE + "SOLVER: {MAX_ITER: null}\n", "line 2: SOLVER.MAX_ITER is null"),
    ("null of cellseg's own", BASE + "CELLSEG: {TEST: {TILE: ~}}\n", "CELLSEG.TEST.TILE is null"),
    ("a text for a section", BASE + "SOLVER: fast\n", "SOLVER is 'fast'; expected a section"),
    ("a key of several words", BASE + "SOLVER.MAX_ITER: 3\n", "indented below SOLVER"),
    ("a number as key", BASE + "5: 3\n", "5 is no key"),
    ("a date", BASE + "SEED: 2026-02-03\n", "a date; expected a whole number"),
    ("a date that is none", BASE + "SEED: 2026-02-30\n", "is no value.*line 2"),
    ("a number of 5,000 digits", BASE + f"SEED: {'9' * 5000}\n", "is no value.*line 2"),
    ("a base that is its own", "_BASE_: mine.yaml\n", "is its own _BASE_"),
    ("bases in a circle", "_BASE_: b.yaml\n=== b.yaml\n_BASE_: mine.yaml\n", "b.yaml -> mine.yaml"),
    ("a number as base", "_BASE_: 5\n", "line 1: _BASE_ is 5"),
    ("numbers as bases", "_BASE_: [1, 2]\n", "_BASE_ is .1, 2."),
    ("no base", "_BASE_:\n", "_BASE_ is None"),
    ("an empty base", "_BASE_: ''\n", "_BASE_ is ''"),
    (
        "a base that is missing",
        "_BASE_: far.yaml\n",
        "line 1: _BASE_: far.yaml: no such",
    ),
    (
        "a wrong value in a base",
        "_BASE_: b.yaml\n=== b.yaml\n" + BASE + "SOLVER:\n  MAX_ITER: 0\n",
        "SOLVER.MAX_ITER is set in b.yaml, line 3",
    ),
    ("100,000 brackets", "[" * 100_000, "more than 100 levels"),
    ("100,000 brackets below a key", BASE + "SOLVER: " + "{a: " * 50_000, "more than 100 levels"),
    ("100,000 brackets in quotes", BASE + f"SEED: '{'(' * 100_000}'\n", "SEED (is|has)"),
    ("aliases that multiply", BOMB, "aliases .* stand for"),
    ("an alias within itself", "SOLVER: &a [*a]\n", "stands within what it names"),
    (
        "aliases of aliases",
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000)),
        "more than 100 levels",
    ),
    ("a tag for an object", "A: !!python/object/apply:os.system [ls]\n", "expected plain values"),
    ("a tag of somebody's", "A: !thing 3\n", "expected plain values"),
    ("tabs", "SOLVER:\n\tMAX_ITER: 3\n", "line 2"),
    ("an open bracket", "SOLVER: [1\n", "mine.yaml.*line 2"),
    ("two documents", "SEED: 1\n---\nSEED: 2\n", "another document"),
    ("a template", BASE + "SEED: {{ seed }}\n", "unhashable key.*line 2"),
    ("a list", "- SEED\n", "holds a list"),
    ("a text", "hello\n", "holds a text"),
    ("nothing", "", "sets no key"),
    ("a comment", "# nothing yet\n", "sets no key"),
    ("Latin-1", BASE.encode() + "# Zelle, gr\xfcn\n".encode("latin-1"), "no text in UTF-8.*line 2"),
    ("UTF-16", (BASE + "SEED: 1\n").encode("utf-16"), "no text in UTF-8"),
    ("a picture", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "no text in UTF-8"),
    ("a null byte", BASE.encode() + b"SEED: \x00\n", "no text"),
    ("a version from the future", BASE + "VERSION: 9\n", "line 2: VERSION is 9"),
    ("a version that is none", BASE + "VERSION: two\n", "VERSION is 'two'"),
    ("plug-ins that are a number", BASE + "CELLSEG: {PLUGINS: 5}\n", "PLUGINS is 5"),
    ("declarations that are a number", BASE + "CELLSEG: {DATASETS: {DECLARATIONS: 5}}\n", "is 5"),
    (
        "20,000 unknown keys",
        BASE + "".join(f"K{number}: 1\n" for number in range(20_000)),
        "K0 is no key",
    ),
)

# Words of `cellseg train` behind TRAIN, and what is said.
PROCESSES = (
    (("--num-gpus", "0"), "--num-gpus is 0; expected"),
    (("--num-gpus", "-1"), "--num-gpus is -1; expected"),
    (("--num-gpus", "100000"), "--num-gpus is 100000; expected"),
    (("--num-machines", "0"), "--num-machines is 0; expected"),
    (("--machine-rank", "5"), "--machine-rank is 5; expected a whole number, 0 to 0"),
    (("--machine-rank", "-1"), "--machine-rank is -1; expected"),
)


def _write(text: str | bytes) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        if isinstance(text, bytes):
            (folder / "mine.yaml").write_bytes(text)
            return
        own, *others = text.split("=== ")
        (folder / "mine.yaml").write_text(own, "utf-8")
        for other in others:
            name, _, content = other.partition("\n")
            (folder / name).write_text(content, "utf-8")

    return prepare


def _declare(text: str | bytes) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        own = text.encode() if isinstance(text, str) else text
        (folder / "sets.yaml").write_bytes(own)

    return prepare


def _spoil_config(folder: Path) -> None:
    """A run whose config somebody has changed by hand."""
    config = folder / "run" / "config.yaml"
    text = config.read_text("utf-8").replace("DETECTIONS_PER_IMAGE:", "DETECTIONS_PER_IMAGE: -7 #")
    config.write_text(text, "utf-8")


DECLARATIONS: tuple[tuple[str, str | bytes, str], ...] = (
    ("of nothing", "", "sets.yaml"),
    ("that is a list", "- cells\n", "sets.yaml"),
    ("of 100,000 brackets", "[" * 100_000, "more than 100 levels"),
    ("with aliases that multiply", BOMB, "aliases"),
    ("with a tag", "a: !!python/name:os.system\n", "expected plain values"),
    ("in Latin-1", b"# gr\xfcn\n", "no text in UTF-8"),
    ("whose set is a number", "cells: 5\n", "cells: expected keys"),
    ("whose format is null", "cells: {format: null, splits: [a]}\n", "format"),
)

TRIALS = [
    *(
        Trial(1, f"{key} {str(value)[:40]}", code=LOAD.format(opts=[key, value]), says=(
            (key.split(".")[0] if "null" not in says else key), says,
        ))
        if value == value
        else Trial(1, f"{key} nan", code=f"from cellseg import load_config; load_config("
            f"'quick_start.yaml', [{key!r}, float('nan')])", says=(key, says))
        for key, value, says in VALUES
    ),
    *(
        Trial(
            1,
            f"a config with {name}",
            ("train", "--config-file", "mine.yaml", "OUTPUT_DIR", "out"),
            prepare=_write(text),
            says=(says,),
            never=("<class", "RecursionError"),
        )
        for name, text, says in FILES
    ),
    *(
        Trial(
            1,
            f"declarations {name}",
            (*TRAIN, "CELLSEG.DATASETS.DECLARATIONS", "('sets.yaml',)"),
            needs=("data",),
            prepare=_declare(text),
            says=(says, "sets.yaml"),
        )
        for name, text, says in DECLARATIONS
    ),
    *(
        Trial(1, f"train {' '.join(words)}", (*TRAIN, *words), needs=("data",), says=(says,))
        for words, says in PROCESSES
    ),
    Trial(1, "a key without a value", (*TRAIN, "SEED"), needs=("data",), says=("no value behind",)),
    Trial(
        1,
        "predict with a run whose config was spoilt",
        ("predict", "--model", "run", "images", "--output", "found"),
        needs=("run", "images", "data"),
        prepare=_spoil_config,
        says=(r"DETECTIONS_PER_IMAGE is -7; expected", r"config\.yaml, line \d+"),
    ),
    Trial(
        1,
        "a norm that does not divide the channels",
        (*TRAIN, "MODEL.RESNETS.NORM", "GN"),
        needs=("data",),
        says=("ConfigError: the model cannot be built from the keys below MODEL",),
    ),
    Trial(
        1,
        "a folder that looks like a number",
        code="from cellseg import load_config\n"
        "print(load_config('quick_start.yaml', ['OUTPUT_DIR', '2026']).OUTPUT_DIR * 2)",
        status=(0,),
        says=("20262026",),
    ),
    Trial(
        1,
        "what means none or all in Detectron2",
        code="from cellseg import load_config\n"
        "load_config('quick_start.yaml', ['SEED', -1, 'TEST.DETECTIONS_PER_IMAGE', -1,"
        " 'TEST.EVAL_PERIOD', -1, 'MODEL.RPN.BOUNDARY_THRESH', -1, 'MODEL.RPN.CONV_DIMS', [-1],"
        " 'SOLVER.STEPS', (), 'SOLVER.WEIGHT_DECAY_BIAS', None, 'INPUT.MIN_SIZE_TEST', 0])",
        status=(0,),
    ),
    Trial(
        1,
        "a trainer with a config made by hand",
        code="from cellseg.engine import CellTrainer\nfrom cellseg import load_config\n"
        "cfg = load_config('quick_start.yaml')\ncfg.SOLVER.MAX_ITER = 0\nCellTrainer(cfg)",
        says=("SOLVER.MAX_ITER is 0; expected",),
    ),
    Trial(
        1,
        "a model of a config made by hand",
        code="import cellseg\ncfg = cellseg.load_config('quick_start.yaml')\n"
        "cfg.MODEL.RPN.NMS_THRESH = 7\ncellseg.MaskRCNN(cfg)",
        says=("MODEL.RPN.NMS_THRESH is 7; expected",),
    ),
]  # fmt: skip
