"""Whole models."""

from __future__ import annotations

from typing import Any

from detectron2._missing import missing_module_attribute

from .build import META_ARCH_REGISTRY, build_model
from .rcnn import GeneralizedRCNN, ProposalNetwork

__all__ = ["META_ARCH_REGISTRY", "GeneralizedRCNN", "ProposalNetwork", "build_model"]

_LEFT_OUT = (
    "DenseDetector",
    "FCOS",
    "PanopticFPN",
    "RetinaNet",
    "SEM_SEG_HEADS_REGISTRY",
    "SemanticSegmentor",
    "build_sem_seg_head",
)


def __getattr__(name: str) -> Any:
    missing_module_attribute(__name__, name, _LEFT_OUT)
