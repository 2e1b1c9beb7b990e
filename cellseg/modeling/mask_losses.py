"""Losses between predicted mask logits and true masks; each is a mean over the instances.

Every function takes logits [N, S, S] and targets [N, S, S] (float, 0 or 1) and returns one loss per
instance, [N], in the type of the logits. An instance without target pixels is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from cellseg.errors import ConfigError
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]

_SMOOTH = 1.0  # pixel: keeps ratios finite for empty masks, small beside any cell
_TERM = re.compile(r"(?:(?P<weight>\d+(?:\.\d+)?)\*)?(?P<name>[a-z]+)")


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the pixels: the loss of Mask R-CNN (He et al., 2017)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(1, 2))


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) of probabilities p (Milletari et al., 2016)."""
    shared, predicted, true = _sums(logits, targets)
    return 1 - (2 * shared + _SMOOTH) / (predicted + true + _SMOOTH)


def jaccard(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (sum(p t) + 1) / (sum(p) + sum(t) - sum(p t) + 1): soft IoU (Rahman and Wang, 2016)."""
    shared, predicted, true = _sums(logits, targets)
    return 1 - (shared + _SMOOTH) / (predicted + true - shared + _SMOOTH)


def lovasz(logits: Tensor, targets: Tensor) -> Tensor:
    """Lovász hinge: the convex surrogate of 1 - IoU (Berman et al., CVPR 2018).

    The hinge errors of the pixels, largest first, are weighted by how much each step down the list
    adds to the Jaccard loss of the pixels so far.
    """
    signs = 2 * targets - 1
    errors, order = (1 - logits * signs).flatten(1).sort(dim=1, descending=True)
    sorted_targets = targets.flatten(1).gather(1, order)
    total = sorted_targets.sum(dim=1, keepdim=True)
    intersection = total - sorted_targets.cumsum(dim=1)
    union = total + (1 - sorted_targets).cumsum(dim=1)
    loss = 1 - intersection / union
    steps = torch.cat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], dim=1)
    return (F.relu(errors) * steps).sum(dim=1)


def _sums(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    probabilities = logits.sigmoid()
    return (
        (probabilities * targets).sum(dim=(1, 2)),
        probabilities.sum(dim=(1, 2)),
        targets.sum(dim=(1, 2)),
    )


def boundary_weights(targets: Tensor, weight: float) -> Tensor:
    """1, and 1 + `weight` in the pixels beside the outline, on both sides of it, [N, S, S]."""
    framed = F.pad(targets[:, None], (1, 1, 1, 1), mode="replicate")
    highest = F.max_pool2d(framed, 3, stride=1)
    lowest = -F.max_pool2d(-framed, 3, stride=1)
    return 1 + weight * (highest != lowest)[:, 0].to(targets.dtype)


def weighted_bce(weight: float) -> Loss:
    """`bce` as a weighted mean, with `boundary_weights`."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weights = boundary_weights(targets, weight)
        pixels = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (weights * pixels).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))

    return loss


LOSSES: dict[str, Loss] = {"bce": bce, "dice": dice, "jaccard": jaccard, "lovasz": lovasz}


def parse_loss(text: str, boundary_weight: float = 0.0) -> Loss:
    """A loss by its name, or a weighted sum: "bce", "bce+dice", "0.5*bce+2*jaccard".

    Args:
        text: terms joined by "+", each a name of LOSSES with an optional factor.
        boundary_weight: what a pixel beside the outline weighs more in `bce`; 0 for none.

    Raises:
        ConfigError: no such loss, or a negative boundary weight.
    """
    if boundary_weight < 0:
        raise ConfigError(f"a boundary weight is 0 or more; found {boundary_weight}")
    known = LOSSES | ({"bce": weighted_bce(boundary_weight)} if boundary_weight else {})
    terms: list[tuple[float, Loss]] = []
    for part in text.replace(" ", "").split("+"):
        found = _TERM.fullmatch(part)
        if found is None or found["name"] not in known:
            raise ConfigError(
                f"CELLSEG.MASK_HEAD.LOSS is {text!r}; expected one of {', '.join(LOSSES)}, or a "
                "sum such as bce+dice or 0.5*bce+2*jaccard"
            )
        terms.append((float(found["weight"] or 1), known[found["name"]]))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        parts = [factor * term(logits, targets) for factor, term in terms]
        return torch.stack(parts).sum(dim=0)

    return loss
