"""Makes `import detectron2` work: the installed one, or else the embedded engine."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

EMBEDDED_ROOT = Path(__file__).resolve().parent / "embedded"


def ensure_detectron2() -> None:
    """Append the embedded engine's folder to `sys.path` if no `detectron2` can be found.

    It goes to the end of the path, so an installed Detectron2 always wins, and processes that
    are spawned later inherit it. A bare folder called `detectron2` (a namespace package, for
    instance a clone's parent folder on the path) does not count as an installation.
    """
    if _find_detectron2() is None and str(EMBEDDED_ROOT) not in sys.path:
        sys.path.append(str(EMBEDDED_ROOT))
        importlib.invalidate_caches()


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
