"""Readers and writers of dataset formats; COCO's own datasets are registered with them."""

from __future__ import annotations

from detectron2._missing import left_out_names

from . import builtin
from .coco import convert_to_coco_json, load_coco_json, load_sem_seg, register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated

__all__ = [
    "builtin",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
]


__getattr__ = left_out_names(
    __name__,
    "get_lvis_instances_meta",
    "load_lvis_json",
    "load_voc_instances",
    "register_lvis_instances",
    "register_pascal_voc",
)
