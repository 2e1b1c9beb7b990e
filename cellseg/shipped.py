"""Where the YAML files lie that come with cellseg: recipes and declarations of data sets."""

from __future__ import annotations

from pathlib import Path


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
