"""Augmentation for cells, beside Detectron2's own; docs/augmentation.md shows each."""

from cellseg.training_data.augmentations.annotations import (
    annotations_to_labelled_image,
    labelled_image_to_annotations,
    polygons_to_rle,
    read_labelled_image,
)
from cellseg.training_data.augmentations.build import (
    build_cell_augmentations,
    build_copy_paste,
    needs_tight_boxes,
)
from cellseg.training_data.augmentations.config import check_augmentation_config
from cellseg.training_data.augmentations.copy_paste import (
    CopyPaste,
    LabelledImage,
    SameClassImages,
)
from cellseg.training_data.augmentations.elastic import ElasticTransform, RandomElastic
from cellseg.training_data.augmentations.geometry import (
    RandomRotate90,
    RandomScaleCrop,
    Rotate90Transform,
    ScaleCropTransform,
)
from cellseg.training_data.augmentations.intensity import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomInvert,
    RandomNoise,
)
from cellseg.training_data.augmentations.registry import (
    AUGMENTATION_REGISTRY,
    build_extra_augmentations,
)
from cellseg.training_data.augmentations.resizing import (
    ResizeByFactor,
    input_scale,
    scale_hw,
    scale_resizing,
)

__all__ = [
    "AUGMENTATION_REGISTRY",
    "CopyPaste",
    "ElasticTransform",
    "LabelledImage",
    "RandomBlur",
    "RandomBrightness",
    "RandomContrast",
    "RandomElastic",
    "RandomGamma",
    "RandomInvert",
    "RandomNoise",
    "RandomRotate90",
    "RandomScaleCrop",
    "ResizeByFactor",
    "Rotate90Transform",
    "SameClassImages",
    "ScaleCropTransform",
    "annotations_to_labelled_image",
    "build_cell_augmentations",
    "build_copy_paste",
    "build_extra_augmentations",
    "check_augmentation_config",
    "input_scale",
    "labelled_image_to_annotations",
    "needs_tight_boxes",
    "polygons_to_rle",
    "read_labelled_image",
    "scale_hw",
    "scale_resizing",
]
