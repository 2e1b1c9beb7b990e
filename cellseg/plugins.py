"""Import the user's own code, named by CELLSEG.PLUGINS, before a model is built."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

from cellseg.errors import PluginError

_NAME_TAKEN = (
    "Another plug-in, the engine or cellseg has this name, or this file was imported before under "
    "another module name or failed half-way: choose another name, or start Python again."
)


def import_plugins(
    plugins: Sequence[str], *, base_dir: str | Path | None = None
) -> list[ModuleType]:
    """Import modules and `.py` files; whatever they register is then known by name.

    A file is imported under its stem, and its folder is appended to `sys.path`: it can import its
    neighbours, and objects of its classes can be pickled to spawned workers. Importing the same
    file again, under whatever spelling of its path, does nothing.

    Args:
        plugins: each a module name ("my_heads", "lab.heads") or a path ("heads/my_head.py").
            Relative paths, and modules that are not on `sys.path`, are looked for in the current
            folder and then in `base_dir`.
        base_dir: usually the folder of the config file.

    Returns:
        The imported modules, in the order of `plugins`.

    Raises:
        PluginError: a plug-in is not found, its name is taken by another module, or its code
            raises; that error is chained, with its traceback.
    """
    folders = [Path.cwd(), *([Path(base_dir).resolve()] if base_dir is not None else [])]
    modules = [
        _import_file(plugin, folders) if is_plugin_file(plugin) else _import_module(plugin, folders)
        for plugin in plugins
    ]
    for plugin, module in zip(plugins, modules):
        file = getattr(module, "__file__", None)
        if file is not None:
            _files[plugin] = str(Path(file).parent if hasattr(module, "__path__") else file)
    return modules


_files: dict[str, str] = {}
"""File, or folder of a package, of each plug-in that was imported, to know its errors by."""


def describe_plugin_error(error: BaseException) -> str:
    """Which plug-in's code an error comes from, with its file, line and text; "" if from none.

    Args:
        error: as it was caught, perhaps the one of a loader's process, whose traceback is a text.
    """
    for place in reversed([*_frames_of(error), *_FRAME.findall(str(error))]):
        file, line = place
        for plugin, own in _files.items():
            if file == own or file.startswith(f"{own}{os.sep}"):
                text = str(error).strip().rpartition("\n")[2]
                kind = "" if _FRAME.search(str(error)) else f"{type(error).__name__}: "
                return f"plug-in {plugin!r} failed: {kind}{text} ({file}, line {line})"
    return ""


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def _frames_of(error: BaseException) -> list[tuple[str, str]]:
    frames = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, str(frame.lineno)) for frame in frames]


def import_installed(plugins: Sequence[str], place: str) -> list[ModuleType]:
    """Import plug-ins that weights name: modules that are installed, or were imported before.

    Weights come from strangers. A file that lies beside them, or in the current folder, is not
    run because of its name alone.

    Args:
        plugins: names of modules, or paths of files, as `import_plugins` takes them.
        place: what names them, for messages.

    Returns:
        The modules, in the order of `plugins`.

    Raises:
        PluginError: one is neither installed nor imported, or its code raises.
    """
    return [_import_installed(plugin, place) for plugin in plugins]


def _import_installed(plugin: str, place: str) -> ModuleType:
    name = Path(plugin).stem if is_plugin_file(plugin) else plugin
    if name in sys.modules:
        return sys.modules[name]
    if is_plugin_file(plugin) or name.partition(".")[0] not in packages_distributions():
        raise PluginError(
            f"{place} names the plug-in {plugin!r}, which is not installed; code is not taken from "
            f"where weights lie. If you trust it, name it yourself: --plugin {plugin} (from "
            f"Python: import {name} first)"
        )
    return _import(plugin, name)


def locate_plugins(plugins: Sequence[str]) -> list[tuple[str, Path]]:
    """Where plug-ins that this process has imported lie, for another one that needs the same.

    Args:
        plugins: as `import_plugins` was given them.

    Returns:
        Name of each and the folder that it was found in: `import_plugins([name], base_dir=folder)`.
    """
    located = []
    for plugin in plugins:
        name = Path(plugin).stem if is_plugin_file(plugin) else plugin
        root = sys.modules[name.partition(".")[0]]
        is_package = hasattr(root, "__path__")
        place = Path(next(iter(root.__path__)) if is_package else str(root.__file__))
        located.append((name, place.parent))
    return located


def is_plugin_file(plugin: str) -> bool:
    """Whether a plug-in is named by a path, and not as a module."""
    return plugin.endswith(".py") or "/" in plugin or "\\" in plugin


def _import_file(plugin: str, folders: Sequence[Path]) -> ModuleType:
    candidates = list(dict.fromkeys((folder / plugin).resolve() for folder in folders))
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise PluginError(_not_found(plugin, candidates))
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise PluginError(
            f"plug-in {plugin!r}: {path} cannot be imported; expected a file called "
            "<name>.py with letters, digits and underscores in its name"
        )
    return _import_from(plugin, path.stem, path)


def _import_module(plugin: str, folders: Sequence[Path]) -> ModuleType:
    if not all(part.isidentifier() for part in plugin.split(".")):
        raise PluginError(f"plug-in {plugin!r} is neither a module name nor a path to a .py file")
    root = plugin.partition(".")[0]
    if root in sys.modules or _find_origin(root) is not None:
        return _import(plugin, plugin)
    for folder in dict.fromkeys(folders):
        for path in (folder / f"{root}.py", folder / root / "__init__.py"):
            if path.is_file():
                with _folder_on_path(folder):
                    return _import(plugin, plugin)
    raise PluginError(_not_found(plugin, ["sys.path", *dict.fromkeys(folders)]))


def _import_from(plugin: str, name: str, path: Path) -> ModuleType:
    """Import `path` as `name`; an error if Python knows another module by that name."""
    with _folder_on_path(path.parent):
        known = sys.modules.get(name)
        origin = getattr(known, "__file__", None) if known else _find_origin(name)
        if origin is None or Path(origin).resolve() != path:
            raise PluginError(
                f"plug-in {plugin!r}: a module called {name!r} exists already "
                f"({origin or 'built in'}); rename {path}"
            )
        return _import(plugin, name)


def _import(plugin: str, name: str) -> ModuleType:
    with explain_plugin(plugin, "while it was imported"):
        return importlib.import_module(name)
    raise AssertionError  # for mypy: the context does not swallow errors


@contextmanager
def explain_plugin(plugin: str, when: str = "while it added its keys") -> Iterator[None]:
    """Code of a plug-in that fails, or that ends the program as a script does, is a PluginError.

    Args:
        plugin: its name, for the message.
        when: what it was asked to do.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        # Detectron2's registries have no type of their own for this.
        taken = isinstance(error, AssertionError) and "already registered" in str(error)
        raise PluginError(
            f"plug-in {plugin!r} failed {when}: {type(error).__name__}: {error}"
            f"{_where(error, plugin)}{f' {_NAME_TAKEN}' if taken else ''}"
        ) from error


def _where(error: BaseException, plugin: str) -> str:
    """File and line that raised an error, for whoever sees one line of it; "" where not known."""
    if isinstance(error, SyntaxError):  # its text says so itself
        return ""
    ours = (__file__, importlib.__file__)
    frames = [one for one in _frames_of(error) if one[0] not in ours and one[0][0] != "<"]
    name = Path(plugin).stem if is_plugin_file(plugin) else plugin.rpartition(".")[2]
    frames = [one for one in frames if Path(one[0]).stem == name] or frames
    return f" ({frames[-1][0]}, line {frames[-1][1]})" if frames else ""


def _find_origin(name: str) -> str | None:
    """Where `import name` would load from; None where it is not found."""
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, such as `__main__`
        return None
    return spec.origin if spec is not None else None


@contextmanager
def _folder_on_path(folder: Path) -> Iterator[None]:
    """Append `folder` to `sys.path`, for good unless the import fails."""
    added = str(folder) not in sys.path
    if added:
        sys.path.append(str(folder))
    try:
        yield
    except PluginError:
        if added:
            sys.path.remove(str(folder))
        raise


def _not_found(plugin: str, places: Sequence[str | Path]) -> str:
    looked = ", ".join(str(place) for place in places)
    return f"plug-in {plugin!r} not found; looked for it in: {looked}"
