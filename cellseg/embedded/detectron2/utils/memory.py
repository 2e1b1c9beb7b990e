"""A second and a third try where the GPU has no memory left."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["retry_if_cuda_oom"]

Result = TypeVar("Result")


def retry_if_cuda_oom(func: Callable[..., Result]) -> Callable[..., Result]:
    """Call `func` again, first with an emptied cache, then on the CPU, if the GPU is full.

    Only the arguments themselves move to the CPU, not tensors inside of containers; the result
    may then be on the CPU as well. `func` can run three times, so it must keep no state.
    """

    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Result:
        for prepare in (None, torch.cuda.empty_cache):
            if prepare is not None:
                prepare()
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if not _is_cuda_oom(error):
                    raise
        logging.getLogger(__name__).info("GPU memory is full: calling %s on the CPU", func)
        return func(*map(_to_cpu, args), **{key: _to_cpu(arg) for key, arg in kwargs.items()})

    return call


def _is_cuda_oom(error: RuntimeError) -> bool:
    return "CUDA out of memory. " in str(error)


def _to_cpu(value: Any) -> Any:
    on_gpu = getattr(getattr(value, "device", None), "type", "cpu") == "cuda"
    return value.to(device="cpu") if on_gpu and hasattr(value, "to") else value
