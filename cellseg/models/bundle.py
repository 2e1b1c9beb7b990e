"""A model bundle: config, weights and card of a model in one folder or zip, and no code.

docs/models.md describes the format for others to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cellseg
import safetensors.torch
import yaml
from cellseg.arguments import checked
from cellseg.config import ConfigTree
from cellseg.config.files import CONFIG_FILE
from cellseg.errors import CheckpointError, ConfigError, collect_problems
from cellseg.models.archive import ZIP_SUFFIX, find_members, is_bundle, read_member, write_members
from cellseg.models.card import (
    FORMAT_VERSION,
    ModelCard,
    Tree,
    find_card_problems,
    parse_tree,
)
from cellseg.models.storage import decode_weights, encode_weights
from cellseg.plugins import is_plugin_file
from cellseg.rules import PATH
from cellseg.shipped import CARD_FILE
from torch import Tensor

WEIGHTS_FILE = "weights.safetensors"
FILES = (CARD_FILE, CONFIG_FILE, WEIGHTS_FILE)

_AGAIN = "Copy or download the bundle again"


@dataclass(frozen=True)
class Bundle:
    """A model bundle whose card has been read. Its files are read, and verified, when asked for.

    Attributes:
        path: folder or zip.
        card: what is to be known about the model.
        members: path inside `path`, by file name.
    """

    path: Path
    card: ModelCard
    members: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """Of the zip, or of the files in the folder."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum((self.path / name).stat().st_size for name in FILES)

    def read_config(self) -> ConfigTree:
        """The config that the model was trained with, less what only its machine knew.

        Raises:
            CheckpointError: the file is not the one that was written, or needs other files.
        """
        tree = _parse(self._read_verified(CONFIG_FILE), f"{self.path}/{CONFIG_FILE}")
        problems = list(_dependencies(tree))
        if problems:
            raise CheckpointError(
                f"{self.path}: {CONFIG_FILE} names {', '.join(problems)}; expected a config that "
                "needs no other file, for a bundle holds no code"
            )
        return ConfigTree(f"{self.path}/{CONFIG_FILE}", tree)

    def read_weights(self) -> dict[str, Tensor]:
        """The weights by name, as of `state_dict()`; floats are float32.

        Raises:
            CheckpointError: the file is not the one that was written, or no file of weights.
        """
        content = self._read_verified(WEIGHTS_FILE)
        try:
            return decode_weights(safetensors.torch.load(content))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}/{WEIGHTS_FILE}: {error}") from error
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self.path}/{WEIGHTS_FILE}: cannot be read as safetensors: {error}. {_AGAIN}"
            ) from error

    def verify(self) -> None:
        """Read every file.

        Raises:
            CheckpointError: one is not what the card says.
        """
        self.read_config()
        self.read_weights()

    def _read_verified(self, name: str) -> bytes:
        content = read_member(self.path, self.members[name])
        found, expected = hashlib.sha256(content).hexdigest(), self.card.sha256.get(name)
        if found != expected:
            raise CheckpointError(
                f"{self.path}/{name}: was changed or damaged since the bundle was made: its "
                f"SHA-256 is {found[:12]}..., expected {str(expected)[:12]}... as {CARD_FILE} "
                f"says. {_AGAIN}"
            )
        return content


@checked(path=PATH)
def open_bundle(path: str | Path) -> Bundle:
    """Read the card of a bundle.

    Args:
        path: folder or zip.

    Raises:
        CheckpointError: a file is missing, the card cannot be used, or a newer cellseg made it.
    """
    path = Path(path)
    members = find_members(path)
    missing = [name for name in FILES if name not in members]
    if missing:
        raise CheckpointError(
            f"{path}: no {' and no '.join(missing)} in it; expected a model bundle with "
            f"{', '.join(FILES)}. {_AGAIN}"
        )
    place = f"{path}/{CARD_FILE}"
    tree = _parse(read_member(path, members[CARD_FILE]), place)
    _check_versions(tree, place)
    problems = list(find_card_problems(tree))
    if problems:
        raise CheckpointError(
            collect_problems(f"{place}: cannot be used", problems, "docs/models.md describes it.")
        )
    return Bundle(path, ModelCard.from_tree(tree), members)


@checked(path=PATH)
def write_bundle(
    path: str | Path,
    card: ModelCard,
    config: Tree,
    state: Mapping[str, Tensor],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle, whole or not at all.

    Args:
        path: folder, or zip where it ends in ".zip".
        card: `precision` says how weights are stored; `sha256` and `format_version` are filled in.
        config: nested keys and values that need no other file.
        state: weights by name; see `encode_weights`.
        overwrite: replace a bundle that is there; nothing else is replaced.

    Raises:
        ConfigError: there is something already, or the config needs other files.
        CheckpointError: a weight is not finite, or the card cannot be used.
    """
    path = Path(path)
    _check_free(path, overwrite)
    if problems := list(_dependencies(config)):
        raise ConfigError(
            f"the config names {', '.join(problems)}; a bundle holds no code: expected plug-ins as "
            "names of modules that are installed where the model is used"
        )
    files = {
        CONFIG_FILE: yaml.safe_dump(config, sort_keys=True).encode(),
        WEIGHTS_FILE: safetensors.torch.save(encode_weights(state, card.precision)),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = replace(card, sha256=hashes, format_version=FORMAT_VERSION).to_yaml()
    if unusable := list(find_card_problems(yaml.safe_load(text))):
        raise CheckpointError(collect_problems(f"the card of {card.name}", unusable))
    write_members(path, {CARD_FILE: text.encode(), **files})
    return open_bundle(path)


def _check_free(path: Path, overwrite: bool) -> None:
    if not path.exists() or (overwrite and _is_one_of_ours(path)):
        return
    if overwrite:
        raise ConfigError(f"{path}: is no model bundle, and is not replaced; choose another name")
    raise ConfigError(f"{path}: is there already; choose another name, or give --overwrite")


def _is_one_of_ours(path: Path) -> bool:
    try:
        return is_bundle(path) and CARD_FILE in find_members(path)
    except CheckpointError:
        return False


def _dependencies(config: Tree) -> Iterator[str]:
    """What a config takes from other files: bases, and plug-ins that are files."""
    if "_BASE_" in config:
        yield f"_BASE_ {config['_BASE_']}"
    own = config.get("CELLSEG")
    plugins = own.get("PLUGINS") if isinstance(own, dict) else None
    for plugin in plugins if isinstance(plugins, list) else ():
        if is_plugin_file(str(plugin)):
            yield f"the plug-in {plugin}"


def _parse(content: bytes, place: str) -> Tree:
    try:
        return parse_tree(content, place)
    except ConfigError as error:
        raise CheckpointError(f"{error}. {_AGAIN}") from error


def _check_versions(tree: Tree, place: str) -> None:
    """Refuse what a newer cellseg made, before keys are looked at that this one does not know."""
    version = tree.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{place}: format_version is {version}; expected at most {FORMAT_VERSION}, which this "
            f"cellseg ({cellseg.__version__}) reads. Install a newer cellseg"
        )
    made_with = tree.get("made_with")
    maker = made_with.get("cellseg") if isinstance(made_with, dict) else None
    if _major(maker) > _major(cellseg.__version__):
        raise CheckpointError(
            f"{place}: was made with cellseg {maker}; expected at most version "
            f"{_major(cellseg.__version__)}.x, for this is {cellseg.__version__}. Install a newer "
            "cellseg"
        )


def _major(version: Any) -> int:
    first = str(version).partition(".")[0]
    return int(first) if first.isdecimal() else 0


def bundle_file(path: Path) -> Path:
    """The file that the weights of a bundle are in: the zip itself, or that in the folder."""
    return path if path.suffix.lower() == ZIP_SUFFIX else path / WEIGHTS_FILE
