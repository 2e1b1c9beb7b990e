"""Say which engine runs, on what, and what comes with cellseg or is missing.

    cellseg info
    cellseg info --json

Versions, the device that models run on where none is named, the optional packages for further file
formats, the recipes for --config-file, the data sets for DATASETS.TRAIN and DATASETS.TEST, and the
formats that are read and written. Exit status: 0.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from typing import Any

import cellseg  # before detectron2: it makes `import detectron2` work
from cellseg.cli._parser import CommandParser
from cellseg.datasets.declarations import builtin_declarations, read_declarations
from cellseg.images import IMAGE_FORMATS
from cellseg.io import FORMATS
from cellseg.modeling.device import default_device, describe_device
from cellseg.shipped import shipped_folder
from tabulate import tabulate

Info = dict[str, Any]


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    info = collect_info()
    print(json.dumps(info, indent=1) if args.json else describe(info))
    return 0


def collect_info() -> Info:
    """Everything that the command tells, as plain values."""
    engine = cellseg.engine_info()
    configs = shipped_folder("configs")
    recipes = {path.relative_to(configs).as_posix(): path for path in configs.rglob("*.yaml")}
    declared = [one for path in builtin_declarations() for one in read_declarations(path)]
    return {
        "engine": {"name": engine.name, "version": engine.version, "location": str(engine.location)}
        | {"summary": str(engine)},
        "packages": engine.packages,
        "device": describe_device(default_device()),
        "optional_packages": {
            name: {"version": _find_version(name), "for": purpose}
            for name, purpose in _optional_packages().items()
        },
        "recipes_folder": str(configs),
        "recipes": {name: _first_comment(path) for name, path in sorted(recipes.items())},
        "datasets": {one.name: one.format_name for one in declared},
        "formats": {
            name: "read and written" if one.write else "read"
            for name, one in sorted(FORMATS.items())
        },
    }


def describe(info: Info) -> str:
    """The same for people to read."""
    optional = [
        (name, one["version"] or "missing", one["for"])
        for name, one in info["optional_packages"].items()
    ]
    parts = {
        "Optional packages": optional,
        f"Recipes, in {info['recipes_folder']}": info["recipes"].items(),
        "Data sets": info["datasets"].items(),
        "Formats": info["formats"].items(),
    }
    lines = [f"Engine: {info['engine']['summary']}", f"Device: {info['device']}"]
    for title, rows in parts.items():
        lines += ["", f"{title}:", tabulate(list(rows), tablefmt="plain")]
    return "\n".join(lines)


def _optional_packages() -> dict[str, str]:
    """Packages that a user may install, and what for."""
    endings: dict[str, list[str]] = {}
    for one in IMAGE_FORMATS:
        if one.packages:
            endings.setdefault(one.packages[-1], []).extend(one.suffixes)
    return {
        "roifile": "ImageJ's ROI files",
        "onnx": "cellseg export-model, together with onnxruntime",
        "onnxruntime": "cellseg export-model, together with onnx",
        "bioimageio.core": "cellseg export-model --to bioimageio",
        "laptrack": "cells over time (cellseg link)",
        "pyarrow": "tables in Parquet",
        **{package: ", ".join(found) for package, found in endings.items()},
        "bioio": "files of microscope makers, together with bioio-nd2, bioio-lif, ...",
        "imagecodecs": "JPEG 2000, and TIFF compressed in other ways than deflate",
    }


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_comment(path: Any) -> str:
    """The first line of a recipe, which says what it is for."""
    first = path.read_text("utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""
