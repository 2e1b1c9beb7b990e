"""Which PyTorch is there."""

from __future__ import annotations

import torch
from torch.torch_version import TorchVersion


def min_torch_version(min_version: str) -> bool:
    """Whether the installed release is `min_version`, such as "2.4", or a later one."""
    release = torch.__version__.partition("+")[0]  # without the build, such as "+cu121"
    return bool(TorchVersion(release) >= min_version)
