"""A model by what names it: a bundle, the folder of a run, or a checkpoint in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellseg.arguments import checked
from cellseg.config import ConfigTree
from cellseg.config.files import CONFIG_FILE
from cellseg.config.runs import find_run_config, find_run_weights
from cellseg.errors import ConfigError
from cellseg.models.archive import is_bundle
from cellseg.models.bundle import WEIGHTS_FILE, Bundle, open_bundle
from cellseg.models.carried import read_carried_config
from cellseg.names import did_you_mean
from cellseg.rules import PATH
from cellseg.shipped import CARD_FILE, named_bundles


@dataclass(frozen=True)
class ModelFiles:
    """What a model is loaded from.

    Attributes:
        config: of the training.
        weights: for `MODEL.WEIGHTS`: a checkpoint, or what names a bundle.
    """

    config: Path | ConfigTree
    weights: str


@checked(name=PATH)
def locate_bundle(name: str | Path) -> Path | None:
    """Folder or zip of the bundle that is meant; None where it is no bundle that is meant.

    Args:
        name: a bundle's folder or zip, the file of weights in one, or a name that
            `cellseg info --models` lists. A bundle or a run of that name in the current folder
            wins.

    Raises:
        ConfigError: $CELLSEG_MODELS names no folder.
    """
    path = Path(name)
    if is_bundle(path):
        return path
    if path.name == WEIGHTS_FILE and (path.parent / CARD_FILE).is_file():
        return path.parent
    if path.is_file() or (path / CONFIG_FILE).is_file():
        return None
    return named_bundles().get(str(name))


@checked(name=PATH)
def find_bundle(name: str | Path) -> Bundle:
    """The bundle that is meant.

    Args:
        name: as in `locate_bundle`.

    Raises:
        ConfigError: it is none; the nearest names are named.
        CheckpointError: it is one that cannot be used.
    """
    path = locate_bundle(name)
    if path is None:
        raise ConfigError(
            f"{name}: no such model bundle; expected its folder, its zip, or one of "
            f"{_list_names()}{_suggest(name)}"
        )
    return open_bundle(path)


@checked(model=PATH)
def find_model(model: str | Path) -> ModelFiles:
    """Config and weights of a model.

    Args:
        model: a bundle as in `locate_bundle`, the OUTPUT_DIR of a run, or a checkpoint. The config
            is the `config.yaml` beside the checkpoint, else the one that the checkpoint carries.

    Raises:
        ConfigError: there is no such model, or no config beside or in the checkpoint.
        CheckpointError: the folder holds no checkpoint, or the bundle cannot be used.
    """
    located = locate_bundle(model)
    if located is not None:
        return ModelFiles(open_bundle(located).read_config(), str(model))
    path = Path(model)
    if path.is_file():
        return ModelFiles(_find_config(path), str(path))
    if not path.is_dir():
        raise ConfigError(
            f"{path}: no such model; expected the OUTPUT_DIR of a run of `cellseg train`, a "
            f"checkpoint of one, a model bundle, or one of {_list_names()}{_suggest(model)}"
        )
    if not (path / CONFIG_FILE).is_file() and not any(path.glob("*.pth")):
        find_run_config(path)  # says that it is no run at all
    weights = find_run_weights(path)
    return ModelFiles(_find_config(weights), str(weights))


def _find_config(checkpoint: Path) -> Path | ConfigTree:
    beside = checkpoint.parent / CONFIG_FILE
    if beside.is_file():
        return beside
    carried = read_carried_config(checkpoint)
    if carried is None:
        raise ConfigError(
            f"{checkpoint} carries no config, as checkpoints of `cellseg train` do, and there is "
            f"no {CONFIG_FILE} beside it; expected one of them. For a file of another program name "
            "the config that goes with it: --config-file FILE MODEL.WEIGHTS "
            f"{checkpoint}"
        )
    return ConfigTree(str(checkpoint), dict(carried.config))


@checked(name=PATH)
def suggest_model(name: str | Path) -> str:
    """The models with the nearest names, as a question; "" where none is near."""
    path = Path(name)
    nearby = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, [*named_bundles(), *nearby])


def _suggest(name: str | Path) -> str:
    hint = suggest_model(name)
    return hint and f"; {hint}"


def _list_names() -> str:
    names = ", ".join(sorted(named_bundles())) or "none"
    return f"the models that are found by name ({names})"
