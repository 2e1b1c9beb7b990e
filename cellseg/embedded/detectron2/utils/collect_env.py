"""What to put into a bug report."""

from __future__ import annotations

import importlib
import os
import sys
from collections import defaultdict
from pathlib import Path

import torch
from tabulate import tabulate

__all__ = ["collect_env_info"]

PACKAGES = ("detectron2", "torch", "torchvision", "numpy", "PIL", "cv2", "fvcore", "iopath")


def collect_env_info() -> str:
    """Versions, places and GPUs as a table, followed by how PyTorch was built."""
    rows = [("platform", sys.platform), ("Python", sys.version.replace("\n", ""))]
    rows += [(name, _version_and_place(name)) for name in PACKAGES]
    rows.append(("DETECTRON2_ENV_MODULE", os.environ.get("DETECTRON2_ENV_MODULE", "not set")))
    rows += _gpus()
    return f"{tabulate(rows)}\n{torch.__config__.show()}"


def _version_and_place(package: str) -> str:
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        return f"cannot be imported: {error}"
    place = Path(str(module.__file__)).parent
    return f"{getattr(module, '__version__', 'version unknown')} @{place}"


def _gpus() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("GPU", "none: torch.cuda.is_available() is False")]
    indices = defaultdict(list)
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        indices[f"{torch.cuda.get_device_name(index)} (compute {major}.{minor})"].append(str(index))
    rows = [(f"GPU {','.join(same)}", name) for name, same in indices.items()]
    return [*rows, ("CUDA of PyTorch", str(torch.version.cuda))]


if __name__ == "__main__":
    sys.stdout.write(collect_env_info() + "\n")
