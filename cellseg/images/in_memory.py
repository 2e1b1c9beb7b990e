"""What a caller hands over as an image, as the array that it obviously is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cellseg.errors import InputTypeError, InputValueError
from numpy.typing import NDArray
from PIL import Image

_EXPECTED = "expected an array of numbers, [H, W] or [H, W, C]"


def to_image_array(image: Any) -> NDArray[Any]:
    """One image of any common kind as an array.

    Args:
        image: a NumPy array, which is returned as it is, or what gives one (`__array__`: xarray,
            Dask, Zarr, ...); a Pillow image; a torch tensor [H, W], or [C, H, W] or [H, W, C] of 1
            or 3 channels; nested lists of numbers.

    Returns:
        [H, W] or [H, W, C]; intensities as they are.

    Raises:
        InputValueError: it has no pixel.
        InputTypeError: anything else, or a tensor whose channels could be the first or the last.

    Example:
        >>> to_image_array([[1, 2], [3, 4]]).shape
        (2, 2)
        >>> to_image_array(Image.new("RGB", (20, 10))).shape
        (10, 20, 3)
    """
    if isinstance(image, np.ndarray):
        return _of_numbers(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if type(image).__module__.partition(".")[0] == "torch" and hasattr(image, "detach"):
        return _from_tensor(image)
    if image is None:
        raise InputTypeError(
            f"found None; {_EXPECTED}. cv2.imread gives None where it cannot read a file: "
            "`predict` of a path says why"
        )
    if isinstance(image, Sequence) and any(np.ndim(each) > 1 for each in image if _is_array(each)):
        raise InputTypeError(
            f"found a {type(image).__name__} of {len(image)} images; {_EXPECTED}: one at a time, "
            "or images of one size with `predict_batch`"
        )
    if isinstance(image, str | bytes | Mapping | set) or not (
        isinstance(image, Sequence) or hasattr(image, "__array__")
    ):
        raise InputTypeError(f"found {_describe(image)}; {_EXPECTED}, or the path of a file")
    try:
        return _of_numbers(np.asarray(image))
    except ValueError as error:
        raise InputTypeError(f"found {_describe(image)}: {error}; {_EXPECTED}") from error


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "detach")


def _of_numbers(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"found an array of {array.dtype}; {_EXPECTED}")
    if array.size == 0:
        raise InputValueError(f"found an array {list(array.shape)} without a pixel; {_EXPECTED}")
    return array


def _from_pillow(image: Image.Image) -> NDArray[Any]:
    """Palettes and bits as what they show; intensities as they are."""
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    return np.asarray(image)


def _from_tensor(tensor: Any) -> NDArray[Any]:
    if tensor.is_meta:
        raise InputTypeError(f"found a tensor without values (device meta); {_EXPECTED}")
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy has not
        tensor = tensor.float()
    array: NDArray[Any] = tensor.numpy()
    if array.ndim != 3:
        return _of_numbers(array)
    first, last = (array.shape[axis] in (1, 3) for axis in (0, -1))
    if first == last:
        raise InputTypeError(
            f"found a tensor {list(array.shape)}, of which it is not clear what its channels are; "
            "expected [C, H, W] or [H, W, C] with 1 or 3, or an array [H, W, C]"
        )
    return _of_numbers(np.moveaxis(array, 0, -1) if first else array)


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
