"""Box losses: distance IoU and complete IoU (Zheng et al., arXiv:1911.08287)."""

from __future__ import annotations

from torchvision.ops import complete_box_iou_loss as ciou_loss
from torchvision.ops import distance_box_iou_loss as diou_loss

__all__ = ["ciou_loss", "diou_loss"]
