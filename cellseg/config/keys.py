"""The table of keys: name, default, rule and sentence of everything below CELLSEG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellseg.rules import (
    FLAG,
    NAMES,
    TEXT,
    Rule,
    ascending,
    choice,
    list_of,
    named_numbers,
    number,
    or_empty,
    per_class,
)


@dataclass(frozen=True)
class Key:
    """One key below CELLSEG.

    Attributes:
        name: without `CELLSEG.` in front, such as "TEST.MASK_NMS".
        default: its value where no file and no command line sets it; never changed.
        rule: what it may be. `check_keys` applies it to every config that is loaded.
        says: what the key does, one sentence.
        read_by: the name of the head without which it has no effect; "" for none. Other heads
            may be derived from that one.
        checked_by: the function that knows more than the rule, such as which names are
            registered; `load_config` calls it. "" where the rule is all.
    """

    name: str
    default: Any
    rule: Rule
    says: str
    read_by: str = ""
    checked_by: str = ""

    @property
    def path(self) -> str:
        """The whole name, as in a file and on the command line."""
        return f"CELLSEG.{self.name}"


_SHARE = number(0, 1)
_COUNT = number(0, whole=True)
_AMOUNT = Rule("", lambda value: number(0).accepts(value) and value == int(value))  # also 2.0
_SIZE = number(1, whole=True)
_FACTORS = ascending(number(above=0), " with 0 < low <= high")
_SPREAD = ascending(number(0), " with 0 <= low <= high")
_ASCENDING_THREE = Rule(
    "three numbers above 0 that ascend, or [] where they are not known",
    lambda value: (
        list_of(number(above=0)).accepts(value)
        and (len(value) == 0 or (len(value) == 3 and value[0] <= value[1] <= value[2]))
    ),
)
_SCENE = Rule(
    "a scene's number from 0 or its name, or '' for files of one scene",
    lambda value: isinstance(value, str) or _COUNT.accepts(value),
)
_INVERT = Rule(
    "True, False or 'auto'",
    lambda value: FLAG.accepts(value) or (isinstance(value, str) and value == "auto"),
)
_DIAMETER = Rule(
    "'' (images as they are), 'auto', or a number above 0",
    lambda value: (
        (isinstance(value, str) and value in ("", "auto")) or number(above=0).accepts(value)
    ),
)
_CHANNEL = Rule("", lambda value: (TEXT.accepts(value) and value != "") or _COUNT.accepts(value))
_CHANNELS = "up to three channel numbers from 0, or names; none for grey and RGB images"
_INTENSITIES = ", the intensities that become 0 and 255, with low < high"

_THRESHOLDS = "cellseg.cells.thresholds.DetectionThresholds"
_CELL_TYPES = "cellseg.modeling.cell_types.check_cell_type_config"
_AUGMENTATIONS = "cellseg.training_data.augmentations.check_augmentation_config"


def _augmentation(name: str, prob: float, says: str) -> tuple[Key, Key]:
    return (
        Key(f"AUGMENTATION.{name}.ENABLED", False, FLAG, says=says),
        Key(f"AUGMENTATION.{name}.PROB", prob, _SHARE, says="How often it happens."),
    )


# Not formatted: one key, two or three lines, to be read as a table.
# fmt: off
_TABLE = (
    Key("PLUGINS", [], NAMES, checked_by="cellseg.plugins.import_plugins",
        says="Modules or `.py` files of yours that are imported before the model is built; one "
        "with keys of its own defines `add_config(cfg)`."),
    Key("COMPILE", False, FLAG,
        says="Compile backbone and RPN head with `torch.compile` when training: slow to start, "
        "then faster."),
    Key("DETERMINISTIC", False, FLAG,
        says="Same SEED, same weights, bit by bit, on one machine with one set of versions; "
        "slower."),
    Key("DATASETS.DECLARATIONS", [], NAMES,
        checked_by="cellseg.datasets.registration.register_declarations",
        says="YAML declarations of data sets, beside those that come with cellseg."),
    Key("INPUT.NORMALIZE", "auto", choice("auto", "none", "minmax", "percentile", "range"),
        says="What becomes 0 and 255: the darkest and brightest pixel (`minmax`), two "
        "`PERCENTILES` (`percentile`), the values of `RANGE` (`range`), or nothing is changed "
        "(`none`); `auto` is `none` for 8-bit images, else `percentile`."),
    Key("INPUT.PERCENTILES", [1.0, 99.8],
        ascending(number(0, 100), " with 0 <= low < high <= 100", strictly=True),
        says="Lower and upper percentile of `percentile`, of each channel of each image."),
    Key("INPUT.RANGE", [], or_empty(ascending(number(), _INTENSITIES, strictly=True)),
        says="The two intensities that become 0 and 255 in `range`, such as [0, 4095]."),
    Key("INPUT.INVERT", False, _INVERT,
        says="Make dark bright, for models of bright cells on dark ground: True for every image, "
        "`auto` for grey ones whose median lies in the brightest quarter of their range, and "
        "those in colours whose median lies in the brighter half; other RGB becomes grey, if its "
        "intensities are stretched."),
    Key("INPUT.CHANNELS", [],
        list_of(_CHANNEL, most=3, words=_CHANNELS),
        says="Channels of the file, by number from 0 or by name, that become R, G and B: one is "
        "repeated, two leave B black; empty for grey and RGB images."),
    Key("INPUT.PAGE", -1,
        number(-1, whole=True).said("a page number from 0, or -1 for files of one page"),
        says="Page of a multi-page file or stack; -1 where every file has one."),
    Key("INPUT.SCENE", "", _SCENE,
        says="Scene, series or position of files that have several (CZI, LIF, ND2, OME-TIFF, "
        "OME-Zarr), by number from 0 or by name; empty where every file has one, and for all of "
        "them when predicting."),
    Key("INPUT.PROJECTION", "none", choice("none", "max"),
        says="`max` takes the brightest value along Z before pages are counted."),
    Key("INPUT.SCALE", 1.0, number(above=0, high=8),
        says="Factor of the sizes that Detectron2's INPUT.MIN_SIZE_* and MAX_SIZE_* give, or of "
        "the native size where they are 0, such as 2.0 for cells of 10 to 30 px; results stay in "
        "pixels of the file."),
    *_augmentation("COPY_PASTE", 0.5,
        says="Paste cells of another training image, which has cells of the same class, in front."),
    Key("AUGMENTATION.COPY_PASTE.NUM_CELLS", [1, 20],
        ascending(_AMOUNT, ", whole numbers, 0 <= low <= high"),
        says="Least and highest number of cells to paste; fewer where there are not as many."),
    Key("AUGMENTATION.COPY_PASTE.FLIP", True, FLAG,
        says="Mirror the other image first, each axis half of the time."),
    Key("AUGMENTATION.COPY_PASTE.SHIFT", 0.5, _SHARE,
        says="How far the other image is moved at most, as a share of its size."),
    Key("AUGMENTATION.COPY_PASTE.EDGE_SIGMA_PX", 1.0, number(0),
        says="Width of the soft edge of pasted cells, in pixels of the file; 0 makes it hard."),
    Key("AUGMENTATION.COPY_PASTE.MIN_VISIBLE", 0.3, _SHARE,
        says="A cell that is left with a smaller share of its pixels is dropped."),
    Key("AUGMENTATION.COPY_PASTE.MIN_AREA_PX", 8, number(0),
        says="A cell that lost pixels and is left with fewer than these is dropped."),
    *_augmentation("ROTATE90", 0.75,
        says="Turn by 90, 180 or 270 degrees; with PROB 0.75 these and no turn are equally "
        "frequent."),
    *_augmentation("SCALE", 0.5,
        says="Scale by a random factor: what grows is cut to the size it had, what shrinks stays "
        "smaller."),
    Key("AUGMENTATION.SCALE.RANGE", [0.75, 1.5], _FACTORS,
        says="Lowest and highest factor, uniform on a logarithmic scale."),
    *_augmentation("ELASTIC", 0.5, says="Shift pixels smoothly at random (Simard et al., 2003)."),
    Key("AUGMENTATION.ELASTIC.STRENGTH_PX", [1.0, 3.0], _SPREAD, checked_by=_AUGMENTATIONS,
        says="Lowest and highest standard deviation of the shifts along each axis, pixels."),
    Key("AUGMENTATION.ELASTIC.SIGMA_PX", 16.0, number(above=0),
        says="Sigma of the Gaussian that smooths the shifts, pixels; at least five times the "
        "strength."),
    *_augmentation("GAMMA", 0.5, says="Raise the intensities' share of the full range to a power."),
    Key("AUGMENTATION.GAMMA.RANGE", [0.7, 1.4], _FACTORS,
        says="Lowest and highest power; above 1 darkens."),
    *_augmentation("BRIGHTNESS", 0.5, says="Multiply all intensities."),
    Key("AUGMENTATION.BRIGHTNESS.RANGE", [0.7, 1.4], _FACTORS, says="Lowest and highest factor."),
    *_augmentation("CONTRAST", 0.5, says="Multiply the distances from the mean intensity."),
    Key("AUGMENTATION.CONTRAST.RANGE", [0.7, 1.4], _FACTORS, says="Lowest and highest factor."),
    *_augmentation("BLUR", 0.25, says="Blur with a Gaussian."),
    Key("AUGMENTATION.BLUR.SIGMA_PX", [0.5, 1.5], _FACTORS,
        says="Lowest and highest sigma, pixels."),
    *_augmentation("NOISE", 0.5, says="Add Gaussian noise."),
    Key("AUGMENTATION.NOISE.SIGMA", [1.0, 10.0], _SPREAD,
        says="Lowest and highest standard deviation, on a scale of 255."),
    *_augmentation("INVERT", 0.5,
        says="Make dark bright: for models that see fluorescence and transmitted light."),
    Key("AUGMENTATION.EXTRA", [], NAMES, checked_by=_AUGMENTATIONS,
        says="Registered names of augmentations of your own, applied last; training then makes "
        "boxes tight around the masks."),
    Key("MASK_HEAD.LOSS", "bce",
        TEXT.said("a loss such as bce, or a sum such as bce+dice or 0.5*bce+2*jaccard"),
        read_by="CellMaskHead", checked_by="cellseg.modeling.mask_losses.parse_loss",
        says="Loss of the masks: `bce` (Detectron2's), `dice`, `jaccard`, `lovasz`, a sum of "
        "these, or a name that a plug-in has put into MASK_LOSS_REGISTRY."),
    Key("MASK_HEAD.BOUNDARY_WEIGHT", 0.0, number(0).remark("0: off"), read_by="CellMaskHead",
        says="How much more a pixel beside the outline weighs in `bce`."),
    Key("MASK_IOU.LOSS_WEIGHT", 1.0, number(0), read_by="MaskIoUHead",
        says="Factor of `loss_mask_iou`, the loss of the predicted IoU."),
    # Mask Scoring R-CNN has 256, 4 and 1024, for 80 classes of objects: as much work as the mask
    # head itself, for every one of hundreds of cells. How well an outline fits a cell is a simpler
    # question, and this a quarter of the work.
    Key("MASK_IOU.CONV_DIM", 128, _SIZE, read_by="MaskIoUHead",
        says="Channels of the 3x3 convolutions of the branch that predicts the IoU."),
    Key("MASK_IOU.NUM_CONV", 3, _SIZE, read_by="MaskIoUHead",
        says="Number of these convolutions, the last of which halves the resolution."),
    Key("MASK_IOU.FC_DIM", 256, _SIZE, read_by="MaskIoUHead",
        says="Width of the branch's two hidden layers."),
    Key("BOX_HEAD.IOU_WEIGHT", 0.0, number(0).remark("0: as in Detectron2"),
        read_by="CellROIHeads", checked_by="cellseg.modeling.roi_heads.check_box_head_config",
        says="Exponent of the IoU by which a proposal's class counts, so that those which fit "
        "their cell better weigh more (Wu et al., arXiv:1908.05641, who use 1.5)."),
    Key("CELL_TYPE.VOTE", "none", choice("none", "image"),
        says="`image`: all cells of an image are of the type that most of the scores are for; for "
        "every model with several classes."),
    Key("CELL_TYPE.HEAD", "CellTypeHead", TEXT, read_by="CellTypeROIHeads", checked_by=_CELL_TYPES,
        says="The classifier, a name of CELL_TYPE_HEAD_REGISTRY."),
    Key("CELL_TYPE.NUM_CONV", 2, _COUNT, read_by="CellTypeROIHeads",
        says="Number of convolutions of CellTypeHead."),
    Key("CELL_TYPE.CONV_DIM", 128, _SIZE, read_by="CellTypeROIHeads",
        says="Channels of these convolutions."),
    Key("CELL_TYPE.FC_DIM", 256, _SIZE, read_by="CellTypeROIHeads",
        says="Width of its hidden layer."),
    Key("CELL_TYPE.LOSS_WEIGHT", 1.0, number(0), read_by="CellTypeROIHeads",
        says="Factor of `loss_cell_type`, the cross-entropy over the cells that training draws."),
    Key("CELL_TYPE.CLASS_WEIGHTS", [],
        list_of(number(above=0), words="one number above 0 for each type, or []"),
        read_by="CellTypeROIHeads", checked_by=_CELL_TYPES,
        says="What each type weighs in that loss, larger numbers for types of which there are few "
        "cells; empty: all the same."),
    Key("CELL_TYPE.DETACH", False, FLAG, read_by="CellTypeROIHeads",
        says="The classifier learns from the features and does not change them."),
    Key("CELL_TYPE.SCORE", "product", choice("product", "detection"), read_by="CellTypeROIHeads",
        says="`product`: the score is that of the detection times the type's probability; "
        "`detection`: that of the detection alone."),
    Key("SOLVER.OPTIMIZER", "SGD", choice("SGD", "ADAMW"),
        says="`SGD` is Detectron2's own; `ADAMW`, for training from scratch and short trainings, "
        "uses SOLVER.BASE_LR and SOLVER.WEIGHT_DECAY too."),
    Key("SOLVER.ACCUMULATE", 1, _SIZE.said("1 (off) to SOLVER.IMS_PER_BATCH"),
        says="Compute the SOLVER.IMS_PER_BATCH images of an iteration in so many parts, each with "
        "a part of the memory; it stays one update per iteration."),
    Key("SOLVER.AMP_DTYPE", "auto", choice("auto", "bfloat16", "float16"),
        says="What SOLVER.AMP.ENABLED computes in; `float16` has a gradient scaler, `auto` is "
        "`bfloat16` where the hardware has it."),
    Key("SOLVER.LAYER_DECAY", 1.0, number(above=0, high=1).remark("1: off"),
        says="Learning rates fall by this factor per stage away from the heads: FPN, res5, ..., "
        "stem."),
    Key("SOLVER.LR_FACTORS", [], named_numbers(number()),
        checked_by="cellseg.config.check_combinations",
        says='Further factors of the learning rate by name of parameters, such as '
        '[["backbone.bottom_up", 0.1]]; the longest name wins.'),
    Key("SOLVER.FREEZE", [], named_numbers(number()),
        checked_by="cellseg.config.check_combinations",
        says='Parts that stay as they are for a number of iterations, -1 for ever, such as '
        '[["backbone.bottom_up", 500], ["backbone.bottom_up.stem", -1]]; the longest name wins.'),
    Key("SOLVER.MAX_MINUTES", 0.0, number(0).remark("0: off"),
        says="Training ends after so many minutes of training, all resumed runs together; the "
        "learning rate follows the share of the time, and SOLVER.MAX_ITER stays the most "
        "iterations."),
    Key("TRAIN.BEST_METRIC", "", TEXT, checked_by="cellseg.engine.best_metric.check_best_metric",
        says="Metric by which `model_best.pth` is chosen, by its name in `metrics.json`, such as "
        "`cell_iou/ap_dsb`, `segm/AP` or `validation_loss`, with several test sets with the data "
        "set's name in front; empty: none."),
    Key("TRAIN.BEST_MODE", "max", choice("max", "min").said("'max' or 'min'"),
        says="Which of two values of the metric is better; `min` for a loss."),
    Key("TRAIN.PATIENCE", 0, _COUNT.remark("0: off"),
        says="Early stopping: training ends after so many evaluations in a row without a better "
        "BEST_METRIC."),
    Key("TRAIN.VALIDATION_LOSS", False, FLAG,
        says="Compute the training's losses on the test sets at every evaluation."),
    Key("TRAIN.VALIDATION_IMAGES", 0, _COUNT.remark("0: all"),
        says="On how many images of each test set that is done, the first ones."),
    Key("TRAIN.EMA_DECAY", 0.0, number(0, below=1).remark("0: off"),
        says="Average the weights over iterations, w = decay * w + (1 - decay) * new, such as "
        "0.999; the average is what is evaluated and saved."),
    Key("TRAIN.UNCOUNTED_REGIONS", "ignored", choice("ignored", "background"),
        says="What a crowd region (COCO's `iscrowd`), where nobody counted cells, teaches: nothing "
        "(`ignored`), or that there is no cell (`background`, as in Detectron2)."),
    Key("TRAIN.PROGRESS_BAR", True, FLAG,
        says="Show a bar with the time left below the log; on terminals only."),
    Key("TRAIN.SAMPLE_PICTURES", 4, _COUNT.remark("0: none"),
        says="How many training images are drawn to OUTPUT_DIR/samples as the network gets them, "
        "before training starts."),
    Key("TEST.SCORE_THRESHOLD", 0.5, per_class(_SHARE), checked_by=_THRESHOLDS,
        says="A detection whose score does not reach this is no cell; "
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST counts where it is higher and above 0.05."),
    Key("TEST.MASK_THRESHOLD", 0.5, per_class(number(above=0, high=1)), checked_by=_THRESHOLDS,
        says="A pixel belongs to a cell where the soft mask reaches this, when predicting."),
    Key("TEST.LARGEST_COMPONENT", False, per_class(FLAG, "flag"), checked_by=_THRESHOLDS,
        says="Of a mask in several pieces only the one with the most pixels is kept."),
    Key("TEST.FILL_HOLES", False, per_class(FLAG, "flag"), checked_by=_THRESHOLDS,
        says="What a mask encloses is part of the cell."),
    Key("TEST.MIN_AREA", 0, per_class(number(0).remark("0: off")), checked_by=_THRESHOLDS,
        says="A detection with fewer pixels of the file is no cell."),
    Key("TEST.MAX_AREA", 0, per_class(number(0).remark("0: off")), checked_by=_THRESHOLDS,
        says="A detection with more pixels of the file is no cell."),
    Key("TEST.MASK_NMS", 1.0, per_class(_SHARE.remark("1: off")), checked_by=_THRESHOLDS,
        says="Of two detections of a class whose masks have an IoU above this, the one of the "
        "lower score is no cell."),
    Key("TEST.MAX_COVERED", 1.0, per_class(_SHARE.remark("1: off")), checked_by=_THRESHOLDS,
        says="A detection of which a larger share lies in cells of its class with a higher score "
        "is a piece of them and no cell; the recipes set 0.5."),
    Key("TEST.BORDER", "keep", per_class(choice("keep", "drop"), "word"), checked_by=_THRESHOLDS,
        says="`drop`: a detection with a pixel in the first or last row or column of the image is "
        "no cell."),
    Key("TEST.EXCLUSIVE", False, per_class(FLAG, "flag"), checked_by=_THRESHOLDS,
        says="Every pixel belongs to one cell, that of the highest score; a cell left with fewer "
        "pixels than MIN_AREA, or none, is none."),
    Key("TEST.KNOWN_DIAMETERS", [], _ASCENDING_THREE,
        says="Lowest, median and highest diameter of the cells that the model was trained on, in "
        "pixels as the network sees them, such as [10, 26, 48]; a cell's diameter is that of the "
        "disc of its area."),
    Key("TEST.DIAMETER", "", _DIAMETER, checked_by="cellseg.config.check_combinations",
        says="Diameter of the cells in the images, in pixels: predicting looks at them so large or "
        "small that it becomes the median of KNOWN_DIAMETERS; `auto` measures each image, empty "
        "looks at images as they are."),
    Key("TEST.TILE", 0, _COUNT.remark("0: by the memory at hand"),
        says="Images larger than this and what tiles overlap are looked at in tiles of so many "
        "pixels to a side, when predicting."),
    Key("TEST.TILE_OVERLAP", 128, _COUNT,
        says="Length in pixels of the largest cell expected, which tiles overlap by."),
    Key("TEST.PRECISION", "float32", choice("float32", "bfloat16"),
        says="What prediction computes in on a CPU; bfloat16, where the processor has it, takes "
        "half the time and rounds to three digits within the network."),
    Key("TEST.METRICS", [], NAMES, checked_by="cellseg.evaluation.registry.check_metric_names",
        says="Further metrics of `cell_iou`, over all cells and per class."),
    Key("TEST.EVALUATORS", [], NAMES,
        checked_by="cellseg.evaluation.registry.check_evaluator_names",
        says="Registered names of evaluators of your own, beside those of cellseg."),
    Key("TEST.AUG_ROTATE90", True, FLAG,
        says="With TEST.AUG.ENABLED, look at all four turns by 90 degrees of each view, four times "
        "as many; cells have no upright."),
    Key("TEST.REPORT", False, FLAG, says="Write OUTPUT_DIR/report.html after every evaluation."),
    Key("TEST.PICTURES", 8, _COUNT.remark("0: none"),
        says="How many images of each test set are drawn, prediction beside truth."),
)
# fmt: on

KEYS = {key.name: key for key in _TABLE}
"""Every key of cellseg by its name below CELLSEG, in the order of the docs."""
