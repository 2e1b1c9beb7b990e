"""Whole models."""

from __future__ import annotations

from detectron2._missing import left_out_names

from .build import META_ARCH_REGISTRY, build_model
from .panoptic_fpn import PanopticFPN
from .rcnn import GeneralizedRCNN, ProposalNetwork
from .semantic_seg import (
    SEM_SEG_HEADS_REGISTRY,
    SemanticSegmentor,
    build_sem_seg_head,
)

__all__ = [
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "GeneralizedRCNN",
    "PanopticFPN",
    "ProposalNetwork",
    "SemanticSegmentor",
    "build_model",
    "build_sem_seg_head",
]


__getattr__ = left_out_names(
    __name__,
    "DenseDetector",
    "FCOS",
    "RetinaNet",
)
