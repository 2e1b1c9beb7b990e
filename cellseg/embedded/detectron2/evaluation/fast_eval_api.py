"""The name under which Detectron2 keeps its faster COCO evaluation."""

from __future__ import annotations

from pycocotools.cocoeval import COCOeval

__all__ = ["COCOeval_opt"]


class COCOeval_opt(COCOeval):
    """COCO's evaluation, computed by pycocotools: the same figures, without the speed-up."""
