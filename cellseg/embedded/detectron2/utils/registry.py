"""Names in a config to classes and functions in code."""

from __future__ import annotations

import difflib
import importlib
from itertools import accumulate
from typing import Any

from detectron2._missing import FULL_ENGINE_HINT
from fvcore.common.registry import Registry as FvcoreRegistry

__all__ = ["Registry", "locate"]


class Registry(FvcoreRegistry):
    """fvcore's registry whose failed look-up says what is there."""

    def get(self, name: str) -> Any:
        """The object registered as `name`.

        Raises:
            KeyError: nothing has that name; the message gives the nearest and all names.
        """
        if name in self:
            return super().get(name)
        registered = sorted(known for known, _ in self)
        near = difflib.get_close_matches(name, registered, n=3)
        raise KeyError(
            f"No object named {name!r} in the {self._name!r} registry. "
            + (f"Did you mean {' or '.join(near)}? " if near else "")
            + f"Registered here: {', '.join(registered) or 'nothing'}. If it is one of "
            f"Detectron2's own, {FULL_ENGINE_HINT}: the embedded engine does not have it."
        )


def locate(name: str) -> Any:
    """The object behind a dotted name such as "package.module.Class.method", or a builtin's.

    Raises:
        ImportError: no module or attribute of that name; the first cause is chained.
    """
    parts = name.split(".")
    cause: Exception | None = None
    for end in range(len(parts), -1, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]) or "builtins")
            for attribute in parts[end:]:
                found = getattr(found, attribute)
            return found
        except (ImportError, AttributeError, ValueError) as error:
            cause = cause or error
    raise ImportError(f"Cannot locate {name!r}: no such module or attribute") from cause


def _convert_target_to_string(t: Any) -> str:
    """A dotted name by which `locate` finds a class or function: the shortest there is.

    Short names lead through the packages that export the object, and survive a move of the file.
    """
    *packages, module = accumulate(t.__module__.split("."), "{}.{}".format)
    names = (f"{package}.{t.__qualname__}" for package in packages)
    return next((name for name in names if _leads_to(name, t)), f"{module}.{t.__qualname__}")


def _leads_to(name: str, expected: Any) -> bool:
    try:
        return locate(name) is expected
    except ImportError:
        return False
