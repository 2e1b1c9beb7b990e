"""The parts of Detectron2 that the embedded engine leaves out: they have names, but no use.

Code that merely mentions a left-out part, in an import, an annotation or an `isinstance`, runs;
whatever uses the part gets a `NotImplementedError` that names it and the full Detectron2.
"""

from __future__ import annotations

import difflib
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from detectron2._left_out_modules import LEFT_OUT_MODULES

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


class _LeftOutAttribute(NotImplementedError, AttributeError):
    """An attribute of a stand-in: also an AttributeError, so that `hasattr` goes on working."""


class LeftOutType(ABCMeta):
    """Type of the stand-ins. A stand-in is a class without instances whose use is an error.

    As a class it serves in annotations and in `isinstance`, which says no to everything. It is an
    `ABCMeta`, so that a class that derives from a stand-in and from an abstract class gets our
    error and not one about metaclasses.
    """

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> LeftOutType:
        for base in bases:
            if isinstance(base, LeftOutType):
                base._refuse()
        return super().__new__(mcs, name, bases, namespace, **options)

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):  # what Python itself, pickle and doctest look for
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}")
        raise _LeftOutAttribute(cls.__doc__)

    def _refuse(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(cls.__doc__)

    __call__ = __getitem__ = __iter__ = __contains__ = _refuse
    register = _refuse  # of ABCMeta; and what registries are used for


@cache
def left_out(name: str) -> LeftOutType:
    """The stand-in for a class, function or registry.

    Args:
        name: the part, dotted: the module that it is imported from, and its name there.
    """
    module, _, short_name = name.rpartition(".")
    namespace = {"__module__": module, "__doc__": missing_part_message(name)}
    return LeftOutType(short_name, (), namespace)


def left_out_names(module_name: str, *names: str) -> Callable[[str], LeftOutType]:
    """A module's `__getattr__` that gives stand-ins.

    Args:
        module_name: the module's `__name__`.
        names: what the full Detectron2 has in this module and the embedded engine has not. Any
            other name is an AttributeError, as ever.
    """

    def __getattr__(name: str) -> LeftOutType:
        if name in names:
            return left_out(f"{module_name}.{name}")
        raise AttributeError(f"module {module_name!r} has no attribute {name!r}")

    return __getattr__


class _LeftOutModules(MetaPathFinder, Loader):
    """Last entry of `sys.meta_path`: for the modules of the engine that nothing else found.

    Modules that are left out consist of stand-ins. They are packages: of these, and of the
    packages that do exist, Python asks for a submodule when `from package import name` meets an
    unknown name. So this one place explains unknown modules and names alike. The error carries
    no `name`: with one, Python would replace it by its own, bare "cannot import name".
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PACKAGE_PREFIX):
            return None
        if fullname in LEFT_OUT_MODULES:
            return ModuleSpec(fullname, self, is_package=True)
        parent = sys.modules.get(fullname.rpartition(".")[0])
        names = [name for name in dir(parent) if not name.startswith("_")]
        raise ModuleNotFoundError(missing_part_message(fullname, names))

    def create_module(self, spec: ModuleSpec) -> None:
        """None: an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        fullname = module.__name__
        module.__doc__ = missing_part_message(fullname)
        for name in LEFT_OUT_MODULES[fullname].split():
            setattr(module, name, left_out(f"{fullname}.{name}"))


def explain_missing_modules() -> None:
    """Let imports of left-out parts give stand-ins, and those of unknown ones a clear error.

    May be called again.
    """
    if not any(isinstance(finder, _LeftOutModules) for finder in sys.meta_path):
        sys.meta_path.append(_LeftOutModules())
