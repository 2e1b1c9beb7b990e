"""Losses between predicted mask logits and true masks, and the registry that names them.

Every function takes logits [N, S, S] and targets [N, S, S] (float, 0 or 1) and returns one loss per
instance, [N], float32 at least: sums over a mask are beyond what half precision can hold. An
instance without target pixels is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
from cellseg.errors import ConfigError
from cellseg.names import did_you_mean
from detectron2.utils.registry import Registry
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]

MASK_LOSS_REGISTRY = Registry("MASK_LOSS")
MASK_LOSS_REGISTRY.__doc__ = (
    "Losses of masks that CELLSEG.MASK_HEAD.LOSS can name, called `f(logits, targets)` with "
    "float32 [N, S, S] each, targets 0 or 1; they return [N]."
)

_SMOOTH = 1.0  # pixel: keeps ratios finite for empty masks, small beside any cell
_TERM = re.compile(r"(?:(?P<weight>\d+(?:\.\d+)?)\*)?(?P<name>\w+)", re.ASCII)


@MASK_LOSS_REGISTRY.register()
def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the pixels: the loss of Mask R-CNN (He et al., 2017)."""
    logits, targets = _at_least_float32(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(1, 2))


@MASK_LOSS_REGISTRY.register()
def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) of probabilities p (Milletari et al., 2016)."""
    shared, predicted, true = _soft_areas(logits, targets)
    return 1 - (2 * shared + _SMOOTH) / (predicted + true + _SMOOTH)


@MASK_LOSS_REGISTRY.register()
def jaccard(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (sum(p t) + 1) / (sum(p) + sum(t) - sum(p t) + 1): soft IoU (Rahman and Wang, 2016)."""
    shared, predicted, true = _soft_areas(logits, targets)
    return 1 - (shared + _SMOOTH) / (predicted + true - shared + _SMOOTH)


@MASK_LOSS_REGISTRY.register()
def lovasz(logits: Tensor, targets: Tensor) -> Tensor:
    """Lovász hinge: the convex surrogate of 1 - IoU (Berman et al., CVPR 2018).

    The hinge errors of the pixels, largest first, are weighted by how much each step down the list
    adds to the Jaccard loss of the pixels so far. Without target pixels the first step adds all
    there is, and a single pixel would get the whole gradient: there, all errors weigh the same.
    """
    logits, targets = _at_least_float32(logits, targets)
    signs = 2 * targets - 1
    errors, order = (1 - logits * signs).flatten(1).sort(dim=1, descending=True)
    sorted_targets = targets.flatten(1).gather(1, order)
    total = sorted_targets.sum(dim=1, keepdim=True)
    intersection = total - sorted_targets.cumsum(dim=1)
    union = total + (1 - sorted_targets).cumsum(dim=1)
    loss = 1 - intersection / union
    steps = torch.cat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], dim=1)
    steps = torch.where(total > 0, steps, 1 / errors.shape[1])
    return (F.relu(errors) * steps).sum(dim=1)


def _at_least_float32(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide), targets.to(wide)


def _soft_areas(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits, targets = _at_least_float32(logits, targets)
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
    return partial(_weighted_bce, weight=weight)


def _weighted_bce(logits: Tensor, targets: Tensor, weight: float) -> Tensor:
    logits, targets = _at_least_float32(logits, targets)
    weights = boundary_weights(targets, weight)
    pixels = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weights * pixels).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))


def _sum_of_terms(logits: Tensor, targets: Tensor, terms: Sequence[tuple[float, Loss]]) -> Tensor:
    logits, targets = _at_least_float32(logits, targets)
    return torch.stack([factor * term(logits, targets) for factor, term in terms]).sum(dim=0)


def parse_loss(text: str, boundary_weight: float = 0.0) -> Loss:
    """A loss by its name, or a weighted sum: "bce", "bce+dice", "0.5*bce+2*jaccard".

    Args:
        text: terms joined by "+", each a name in MASK_LOSS_REGISTRY with an optional factor.
        boundary_weight: what a pixel beside the outline weighs more in `bce`; 0 for none.

    Returns:
        A function that gives the losses float32 (or float64) logits and targets, whatever it gets;
        it can be pickled, as a model that has it.

    Raises:
        ConfigError: no such loss, or a negative boundary weight.
    """
    if boundary_weight < 0:
        raise ConfigError(f"a boundary weight is 0 or more; found {boundary_weight}")
    terms: list[tuple[float, Loss]] = []
    for part in text.replace(" ", "").split("+"):
        found = _TERM.fullmatch(part)
        if found is None or found["name"] not in MASK_LOSS_REGISTRY:
            raise ConfigError(_explain_loss_name(text, found["name"] if found else part))
        weighted = found["name"] == "bce" and boundary_weight > 0
        term = weighted_bce(boundary_weight) if weighted else MASK_LOSS_REGISTRY.get(found["name"])
        terms.append((float(found["weight"] or 1), term))

    return partial(_sum_of_terms, terms=tuple(terms))


def _explain_loss_name(text: str, name: str) -> str:
    known = sorted(entry for entry, _ in MASK_LOSS_REGISTRY)
    near = did_you_mean(name, known, 2)
    hint = near and f"{near} "
    return (
        f"CELLSEG.MASK_HEAD.LOSS is {text!r}; {hint}Expected one of {', '.join(known)}, or a sum "
        "such as bce+dice or 0.5*bce+2*jaccard. Code that registers a loss has to be listed in "
        "CELLSEG.PLUGINS."
    )
