"""What is wrong with a file of weights, in the words of whoever has it and not of PyTorch."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_CODE = re.compile(r"unsupported (?:global|class|operand)|weights_only|might run code", re.I)
_NAMED = re.compile(r"unsupported (?:global|class):?\s*(?:GLOBAL)?\s*([\w.]+)", re.I)
_DAMAGED = re.compile(
    r"central directory|zip archive|end of file|ran out of input|header|truncated|"
    r"unexpected EOF|invalid load key|unsupported operand|pickle data|file not found",
    re.I,
)
_MOST = 200  # letters of a library's own message


def explain_unreadable(error: BaseException) -> str:
    """Why a file of weights cannot be read, in one line.

    Nothing is passed on of what PyTorch advises: to let the file run its code.

    Args:
        error: as PyTorch, safetensors, pickle or zipfile raised it.

    Example:
        >>> explain_unreadable(EOFError("Ran out of input"))
        'it is damaged, or no file of weights. Copy or download it again'
        >>> explain_unreadable(pickle.UnpicklingError("Unsupported global: GLOBAL os.system"))[:60]
        'it holds more than weights and plain values (os.system), whi'
    """
    text = str(error)
    named = _NAMED.search(text)
    if named:
        return (
            f"it holds more than weights and plain values ({named[1]}), which could run code, and "
            "is not opened. Take a file that holds a state_dict alone"
        )
    if _DAMAGED.search(text) or isinstance(error, EOFError | pickle.UnpicklingError):
        return "it is damaged, or no file of weights. Copy or download it again"
    if _CODE.search(text):
        return (
            "it holds more than weights and plain values, or is damaged, and is not opened. Take a "
            "file that holds a state_dict alone"
        )
    line = " ".join(text.split())[:_MOST]
    return f"{line or type(error).__name__}. If it is damaged, copy or download it again"


@contextmanager
def without_advice() -> Iterator[None]:
    """Inside, PyTorch does not warn of a file's pickle, which it refuses or reads all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        yield
