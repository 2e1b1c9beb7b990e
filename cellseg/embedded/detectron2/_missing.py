"""Clear errors for the parts of Detectron2 that the embedded engine leaves out."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.machinery import ModuleSpec
from typing import Any, NoReturn

FULL_ENGINE_HINT = "install the full Detectron2 (https://github.com/facebookresearch/detectron2)"
PACKAGE_PREFIX = __name__.partition(".")[0] + "."


def missing_part_message(name: str, available: Iterable[str] = ()) -> str:
    """One sentence about a part that is not here.

    Args:
        name: the part, dotted.
        available: names that do exist; the nearest ones are proposed.
    """
    near = difflib.get_close_matches(name.rpartition(".")[2], list(available), n=3, cutoff=0.75)
    proposal = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{name} is not part of the embedded engine; {FULL_ENGINE_HINT} for it.{proposal}"


def missing_module_attribute(module_name: str, name: str, known: Collection[str] = ()) -> NoReturn:
    """Body of a module's `__getattr__`.

    Args:
        module_name: the module's `__name__`.
        name: the attribute that was asked for.
        known: names that the full Detectron2 has in this module and the embedded engine has not.

    Raises:
        ImportError: `name` is one of `known`.
        AttributeError: any other name, so that `hasattr` and pickle go on working.
    """
    if name in known:
        raise ImportError(missing_part_message(f"{module_name}.{name}"))
    raise AttributeError(f"module {module_name!r} has no attribute {name!r}")


class _MissingModuleFinder:
    """Last entry of `sys.meta_path`: speaks up where nothing else found a module of the engine.

    Python also asks for a submodule when `from package import name` meets an unknown name, so
    this one place covers modules and names of packages alike. The error carries no `name`:
    with one, Python would replace it by its own, bare "cannot import name".
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PACKAGE_PREFIX):
            return None
        parent = sys.modules.get(fullname.rpartition(".")[0])
        names = [name for name in dir(parent) if not name.startswith("_")]
        raise ModuleNotFoundError(missing_part_message(fullname, names))


def explain_missing_modules() -> None:
    """Make imports of left-out parts fail with a clear message; may be called again."""
    if not any(isinstance(finder, _MissingModuleFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MissingModuleFinder())
