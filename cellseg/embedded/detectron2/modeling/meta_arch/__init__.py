"""Whole models."""

from __future__ import annotations

from detectron2._missing import left_out_names

from .build import META_ARCH_REGISTRY, build_model
from .rcnn import GeneralizedRCNN, ProposalNetwork

__all__ = ["META_ARCH_REGISTRY", "GeneralizedRCNN", "ProposalNetwork", "build_model"]


__getattr__ = left_out_names(
    __name__,
    "DenseDetector",
    "FCOS",
    "PanopticFPN",
    "RetinaNet",
    "SEM_SEG_HEADS_REGISTRY",
    "SemanticSegmentor",
    "build_sem_seg_head",
)
