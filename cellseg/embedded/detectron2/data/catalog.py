"""Names of datasets: how to load each, and what is known about it."""

from __future__ import annotations

import builtins
import difflib
import logging
import types
from collections import UserDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from detectron2.utils.logger import log_first_n

from ._require import require

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]

_Entry = TypeVar("_Entry")

_NEW_NAMES = {
    "class_names": "thing_classes",
    "dataset_id_to_contiguous_id": "thing_dataset_id_to_contiguous_id",
    "stuff_class_names": "stuff_classes",
}


def _name_hint(wanted: str, known: Iterable[str]) -> str:
    """Near names first, then all of them."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(str(wanted), names)
    question = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return question + f"Registered: {', '.join(names) or 'none'}."


class _Catalog(UserDict[str, _Entry]):
    """What both catalogs share; everything else is a dict's."""

    _holds = "entries"

    def list(self) -> builtins.list[str]:
        """All names, in order of registration."""
        return [*self.data]

    def remove(self, name: str) -> None:
        """Forget `name`; a KeyError if it is unknown."""
        del self.data[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__.strip('_')}({self._holds}: {', '.join(self.data)})"

    __str__ = __repr__


class _DatasetCatalog(_Catalog[Callable[[], Any]]):
    """Maps the name of a dataset to a function without arguments that loads it.

    The function returns a list of dicts in Detectron2's dataset format, the same at every call,
    or a `torch.utils.data.Dataset` of such dicts.
    """

    _holds = "registered datasets"

    def register(self, name: str, func: Callable[[], Any]) -> None:
        """Make `name` known. AssertionError if it is taken or `func` cannot be called."""
        require(callable(func), f"Dataset '{name}' needs a function that loads it, got {func!r}.")
        require(
            name not in self,
            f"Dataset '{name}' is already registered! `DatasetCatalog.remove` frees the name.",
        )
        self.data[name] = func

    def get(self, name: str) -> Any:  # type: ignore[override]
        """Load the dataset `name`; a KeyError with the known names if it is not registered."""
        if name not in self.data:
            raise KeyError(f"Dataset '{name}' is not registered! {_name_hint(name, self.data)}")
        return self.data[name]()


class Metadata(types.SimpleNamespace):
    """What is constant about one dataset: class names, file locations, kind of evaluator.

    Attributes are set once. Setting one again to an equal value does nothing, to another value
    raises AssertionError; reading one that was never set raises AttributeError.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        if key in _NEW_NAMES:
            return getattr(self, _current_name(key))
        known = ", ".join(vars(self)) or "none"
        raise AttributeError(
            f"Attribute '{key}' does not exist in the metadata of dataset '{self.name}'. "
            f"Available keys: {known}."
        )

    def __setattr__(self, key: str, val: Any) -> None:
        key = _current_name(key)
        if key not in vars(self):
            super().__setattr__(key, val)
            return
        present = vars(self)[key]
        require(
            present == val,
            f"Attribute '{key}' in the metadata of '{self.name}' cannot be set to a different "
            f"value: it is {present!r}, and was to become {val!r}.",
        )

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy of all attributes."""
        return dict(vars(self))

    def set(self, **kwargs: Any) -> Metadata:
        """Set several attributes, under the rule for one; returns itself."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute `key`, or `default` where it was never set."""
        return getattr(self, key, default)


def _current_name(key: str) -> str:
    if key not in _NEW_NAMES:
        return key
    log_first_n(logging.WARNING, f"Metadata '{key}' is now called '{_NEW_NAMES[key]}'.", n=10)
    return _NEW_NAMES[key]


class _MetadataCatalog(_Catalog[Metadata]):
    """One `Metadata` per name for the whole process, made when first asked for."""

    _holds = "registered metadata"

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """The metadata of `name`; an empty one comes into being where there is none yet."""
        require(len(name) > 0, "The name of a dataset cannot be empty.")
        return self.data.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
