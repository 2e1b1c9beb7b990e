"""Masks as coarse as features, against torch's adaptive pooling."""

from __future__ import annotations

import pytest
import torch
from cellseg.modeling.mask_pooling import pool_masks
from torch.nn import functional as F


@pytest.mark.parametrize("side", [14, 28, 30, 56])
@pytest.mark.parametrize("count", [0, 3])
def test_the_same_as_adaptive_pooling(side: int, count: int) -> None:
    torch.manual_seed(0)
    masks, features = torch.rand(count, 1, side, side), torch.zeros(count, 5, 14, 14)
    mean, most = (pool_masks(masks, features, mean=mean) for mean in (True, False))
    torch.testing.assert_close(mean, F.adaptive_avg_pool2d(masks, (14, 14)))
    assert torch.equal(most, F.adaptive_max_pool2d(masks, (14, 14)))


def test_by_hand() -> None:
    masks, features = torch.tensor([[[[0.0, 1, 4, 4]] * 2]]), torch.zeros(1, 8, 1, 2)
    assert pool_masks(masks, features, mean=True).tolist() == [[[[0.5, 4]]]]
    assert pool_masks(masks, features, mean=False).tolist() == [[[[1, 4]]]]
