"""Images as microscopes make them, and what a model takes of them; docs/images.md explains.

Training, evaluation and prediction all read through `ImageInput`, so that they cannot differ.
"""

from __future__ import annotations

from cellseg.images.channels import select_image
from cellseg.images.formats import (
    IMAGE_FORMATS,
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    ImageFormat,
    is_readable_name,
    stem_of_image,
    why_no_image,
    why_unreadable,
)
from cellseg.images.labels import SeveralPlanesError, array_to_labels, read_label_image
from cellseg.images.model_input import ImageInput, to_model_input
from cellseg.images.normalisation import (
    DEFAULT_PERCENTILES,
    Limits,
    channel_percentiles,
    normalize_image,
)
from cellseg.images.planes import (
    PlaneImage,
    by_scene,
    find_plane,
    open_planes,
    place_of,
    windows_of,
)
from cellseg.images.reading import read_image, read_image_hw
from cellseg.images.stacks import ImageStack

__all__ = [
    "DEFAULT_PERCENTILES",
    "IMAGE_FORMATS",
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "ImageFormat",
    "ImageInput",
    "ImageStack",
    "Limits",
    "PlaneImage",
    "SeveralPlanesError",
    "array_to_labels",
    "by_scene",
    "channel_percentiles",
    "find_plane",
    "is_readable_name",
    "normalize_image",
    "open_planes",
    "place_of",
    "read_image",
    "read_image_hw",
    "read_label_image",
    "select_image",
    "stem_of_image",
    "to_model_input",
    "why_no_image",
    "why_unreadable",
    "windows_of",
]
