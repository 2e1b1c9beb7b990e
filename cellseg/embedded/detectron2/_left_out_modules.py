"""Modules of Detectron2 that the embedded engine has not, with their public classes and functions.

Modules of constants, such as `detectron2.data.datasets.lvis_v1_categories`, are not here: an
import of them is a use, and fails.
"""

from __future__ import annotations

_BACKBONES = {
    "mvit": "MViT",
    "regnet": "AnyNet RegNet ResBottleneckBlock ResStem SimpleStem",
    "swin": "SwinTransformer",
    "vit": "SimpleFeaturePyramid ViT get_vit_lr_decay_rate",
}

_DATASETS = {
    "cityscapes": "load_cityscapes_instances load_cityscapes_semantic",
    "cityscapes_panoptic": "load_cityscapes_panoptic register_all_cityscapes_panoptic",
    "lvis": "get_lvis_instances_meta load_lvis_json register_lvis_instances",
    "pascal_voc": "load_voc_instances register_pascal_voc",
}

_EVALUATION = {
    "cityscapes_evaluation": "CityscapesInstanceEvaluator CityscapesSemSegEvaluator",
    "lvis_evaluation": "LVISEvaluator",
    "panoptic_evaluation": "COCOPanopticEvaluator",
    "pascal_voc_evaluation": "PascalVOCDetectionEvaluator",
    "rotated_coco_evaluation": "RotatedCOCOEvaluator RotatedCOCOeval",
    "sem_seg_evaluation": "SemSegEvaluator",
}

_EXPORT = {
    "api": "Caffe2Model Caffe2Tracer",
    "torchscript": "dump_torchscript_IR scripting_with_instances patch_instances",
    "torchscript_patch": "freeze_training_mode patch_builtin_len patch_instances",
}

_META_ARCH = {
    "dense_detector": "DenseDetector",
    "fcos": "FCOS FCOSHead",
    "retinanet": "RetinaNet RetinaNetHead",
}

_PROJECTS = {
    "panoptic_deeplab": "PanopticDeepLab add_panoptic_deeplab_config",
}

_TRACKING = {
    "base_tracker": "BaseTracker TRACKER_HEADS_REGISTRY build_tracker_head",
    "bbox_iou_tracker": "BBoxIOUTracker",
    "hungarian_tracker": "BaseHungarianTracker",
    "iou_weighted_hungarian_bbox_iou_tracker": "IOUWeightedHungarianBBoxIOUTracker",
    "vanilla_hungarian_bbox_iou_tracker": "VanillaHungarianBBoxIOUTracker",
}

_OTHERS = {
    "layers.roi_align_rotated": "ROIAlignRotated",
    "layers.rotated_boxes": "pairwise_iou_rotated",
    "modeling.mmdet_wrapper": "MMDetBackbone MMDetDetector",
    "modeling.proposal_generator.rrpn": "RRPN find_top_rrpn_proposals",
    "modeling.roi_heads.rotated_fast_rcnn": "RROIHeads RotatedFastRCNNOutputLayers "
    "fast_rcnn_inference_rotated",
    "structures.keypoints": "Keypoints heatmaps_to_keypoints",
    "structures.rotated_boxes": "RotatedBoxes pairwise_iou",
    "tracking": "BBoxIOUTracker BaseHungarianTracker BaseTracker "
    "IOUWeightedHungarianBBoxIOUTracker TRACKER_HEADS_REGISTRY VanillaHungarianBBoxIOUTracker "
    "build_tracker_head",
    "utils.video_visualizer": "VideoVisualizer",
}

_BY_PACKAGE = {
    "": _OTHERS,
    "data.datasets.": _DATASETS,
    "evaluation.": _EVALUATION,
    "export.": _EXPORT,
    "modeling.backbone.": _BACKBONES,
    "modeling.meta_arch.": _META_ARCH,
    "projects.": _PROJECTS,
    "tracking.": _TRACKING,
}

LEFT_OUT_MODULES: dict[str, str] = {
    f"detectron2.{package}{module}": names
    for package, modules in _BY_PACKAGE.items()
    for module, names in modules.items()
}
"""Names of the stand-ins, separated by spaces, of each module."""
