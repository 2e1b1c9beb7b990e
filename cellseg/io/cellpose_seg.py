"""The masks in Cellpose's `_seg.npy`, read without running what the file says.

Cellpose saves a pickle: a dict with `masks`, the label image [H, W] or [Z, H, W], beside outlines,
flows and settings. `cellseg.pickles` reads it, so that a file of any version gives its masks and no
file gives anything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from cellseg.errors import DatasetError
from cellseg.images import SeveralPlanesError, array_to_labels
from cellseg.pickles import ArraysOnly
from numpy.lib import format as npy_format
from numpy.typing import NDArray

SEG_ENDING = "_seg.npy"
_WAY_OUT = "in Cellpose: File > Save masks as PNG/tif, and name the end in `mask_suffix`"


def read_seg_masks(path: Path) -> NDArray[Any]:
    """The label image in a `_seg.npy`, integers [H, W].

    Raises:
        SeveralPlanesError: the masks are of a stack.
        DatasetError: no such file, or no masks in it.
    """
    stack = read_seg_stack(path)
    if len(stack) > 1:
        raise SeveralPlanesError(f"{path}: masks of {len(stack)} planes: {_WAY_OUT}")
    return stack[0]


def read_seg_stack(path: Path) -> NDArray[Any]:
    """The label images in a `_seg.npy`, integers [Z, H, W]; see `read_seg_masks`."""
    masks = _read_dict(path).get("masks")
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "iufb":
        raise DatasetError(f"{path}: no array `masks` in it: {_WAY_OUT}")
    masks = masks.squeeze() if masks.ndim > 3 else masks
    if masks.ndim not in (2, 3):
        raise DatasetError(f"{path}: masks of shape {list(masks.shape)}: {_WAY_OUT}")
    whole = masks.astype(np.uint8) if masks.dtype == bool else masks
    return np.stack([array_to_labels(one, path) for one in whole.reshape(-1, *whole.shape[-2:])])


def _read_dict(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = _load_object(stream)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DatasetError(
            f"{path}: not read as what Cellpose saves ({error}): {_WAY_OUT}"
        ) from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: expected Cellpose's dict; found {type(content).__name__}: {_WAY_OUT}"
        )
    return content


def _load_object(stream: BinaryIO) -> Any:
    """The one object of an array of objects, or an array of numbers."""
    version = npy_format.read_magic(stream)
    read_header = {(1, 0): npy_format.read_array_header_1_0}.get(
        version, npy_format.read_array_header_2_0
    )
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject:
        raise ValueError(f"an array of {dtype} and no dict")
    content = ArraysOnly(stream).load()
    return content.item() if isinstance(content, np.ndarray) and shape == () else content
