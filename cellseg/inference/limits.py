"""Limits of how much a model finds in one image, and a word where they cut."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Instances
from torch import Tensor, nn

LIKELY_LOGIT = 1.0
"""Above it the network takes a proposal for a cell, p = 0.73; one that has learned nothing does not
come that far."""
SURE_LOGIT = 2.2
"""p = 0.9. A cell has a dozen anchors and needs one: that likely ones are cut costs no cell yet.
Measured with `nuclei` on a field of 376 cells: at PRE_NMS_TOPK_TEST 2000, 1000 and 500, which sure
anchors exceed, 3, 10 and 42 are lost; on one of 13, whose likely ones alone exceed 500, none."""

logger = logging.getLogger(__name__)


class LimitWatch:
    """Warns, once for each key, where a limit of the config may have cost cells.

    Proposals come without end, cells or not, so a limit on them is reached in every image. It costs
    cells where what it cuts off is taken for cells by the network itself: where the last proposal
    that is kept is likely a cell, or more anchors of a level are surely on cells than
    are looked at.

    Args:
        cfg: of the model; read are TEST.DETECTIONS_PER_IMAGE, MODEL.RPN.PRE_NMS_TOPK_TEST and
            POST_NMS_TOPK_TEST.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._most_detections = cfg.TEST.DETECTIONS_PER_IMAGE
        self._most_anchors = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST
        self._most_proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
        self._told: set[str] = set()

    @contextmanager
    def watching(self, model: nn.Module, *, outputs: bool = False) -> Iterator[None]:
        """While it lasts, look at what passes through the model.

        Args:
            model: the engine's, or one that contains it.
            outputs: look at what the model itself gives, too: all detections of each image.
        """
        with ExitStack() as hooks:
            for part in model.modules():
                if isinstance(part, RPN):
                    hooks.enter_context(part.rpn_head.register_forward_hook(self._see_anchors))
                    hooks.enter_context(part.register_forward_hook(self._see_proposals))
            if outputs:
                hooks.enter_context(model.register_forward_hook(self._see_outputs))
            yield

    def see_detections(self, count: int) -> None:
        """Look at how many detections an image, or a window of one, has."""
        if 0 < self._most_detections <= count:
            self._tell(
                "TEST.DETECTIONS_PER_IMAGE",
                f"{count} detections, as many as",
                "allows",
            )

    def _see_outputs(self, model: nn.Module, _: Any, outputs: Any) -> None:
        if model.training:
            return
        for output in outputs:
            self.see_detections(len(output["instances"]))

    def _see_proposals(self, rpn: nn.Module, _: Any, output: Any) -> None:
        found: Sequence[Instances] = output[0]
        if rpn.training or "MODEL.RPN.POST_NMS_TOPK_TEST" in self._told:
            return
        for proposals in found:
            if not 0 < self._most_proposals <= len(proposals):
                continue
            if float(proposals.objectness_logits.min()) > LIKELY_LOGIT:
                self._tell(
                    "MODEL.RPN.POST_NMS_TOPK_TEST",
                    f"{len(proposals)} likely places of cells, as many as",
                    "allows",
                )

    def _see_anchors(self, head: nn.Module, _: Any, output: Any) -> None:
        levels: Sequence[Tensor] = output[0]
        if head.training or "MODEL.RPN.PRE_NMS_TOPK_TEST" in self._told:
            return
        sure = torch.stack([(level > SURE_LOGIT).flatten(1).sum(1).max() for level in levels])
        most = int(sure.max())
        if 0 < self._most_anchors < most:
            self._tell(
                "MODEL.RPN.PRE_NMS_TOPK_TEST",
                f"{most} anchors that are surely on cells on one level, and",
                f"allows {self._most_anchors}",
            )

    def _tell(self, key: str, found: str, allows: str) -> None:
        if key not in self._told:
            self._told.add(key)
            logger.warning(
                "An image has %s %s %s: cells with lower scores may be missing, in other images "
                "too. Set it higher",
                *(found, key, allows),
            )
