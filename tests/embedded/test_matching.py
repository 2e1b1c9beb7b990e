"""Matching predictions to ground truth, and sampling them."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.sampling import subsample_labels


def test_labels_between_thresholds() -> None:
    matcher = Matcher([0.25, 0.75], [0, -1, 1])
    quality = torch.tensor([[0.0, 0.25, 0.5, 0.75, 0.1], [0.2, 0.0, 0.6, 0.7, 1.0]])
    matches, labels = matcher(quality)
    assert matches.tolist() == [1, 0, 1, 0, 1]
    assert labels.tolist() == [0, -1, -1, 1, 1]  # a quality on a threshold is above it
    assert (matches.dtype, labels.dtype) == (torch.int64, torch.int8)


def test_best_of_each_truth_is_foreground_with_ties() -> None:
    matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
    quality = torch.tensor([[0.25, 0.25, 0.0, 0.0], [0.0, 0.5, 0.75, 0.0]])
    matches, labels = matcher(quality)
    # columns 0 and 1 are equally good for row 0; column 1 keeps its better match, row 1
    assert matches.tolist() == [0, 1, 1, 0]
    assert labels.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_match(shape: tuple[int, int]) -> None:
    matches, labels = Matcher([0.5], [0, 1], True)(torch.zeros(shape))
    assert matches.tolist() == [0] * shape[1]
    assert labels.tolist() == [0] * shape[1]


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [([0.0], [0, 1]), ([0.7, 0.3], [0, -1, 1]), ([0.5], [0, -1, 1]), ([0.5], [0, 2])],
)
def test_contradictory_thresholds(thresholds: list[float], labels: list[int]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        Matcher(thresholds, labels)


def test_sample_has_the_share_of_foreground() -> None:
    labels = torch.tensor([-1] * 3 + [5] * 10 + [0] * 10 + [2] * 20)  # background is 2
    positive, negative = subsample_labels(labels, 8, 0.25, bg_label=2)
    assert len(positive) == 2
    assert len(negative) == 6
    assert set(positive.tolist()) <= set(range(3, 23))
    assert set(negative.tolist()) <= set(range(23, 43))
    assert len({*positive.tolist(), *negative.tolist()}) == 8


def test_background_fills_up_and_may_run_out() -> None:
    labels = torch.tensor([1, 0, 0, 0, 0, 0])
    positive, negative = subsample_labels(labels, 4, 0.5, bg_label=0)
    assert positive.tolist() == [0]
    assert len(negative) == 3
    positive, negative = subsample_labels(torch.tensor([1, 1, 0]), 100, 0.5, bg_label=0)
    assert sorted(positive.tolist()) == [0, 1]
    assert negative.tolist() == [2]


def test_only_ignored_labels() -> None:
    positive, negative = subsample_labels(torch.full((5,), -1), 4, 0.5, bg_label=0)
    assert (positive.numel(), negative.numel()) == (0, 0)


def test_sampling_follows_the_seed_and_reaches_everything() -> None:
    labels = torch.tensor([1] * 6 + [0] * 6)
    torch.manual_seed(0)
    first = subsample_labels(labels, 4, 0.5, 0)
    torch.manual_seed(0)
    order_positive, order_negative = torch.randperm(6), torch.randperm(6)
    assert first[0].tolist() == order_positive[:2].tolist()
    assert first[1].tolist() == (6 + order_negative[:2]).tolist()
