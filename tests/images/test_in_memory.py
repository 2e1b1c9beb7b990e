"""What is obviously an image is taken as one, and anything else refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg.errors import InputTypeError, InputValueError
from cellseg.images.in_memory import to_image_array
from PIL import Image

GREY = np.arange(20, dtype=np.uint16).reshape(4, 5)
COLOUR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GREY, GREY),
        (GREY.tolist(), GREY),
        (torch.from_numpy(GREY.astype(np.int32)), GREY),
        (torch.from_numpy(GREY.astype(np.int32)).to(torch.bfloat16), GREY),
        (torch.from_numpy(COLOUR), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(np.eye(4, dtype=bool)), 255 * np.eye(4)),
        (Image.fromarray(COLOUR).convert("RGBA"), COLOUR),
    ],
)
def test_an_image_of_any_common_kind(given: Any, expected: np.ndarray) -> None:
    assert np.array_equal(to_image_array(given), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "found None.*cv2.imread"),
        ("cells.tif", "found str 'cells.tif'"),
        (Path("cells.tif"), "found PosixPath"),
        (b"RIFF", "found bytes"),
        ({"image": GREY}, "found dict"),
        ([GREY, GREY], "a list of 2 images.*one at a time"),
        ([[1, 2], [3]], "found list"),
        (np.array(["a"]), "an array of <U1"),
        (torch.zeros(3, 8, 3), "not clear what its channels are"),
        (torch.zeros(2, 8, 8), "not clear what its channels are"),
        (torch.zeros(8, 8, device="meta"), "without values"),
    ],
)
def test_what_is_no_image_is_named(given: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        to_image_array(given)


@pytest.mark.parametrize("shape", [(0, 10), (10, 0, 3), (0,)])
def test_an_array_without_a_pixel_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputValueError, match="without a pixel"):
        to_image_array(np.zeros(shape))
