"""Rules for Detectron2's own keys, of which it checks the type alone, if that.

What they do is said in Detectron2's documentation; here is what they may be, so that a wrong value
is an error before any work and not an assertion in the middle of it, or no word at all. What goes
together is in `engine_combinations`, which names are registered in `cellseg.modeling`. A key that
is not listed, such as one of a plug-in, may have any value of its default's type.
"""

from __future__ import annotations

import math
from typing import Any

from cellseg.rules import FLAG, NAMES, TEXT, Rule, choice, list_of, number, or_empty

_SHARE = number(0, 1)
_COUNT = number(1, whole=True)
_NONE_OR_MORE = number(0, whole=True)
_AMOUNT = number(0)
_ABOVE_0 = number(above=0)
_ANY = number()
# Limits that no model comes near: what is beyond them was not meant, and takes all memory.
_CHANNELS = number(1, 65_536, whole=True)
_LAYERS = number(0, 100, whole=True)
_SIDE = number(1, 256, whole=True)
_SAMPLES = number(-1, 64, whole=True).remark("0: by the size of the box")
_CLASSES = number(1, 100_000, whole=True)
_PIXELS = number(0, 100_000, whole=True)
_SEEDS = 4_000_000_000  # NumPy's end at 2^32, and each process adds its number

_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla", "meta", "privateuseone")


def _filled(rule: Rule) -> Rule:
    return Rule(rule.expected, lambda value: rule.accepts(value) and len(value) > 0)


def _or_none(rule: Rule) -> Rule:
    """What a rule allows, and '' for none."""
    return Rule(
        f"{rule.expected}, or '' for none",
        lambda value: (isinstance(value, str) and value == "") or rule.accepts(value),
    )


def _several(item: Rule, lengths: tuple[int, ...], words: str) -> Rule:
    """A list of so many items."""
    items = list_of(item)
    return Rule(words, lambda value: items.accepts(value) and len(value) in lengths)


def _one_of(*allowed: int) -> Rule:
    names = ", ".join(map(str, allowed))
    return Rule(f"one of {names}", lambda value: type(value) is int and value in allowed)


def _is_device(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    kind, colon, index = value.partition(":")
    return kind in _DEVICES and (not colon or (index.isascii() and index.isdecimal()))


def _is_expected_result(value: Any) -> bool:
    names_and_numbers = [(TEXT, 2), (_ANY, 4)]
    return (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(
            rule.accepts(one) for rule, end in names_and_numbers for one in value[end - 2 : end]
        )
    )


_NAME = Rule("a name", lambda value: isinstance(value, str) and value != "")
_MAPS = _filled(NAMES).said("a list of names of feature maps")


def _per_level(example: str) -> Rule:
    words = f"a list for each feature map, of numbers above 0, such as {example}"
    return _filled(list_of(_filled(list_of(_ABOVE_0)), words=words))


_NORM = _or_none(
    choice("BN", "FrozenBN", "GN", "LN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
)
_POOLER = choice("ROIAlignV2", "ROIAlign", "ROIPool", "ROIAlignRotated")
_BOX_LOSS = choice("smooth_l1", "giou", "diou", "ciou")
_IOUS = _filled(list_of(number(above=0, high=1), words="a list of IoUs, more than 0, at most 1"))
_LABELS = list_of(
    _one_of(-1, 0, 1), words="a list of 1 (foreground), 0 (background) and -1 (left out)"
)
_FOUR = "four numbers above 0, for x, y, width and height (five for boxes that are turned)"
_BOX_WEIGHTS = _several(_ABOVE_0, (4, 5), _FOUR)
_HEAD = {
    "POOLER_RESOLUTION": _SIDE,
    "POOLER_SAMPLING_RATIO": _SAMPLES,
    "POOLER_TYPE": _POOLER,
    "NUM_CONV": _LAYERS,
    "CONV_DIM": _CHANNELS,
    "NORM": _NORM,
}

_SECTIONS: dict[str, dict[str, Rule]] = {
    "": {
        "OUTPUT_DIR": Rule(
            "the name of a folder", lambda value: TEXT.accepts(value) and value.strip() != ""
        ),
        "SEED": number(None, _SEEDS, whole=True).remark("below 0: another one in each run"),
        "CUDNN_BENCHMARK": FLAG,
        "FLOAT32_PRECISION": _or_none(choice("highest", "high", "medium")),
        "VIS_PERIOD": number(whole=True).remark("0: no pictures"),
    },
    "INPUT": {
        "FORMAT": choice("BGR", "RGB").said("'BGR' or 'RGB'"),
        "MASK_FORMAT": choice("polygon", "bitmask"),
        "MIN_SIZE_TRAIN": _filled(list_of(_PIXELS, words="a list of lengths, 0 to 100,000 pixels")),
        "MIN_SIZE_TRAIN_SAMPLING": choice("choice", "range"),
        "MAX_SIZE_TRAIN": _NONE_OR_MORE,
        "MIN_SIZE_TEST": _PIXELS.remark("pixels; 0: as the image is"),
        "MAX_SIZE_TEST": _NONE_OR_MORE,
        "RANDOM_FLIP": choice("none", "horizontal", "vertical"),
    },
    "INPUT.CROP": {
        "ENABLED": FLAG,
        "TYPE": choice("relative_range", "relative", "absolute", "absolute_range"),
        "SIZE": _several(_ABOVE_0, (2,), "two numbers above 0"),
    },
    "DATASETS": {
        "TRAIN": NAMES,
        "TEST": NAMES,
        "PROPOSAL_FILES_TRAIN": NAMES,
        "PROPOSAL_FILES_TEST": NAMES,
        "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": _COUNT,
        "PRECOMPUTED_PROPOSAL_TOPK_TEST": _COUNT,
    },
    "DATALOADER": {
        "NUM_WORKERS": number(0, 256, whole=True).remark(
            "0: none, images are read between iterations"
        ),
        "SAMPLER_TRAIN": choice(
            "TrainingSampler",
            "RepeatFactorTrainingSampler",
            "RandomSubsetTrainingSampler",
            "WeightedTrainingSampler",
            "WeightedCategoryTrainingSampler",
        ),
        "ASPECT_RATIO_GROUPING": FLAG,
        "FILTER_EMPTY_ANNOTATIONS": FLAG,
        "REPEAT_THRESHOLD": _AMOUNT,
        "REPEAT_SQRT": FLAG,
    },
    "MODEL": {
        "META_ARCHITECTURE": _NAME,
        "DEVICE": Rule("a device of torch's such as cpu, cuda, cuda:1 or mps", _is_device),
        "WEIGHTS": TEXT.said("a file or the name of weights, or '' for none"),
        "MASK_ON": FLAG,
        "KEYPOINT_ON": FLAG,
        "LOAD_PROPOSALS": FLAG,
        "PIXEL_MEAN": _filled(list_of(_ANY, words="a list with a number for each channel")),
        "PIXEL_STD": _filled(
            list_of(_ABOVE_0, words="a list with a number above 0 for each channel")
        ),
    },
    "MODEL.BACKBONE": {"NAME": _NAME, "FREEZE_AT": _NONE_OR_MORE.remark("0: nothing is frozen")},
    "MODEL.RESNETS": {
        "DEPTH": _one_of(18, 34, 50, 101, 152),
        "OUT_FEATURES": _filled(NAMES).said("some of stem, res2, res3, res4, res5"),
        "NORM": _NORM,
        "STEM_OUT_CHANNELS": _CHANNELS,
        "RES2_OUT_CHANNELS": _CHANNELS,
        "NUM_GROUPS": _CHANNELS,
        "WIDTH_PER_GROUP": _CHANNELS,
        "STRIDE_IN_1X1": FLAG,
        "RES5_DILATION": _one_of(1, 2),
        "DEFORM_ON_PER_STAGE": _several(FLAG, (4,), "four of True and False, for res2 to res5"),
        "DEFORM_MODULATED": FLAG,
        "DEFORM_NUM_GROUPS": _CHANNELS,
    },
    "MODEL.FPN": {
        "IN_FEATURES": NAMES,
        "OUT_CHANNELS": _CHANNELS,
        "NORM": _NORM,
        "FUSE_TYPE": choice("sum", "avg"),
    },
    "MODEL.ANCHOR_GENERATOR": {
        "NAME": _NAME,
        "SIZES": _per_level("[[16], [32], [64]]"),
        "ASPECT_RATIOS": _per_level("[[0.5, 1.0, 2.0]]"),
        "ANGLES": list_of(list_of(_ANY), words="a list for each feature map, of degrees"),
        "OFFSET": number(0, below=1),
    },
    "MODEL.PROPOSAL_GENERATOR": {"NAME": _NAME, "MIN_SIZE": _ANY},
    "MODEL.RPN": {
        "HEAD_NAME": _NAME,
        "IN_FEATURES": _MAPS,
        "CONV_DIMS": _filled(
            list_of(
                Rule("", lambda value: _CHANNELS.accepts(value) or _one_of(-1).accepts(value)),
                words="a list of channels of 3x3 convolutions, -1 for as many as come in",
            )
        ),
        "BOUNDARY_THRESH": _ANY.remark("pixels; -1: anchors that leave the image are used too"),
        "IOU_THRESHOLDS": _IOUS,
        "IOU_LABELS": _LABELS,
        "BATCH_SIZE_PER_IMAGE": _COUNT,
        "POSITIVE_FRACTION": _SHARE,
        "LOSS_WEIGHT": _AMOUNT,
        "BBOX_REG_LOSS_TYPE": _BOX_LOSS,
        "BBOX_REG_LOSS_WEIGHT": _AMOUNT,
        "BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
        "SMOOTH_L1_BETA": _AMOUNT,
        "PRE_NMS_TOPK_TRAIN": _COUNT,
        "PRE_NMS_TOPK_TEST": _COUNT,
        "POST_NMS_TOPK_TRAIN": _COUNT,
        "POST_NMS_TOPK_TEST": _COUNT,
        "NMS_THRESH": _SHARE,
    },
    "MODEL.ROI_HEADS": {
        "NAME": _NAME,
        "NUM_CLASSES": _CLASSES,
        "IN_FEATURES": _MAPS,
        "IOU_THRESHOLDS": _IOUS,
        "IOU_LABELS": _LABELS,
        "BATCH_SIZE_PER_IMAGE": _COUNT,
        "POSITIVE_FRACTION": _SHARE,
        "PROPOSAL_APPEND_GT": FLAG,
        "SCORE_THRESH_TEST": _SHARE,
        "NMS_THRESH_TEST": _SHARE,
    },
    "MODEL.ROI_BOX_HEAD": {
        **_HEAD,
        "NAME": TEXT,
        "NUM_FC": _LAYERS,
        "FC_DIM": _CHANNELS,
        "CLS_AGNOSTIC_BBOX_REG": FLAG,
        "TRAIN_ON_PRED_BOXES": FLAG,
        "BBOX_REG_LOSS_TYPE": _BOX_LOSS,
        "BBOX_REG_LOSS_WEIGHT": _AMOUNT,
        "BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
        "SMOOTH_L1_BETA": _AMOUNT,
        "USE_SIGMOID_CE": FLAG,
        "USE_FED_LOSS": FLAG,
        "FED_LOSS_NUM_CLASSES": _COUNT,
        "FED_LOSS_FREQ_WEIGHT_POWER": _AMOUNT,
    },
    "MODEL.ROI_BOX_CASCADE_HEAD": {
        "BBOX_REG_WEIGHTS": _filled(
            list_of(_BOX_WEIGHTS, words=f"a list for each stage, of {_FOUR}")
        ),
        "IOUS": _IOUS,
    },
    "MODEL.ROI_MASK_HEAD": {
        **_HEAD,
        "NAME": _NAME,
        "POOLER_TYPE": _or_none(_POOLER),
        "CLS_AGNOSTIC_MASK": FLAG,
    },
    "MODEL.ROI_KEYPOINT_HEAD": {
        **{key: rule for key, rule in _HEAD.items() if key.startswith("POOLER")},
        "NAME": _NAME,
        "CONV_DIMS": _filled(list_of(_CHANNELS, words="a list of channels")),
        "NUM_KEYPOINTS": _COUNT,
        "MIN_KEYPOINTS_PER_IMAGE": _NONE_OR_MORE,
        "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": FLAG,
        "LOSS_WEIGHT": _AMOUNT,
    },
    "MODEL.SEM_SEG_HEAD": {
        "NAME": _NAME,
        "IN_FEATURES": _MAPS,
        "NUM_CLASSES": _CLASSES,
        "IGNORE_VALUE": number(whole=True),
        "CONVS_DIM": _CHANNELS,
        "COMMON_STRIDE": _one_of(1, 2, 4, 8, 16, 32, 64),
        "NORM": _NORM,
        "LOSS_WEIGHT": _AMOUNT,
    },
    "MODEL.PANOPTIC_FPN": {"INSTANCE_LOSS_WEIGHT": _AMOUNT},
    "MODEL.PANOPTIC_FPN.COMBINE": {
        "ENABLED": FLAG,
        "OVERLAP_THRESH": _SHARE,
        "STUFF_AREA_LIMIT": _AMOUNT,
        "INSTANCES_CONFIDENCE_THRESH": _SHARE,
    },
    "MODEL.RETINANET": {
        "NUM_CLASSES": _CLASSES,
        "IN_FEATURES": _MAPS,
        "NUM_CONVS": _LAYERS,
        "NORM": _NORM,
        "IOU_THRESHOLDS": _IOUS,
        "IOU_LABELS": _LABELS,
        "PRIOR_PROB": number(above=0, below=1),
        "BBOX_REG_LOSS_TYPE": _BOX_LOSS,
        "BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
        "SMOOTH_L1_LOSS_BETA": _AMOUNT,
        "FOCAL_LOSS_ALPHA": _ANY,
        "FOCAL_LOSS_GAMMA": _AMOUNT,
        "SCORE_THRESH_TEST": _SHARE,
        "TOPK_CANDIDATES_TEST": _COUNT,
        "NMS_THRESH_TEST": _SHARE,
    },
    "SOLVER": {
        "IMS_PER_BATCH": number(1, 65_536, whole=True),
        "REFERENCE_WORLD_SIZE": _NONE_OR_MORE.remark("0: nothing is scaled"),
        "MAX_ITER": _COUNT,
        "CHECKPOINT_PERIOD": _COUNT.remark(
            "iterations between checkpoints; more than MAX_ITER: the last one alone"
        ),
        "BASE_LR": _AMOUNT,
        "BASE_LR_END": _AMOUNT,
        "BIAS_LR_FACTOR": _AMOUNT,
        "MOMENTUM": number(0, below=1),
        "NESTEROV": FLAG,
        "WEIGHT_DECAY": _AMOUNT,
        "WEIGHT_DECAY_NORM": _AMOUNT,
        "WEIGHT_DECAY_BIAS": Rule(
            "0 or more, or None for WEIGHT_DECAY",
            lambda value: value is None or _AMOUNT.accepts(value),
        ),
        "LR_SCHEDULER_NAME": choice(
            "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"
        ),
        "STEPS": or_empty(
            list_of(
                _NONE_OR_MORE, words="a list of iterations, or () for a rate that does not fall"
            )
        ),
        "GAMMA": _AMOUNT,
        "NUM_DECAYS": _COUNT,
        "WARMUP_ITERS": _NONE_OR_MORE,
        "WARMUP_FACTOR": _AMOUNT,
        "WARMUP_METHOD": choice("linear", "constant"),
        "RESCALE_INTERVAL": FLAG,
    },
    "SOLVER.AMP": {"ENABLED": FLAG},
    "SOLVER.CLIP_GRADIENTS": {
        "ENABLED": FLAG,
        "CLIP_TYPE": choice("value", "norm"),
        "CLIP_VALUE": _ABOVE_0,
        "NORM_TYPE": Rule(
            "a number above 0, or .inf for the largest",
            lambda value: _ABOVE_0.accepts(value) or value == math.inf,
        ),
    },
    "TEST": {
        "DETECTIONS_PER_IMAGE": Rule(
            "a whole number, 1 or more, or -1 for no limit",
            lambda value: value != 0 and number(-1, whole=True).accepts(value),
        ),
        "EVAL_PERIOD": number(-1, whole=True).remark("0 or -1: at the end alone"),
        "EXPECTED_RESULTS": list_of(
            Rule("", _is_expected_result),
            words="a list of [task, metric, value, tolerance], such as ['segm', 'AP', 40.0, 0.5]",
        ),
        "KEYPOINT_OKS_SIGMAS": list_of(_ABOVE_0, words="a list of numbers above 0"),
    },
    "TEST.AUG": {
        "ENABLED": FLAG,
        "MIN_SIZES": list_of(_PIXELS, words="a list of lengths, 0 to 100,000 pixels"),
        "MAX_SIZE": _NONE_OR_MORE,
        "FLIP": FLAG,
    },
    "TEST.PRECISE_BN": {"ENABLED": FLAG, "NUM_ITER": _COUNT},
}

ENGINE_RULES: dict[str, Rule] = {
    f"{section}.{key}" if section else key: rule
    for section, rules in _SECTIONS.items()
    for key, rule in rules.items()
}
"""What each key may be, by its whole name."""
