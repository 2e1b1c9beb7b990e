"""Pickles, read without running what they say.

A pickle may name any function of any package to be called on loading. Here nothing is called but
what makes NumPy's arrays and dtypes and plain containers; every other name stands for an empty
object that does nothing.
"""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np


class _Inert:
    """Stands for whatever a pickle names beside arrays; takes anything and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """What a pickle does to a list of an unknown kind."""

    def extend(self, items: Any) -> None:
        """The same with several items."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How older pickles keep bytes."""
    return text.encode("latin1")


_reconstruct, _scalar, _from_buffer = (
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np._core.numeric._frombuffer,  # type: ignore[attr-defined]  # since protocol 5
)
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encode_latin1,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


_NUMBERED = ("PUT", "BINPUT", "LONG_BINPUT")  # put an object into the table, at a number


class ArraysOnly(pickle.Unpickler):
    """Makes plain containers and NumPy arrays; all else becomes an object that does nothing.

    Args:
        file: the pickle, open for reading bytes, at its begin.
        kwargs: as `pickle.Unpickler` takes them.

    Attributes:
        others: what else the pickle names, as "module.name", once it has been loaded.
    """

    def __init__(self, file: BinaryIO, **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self.others: set[str] = set()
        self._content = file

    def load(self) -> Any:
        """What the pickle holds.

        Raises:
            pickle.UnpicklingError: it asks for a table of objects that is larger than itself, which
                would take memory without bound.
            Exception: whatever a damaged pickle raises.
        """
        start = self._content.tell()
        size = self._content.seek(0, os.SEEK_END)
        self._content.seek(start)
        for opcode, number, _ in pickletools.genops(self._content):
            if opcode.name in _NUMBERED and int(number or 0) > size:
                raise pickle.UnpicklingError(f"it numbers an object {number} of {size} bytes")
        self._content.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if (module, name) not in _ALLOWED:
            self.others.add(f"{module}.{name}")
        return _ALLOWED.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> Any:
        """What stands for an object that is kept elsewhere."""
        return _Inert()
