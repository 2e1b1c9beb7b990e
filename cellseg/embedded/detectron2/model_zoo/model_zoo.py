"""Mask R-CNN with FPN models that the Detectron2 project published."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2._missing import FULL_ENGINE_HINT
from detectron2.config import CfgNode, get_cfg

CONFIG_FOLDER = Path(__file__).with_name("configs")
WEIGHTS_FOLDER = "https://dl.fbaipublicfiles.com/detectron2"

_RUNS: dict[str, dict[str, str]] = {
    "COCO-InstanceSegmentation": {
        "mask_rcnn_R_101_C4_3x": "138363239 a2914c",
        "mask_rcnn_R_101_DC5_3x": "138363294 0464b7",
        "mask_rcnn_R_101_FPN_3x": "138205316 a3ec72",
        "mask_rcnn_R_50_C4_1x": "137259246 9243eb",
        "mask_rcnn_R_50_C4_3x": "137849525 4ce675",
        "mask_rcnn_R_50_DC5_1x": "137260150 4f86c3",
        "mask_rcnn_R_50_DC5_3x": "137849551 84107b",
        "mask_rcnn_R_50_FPN_1x": "137260431 a54504",
        "mask_rcnn_R_50_FPN_3x": "137849600 f10217",
        "mask_rcnn_X_101_32x8d_FPN_3x": "139653917 2d9806",
    },
    "COCO-PanopticSegmentation": {
        "panoptic_fpn_R_101_3x": "139514519 cafdb1",
        "panoptic_fpn_R_50_1x": "139514544 dbfeb4",
        "panoptic_fpn_R_50_3x": "139514569 c10459",
    },
    "Cityscapes": {
        "mask_rcnn_R_50_FPN": "142423278 af9cf5",
    },
    "LVISv0.5-InstanceSegmentation": {
        "mask_rcnn_R_101_FPN_1x": "144219035 824ab5",
        "mask_rcnn_R_50_FPN_1x": "144219072 571f7c",
        "mask_rcnn_X_101_32x8d_FPN_1x": "144219108 5e3439",
    },
    "Misc": {
        "cascade_mask_rcnn_R_50_FPN_1x": "138602847 e9d89b",
        "cascade_mask_rcnn_R_50_FPN_3x": "144998488 480dd8",
        "mask_rcnn_R_50_FPN_1x_dconv_c3-c5": "138602867 65c703",
        "mask_rcnn_R_50_FPN_3x_dconv_c3-c5": "144998336 821d0b",
        "mask_rcnn_R_50_FPN_3x_gn": "138602888 dc5d9e",
        "mask_rcnn_R_50_FPN_3x_syncbn": "169527823 3b3c51",
        "panoptic_fpn_R_101_dconv_cascade_gn_3x": "139797668 be35db",
        "scratch_mask_rcnn_R_50_FPN_3x_gn": "138602908 01ca85",
        "scratch_mask_rcnn_R_50_FPN_9x_gn": "183808979 da7b4c",
        "scratch_mask_rcnn_R_50_FPN_9x_syncbn": "184226666 5ce33e",
    },
}
"""Training run and checksum of the weights, by the folder and the name of the config."""

WEIGHTS = {
    f"{folder}/{name}.yaml": "{}/model_final_{}.pkl".format(*run.split())
    for folder, runs in _RUNS.items()
    for name, run in runs.items()
} | {
    # The only one that is not the last checkpoint of its training.
    "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv.yaml": (
        "18131413/model_0039999_e76410.pkl"
    )
}
"""Training run and file of the weights, by config."""


def get_config_file(config_path: str) -> str:
    """Path of a config file of the model zoo.

    Args:
        config_path: as in Detectron2's `configs/` folder, for instance
            "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml".

    Raises:
        RuntimeError: the embedded engine does not have this one; the message lists its own.
    """
    path = CONFIG_FOLDER / config_path
    if not path.is_file():
        raise RuntimeError(_not_available(config_path))
    return str(path)


def get_checkpoint_url(config_path: str) -> str:
    """Web address of the weights that were trained with a config.

    Args:
        config_path: as in `get_config_file`; ".py" names the same model as ".yaml".

    Raises:
        RuntimeError: none are known for this config.
    """
    model = config_path.removesuffix(".py").removesuffix(".yaml")
    file = WEIGHTS.get(f"{model}.yaml")
    if file is None:
        raise RuntimeError(_not_available(config_path))
    return f"{WEIGHTS_FOLDER}/{model}/{file}"


def get_config(config_path: str, trained: bool = False) -> CfgNode:
    """The whole config of a model.

    Args:
        config_path: as in `get_config_file`.
        trained: name the weights trained on COCO in MODEL.WEIGHTS, not those of the backbone.

    Raises:
        RuntimeError: unknown config.
    """
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(config_path))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> torch.nn.Module:
    """Build a model and download and load its weights.

    Args:
        config_path: as in `get_config_file`.
        trained: as in `get_config`.
        device: where to put it; by default what the config says, or the CPU without a GPU.

    Returns:
        The model, in training mode.

    Raises:
        RuntimeError: unknown config.
    """
    from detectron2.checkpoint import DetectionCheckpointer  # configs are read without these
    from detectron2.modeling import build_model

    cfg = get_config(config_path, trained)
    cfg.MODEL.DEVICE = device or (cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu")
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def _not_available(config_path: str) -> str:
    return (
        f"{config_path!r} is not in the model zoo of the embedded engine, which has: "
        f"{', '.join(WEIGHTS)}. For the others, {FULL_ENGINE_HINT}."
    )
