"""Published Mask R-CNN models: their configs, weights and, built and loaded, the models."""

from detectron2.model_zoo.model_zoo import get, get_checkpoint_url, get_config, get_config_file

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]
