"""Soft masks as coarse as the features beside them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pool_masks(soft_masks: Tensor, features: Tensor, *, mean: bool) -> Tensor:
    """Bring masks to the height and width of features, as adaptive pooling does.

    Where each cell of the features has the same whole number of mask pixels, as in Mask R-CNN, the
    same is computed with a fixed kernel, which unlike adaptive pooling exists in ONNX.

    Args:
        soft_masks: float [N, 1, M, M].
        features: [N, C, H, W].
        mean: the mean of the pixels of each cell; else their maximum.

    Returns:
        [N, 1, H, W].
    """
    masks_hw, cells_hw = ([int(side) for side in x.shape[-2:]] for x in (soft_masks, features))
    if any(side % cells for side, cells in zip(masks_hw, cells_hw)):
        adaptive = F.adaptive_avg_pool2d if mean else F.adaptive_max_pool2d
        return adaptive(soft_masks, (cells_hw[0], cells_hw[1]))
    kernel = [side // cells for side, cells in zip(masks_hw, cells_hw)]
    return F.avg_pool2d(soft_masks, kernel) if mean else F.max_pool2d(soft_masks, kernel)
