"""What weights say of the config that they were trained with, and where another departs from it.

Weights by themselves fit into many models that make nonsense of them: anchors of another size,
another normalisation, other strides change no shape. So a checkpoint carries the config that it was
trained with, as plain values: in a file of `torch.save` under "cellseg", in a bundle as its config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

ENTRY = "cellseg"
"""Where a checkpoint keeps it, beside "model"."""

FORMAT_VERSION = 1

_OF_THE_MACHINE = (
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "MODEL.DEVICE",
    "DATASETS",
    "DATALOADER.NUM_WORKERS",
    "TEST.EXPECTED_RESULTS",
    "CELLSEG.DATASETS",
)

NETWORK = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.BACKBONE.NAME",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "INPUT.FORMAT",
    "MODEL.RESNETS.DEPTH",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    "MODEL.RESNETS.NUM_GROUPS",
    "MODEL.RESNETS.WIDTH_PER_GROUP",
    "MODEL.RESNETS.RES5_DILATION",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
    "MODEL.RESNETS.OUT_FEATURES",
    "MODEL.FPN.IN_FEATURES",
    "MODEL.FPN.FUSE_TYPE",
    "MODEL.ANCHOR_GENERATOR.NAME",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.ANCHOR_GENERATOR.OFFSET",
    "MODEL.RPN.IN_FEATURES",
    "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_HEADS.IN_FEATURES",
    "MODEL.ROI_HEADS.NUM_CLASSES",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE",
)
"""Keys that the meaning of the weights depends on: with other values they are another model's."""

IMAGES = (
    "CELLSEG.INPUT.NORMALIZE",
    "CELLSEG.INPUT.PERCENTILES",
    "CELLSEG.INPUT.RANGE",
    "CELLSEG.INPUT.INVERT",
    "CELLSEG.INPUT.CHANNELS",
    "CELLSEG.INPUT.PROJECTION",
    "CELLSEG.INPUT.SCALE",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
)
"""Keys of how images come to the network: other images may well need other values."""


@dataclass(frozen=True)
class TrainedConfig:
    """What a checkpoint carries.

    Attributes:
        config: nested keys and values, as `portable_config` gives them.
        classes: names of the classes in their order; () where they are not known.
    """

    config: Mapping[str, Any]
    classes: tuple[str, ...] = ()

    def to_entry(self) -> dict[str, Any]:
        """Plain values for a checkpoint, which `torch.load(weights_only=True)` reads."""
        return {
            "format_version": FORMAT_VERSION,
            "config": dict(self.config),
            "classes": list(self.classes),
        }

    @classmethod
    def from_entry(cls, entry: Any) -> TrainedConfig | None:
        """What a checkpoint holds under `ENTRY`; None where that is not ours."""
        if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
            return None
        classes = entry.get("classes")
        names = classes if isinstance(classes, list | tuple) else ()
        return cls(entry["config"], tuple(map(str, names)))


@dataclass(frozen=True)
class Departures:
    """Where a config is not the one that weights were trained with; one sentence for each key.

    Attributes:
        network: of keys that the meaning of the weights depends on.
        images: of keys of how images come to the network.
    """

    network: Sequence[str] = field(default_factory=tuple)
    images: Sequence[str] = field(default_factory=tuple)


def portable_config(cfg: Any) -> dict[str, Any]:
    """What prediction and fine-tuning need of a config: all but what its own machine has.

    Args:
        cfg: of a run.

    Returns:
        Nested keys and values, without output folder, weights, device, data sets, their
        declarations, worker processes and expected results.
    """
    tree: dict[str, Any] = yaml.safe_load(cfg.dump())
    for key in _OF_THE_MACHINE:
        *above, last = key.split(".")
        node = tree
        for part in above:
            node = node.get(part, {})
        node.pop(last, None)
    return tree


def find_departures(trained: TrainedConfig, cfg: Any) -> Departures:
    """Compare the keys that decide what weights mean.

    Args:
        trained: what the checkpoint carries; keys that it does not have are not compared.
        cfg: the config that it is to be used with.

    Example:
        >>> trained = TrainedConfig({"MODEL": {"PIXEL_MEAN": [64.0, 64.0, 64.0]}})
        >>> find_departures(trained, {"MODEL": {"PIXEL_MEAN": (0, 0, 0)}}).network
        ('MODEL.PIXEL_MEAN is [0, 0, 0]; the weights were trained with [64.0, 64.0, 64.0]',)
    """
    network, images = (tuple(_compare(trained.config, cfg, keys)) for keys in (NETWORK, IMAGES))
    return Departures(network, images)


def _compare(trained: Any, cfg: Any, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        then, now = _find(trained, key), _find(cfg, key)
        if None not in (then, now) and then != now:
            yield f"{key} is {now!r}; the weights were trained with {then!r}"


def _find(tree: Any, key: str) -> Any:
    """The value of a key, with lists in place of tuples; None where there is none."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return _plain(tree)


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def list_changes(trained: TrainedConfig, cfg: Any) -> list[str]:
    """Every key that has another value than in the training that wrote a checkpoint."""
    now, then = (dict(_flatten(tree)) for tree in (portable_config(cfg), trained.config))
    return [
        f"{key} is {now[key]!r}, was {then[key]!r}"
        for key in sorted(now.keys() & then.keys())
        if _plain(now[key]) != _plain(then[key])
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
