"""Reads pickle files of weights without letting them run code.

A pickle is a program: it may call any function that can be imported. Files of weights need only
numpy arrays in plain containers, so everything else is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import IO, Any

import numpy as np

# numpy 2 renamed the module.
_core: Any = np._core if hasattr(np, "_core") else np.core
multiarray: Any = _core.multiarray

# Under these names numpy 1 and 2, Python 2 and 3 write what an array consists of.
_ARRAY_PARTS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", name): getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{  # since protocol 5
        (f"numpy.{name}.numeric", "_frombuffer"): _core.numeric._frombuffer
        for name in ("core", "_core")
    },
}
_CONTAINERS = {
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
}


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    **_ARRAY_PARTS,
    **_CONTAINERS,
    ("_codecs", "encode"): _latin1_bytes,
}

# What a checkpoint of a training run may hold besides tensors and plain containers.
NUMPY_SCALARS: list[Any] = [
    np.dtype,
    *[
        (multiarray.scalar, f"{m}.scalar")
        for m in ("numpy._core.multiarray", "numpy.core.multiarray")
    ],
    *[type(np.dtype(code)) for code in ("?", "i4", "i8", "f4", "f8")],
]


class _WeightsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}") from None


def load_weights_pickle(file: IO[bytes]) -> Any:
    """Numpy arrays in dicts, lists, tuples and sets, from an open pickle file.

    Strings that Python 2 wrote are read as Latin-1.

    Raises:
        pickle.UnpicklingError: the file holds anything else; nothing of it was run.
    """
    return _WeightsUnpickler(file, encoding="latin1").load()
