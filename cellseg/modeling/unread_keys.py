"""Find keys that the selected parts of a model do not read, and which thus change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cellseg.modeling.cell_types import CellTypeROIHeads
from cellseg.modeling.mask_head import CellMaskHead
from cellseg.modeling.mask_iou_head import MaskIoUHead
from cellseg.modeling.roi_heads import CellROIHeads
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY

# Node below CELLSEG, who reads it, where that is registered, and the part of MODEL it is.
_READERS = (
    ("BOX_HEAD", CellROIHeads, ROI_HEADS_REGISTRY, "ROI_HEADS"),
    ("CELL_TYPE", CellTypeROIHeads, ROI_HEADS_REGISTRY, "ROI_HEADS"),
    ("MASK_HEAD", CellMaskHead, ROI_MASK_HEAD_REGISTRY, "ROI_MASK_HEAD"),
    ("MASK_IOU", MaskIoUHead, ROI_MASK_HEAD_REGISTRY, "ROI_MASK_HEAD"),
)
_READ_BY_ALL = ("CELL_TYPE.VOTE",)
_OURS = ("detectron2", "cellseg")


def unread_keys(cfg: CfgNode, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Say which settings of cellseg's heads have no effect, since other heads are selected.

    Heads of your own may read any key, so nothing is said where one is selected.

    Args:
        cfg: checked; parts of an architecture of your own may have names that nobody registered.
        defaults: the node CELLSEG as it is before any file.
    """
    for node, reader, registry, part in _READERS:
        name = cfg.MODEL[part].NAME
        selected = registry.get(name) if name in registry else None
        if selected is None or selected.__module__.split(".")[0] not in _OURS:
            continue
        if issubclass(selected, reader):
            continue
        for key, default in defaults[node].items():  # a plug-in's own keys are not ours to judge
            value = cfg.CELLSEG[node][key]
            if value != default and f"{node}.{key}" not in _READ_BY_ALL:
                yield (
                    f"CELLSEG.{node}.{key} {value!r} has no effect: MODEL.{part}.NAME is {name}, "
                    f"and it takes {reader.__name__} to read it"
                )
