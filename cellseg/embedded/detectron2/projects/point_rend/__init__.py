"""PointRend: masks that are refined at the points where they are uncertain.

Kirillov et al., PointRend, arXiv:1912.08193; Cheng et al., Implicit PointRend, arXiv:2104.06404.
Importing it registers the heads that configs name, `add_pointrend_config` adds their keys.
"""

from .color_augmentation import ColorAugSSDTransform
from .config import add_pointrend_config
from .mask_head import ImplicitPointRendMaskHead, PointRendMaskHead
from .roi_heads import PointRendROIHeads
from .semantic_seg import PointRendSemSegHead

__all__ = [
    "ColorAugSSDTransform",
    "ImplicitPointRendMaskHead",
    "PointRendMaskHead",
    "PointRendROIHeads",
    "PointRendSemSegHead",
    "add_pointrend_config",
]
