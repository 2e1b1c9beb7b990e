"""Readers and writers of dataset formats. No dataset is registered by importing this."""

from __future__ import annotations

from typing import NoReturn

from detectron2._missing import missing_module_attribute

from .coco import convert_to_coco_json, load_coco_json, register_coco_instances

__all__ = ["convert_to_coco_json", "load_coco_json", "register_coco_instances"]

_LEFT_OUT = {
    "get_lvis_instances_meta",
    "load_lvis_json",
    "load_sem_seg",
    "load_voc_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_pascal_voc",
}


def __getattr__(name: str) -> NoReturn:
    missing_module_attribute(__name__, name, _LEFT_OUT)
