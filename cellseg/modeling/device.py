"""The device that a model runs on, as `MODEL.DEVICE` names it."""

from __future__ import annotations

import torch
from cellseg.errors import ConfigError
from detectron2.config import CfgNode


def default_device() -> str:
    """What `MODEL.DEVICE` is where nobody names a device: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(cfg: CfgNode) -> None:
    """Refuse a device that is named and that this machine does not have.

    Raises:
        ConfigError: `MODEL.DEVICE` is no device of torch's, or torch finds none of that kind or
            number here.
    """
    name = cfg.MODEL.DEVICE
    missing = _why_missing(name)
    if missing:
        raise ConfigError(
            f"MODEL.DEVICE is {name!r}, which is not there: {missing}; set it to cpu, or leave it "
            "out and a GPU is used where there is one"
        )


def has_device(name: str) -> bool:
    """Whether torch finds the device of this name here."""
    return not _why_missing(name)


def _why_missing(name: str) -> str:
    """Why torch cannot use a device; "" where it can."""
    try:
        device = torch.device(name)
        if device.type == "cuda":  # asked, and not tried: that would set up CUDA here
            found = torch.cuda.device_count()
            return "" if (device.index or 0) < found else f"torch finds {found} CUDA devices"
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).partition("\n")[0]
    return ""


def describe_device(name: str) -> str:
    """A device in words, such as "cpu (2 threads)" or "cuda:0 (NVIDIA H100)"."""
    device = torch.device(name)
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    if device.type != "cuda":
        return str(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
