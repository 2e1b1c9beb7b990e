"""The same run twice."""

from __future__ import annotations

import os

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def make_deterministic(seed: int) -> None:
    """Let what this process does next depend on `seed` alone; changes settings of all of PyTorch.

    Every process of a run has its own random numbers, and its data workers take theirs from
    these. An operation on the GPU that has no deterministic form runs all the same and warns,
    naming itself.

    Args:
        seed: 0 or more; SEED of the config.
    """
    # cuBLAS reads it when it is first used, hence before any model
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    seed_all_rng(seed + comm.get_rank())
