"""Values of Detectron2's keys that are right by themselves and cannot go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cellseg.config.engine_keys import ENGINE_RULES
from cellseg.rules import show

_PYRAMIDS = ("build_resnet_fpn_backbone", "build_fine_resnet_fpn_backbone")
_RESNETS = ("build_resnet_backbone", *_PYRAMIDS)
_LEAST_PX = 8
_STAGES = ("res2", "res3", "res4", "res5")
_RCNNS = ("GeneralizedRCNN", "PanopticFPN")
# Keys that these samplers read and that Detectron2 itself does not have: a plug-in adds them.
_KEYS_OF_SAMPLERS = {
    "RandomSubsetTrainingSampler": "DATALOADER.RANDOM_SUBSET_RATIO",
    "WeightedTrainingSampler": "DATASETS.TRAIN_REPEAT_FACTOR",
    "WeightedCategoryTrainingSampler": "DATASETS.TRAIN_REPEAT_FACTOR",
}


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
    wrong = []
    for path, rule in ENGINE_RULES.items():
        try:
            value = find_value(cfg, path)
        except KeyError:
            continue
        if not rule.accepts(value):
            wrong.append(path)
            yield f"{path} is {show(value)}; expected {rule.expected}"
    for section, find in _COMBINATIONS.items():
        if not any(path.startswith(f"{section}.") for path in wrong):
            try:
                yield from find(cfg)
            except KeyError:  # a config made by hand, which lacks the key
                continue


def _find_in_input(cfg: Any) -> Iterator[str]:
    sizes, crop = cfg["INPUT"]["MIN_SIZE_TRAIN"], cfg["INPUT"]["CROP"]
    for split, shorter in (("TRAIN", max(sizes)), ("TEST", cfg["INPUT"]["MIN_SIZE_TEST"])):
        longest = cfg["INPUT"][f"MAX_SIZE_{split}"]
        if shorter and longest < _LEAST_PX:  # no image is left of what is shrunk below it
            yield (
                f"INPUT.MAX_SIZE_{split} is {longest}; expected at least {_LEAST_PX} pixels, or "
                f"INPUT.MIN_SIZE_{split} 0 for images as they are"
            )
    if cfg["INPUT"]["MIN_SIZE_TRAIN_SAMPLING"] == "range" and not _is_range(sizes):
        yield (
            f"INPUT.MIN_SIZE_TRAIN is {show(sizes)}; expected [lowest, highest] where "
            "MIN_SIZE_TRAIN_SAMPLING is 'range'"
        )
    if crop["ENABLED"]:
        expected = _expected_of_crop(crop["TYPE"], crop["SIZE"])
        if expected:
            yield (
                f"INPUT.CROP.SIZE is {show(crop['SIZE'])}; expected {expected} where CROP.TYPE is "
                f"{crop['TYPE']!r}"
            )


def _is_range(sizes: Sequence[Any]) -> bool:
    return len(sizes) == 2 and sizes[0] <= sizes[1]


def _expected_of_crop(kind: str, size: Sequence[Any]) -> str:
    """What the size of a crop should be; "" where it is."""
    if kind.startswith("relative"):
        return "" if max(size) <= 1 else "shares of height and width, more than 0, at most 1"
    if not all(isinstance(each, int) for each in size):
        return "whole numbers of pixels"
    is_wrong = kind == "absolute_range" and not _is_range(size)
    return "[lowest, highest] length in pixels" if is_wrong else ""


def _find_in_loader(cfg: Any) -> Iterator[str]:
    sampler = cfg["DATALOADER"]["SAMPLER_TRAIN"]
    section, _, key = _KEYS_OF_SAMPLERS.get(sampler, "").partition(".")
    if section and key not in cfg[section]:
        yield (
            f"DATALOADER.SAMPLER_TRAIN is {sampler!r}, which reads {section}.{key}; expected a "
            "plug-in whose add_config(cfg) adds that key, or another sampler"
        )


def _find_in_solver(cfg: Any) -> Iterator[str]:
    solver = cfg["SOLVER"]
    steps, world = list(solver["STEPS"]), solver["REFERENCE_WORLD_SIZE"]
    if solver["LR_SCHEDULER_NAME"] == "WarmupMultiStepLR" and steps != sorted(set(steps)):
        yield f"SOLVER.STEPS is {show(steps)}; expected iterations that ascend, each once"
    if solver["LR_SCHEDULER_NAME"] == "WarmupCosineLR":
        if solver["BASE_LR"] == 0:
            yield "SOLVER.BASE_LR is 0; expected more than 0 for WarmupCosineLR"
        elif solver["BASE_LR_END"] > solver["BASE_LR"]:
            yield (
                f"SOLVER.BASE_LR_END is {solver['BASE_LR_END']}; expected 0 to SOLVER.BASE_LR "
                f"({solver['BASE_LR']}), which it falls from"
            )
    if solver["NESTEROV"] and solver["MOMENTUM"] == 0:
        yield "SOLVER.NESTEROV is True and SOLVER.MOMENTUM 0; expected a momentum above 0"
    if world and solver["IMS_PER_BATCH"] % world:
        yield (
            f"SOLVER.REFERENCE_WORLD_SIZE is {world}; expected a divisor of SOLVER.IMS_PER_BATCH "
            f"({solver['IMS_PER_BATCH']}), or 0"
        )


def _find_in_model(cfg: Any) -> Iterator[str]:
    model = cfg["MODEL"]
    mean, std = model["PIXEL_MEAN"], model["PIXEL_STD"]
    if len(mean) != 3 or len(std) != 3:
        yield (
            f"MODEL.PIXEL_MEAN has {len(mean)} and MODEL.PIXEL_STD {len(std)} numbers; expected 3 "
            "each: images come to the network with three channels"
        )
    if model["BACKBONE"]["NAME"] in _RESNETS:
        yield from _find_in_resnet(model["RESNETS"])
    if model["META_ARCHITECTURE"] == "RetinaNet":
        yield from _find_in_matcher(model, "RETINANET")
    if model["META_ARCHITECTURE"] not in _RCNNS:  # what reads the keys of an R-CNN is not known
        return
    yield from _find_in_matcher(model, "RPN")
    yield from _find_in_matcher(model, "ROI_HEADS")
    yield from _find_in_boxes(model)
    if model["BACKBONE"]["NAME"] in _PYRAMIDS:
        yield from _find_missing_maps(model)
    if model["ANCHOR_GENERATOR"]["NAME"] == "DefaultAnchorGenerator":
        yield from _find_in_anchors(model)


def _find_in_matcher(model: Any, part: str) -> Iterator[str]:
    node, section = model[part], f"MODEL.{part}"
    thresholds, labels = list(node["IOU_THRESHOLDS"]), node["IOU_LABELS"]
    if thresholds != sorted(thresholds):
        yield f"{section}.IOU_THRESHOLDS is {show(thresholds)}; expected IoUs that ascend"
    if len(labels) != len(thresholds) + 1:
        yield (
            f"{section}.IOU_LABELS has {len(labels)} numbers; expected {len(thresholds) + 1}, one "
            "more than IOU_THRESHOLDS"
        )


def _find_in_boxes(model: Any) -> Iterator[str]:
    """Lengths that follow from the parts that are chosen."""
    of_parts = {"RPN": model["PROPOSAL_GENERATOR"]["NAME"] == "RPN"}
    of_parts["ROI_BOX_HEAD"] = model["ROI_HEADS"]["NAME"] != "RROIHeads"
    for part, is_upright in of_parts.items():
        weights = model[part]["BBOX_REG_WEIGHTS"]
        if is_upright and len(weights) != 4:
            yield f"MODEL.{part}.BBOX_REG_WEIGHTS has {len(weights)} numbers; expected 4"
    cascade = model["ROI_BOX_CASCADE_HEAD"]
    stages, ious = len(cascade["BBOX_REG_WEIGHTS"]), len(cascade["IOUS"])
    if stages != ious:
        yield (
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS has {ious} numbers and BBOX_REG_WEIGHTS {stages} "
            "lists; expected one of each for every stage"
        )


def _find_in_resnet(resnet: Any) -> Iterator[str]:
    known = ("stem", *_STAGES)
    if unknown := [name for name in resnet["OUT_FEATURES"] if name not in known]:
        yield f"MODEL.RESNETS.OUT_FEATURES names {', '.join(unknown)}; there are {', '.join(known)}"
    if resnet["DEPTH"] >= 50:
        return
    for key, only in (("RES2_OUT_CHANNELS", 64), ("RES5_DILATION", 1), ("NUM_GROUPS", 1)):
        if resnet[key] != only:
            yield (
                f"MODEL.RESNETS.{key} is {resnet[key]}; expected {only} where MODEL.RESNETS.DEPTH "
                f"is {resnet['DEPTH']}"
            )
    if any(resnet["DEFORM_ON_PER_STAGE"]):
        yield (
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE is {show(resnet['DEFORM_ON_PER_STAGE'])}; expected "
            f"four times False where MODEL.RESNETS.DEPTH is {resnet['DEPTH']}"
        )


def _find_in_anchors(model: Any) -> Iterator[str]:
    levels = len(model["RPN"]["IN_FEATURES"])
    for key in ("SIZES", "ASPECT_RATIOS"):
        lists = model["ANCHOR_GENERATOR"][key]
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
    stages = list(model["FPN"]["IN_FEATURES"])
    places = [_STAGES.index(name) for name in stages if name in _STAGES]
    if len(places) < len(stages) or not stages or places != list(range(places[0], places[-1] + 1)):
        yield (
            f"MODEL.FPN.IN_FEATURES is {show(stages)}; expected some of res2, res3, res4, res5, "
            "ascending and without a gap"
        )
        return
    made = model["RESNETS"]["OUT_FEATURES"]
    if absent := [name for name in stages if name not in made]:
        yield (
            f"MODEL.FPN.IN_FEATURES names {', '.join(absent)}; the backbone gives "
            f"{', '.join(made)} (MODEL.RESNETS.OUT_FEATURES)"
        )
    maps = [f"p{place + 2}" for place in places] + [f"p{places[-1] + 3}"]
    for part in ("RPN", "ROI_HEADS"):
        missing = [name for name in model[part]["IN_FEATURES"] if name not in maps]
        if missing:
            yield (
                f"MODEL.{part}.IN_FEATURES names {', '.join(missing)}; the pyramid has "
                f"{', '.join(maps)} (MODEL.FPN.IN_FEATURES)"
            )


_COMBINATIONS = {
    "INPUT": _find_in_input,
    "DATALOADER": _find_in_loader,
    "SOLVER": _find_in_solver,
    "MODEL": _find_in_model,
}
