"""Images as microscopes make them, and what a model takes of them; docs/images.md explains.

Training, evaluation and prediction all read through `ImageInput`, so that they cannot differ.
"""

from __future__ import annotations

from cellseg.images.channels import ImageStack, select_image
from cellseg.images.microscopes import MICROSCOPE_PACKAGES
from cellseg.images.model_input import ImageInput, to_model_input
from cellseg.images.normalisation import (
    DEFAULT_PERCENTILES,
    channel_percentiles,
    normalize_image,
)
from cellseg.images.planes import PlaneImage, open_planes
from cellseg.images.reading import (
    IMAGE_SUFFIXES,
    read_image,
    read_image_hw,
    read_label_image,
)

__all__ = [
    "DEFAULT_PERCENTILES",
    "IMAGE_SUFFIXES",
    "MICROSCOPE_PACKAGES",
    "ImageInput",
    "ImageStack",
    "PlaneImage",
    "channel_percentiles",
    "normalize_image",
    "open_planes",
    "read_image",
    "read_image_hw",
    "read_label_image",
    "select_image",
    "to_model_input",
]
