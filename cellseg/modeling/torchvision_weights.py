"""ImageNet weights of torchvision as a start for the backbone: `torchvision://resnet50`.

`register_torchvision_weights()` teaches Detectron2's path manager the prefix, so that the path
works wherever Detectron2 takes one. The file is torchvision's own, from its address or from the
folder where torchvision keeps it, with parameters renamed to Detectron2's.

The network that torchvision trained differs from the one of Detectron2's defaults. These keys go
with the weights (`torchvision_mismatches` compares them; docs/weights.md explains them):

    MODEL.PIXEL_MEAN [123.675, 116.28, 103.53]    MODEL.RESNETS.STRIDE_IN_1X1 False
    MODEL.PIXEL_STD [58.395, 57.12, 57.375]       MODEL.RESNETS.NORM "FrozenBN" (or "BN", "SyncBN")
    INPUT.FORMAT "RGB"                            MODEL.RESNETS.DEPTH and its like, as in the name

`MODEL.BACKBONE.FREEZE_AT` is free: 2, Detectron2's default, keeps the stem and res2 as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cellseg.errors import CheckpointError
from cellseg.files import cache_root, write_whole
from cellseg.modeling.downloads import fetch_file
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler, file_lock
from torch import Tensor
from torchvision.models import get_model_weights

PREFIX = "torchvision://"

_RESNET_KEYS = ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP")
ARCHITECTURES = {
    "resnet18": (18, 1, 64),
    "resnet34": (34, 1, 64),
    "resnet50": (50, 1, 64),
    "resnet101": (101, 1, 64),
    "resnet152": (152, 1, 64),
    "resnext50_32x4d": (50, 32, 4),
    "resnext101_32x8d": (101, 32, 8),
}
"""Depth, groups and width per group of each network that can be asked for."""

_TRAINED_WITH = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "INPUT.FORMAT": "RGB",
}
_BATCH_NORMS = ("FrozenBN", "BN", "SyncBN", "NaiveSyncBN")

_STAGES = {f"layer{number}": f"res{number + 1}" for number in range(1, 5)}
_LAYERS = {
    **{f"conv{number}": f"conv{number}" for number in range(1, 4)},
    **{f"bn{number}": f"conv{number}.norm" for number in range(1, 4)},
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
}


class TorchvisionHandler(PathHandler):
    """Gives `torchvision://<network>` as a local file that Detectron2's checkpointer reads.

    The file is made once, in cellseg's cache (`$CELLSEG_CACHE`), and again when torchvision's file
    is newer. An interrupted download or conversion leaves nothing under either name.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        url = _weights_url(path)
        source = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        converted = cache_root() / "torchvision" / source.name
        converted.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(converted)):  # of several processes, one downloads
            if not source.is_file():
                _download_weights(path, url, source)
            if force or not _is_up_to_date(converted, source):
                _convert_weights(path, source, converted)
        return str(converted)


def register_torchvision_weights() -> None:
    """Make `torchvision://` paths known to Detectron2's path manager; repeating it is harmless."""
    PathManager.register_handler(TorchvisionHandler(), allow_override=True)


def torchvision_to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a ResNet of torchvision to those of Detectron2's backbone.

    Args:
        state: its `state_dict`. The classifier `fc` has no counterpart and is left out, as is the
            count of batches, which only a running average without momentum needs.

    Returns:
        The same tensors: `layer1.0.bn2.weight` becomes `res2.0.conv2.norm.weight`, and so on.

    Raises:
        KeyError: a name that a ResNet of torchvision does not have.
    """
    renamed = {}
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        if module != "fc" and parameter != "num_batches_tracked":
            renamed[f"{_module_name(module)}.{parameter}"] = value
    return renamed


def torchvision_mismatches(cfg: CfgNode) -> list[str]:
    """What in a configuration does not go with the `torchvision://` weights that it names.

    Returns:
        A line per key, with what was found and expected. Empty if all fits, and for other weights.

    Raises:
        CheckpointError: no network of that name.
    """
    weights = cfg.MODEL.WEIGHTS
    if not weights.startswith(PREFIX):
        return []
    network = _network_name(weights)
    wanted = dict(_TRAINED_WITH)
    for key, value in zip(_RESNET_KEYS, ARCHITECTURES[network]):
        wanted[f"MODEL.RESNETS.{key}"] = value
    problems = [
        f"{key} is {found}; {weights} was trained with {expected}"
        for key, expected in wanted.items()
        if (found := _value_of_key(cfg, key)) != expected
    ]
    norm = cfg.MODEL.RESNETS.NORM
    if norm not in _BATCH_NORMS:
        problems.append(
            f"MODEL.RESNETS.NORM is {norm!r}; {weights} was trained with batch norm: use one of "
            f"{', '.join(_BATCH_NORMS)}"
        )
    return problems


def _value_of_key(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return list(cfg) if isinstance(cfg, tuple) else cfg


def _module_name(module: str) -> str:
    stage, _, rest = module.partition(".")
    if stage not in _STAGES:
        return f"stem.{_LAYERS[module]}"
    block, _, layer = rest.partition(".")
    return f"{_STAGES[stage]}.{block}.{_LAYERS[layer]}"


def _network_name(path: str) -> str:
    network = path.removeprefix(PREFIX)
    if network not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: no such network; expected {PREFIX} and one of {', '.join(ARCHITECTURES)}"
        )
    return network


def _weights_url(path: str) -> str:
    return get_model_weights(_network_name(path))["IMAGENET1K_V1"].url


def _download_weights(path: str, url: str, target: Path) -> None:
    """Fetch `url`; the eight digits in its name are the start of the file's SHA-256."""
    digits = re.search(r"-([0-9a-f]{8,})\.", target.name)
    way_out = f"{path} needs that file: fetch it elsewhere and put it to {target}"
    fetch_file(url, target, digits[1] if digits else "", way_out)


def _is_up_to_date(converted: Path, source: Path) -> bool:
    return converted.is_file() and os.path.getmtime(converted) >= os.path.getmtime(source)


def _convert_weights(path: str, source: Path, target: Path) -> None:
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
        weights = torchvision_to_detectron2(state)
    except Exception as error:  # whatever unpickling or a foreign content raises
        raise CheckpointError(
            f"{path}: {source} does not hold the weights of a ResNet of torchvision "
            f"({type(error).__name__}); delete it, so that it is downloaded again"
        ) from error
    with write_whole(target) as partial:
        # With this flag the checkpointer finds the backbone inside a model by endings of names.
        content = {"model": weights, "__author__": "torchvision", "matching_heuristics": True}
        torch.save(content, partial)
