"""What the torchvision-style model says to inputs that it cannot use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cellseg.errors import CellsegError
from cellseg.modeling import InputTypeError, InputValueError, MaskRCNN
from cellseg.modeling.validation import check_images, check_targets
from torch import Tensor

HW = (20, 30)


def good_target() -> dict[str, Tensor]:
    masks = torch.zeros(2, *HW, dtype=torch.uint8)
    masks[0, 2:8, 3:9] = 1
    masks[1, 10:20, 20:30] = 1
    return {
        "boxes": torch.tensor([[3.0, 2, 9, 8], [20, 10, 30, 20]]),
        "labels": torch.tensor([1, 2]),
        "masks": masks,
    }


def changed(field: str, value: Any) -> dict[str, Any]:
    return {**good_target(), field: value}


def box_changed(*values: float) -> dict[str, Any]:
    boxes = good_target()["boxes"]
    boxes[1] = torch.tensor(values)
    return changed("boxes", boxes)


def test_good_input_passes() -> None:
    image = torch.rand(3, *HW)
    check_images([image, image[:1].double(), torch.tensor([[[0.0, 1.0005]]])], 3)
    check_images((image,), 3)
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, *HW, dtype=torch.bool),
        "image_id": 7,
    }
    check_targets([good_target(), empty], [HW, HW], 3)
    check_targets([box_changed(20, 10, 30.0005, 20)], [HW], 3)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(2, 3, 8, 8), InputTypeError, r"list of tensors.*shape \[2, 3, 8, 8\]"),
        ([], InputValueError, "at least one"),
        ([torch.rand(3, 8, 8), "x.png"], InputTypeError, "image 1: expected a float tensor"),
        ([torch.zeros(3, 8, 8, dtype=torch.uint8)], InputTypeError, "divide 8-bit images by 255"),
        ([torch.rand(8, 8)], InputValueError, r"image 0: .*found \[8, 8\]"),
        ([torch.rand(8, 8, 3)], InputValueError, r"expected shape \[3, H, W\].*\[8, 8, 3\]"),
        ([torch.rand(3, 0, 8)], InputValueError, r"found \[3, 0, 8\]"),
        ([torch.full((3, 8, 8), 255.0)], InputValueError, "image 0: .*0 to 1, found 255 to 255"),
        ([torch.full((3, 8, 8), -0.1)], InputValueError, "0 to 1"),
        ([torch.full((3, 8, 8), float("nan"))], InputValueError, "found nan"),
    ],
)
def test_images(images: Any, error: type[CellsegError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_images(images, 3)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("boxes", InputTypeError, "image 1: expected a dict"),
        ({"boxes": torch.zeros(0, 4)}, InputValueError, r"image 1, labels: missing; .*boxes"),
        (changed("boxes", [[1, 2, 3, 4]]), InputTypeError, "image 1, boxes: expected a tensor"),
        (changed("boxes", torch.ones(2, 4).long()), InputTypeError, "boxes: expected a float"),
        (changed("boxes", torch.ones(2, 5)), InputValueError, r"boxes: .*\[N, 4\], found \[2, 5\]"),
        (changed("boxes", torch.ones(0)), InputValueError, r"boxes: .*\[N, 4\], found \[0\]"),
        (box_changed(5, 5, 5, 9), InputValueError, r"image 1, boxes\[1\]: .* degenerate"),
        (box_changed(5, 9, 8, 5), InputValueError, r"boxes\[1\]: \[5.0, 9.0, 8.0, 5.0\]"),
        (box_changed(-1, 5, 8, 9), InputValueError, r"boxes\[1\].* outside .* 30 x 20 px"),
        (box_changed(5, 5, 31, 9), InputValueError, r"boxes\[1\].* outside"),
        (box_changed(5, 5, 9, 21), InputValueError, r"boxes\[1\].* outside"),
        (box_changed(NAN, 5, 8, 9), InputValueError, r"boxes\[1\].* not finite"),
        (box_changed(5, 5, INF, 9), InputValueError, r"boxes\[1\].* not finite"),
        (changed("labels", torch.ones(2)), InputTypeError, "image 1, labels: expected int64"),
        (changed("labels", torch.ones(2).int()), InputTypeError, "found torch.int32"),
        (changed("labels", torch.tensor([1])), InputValueError, r"labels: .*\[2\], found \[1\]"),
        (changed("labels", torch.tensor([1, 0])), InputValueError, r"labels\[1\]: 0 .*1 to 2"),
        (changed("labels", torch.tensor([3, 1])), InputValueError, r"labels\[0\]: 3 is not in"),
        (changed("masks", torch.rand(2, *HW)), InputTypeError, "masks: expected uint8 or bool"),
        (
            changed("masks", torch.zeros(2, 30, 20, dtype=torch.bool)),
            InputValueError,
            r"image 1, masks: expected shape \[2, 20, 30\], found \[2, 30, 20\]",
        ),
        (
            changed("masks", torch.zeros(1, *HW, dtype=torch.bool)),
            InputValueError,
            r"found \[1, 20, 30\]",
        ),
        (
            changed("masks", torch.full((2, *HW), 255, dtype=torch.uint8)),
            InputValueError,
            "masks: expected 0 and 1, found 255",
        ),
        (changed("uncounted", [1]), InputTypeError, "uncounted: expected a tensor"),
        (
            changed("uncounted", torch.zeros(1, *HW, dtype=torch.bool)),
            InputValueError,
            r"image 1, uncounted: expected shape \[20, 30\], found \[1, 20, 30\]",
        ),
    ],
)
def test_targets(target: Any, error: type[CellsegError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_targets([good_target(), target], [HW, HW], 3)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (None, InputValueError, "needed in training mode"),
        (good_target(), InputTypeError, "list of dicts"),
        ([good_target()] * 2, InputValueError, "found 2 for 1 images"),
    ],
)
def test_the_list_of_targets(targets: Any, error: type[CellsegError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_targets(targets, [HW], 3)


def test_errors_are_those_a_caller_expects() -> None:
    assert issubclass(InputValueError, ValueError)
    assert issubclass(InputTypeError, TypeError)


def test_the_model_checks(model: MaskRCNN) -> None:
    with pytest.raises(InputValueError, match="image 0"):
        model([torch.full((3, 20, 30), 200.0)], [good_target()])
    with pytest.raises(InputValueError, match=r"image 0, labels\[1\]: 9 is not in 1 to 2"):
        model([torch.rand(3, *HW)], [changed("labels", torch.tensor([1, 9]))])
    with pytest.raises(InputTypeError):
        model.eval()([torch.zeros(3, 20, 30, dtype=torch.uint8)])
