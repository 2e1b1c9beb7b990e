"""Cells as torchvision's training loops take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from cellseg.cells.synthetic import make_cells
from cellseg.modeling import MaskRCNN
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import masks_to_boxes

IMAGE_PX = 64

BuildModel = Callable[..., MaskRCNN]  # see conftest.py


class SyntheticCells(Dataset):
    """Images of cells and a target each, with the fields of torchvision's finetuning tutorial."""

    def __init__(self, count: int, *, first_seed: int = 0) -> None:
        self.seeds = range(first_seed, first_seed + count)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        if index >= len(self):
            raise IndexError(index)
        cells = make_cells(self.seeds[index], (IMAGE_PX, IMAGE_PX))
        image = torch.from_numpy(cells.image).float() / 255
        return image.expand(3, -1, -1), target_of_labels(cells.labels, image_id=index)


def target_of_labels(labels: np.ndarray, image_id: int) -> dict[str, Any]:
    numbers = [int(number) for number in np.unique(labels) if number > 0]
    masks = torch.from_numpy(np.stack([labels == number for number in numbers])).to(torch.uint8)
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])  # it gives the last pixel
    return {
        "boxes": boxes,
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "masks": masks,
        "image_id": image_id,
        "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        "iscrowd": torch.zeros(len(boxes), dtype=torch.int64),
    }


def collate(items: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*items))
