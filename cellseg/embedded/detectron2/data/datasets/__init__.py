"""Readers and writers of dataset formats. No dataset is registered by importing this."""

from __future__ import annotations

from detectron2._missing import left_out_names

from .coco import convert_to_coco_json, load_coco_json, register_coco_instances

__all__ = ["convert_to_coco_json", "load_coco_json", "register_coco_instances"]


__getattr__ = left_out_names(
    __name__,
    "get_lvis_instances_meta",
    "load_lvis_json",
    "load_sem_seg",
    "load_voc_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_pascal_voc",
)
