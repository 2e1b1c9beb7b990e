"""Say which engine runs, on what, and what comes with cellseg or is missing.

    cellseg info
    cellseg info --models
    cellseg info --json

Versions, the device that models run on where none is named, the optional packages for further file
formats, the recipes for --config-file, the data sets for DATASETS.TRAIN and DATASETS.TEST, and the
formats that are read and written. With --models the models that are found by name: those that come
with cellseg and those in the folder that $CELLSEG_MODELS names. Exit status: 0.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import cellseg  # before detectron2: it makes `import detectron2` work
from cellseg.cli._parser import CommandParser
from cellseg.datasets.declarations import builtin_declarations, read_declarations
from cellseg.errors import CheckpointError
from cellseg.images import IMAGE_FORMATS
from cellseg.io import FORMATS
from cellseg.modeling.device import default_device, describe_device
from cellseg.models import open_bundle
from cellseg.models.card import describe_diameters
from cellseg.shipped import named_bundles, shipped_folder
from tabulate import tabulate

Info = dict[str, Any]


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--models", action="store_true", help="only the models, with their cards")


def run(args: argparse.Namespace) -> int:
    if args.models:
        models = collect_models()
        print(json.dumps(models, indent=1) if args.json else describe_models(models))
        return 0
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
        "models": sorted(named_bundles()),
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
        "Models (--models tells more)": [[name] for name in info["models"]],
        f"Recipes, in {info['recipes_folder']}": info["recipes"].items(),
        "Data sets": info["datasets"].items(),
        "Formats": info["formats"].items(),
    }
    lines = [f"Engine: {info['engine']['summary']}", f"Device: {info['device']}"]
    for title, rows in parts.items():
        lines += ["", f"{title}:", tabulate(list(rows), tablefmt="plain")]
    return "\n".join(lines)


def collect_models() -> dict[str, Info]:
    """The cards of the models that are found by name, with "path" and "bytes".

    Of a bundle that cannot be used there is "problem" instead of a card.
    """
    return {name: _describe_bundle(path) for name, path in sorted(named_bundles().items())}


def _describe_bundle(path: Path) -> Info:
    try:
        bundle = open_bundle(path)
    except CheckpointError as error:
        return {"path": str(path), "problem": str(error)}
    return {"path": str(path), "bytes": bundle.size_bytes, **asdict(bundle.card)}


def describe_models(models: dict[str, Info]) -> str:
    """The same as a table, and below it what each was made for and measured at."""
    usable = {name: one for name, one in models.items() if "problem" not in one}
    if not models:
        return (
            "No models: none comes with this cellseg, and $CELLSEG_MODELS names no folder with "
            "bundles. `cellseg bundle` makes one of a run"
        )
    rows = [
        (
            name,
            one["version"],
            ", ".join(one["classes"]),
            describe_diameters(one["diameters_px"]),
            f"{one['bytes'] / 2**20:.1f}",
        )
        for name, one in usable.items()
    ]
    headers = ("model", "version", "classes", "diameters in px", "MiB")
    lines = [tabulate(rows, headers, disable_numparse=True)] if rows else []
    for name, one in usable.items():
        lines += ["", f"{name}: {one['description'] or 'no description'}"]
        lines += [
            f"  {metric['name']} {metric['value']:g} on {metric['data']}"
            for metric in one["metrics"]
        ]
    problems = [one["problem"] for one in models.values() if "problem" in one]
    return "\n".join([*lines, *(f"\nCannot be used: {problem}" for problem in problems)])


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
        "distributed": "prediction by many machines or processes (cellseg predict --scheduler)",
        "napari": "cellseg in the windows of napari",
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
