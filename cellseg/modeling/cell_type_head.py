"""What type a cell is of, from its pooled features and its mask."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from cellseg.modeling.mask_pooling import pool_masks
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn.functional import relu

CELL_TYPE_HEAD_REGISTRY: Any = Registry("CELL_TYPE_HEAD")
CELL_TYPE_HEAD_REGISTRY.__doc__ = """
Heads for CELLSEG.CELL_TYPE.HEAD. One is called with (cfg, input_shape), the ShapeSpec of the
pooled features, and then with these features, float [N, C, S, S], and the soft masks of the cells
inside their boxes, float [N, 1, M, M] in 0 to 1 (any M, no gradient); it gives logits, float
[N, T], T being MODEL.ROI_HEADS.NUM_CLASSES. N may be 0.
"""


def build_cell_type_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """The head that CELLSEG.CELL_TYPE.HEAD names."""
    head: nn.Module = CELL_TYPE_HEAD_REGISTRY.get(cfg.CELLSEG.CELL_TYPE.HEAD)(cfg, input_shape)
    return head


@CELL_TYPE_HEAD_REGISTRY.register()
class CellTypeHead(nn.Module):
    """Convolutions over features and mask, two means of them, two linear layers.

    The mask is a channel beside the features, so that the convolutions see the outline: types may
    differ in nothing else. What they give is averaged twice. The mean weighted by the mask is the
    cell's own texture, without the neighbours that share its box; the mean over the box keeps what
    lies around it, such as the halo of a round cell. Where the mask is empty the first is 0.

    Args:
        input_shape: of the pooled features; `channels` is used.
        num_types: T, how many types there are to tell apart.
        num_conv: how many 3x3 convolutions stand before the two means.
        conv_dim: how many channels each convolution gives.
        fc_dim: of the hidden linear layer.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, num_types: int, num_conv: int, conv_dim: int, fc_dim: int
    ) -> None:
        super().__init__()
        widths = [int(input_shape.channels or 0) + 1] + [conv_dim] * num_conv
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)
        )
        self.hidden = nn.Linear(2 * widths[-1], fc_dim)
        self.logits = nn.Linear(fc_dim, num_types)
        for conv in self.convs:
            weight_init.c2_msra_fill(conv)
        weight_init.c2_xavier_fill(self.hidden)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.zeros_(self.logits.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.CELLSEG.CELL_TYPE
        return {
            "input_shape": input_shape,
            "num_types": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "num_conv": node.NUM_CONV,
            "conv_dim": node.CONV_DIM,
            "fc_dim": node.FC_DIM,
        }

    def forward(self, features: Tensor, soft_masks: Tensor) -> Tensor:
        """Logits [N, T]; see `CELL_TYPE_HEAD_REGISTRY` for the arguments."""
        masks = pool_masks(soft_masks, features, mean=True).to(features.dtype)
        maps = torch.cat([features, masks], dim=1)
        for conv in self.convs:
            maps = relu(conv(maps))
        covered = masks.sum(dim=(2, 3)).clamp(min=1e-6)
        inside = (maps * masks).sum(dim=(2, 3)) / covered
        means = torch.cat([inside, maps.mean(dim=(2, 3))], dim=1)
        logits: Tensor = self.logits(relu(self.hidden(means)))
        return logits
