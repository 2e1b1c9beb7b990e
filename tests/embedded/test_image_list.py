"""detectron2.structures.ImageList."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import ImageList


def images() -> list[torch.Tensor]:
    return [torch.full((3, 5, 7), 1.0), torch.full((3, 6, 4), 2.0)]


def test_images_are_padded_at_the_right_and_bottom() -> None:
    batch = ImageList.from_tensors(images(), pad_value=9.0)
    assert batch.tensor.shape == (2, 3, 6, 7)
    assert [tuple(size) for size in batch.image_sizes] == [(5, 7), (6, 4)]
    assert len(batch) == 2
    assert batch.tensor[0, 0, 5].tolist() == [9.0] * 7
    assert batch.tensor[1, 2, :, 4:].unique().tolist() == [9.0]
    for index, image in enumerate(images()):
        assert torch.equal(batch[index], image)


def test_size_divisibility() -> None:
    assert ImageList.from_tensors(images(), 4).tensor.shape[-2:] == (8, 8)
    assert ImageList.from_tensors(images()[:1], 5).tensor.shape[-2:] == (5, 10)
    assert ImageList.from_tensors([torch.zeros(1, 8, 8)], 4).tensor.shape == (1, 1, 8, 8)
    assert ImageList.from_tensors([torch.zeros(1, 9, 8)], 1).tensor.shape == (1, 1, 9, 8)


def test_padding_constraints() -> None:
    square = ImageList.from_tensors(images(), 4, padding_constraints={"square_size": 10})
    assert square.tensor.shape[-2:] == (12, 12)
    both = {"square_size": 10, "size_divisibility": 5}
    assert ImageList.from_tensors(images(), 4, padding_constraints=both).tensor.shape[-1] == 10
    divisor_only = {"size_divisibility": 3}
    assert ImageList.from_tensors(images(), 0, padding_constraints=divisor_only).tensor.shape == (
        2,
        3,
        6,
        9,
    )


def test_type_device_and_leading_dimensions_are_kept() -> None:
    masks = [torch.ones(4, 4, dtype=torch.uint8), torch.ones(2, 5, dtype=torch.uint8)]
    batch = ImageList.from_tensors(masks, pad_value=255)
    assert batch.tensor.shape == (2, 4, 5)
    assert batch.tensor.dtype == torch.uint8
    assert batch.tensor[1, 3].tolist() == [255] * 5
    assert batch.to(torch.float32).tensor.dtype == torch.float32
    assert batch.to("cpu").device == torch.device("cpu")
    assert [tuple(size) for size in batch.to("cpu").image_sizes] == [(4, 4), (2, 5)]


def test_the_batch_is_a_copy() -> None:
    image = torch.zeros(1, 4, 4)
    ImageList.from_tensors([image, image]).tensor.fill_(1.0)
    assert image.sum() == 0


def test_images_that_do_not_fit() -> None:
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])
    with pytest.raises(AssertionError):
        ImageList.from_tensors(torch.zeros(2, 3, 4, 4))
