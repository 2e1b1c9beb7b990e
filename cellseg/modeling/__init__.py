"""What cellseg adds to the engine's models: heads, losses, a backbone, pasting of masks, and the
model with torchvision's calling contract. Importing this room registers the parts by name.
"""

from cellseg.modeling.backbones import FineFPN, build_fine_resnet_fpn_backbone
from cellseg.modeling.cell_type_head import CELL_TYPE_HEAD_REGISTRY, CellTypeHead
from cellseg.modeling.cell_types import CellTypeROIHeads
from cellseg.modeling.mask_head import CellMaskHead
from cellseg.modeling.mask_iou_head import MaskIoUHead
from cellseg.modeling.mask_losses import MASK_LOSS_REGISTRY
from cellseg.modeling.registry_check import check_registered_names
from cellseg.modeling.roi_heads import CellBoxPredictor, CellROIHeads
from cellseg.modeling.torchvision_style import MaskRCNN, binarize, maskrcnn_resnet50_fpn
from cellseg.modeling.uncounted_regions import leave_out_uncounted
from cellseg.modeling.validation import InputTypeError, InputValueError
from cellseg.modeling.weights import load_weights

__all__ = [
    "CELL_TYPE_HEAD_REGISTRY",
    "MASK_LOSS_REGISTRY",
    "CellBoxPredictor",
    "CellMaskHead",
    "CellROIHeads",
    "CellTypeHead",
    "CellTypeROIHeads",
    "FineFPN",
    "InputTypeError",
    "InputValueError",
    "MaskIoUHead",
    "MaskRCNN",
    "binarize",
    "build_fine_resnet_fpn_backbone",
    "check_registered_names",
    "leave_out_uncounted",
    "load_weights",
    "maskrcnn_resnet50_fpn",
]
