"""Where what comes with cellseg lies: recipes, declarations of data sets, models, images."""

from __future__ import annotations

import os
from pathlib import Path

from cellseg.errors import ConfigError

DEFAULT_MODEL = "nuclei"
"""What predicts where no model is named."""
MODELS_VARIABLE = "CELLSEG_MODELS"
CARD_FILE = "model.yaml"
"""The card of a model bundle, by which a folder is known to be one."""


def shipped_folder(name: str) -> Path:
    """The folder `configs` or `datasets` of this installation.

    An installed wheel has them inside the package; a checkout, also one that is installed with
    `pip install -e`, has them beside it.

    Args:
        name: "configs" or "datasets".
    """
    package = Path(__file__).resolve().parent
    inside = package / "shipped" / name
    return inside if inside.is_dir() else package.parent / name


def sample_images() -> list[Path]:
    """Images of real nuclei, PNG; the README.md beside them says where they come from."""
    return sorted((Path(__file__).resolve().parent / "samples").glob("*.png"))


def shipped_models_folder() -> Path:
    """The folder of the model bundles that come with cellseg, each below its name."""
    return Path(__file__).resolve().parent / "models" / "shipped"


def named_bundles() -> dict[str, Path]:
    """The model bundles that are found by name: the user's own and those that come with cellseg.

    Returns:
        Folder or zip by name, which is the folder's name or the zip's without ".zip". The user's
        own lie in the folder that $CELLSEG_MODELS names, and win over those that come with cellseg.

    Raises:
        ConfigError: $CELLSEG_MODELS names no folder.
    """
    return bundles_in(shipped_models_folder()) | own_bundles()


def own_bundles() -> dict[str, Path]:
    """The bundles in the folder that $CELLSEG_MODELS names, by name; none where it is not set.

    Raises:
        ConfigError: it names no folder.
    """
    given = os.environ.get(MODELS_VARIABLE)
    if not given:
        return {}
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"${MODELS_VARIABLE} is {given!r}, which is no folder; expected the one that your "
            "model bundles lie in"
        )
    return bundles_in(folder)


def bundles_in(folder: Path) -> dict[str, Path]:
    """The model bundles in a folder, by name; nothing of them is read.

    Args:
        folder: may be missing, then there are none.
    """
    packed = {path.stem: path for path in sorted(folder.glob("*.zip"))}
    folders = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CARD_FILE}"))}
    found = packed | folders  # hidden ones: `._my-cells.zip` of macOS
    return {name: path for name, path in found.items() if not name.startswith(".")}
