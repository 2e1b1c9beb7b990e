"""Config files: where a name is looked for, and what a file says together with its bases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cellseg.arguments import check_argument
from cellseg.errors import ConfigError
from cellseg.names import did_you_mean
from cellseg.rules import PATH, describe_kind, show
from cellseg.shipped import named_bundles, shipped_folder
from cellseg.yaml_text import read_yaml

BASE_KEY = "_BASE_"
CONFIG_FILE = "config.yaml"
MAX_FILES = 200
"""That one config may be made of, by way of its bases."""


@dataclass(frozen=True)
class ConfigTree:
    """A config that has been read.

    Attributes:
        place: what it was read from, for messages.
        tree: nested dicts without `_BASE_`; values as they are in YAML.
        places: file and line of keys by their whole names, where they are known.
        is_file: of a file that somebody named as a config, or of the command line. Others come
            with weights, and the plug-ins that they name are imported only where they are
            installed.
    """

    place: str
    tree: dict[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    is_file: bool = False

    def names(self) -> list[str]:
        """Whole names of the keys that are set, such as "SOLVER.MAX_ITER"."""
        return list(_leaf_keys(self.tree, ""))


def _leaf_keys(tree: Mapping[str, Any], below: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaf_keys(value, f"{below}{key}.")
        else:
            yield f"{below}{key}"


def find_config_file(name: str | Path, folder: str | Path = "") -> Path:
    """The file that a name means.

    Args:
        name: a path, or the name of a recipe that comes with cellseg, such as "quick_start.yaml";
            "configs/quick_start.yaml" is found too, wherever cellseg is installed. The folder of a
            model bundle or of a run means the config in it, and so does the name of a bundle.
        folder: what a relative path begins at; the current folder by default.

    Returns:
        `name` as given where there is such a file, else that recipe, else that of the bundle.

    Raises:
        InputTypeError: no name.
        ConfigError: there is neither; the recipes with the nearest names are named.
    """
    check_argument("config_file", name, PATH)
    given, recipes = Path(folder, Path(name).expanduser()), shipped_folder("configs")
    below = Path(*Path(name).parts[1:]) if Path(name).parts[:1] == ("configs",) else Path(name)
    bundles = named_bundles()
    candidates = [given, recipes / below]
    if given.name:
        candidates += [given / CONFIG_FILE, bundles.get(str(name), given) / CONFIG_FILE]
    for path in candidates:
        with suppress(OSError):  # a name that is too long, or a folder that may not be read
            if path.is_file():
                return path
    known = [path.relative_to(recipes).as_posix() for path in recipes.rglob("*.yaml")] + [*bundles]
    near = did_you_mean(below.as_posix(), known, count=1)
    hint = near and f"; {near}"
    raise ConfigError(
        f"{given}: no such config file (looked in {Path(folder).absolute()} and in the recipes of "
        f"cellseg, {recipes}){hint}"
    )


def read_config_tree(path: str | Path) -> ConfigTree:
    """What a YAML file sets, on top of what the files that it names as `_BASE_` set.

    Args:
        path: the file. `_BASE_` is one file or a list of files, of which later ones win; each is
            looked for beside the file, then among the recipes that come with cellseg.

    Raises:
        ConfigError: a file is missing, is no YAML, holds no keys or is its own base.
    """
    tree: dict[str, Any] = {}
    places: dict[str, str] = {}
    for file, own, lines in _read_chain(Path(path), (), [0]):
        put_below(tree, own)
        places |= {key: f"{file}, line {line}" for key, line in lines.items()}
    return ConfigTree(str(path), tree, places, is_file=True)


def _read_chain(
    path: Path, above: Sequence[Path], count: list[int]
) -> Iterator[tuple[Path, dict[str, Any], dict[str, int]]]:
    """A file with its keys and their lines, behind the files that it builds on."""
    if path.resolve() in [one.resolve() for one in above]:
        chain = " -> ".join(map(str, [*above, path]))
        raise ConfigError(f"{above[-1]}: {path} is its own {BASE_KEY} ({chain})")
    count[0] += 1
    if count[0] > MAX_FILES:
        chain = " -> ".join(map(str, [*above[:3], path]))
        raise ConfigError(f"{path}: more than {MAX_FILES} files by way of {BASE_KEY} ({chain})")
    own, lines = _read_keys(path)
    for base in _bases_of(path, own.pop(BASE_KEY, []), lines):
        yield from _read_chain(_find_base(base, path, lines), [*above, path], count)
    yield path, own, lines


def _find_base(base: str, path: Path, lines: Mapping[str, int]) -> Path:
    if "://" in base:
        raise ConfigError(
            f"{path}, line {lines[BASE_KEY]}: {BASE_KEY} is {base}; nothing is taken from the web "
            "here: download the file, read it, and name its path"
        )
    try:
        return find_config_file(base, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}, line {lines[BASE_KEY]}: {BASE_KEY}: {error}") from error


def _read_keys(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        own, lines = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: cannot be read as a YAML config: {error}") from error
    own = {} if own is None else own
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: holds {describe_kind(own)}; expected keys and values")
    return own, lines


def _bases_of(path: Path, bases: Any, lines: Mapping[str, int]) -> list[str]:
    names = [bases] if isinstance(bases, str) else bases
    if isinstance(names, list) and all(isinstance(name, str) and name for name in names):
        return names
    raise ConfigError(
        f"{path}, line {lines[BASE_KEY]}: {BASE_KEY} is {show(bases)}; expected a file or a list "
        "of files"
    )


def put_below(tree: dict[str, Any], top: Mapping[str, Any]) -> None:
    """Change `tree` to what `top` says, key by key; what `top` does not name stays."""
    for key, value in top.items():
        if not isinstance(value, dict):
            tree[key] = value
            continue
        if not isinstance(tree.get(key), dict):
            tree[key] = {}  # never `value` itself: an alias may stand for it elsewhere
        put_below(tree[key], value)
