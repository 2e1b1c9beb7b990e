"""Cells into a label image, against pasting and selection by other code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, finish_cells
from cellseg.export.painting import paint_cells
from cellseg.modeling.pasting import paste_mask_crops
from torch import Tensor

HEIGHT, WIDTH = 50, 70


def random_detections(count: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Soft masks [N, 28, 28], boxes inside of the canvas, some of them at its border, classes."""
    generator = torch.Generator().manual_seed(count)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    sides = torch.rand(count, 2, generator=generator) * 25 + 0.5
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1).clamp(min=0)
    boxes = boxes.minimum(torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    masks = torch.rand(count, 1, 7, 7, generator=generator)
    masks = torch.nn.functional.interpolate(masks, (28, 28), mode="bilinear")[:, 0]
    return masks, boxes, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize(
    "options",
    [
        {"mask": 0.5, "max_covered": 0.5},
        {"mask": 0.3, "max_covered": 0.2, "min_area_px": 20.0, "max_area_px": 250.0},
        {"mask": 0.7, "border": "drop"},
        {"mask": 0.4, "max_covered": 0.7, "border": "drop", "exclusive": True, "min_area_px": 9.0},
    ],
)
@pytest.mark.parametrize("classes", [1, 3])
def test_same_cells_as_pasting_selecting_and_painting_one_by_one(
    options: dict[str, Any], classes: int
) -> None:
    given = DetectionThresholds(**{"min_area_px": 1.0, **options})
    masks, boxes, kinds = random_detections(40, classes)
    crops, offsets_rc = paste_mask_crops(masks, boxes, (HEIGHT, WIDTH), given.mask)
    scores = np.linspace(0.9, 0.6, 40)
    cells = CellInstances.from_crops(
        crops, offsets_rc, (HEIGHT, WIDTH), scores=scores, classes=kinds.numpy()
    )
    finished = finish_cells(cells, given)
    expected = np.zeros((HEIGHT, WIDTH), np.int32)
    for label, bitmap in reversed(list(enumerate(finished.cells.to_bitmaps(), 1))):
        expected[bitmap] = label

    share, least = given.max_covered, given.min_area_px
    limits = torch.tensor(
        [
            given.mask,
            share if share < 1 else 2.0,
            least,
            given.max_area_px or torch.inf,
            given.border == "drop",
            least if given.exclusive else 0,
        ],
        dtype=torch.float64,
    )
    labels, kept = paint_cells(
        masks, boxes, kinds, limits.expand(40, 6), torch.zeros(HEIGHT, WIDTH), classes
    )
    assert len(finished.numbers) > 3
    assert kept.nonzero()[:, 0].tolist() == finished.numbers.tolist()
    assert np.array_equal(labels.numpy(), expected)
    assert labels.dtype == torch.int32


def test_no_detection() -> None:
    labels, kept = paint_cells(
        torch.zeros(0, 28, 28),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 6, dtype=torch.float64),
        torch.zeros(4, 5),
        1,
    )
    assert labels.tolist() == [[0] * 5] * 4
    assert kept.shape == (0,)


def test_by_hand() -> None:
    """Two full masks, of 4 and 6 pixels, that share two: half of the one that is worse, or less."""
    masks, kinds = torch.ones(2, 2, 2), torch.zeros(2, dtype=torch.int64)
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 4, 2]])
    canvas = torch.zeros(2, 5)
    for share, expected in ((0.4, [[1, 1, 2, 2, 0]] * 2), (0.3, [[1, 1, 0, 0, 0]] * 2)):
        limits = torch.tensor([[0.6, share, 0, 99, 0, 0]] * 2, dtype=torch.float64)
        labels, _ = paint_cells(masks, boxes, kinds, limits, canvas, 1)
        assert labels.tolist() == expected
