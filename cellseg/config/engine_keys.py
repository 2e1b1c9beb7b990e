"""Rules for Detectron2's own keys, of which it checks the type alone, if that.

What they do is said in Detectron2's documentation; here is what they may be, so that a wrong value
is an error before any work and not an assertion in the middle of it. A key that is not listed may
be anything. One line adds one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cellseg.rules import NAMES, Rule, choice, list_of, number, or_empty

_SHARE = number(0, 1)
_COUNT = number(1, whole=True)
_NONE_OR_MORE = number(0, whole=True)
_AMOUNT = number(0)
_LENGTHS = "a list with a number above 0 for each channel"
_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla", "meta", "privateuseone")


_PYRAMIDS = ("build_resnet_fpn_backbone", "build_fine_resnet_fpn_backbone")
_STAGES = ("2", "3", "4", "5")


def _filled(rule: Rule) -> Rule:
    return Rule(rule.expected, lambda value: rule.accepts(value) and len(value) > 0)


def _is_device(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    kind, colon, number_of_it = value.partition(":")
    return kind in _DEVICES and (not colon or number_of_it.isdecimal())


def _one_of(*allowed: int) -> Rule:
    names = ", ".join(map(str, allowed))
    return Rule(f"one of {names}", lambda value: type(value) is int and value in allowed)


_PER_LEVEL = _filled(
    list_of(
        _filled(list_of(number(above=0))),
        words="a list for each feature map, of numbers above 0, such as [[16], [32], [64]]",
    )
)

ENGINE_RULES: dict[str, Rule] = {
    "MODEL.DEVICE": Rule("a device of torch's such as cpu, cuda, cuda:1 or mps", _is_device),
    "MODEL.PIXEL_MEAN": _filled(list_of(number(), words="a list with a number for each channel")),
    "MODEL.PIXEL_STD": _filled(list_of(number(above=0), words=_LENGTHS)),
    "MODEL.BACKBONE.FREEZE_AT": number(0, whole=True),
    "MODEL.RESNETS.DEPTH": _one_of(18, 34, 50, 101, 152),
    "MODEL.ANCHOR_GENERATOR.SIZES": _PER_LEVEL,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _PER_LEVEL,
    "MODEL.RPN.IN_FEATURES": _filled(NAMES),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": _COUNT,
    "MODEL.RPN.POSITIVE_FRACTION": _SHARE,
    "MODEL.RPN.NMS_THRESH": _SHARE,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": _COUNT,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": _COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": _COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TEST": _COUNT,
    "MODEL.ROI_HEADS.NUM_CLASSES": _COUNT,
    "MODEL.ROI_HEADS.IN_FEATURES": _filled(NAMES),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": _COUNT,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": _SHARE,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": _SHARE,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": _SHARE,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": _COUNT,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": _COUNT,
    "DATASETS.TRAIN": NAMES,
    "DATASETS.TEST": NAMES,
    "INPUT.MIN_SIZE_TRAIN": _filled(list_of(_NONE_OR_MORE, words="a list of lengths in pixels")),
    "INPUT.MAX_SIZE_TRAIN": _NONE_OR_MORE,
    "INPUT.MIN_SIZE_TEST": _NONE_OR_MORE.remark("0: as the image is"),
    "INPUT.MAX_SIZE_TEST": _NONE_OR_MORE,
    "DATALOADER.NUM_WORKERS": _NONE_OR_MORE.remark("0: none, images are read between iterations"),
    "SOLVER.MAX_ITER": _COUNT,
    "SOLVER.IMS_PER_BATCH": _COUNT,
    "SOLVER.BASE_LR": _AMOUNT,
    "SOLVER.MOMENTUM": number(0, below=1),
    "SOLVER.WEIGHT_DECAY": _AMOUNT,
    "SOLVER.WEIGHT_DECAY_NORM": _AMOUNT,
    "SOLVER.GAMMA": _AMOUNT,
    "SOLVER.STEPS": or_empty(
        list_of(_NONE_OR_MORE, words="a list of iterations, or () for a rate that does not fall")
    ),
    "SOLVER.WARMUP_ITERS": _NONE_OR_MORE,
    "SOLVER.WARMUP_FACTOR": _AMOUNT,
    "SOLVER.WARMUP_METHOD": choice("linear", "constant"),
    "SOLVER.CHECKPOINT_PERIOD": _COUNT.remark(
        "iterations between checkpoints; more than MAX_ITER: the last one alone"
    ),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": choice("value", "norm"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": number(above=0),
    "TEST.DETECTIONS_PER_IMAGE": Rule(
        "a whole number, 1 or more, or -1 for no limit",
        lambda value: value != 0 and number(-1, whole=True).accepts(value),
    ),
    "TEST.EVAL_PERIOD": number(-1, whole=True).remark("0 or -1: at the end alone"),
}
"""What each key may be, by its whole name."""


def find_value(cfg: Any, path: str) -> Any:
    """The value of a key by its whole name.

    Raises:
        KeyError: a config made by hand does not have it.
    """
    place = cfg
    for part in path.split("."):
        place = place[part]
    return place


def find_engine_problems(cfg: Any) -> Iterator[str]:
    """Say of each of Detectron2's keys with an impossible value what it may be.

    Args:
        cfg: the whole config; keys that it does not have are passed over.
    """
    wrong = set()
    for path, rule in ENGINE_RULES.items():
        try:
            value = find_value(cfg, path)
        except KeyError:
            continue
        if not rule.accepts(value):
            wrong.add(path)
            found = list(value) if isinstance(value, tuple) else value
            yield f"{path} is {found!r}; expected {rule.expected}"
    if not any(path.startswith("MODEL.") for path in wrong):
        yield from _find_combinations(cfg.MODEL)


def _find_combinations(model: Any) -> Iterator[str]:
    """What is right by itself and cannot go together."""
    mean, std = model.PIXEL_MEAN, model.PIXEL_STD
    if len(mean) != 3 or len(std) != 3:
        yield (
            f"MODEL.PIXEL_MEAN has {len(mean)} and MODEL.PIXEL_STD {len(std)} numbers; expected 3 "
            "each: images come to the network with three channels"
        )
    if model.BACKBONE.NAME in _PYRAMIDS:
        yield from _find_missing_maps(model)
    if model.ANCHOR_GENERATOR.NAME != "DefaultAnchorGenerator":
        return
    levels = len(model.RPN.IN_FEATURES)
    for key in ("SIZES", "ASPECT_RATIOS"):
        lists = model.ANCHOR_GENERATOR[key]
        if len(lists) not in (1, levels):
            yield (
                f"MODEL.ANCHOR_GENERATOR.{key} has {len(lists)} lists; expected one for each of "
                f"the {levels} feature maps of MODEL.RPN.IN_FEATURES, or one for all"
            )
        elif len({len(one) for one in lists}) > 1:
            yield (
                f"MODEL.ANCHOR_GENERATOR.{key} has lists of {[len(one) for one in lists]} numbers; "
                "expected as many on every feature map: they share one RPN head"
            )


def _find_missing_maps(model: Any) -> Iterator[str]:
    """Feature maps that are asked for and that the pyramid does not have.

    It has p2 for res2 and so on, and one more above the last.
    """
    stages = [name.removeprefix("res") for name in model.FPN.IN_FEATURES]
    unknown = [f"res{stage}" for stage in stages if stage not in _STAGES]
    if unknown or not stages:
        asked = list(model.FPN.IN_FEATURES)
        yield f"MODEL.FPN.IN_FEATURES is {asked}; expected some of res2, res3, res4, res5"
        return
    maps = [f"p{stage}" for stage in stages] + [f"p{int(stages[-1]) + 1}"]
    for part in ("RPN", "ROI_HEADS"):
        missing = [name for name in model[part].IN_FEATURES if name not in maps]
        if missing:
            yield (
                f"MODEL.{part}.IN_FEATURES names {', '.join(missing)}; the pyramid has "
                f"{', '.join(maps)} (MODEL.FPN.IN_FEATURES)"
            )
