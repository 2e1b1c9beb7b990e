"""Makes imports work: of `detectron2`, the installed one or else the embedded engine; of OpenCV.

Nothing is imported here but what is needed to find them.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from cellseg.errors import LibraryError

EMBEDDED_ROOT = Path(__file__).resolve().parent / "embedded"

_HEADLESS = (
    "On a machine without a screen its build without windows does, in place of the other: "
    "pip uninstall --yes opencv-python && pip install --force-reinstall opencv-python-headless"
)


def ensure_detectron2() -> None:
    """Append the embedded engine's folder to `sys.path` if no `detectron2` can be found.

    It goes to the end of the path, so an installed Detectron2 always wins, and processes that
    are spawned later inherit it. A bare folder called `detectron2` (a namespace package, for
    instance a clone's parent folder on the path) does not count as an installation; where it was
    imported before cellseg, it is forgotten.
    """
    if _find_detectron2() is not None:
        return
    if str(EMBEDDED_ROOT) not in sys.path:
        sys.path.append(str(EMBEDDED_ROOT))
        importlib.invalidate_caches()
    if _is_bare_folder(sys.modules.get("detectron2")):
        for name in [n for n in sys.modules if n.partition(".")[0] == "detectron2"]:
            del sys.modules[name]


def _is_bare_folder(module: ModuleType | None) -> bool:
    """Whether a module is a namespace package: a folder without a file of its own."""
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.origin is None and spec.submodule_search_locations is not None


def watch_imports() -> None:
    """From now on explain where OpenCV cannot be imported, and keep fvcore's import quiet.

    fvcore compiles losses with `torch.jit` when it is imported, of which PyTorch warns: nobody but
    fvcore can change that, and `python -W error` would end there. May be called again.
    """
    watchers = (_OpenCVFinder, _FvcoreFinder)
    sys.meta_path[:0] = [w() for w in watchers if not any(type(f) is w for f in sys.meta_path)]


class _OpenCVFinder(MetaPathFinder):
    """First entry of `sys.meta_path`: finds `cv2` as the others do, and explains what fails.

    Its plain build needs libraries of a desktop, which containers have not: importing it then fails
    with the name of a library that nobody knows, wherever the first of many modules asks for it.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if fullname != "cv2":
            return None
        try:
            spec = _find_elsewhere(self, fullname, path)
        except ImportError as error:
            raise _opencv_error(error) from error
        if spec is None:
            raise LibraryError(
                f"OpenCV (cv2) is not installed: pip install opencv-python. {_HEADLESS}", name="cv2"
            )
        if spec.loader is not None:
            spec.loader = _OpenCVLoader(spec.loader)
        return spec


def _find_elsewhere(
    finder: MetaPathFinder, fullname: str, path: Sequence[str] | None
) -> ModuleSpec | None:
    """What the other finders find."""
    others = [each for each in sys.meta_path if each is not finder]
    found = (each.find_spec(fullname, path, None) for each in others)
    return next((spec for spec in found if spec is not None), None)


class _WatchedLoader(Loader):
    """A loader that was found, with something around it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _OpenCVLoader(_WatchedLoader):
    """An error says what to do."""

    def create_module(self, spec: ModuleSpec) -> Any:
        try:
            return self._loader.create_module(spec)
        except ImportError as error:
            raise _opencv_error(error) from error

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except ImportError as error:
            raise _opencv_error(error) from error


class _FvcoreFinder(MetaPathFinder):
    """Finds `fvcore.nn` as the others do, and imports it without its warnings."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        spec = _find_elsewhere(self, fullname, path) if fullname == "fvcore.nn" else None
        if spec is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(_WatchedLoader):
    """What is imported warns of nothing."""

    def exec_module(self, module: ModuleType) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._loader.exec_module(module)


def _opencv_error(error: ImportError) -> LibraryError:
    if isinstance(error, LibraryError):  # its own loader imports `cv2` once more
        return error
    return LibraryError(f"OpenCV (cv2) cannot be loaded: {error}. {_HEADLESS}", name="cv2")


def _find_detectron2() -> Path | None:
    """Path of the `__init__.py` that `import detectron2` would run, or None."""
    try:
        spec = importlib.util.find_spec("detectron2")
    except ValueError:  # a module of that name without a spec sits in sys.modules
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


@dataclass(frozen=True)
class EngineInfo:
    """Which engine runs, and on what.

    Attributes:
        name: "detectron2" (installed) or "embedded".
        version: the engine's `__version__`.
        location: folder the engine is imported from.
        packages: versions of cellseg, Python, torch and torchvision; "not installed" where missing.
    """

    name: str
    version: str
    location: Path
    packages: dict[str, str]

    def __str__(self) -> str:
        engine = (
            "embedded engine (stand-in for Detectron2)" if self.name == "embedded" else "Detectron2"
        )
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return f"{engine} {self.version} from {self.location}; {packages}"


def engine_info() -> EngineInfo:
    """Say which engine `import detectron2` gives in this process, with versions."""
    engine = importlib.import_module("detectron2")
    location = Path(str(engine.__file__)).resolve().parent
    cellseg_version = str(importlib.import_module("cellseg").__version__)
    packages = {"cellseg": cellseg_version, "python": platform.python_version()}
    packages |= {name: _version(name) for name in ("torch", "torchvision")}
    return EngineInfo(
        name="embedded" if location.parent == EMBEDDED_ROOT else "detectron2",
        version=str(engine.__version__),
        location=location,
        packages=packages,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
