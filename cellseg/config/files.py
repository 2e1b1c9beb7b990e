"""Config files: where a name is looked for, and what a file says together with its bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cellseg.errors import ConfigError
from cellseg.names import did_you_mean
from cellseg.shipped import named_bundles, shipped_folder
from cellseg.yaml_text import parse_yaml

BASE_KEY = "_BASE_"
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class ConfigTree:
    """A config that has been read.

    Attributes:
        place: what it was read from, for messages.
        tree: nested dicts without `_BASE_`; values as they are in YAML.
        is_file: of a file that somebody named as a config. Others come with weights, and the
            plug-ins that they name are imported only where they are installed.
    """

    place: str
    tree: dict[str, Any]
    is_file: bool = False


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
        ConfigError: there is neither; the recipes with the nearest names are named.
    """
    given, recipes = Path(folder, Path(name).expanduser()), shipped_folder("configs")
    below = Path(*Path(name).parts[1:]) if Path(name).parts[:1] == ("configs",) else Path(name)
    bundles = named_bundles()
    candidates = [given, recipes / below]
    if given.name:
        candidates += [given / CONFIG_FILE, bundles.get(str(name), given) / CONFIG_FILE]
    for path in candidates:
        if path.is_file():
            return path
    known = [path.relative_to(recipes).as_posix() for path in recipes.rglob("*.yaml")] + [*bundles]
    near = did_you_mean(below.as_posix(), known, count=1)
    hint = near and f"; {near}"
    raise ConfigError(
        f"{given}: no such config file (looked in {Path(folder).absolute()} and in the recipes of "
        f"cellseg, {recipes}){hint}"
    )


def read_config_tree(path: str | Path) -> dict[str, Any]:
    """What a YAML file sets, on top of what the files that it names as `_BASE_` set.

    Args:
        path: the file. `_BASE_` is one file or a list of files, of which later ones win; each is
            looked for beside the file, then among the recipes that come with cellseg.

    Returns:
        Nested dicts without `_BASE_`; values as they are in YAML. Empty for an empty file.

    Raises:
        ConfigError: a file is missing, is no YAML, holds no keys or is its own base.
    """
    return _read_tree(Path(path), ())


def _read_tree(path: Path, above: Sequence[Path]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path}: is its own {BASE_KEY}, by way of {above[-1]}")
    try:
        own = parse_yaml(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a YAML config: {error}") from error
    own = {} if own is None else own
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: holds a {type(own).__name__}; expected keys and values")
    bases = own.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} is {bases!r}; expected a file or a list of files")
    tree: dict[str, Any] = {}
    for base in bases:
        _put(_read_tree(find_config_file(base, path.parent), [*above, path.resolve()]), tree)
    _put(own, tree)
    return tree


def _put(top: dict[str, Any], tree: dict[str, Any]) -> None:
    """Change `tree` to what `top` says, key by key."""
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _put(value, tree[key])
        else:
            tree[key] = value
