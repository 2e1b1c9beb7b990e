"""Sending closures to other processes."""

from __future__ import annotations

from typing import Any

import cloudpickle


class PicklableWrapper:
    """A callable that survives pickling even where it is a closure or a lambda.

    Attributes and calls go to the wrapped object; wrapping twice wraps once. Unpickling gives
    the bare object. cloudpickle is slower than pickle: wrap only what pickle refuses.
    """

    def __init__(self, obj: Any) -> None:
        self._obj: Any = vars(obj)["_obj"] if isinstance(obj, PicklableWrapper) else obj

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":  # asked for before __init__ ran, for instance by copy
            raise AttributeError(name)
        return getattr(self._obj, name)

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return cloudpickle.loads, (cloudpickle.dumps(self._obj),)
