"""What a network makes of an image, as a short vector: images that look alike have near ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@contextmanager
def kept_features(model: nn.Module) -> Iterator[list[NDArray[np.float32]]]:
    """Within the context, every pass through the network of this thread leaves a vector.

    It costs nothing beside the detection. Each level of the backbone's pyramid is averaged over
    the image and made 1 in length, so that no level outweighs the others; their distances are
    those that the core-set selection of Sener and Savarese (ICLR 2018) is made with.

    Args:
        model: the engine's. One without a `backbone` that gives tensors by name leaves nothing.

    Yields:
        The vectors so far, float32 [D], of length 1; D is the levels' channels together.
    """
    kept: list[NDArray[np.float32]] = []
    backbone, thread = getattr(model, "backbone", None), threading.get_ident()
    if not isinstance(backbone, nn.Module):
        yield kept
        return

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if threading.get_ident() == thread and isinstance(output, Mapping):
            kept.extend(pool_features(output))

    handle = backbone.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def pool_features(levels: Mapping[str, Tensor]) -> list[NDArray[np.float32]]:
    """The vector of each image of a batch, float32 [D].

    Args:
        levels: [B, C, h, w] by name.
    """
    means = [levels[name].float().mean(dim=(2, 3)) for name in sorted(levels)]
    joined = torch.cat([nn.functional.normalize(mean, dim=1) for mean in means], dim=1)
    return list((joined / max(len(means), 1) ** 0.5).cpu().numpy())
