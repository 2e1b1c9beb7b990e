"""Find keys that the selected parts of a model do not read, and which thus change nothing."""

from __future__ import annotations

from collections.abc import Iterator

from cellseg.config import KEYS, value_of
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY

_REGISTRIES = {"ROI_HEADS": ROI_HEADS_REGISTRY, "ROI_MASK_HEAD": ROI_MASK_HEAD_REGISTRY}
_OURS = ("detectron2", "cellseg")


def unread_keys(cfg: CfgNode) -> Iterator[str]:
    """Say which settings of cellseg's heads have no effect, since other heads are selected.

    Which head reads a key is said in the table of keys. Heads of your own may read any key, so
    nothing is said where one is selected.

    Args:
        cfg: checked; parts of an architecture of your own may have names that nobody registered.
    """
    for key in KEYS.values():
        value = value_of(cfg, key.name)
        if key.read_by and value != key.default and not _is_read(cfg, key.read_by):
            part = _part_of(key.read_by)
            yield (
                f"{key.path} {value!r} has no effect: MODEL.{part}.NAME is "
                f"{cfg.MODEL[part].NAME}, and it takes {key.read_by} to read it"
            )


def _part_of(head: str) -> str:
    """The node of MODEL whose NAME selects a head."""
    return next(part for part, registry in _REGISTRIES.items() if head in registry)


def _is_read(cfg: CfgNode, head: str) -> bool:
    """Whether `head`, what is derived from it, or what nobody here knows is selected."""
    part = _part_of(head)
    registry, name = _REGISTRIES[part], cfg.MODEL[part].NAME
    if name not in registry or registry.get(name).__module__.split(".")[0] not in _OURS:
        return True
    return issubclass(registry.get(name), registry.get(head))
