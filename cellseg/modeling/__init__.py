"""What cellseg adds to the engine's models."""

from cellseg.modeling.mask_head import CellMaskHead
from cellseg.modeling.registry_check import check_registered_names
from cellseg.modeling.torchvision_style import MaskRCNN, binarize, maskrcnn_resnet50_fpn
from cellseg.modeling.validation import InputTypeError, InputValueError
from cellseg.modeling.weights import load_weights

__all__ = [
    "CellMaskHead",
    "InputTypeError",
    "InputValueError",
    "MaskRCNN",
    "binarize",
    "check_registered_names",
    "load_weights",
    "maskrcnn_resnet50_fpn",
]
