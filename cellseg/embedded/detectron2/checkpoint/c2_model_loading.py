"""Matches the names in a file of weights with those of a model.

Pre-trained files were written for a part of the model (a backbone) or, by Caffe2, under other
names altogether.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

_logger = logging.getLogger(__name__)

# (pattern, replacement), applied in this order.
_BASIC_RULES = [
    (r"^pred_(?=[bw]$)", "linear_"),
    (r"_", "."),
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"(?:bn\.(?:s|gamma)|gn\.s)$", "norm.weight"),
    (r"(?:bn\.(?:bias|beta)|gn\.bias)$", "norm.bias"),
    (r"bn\.(?:rm|running\.mean)$", "norm.running_mean"),
    (r"bn\.(?:riv|running\.var)$", "norm.running_var"),
    (r"^res\.conv1(?=\.norm\.)", "conv1"),
    (r"^conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
]
# The proposal head of an FPN is shared by its levels; Caffe2 names it after level 2.
_DETECTOR_RULES = [
    (r"conv\.rpn(?:\.fpn2)?", "proposal_generator.rpn_head.conv"),
    (r"rpn\.bbox\.pred(?:\.fpn2)?", "proposal_generator.rpn_head.anchor_deltas"),
    (r"rpn\.cls\.logits(?:\.fpn2)?", "proposal_generator.rpn_head.objectness_logits"),
    (r"^bbox\.pred", "bbox_pred"),
    (r"^cls\.score", "cls_score"),
    (r"^fc6\.", "box_head.fc1."),
    (r"^fc7\.", "box_head.fc2."),
    (r"^head\.conv", "box_head.conv"),
    (r"^fpn\.inner\.res(\d+)\..*?((?:\.norm)?)\.(\w+)$", r"fpn_lateral\1\2.\3"),
    (r"^fpn\.res(\d+)\..*?((?:\.norm)?)\.(\w+)$", r"fpn_output\1\2.\3"),
    (r"^\.(?:\[mask\]|mask)\.fcn", "mask_head.mask_fcn"),
    (r"mask\.fcn\.logits", "mask_head.predictor"),
    (r"conv5\.mask", "mask_head.deconv"),
]


def _rename(key: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def convert_basic_c2_names(original_keys: list[str]) -> list[str]:
    """Caffe2's names of the layers of a backbone, put in the words of this engine.

    Args:
        original_keys: for instance "res2_0_branch2a_bn_s".

    Returns:
        As many names, in the same order: "res2.0.conv1.norm.weight".
    """
    return [_rename(key, _BASIC_RULES) for key in original_keys]


def convert_c2_detectron_names(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Rename the weights of a Caffe2 detector and move its background class.

    Caffe2 counts the background as class 0. Here it is the last one for the classifier, and boxes
    and masks have none.

    Returns:
        Weights by their new name, and the original name by the new one.

    Raises:
        ValueError: two weights would get the same name.
    """
    renamed: dict[str, torch.Tensor] = {}
    origins: dict[str, str] = {}
    for original in sorted(weights):
        name = _rename(convert_basic_c2_names([original])[0], _DETECTOR_RULES)
        if name in renamed:
            raise ValueError(f"Caffe2 weights {origins[name]} and {original} both become {name}")
        origins[name] = original
        renamed[name] = _without_leading_background(name, weights[original])
    return renamed, origins


def _without_leading_background(name: str, weight: torch.Tensor) -> torch.Tensor:
    if name.startswith("cls_score."):
        return torch.roll(weight, -1, dims=0)
    if name.startswith("bbox_pred."):
        return weight[4:]
    if name.startswith("mask_head.predictor."):
        return weight[1:]
    return weight


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, torch.Tensor],
    ckpt_state_dict: Mapping[str, torch.Tensor],
    c2_conversion: bool = True,
) -> dict[str, Any]:
    """Give weights of a file the names that a model uses.

    A name in the file matches a name in the model that is the same or ends in it, at a dot:
    "res2.conv1.weight" matches "backbone.bottom_up.res2.conv1.weight". Of several that match, the
    longest is taken. A weight of another shape is left out, with a warning.

    Args:
        model_state_dict: names and shapes to match.
        ckpt_state_dict: the file's weights.
        c2_conversion: the file is Caffe2's, rename its weights first.

    Returns:
        The matched weights under the model's names, the others under their own.

    Raises:
        ValueError: one weight matches several of the model's.
    """
    origins = {name: name for name in ckpt_state_dict}
    if c2_conversion:
        ckpt_state_dict, origins = convert_c2_detectron_names(ckpt_state_dict)
    matches: dict[str, str] = {}  # the model's name by the file's
    for wanted in sorted(model_state_dict):
        found = _longest_ending(wanted, ckpt_state_dict)
        if found is None:
            continue
        shape, wanted_shape = ckpt_state_dict[found].shape, model_state_dict[wanted].shape
        if shape != wanted_shape:
            _logger.warning(
                "%s is not loaded: its shape is %s, that of %s in the model %s",
                found,
                tuple(shape),
                wanted,
                tuple(wanted_shape),
            )
        elif found in matches:
            raise ValueError(
                f"{found} of the checkpoint matches both {matches[found]} and {wanted} of the model"
            )
        else:
            matches[found] = wanted
    _report(matches, origins)
    return {matches.get(name, name): weight for name, weight in ckpt_state_dict.items()}


def _longest_ending(name: str, candidates: Mapping[str, Any]) -> str | None:
    """The longest candidate that `name` equals or, after a dot, ends in."""
    ending = name
    while ending not in candidates:
        _, dot, ending = ending.partition(".")
        if not dot:
            return None
    return ending


def _longest_common_prefix_str(names: list[str]) -> str:
    """What all names begin with, letter by letter; "" for no names."""
    return os.path.commonprefix(names)  # noqa: RUF071 - letters are meant


def _report(matches: Mapping[str, str], origins: Mapping[str, str]) -> None:
    if not matches:
        _logger.warning("No weight of the checkpoint matches one of the model")
        return
    parts = {name.partition(".")[0] for name in matches.values()}
    _logger.info(
        "%d of %d weights of the checkpoint match; parts of the model: %s",
        len(matches),
        len(origins),
        ", ".join(sorted(parts)),
    )
    for found, wanted in matches.items():
        _logger.debug("%s <- %s", wanted, origins[found])
