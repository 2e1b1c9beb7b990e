"""Declared data sets in Detectron2's catalogs, with the category ids that their files have.

Registering reads the YAML file only; records are read when a dataset is first asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cellseg.arguments import checked, several
from cellseg.datasets.dataset_dicts import record_to_dict
from cellseg.datasets.declarations import Declaration, read_declarations, read_declared_records
from cellseg.errors import DatasetError
from cellseg.io import find_format
from cellseg.io.category_ids import choose_category_ids
from cellseg.rules import PATH

EVALUATOR_TYPE = "cellseg"

_registered: dict[str, tuple[Declaration, Path]] = {}


def datasets_root() -> Path:
    """$DETECTRON2_DATASETS, or `datasets` of the current folder where that is not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets")


@checked(paths=several(PATH, "a list of paths"), root=PATH)
def register_declarations(paths: Sequence[str | Path], root: str | Path | None = None) -> list[str]:
    """Register all datasets of some YAML files with Detectron2's catalogs.

    Registering the same again does nothing; with another `root` the dataset is looked for there
    from then on.

    Args:
        paths: declarations.
        root: folder that the datasets lie in; `datasets_root()` by default. A relative one is
            below the current folder of this moment.

    Returns:
        The names, in the order of the files. Their metadata have `thing_classes`,
        `thing_dataset_id_to_contiguous_id` (see `category_ids_of`; where files have ids of their
        own, once the data set is read), `evaluator_type` "cellseg" and `declaration`, the file.

    Raises:
        DatasetError: a file cannot be used, or a name is taken by something else.
    """
    declarations = [declared for path in paths for declared in read_declarations(path)]
    folder = (datasets_root() if root is None else Path(root)).absolute()
    for declaration in declarations:
        _register(declaration, folder)
    return list(dict.fromkeys(declaration.name for declaration in declarations))


def _register(declaration: Declaration, folder: Path) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = declaration.name
    if name in DatasetCatalog.list():
        if name not in _registered:
            raise DatasetError(
                f"{declaration.path}: {name} is already registered by other code; choose another "
                "name for the dataset"
            )
        known, known_folder = _registered[name]
        if known != declaration:
            raise DatasetError(
                f"{declaration.path}: {name} is already declared differently in {known.path}; "
                "choose another name for the dataset"
            )
        if known_folder == folder:
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, _make_loader(declaration, folder))
    MetadataCatalog.get(name).set(
        thing_classes=list(declaration.classes),
        evaluator_type=EVALUATOR_TYPE,
        declaration=str(declaration.path),
    )
    _registered[name] = (declaration, folder)
    if find_format(declaration.format_name).find_category_ids is None:
        category_ids_of(name)


def category_ids_of(name: str) -> dict[int, int]:
    """The class of each category id of a registered data set, by the rule of `io.category_ids`.

    Those of a declared data set are noted in its metadata, as `thing_dataset_id_to_contiguous_id`,
    by which Detectron2's evaluators write their files. One that other code registered without ids
    has those that Detectron2 gives it, 0 to C - 1.

    Args:
        name: as registered in DatasetCatalog.
    """
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get(name)
    known = metadata.get("thing_dataset_id_to_contiguous_id")
    if known:
        return dict(known)
    num_classes = len(metadata.get("thing_classes") or ())
    if name not in _registered:
        return {number: number for number in range(num_classes)}
    ids = choose_category_ids(num_classes, _find_own_ids(*_registered[name]))
    numbers = {category: number for number, category in enumerate(ids)}
    metadata.thing_dataset_id_to_contiguous_id = numbers
    return numbers


def _find_own_ids(declaration: Declaration, folder: Path) -> dict[int, int] | None:
    """The category ids in the files of a declared data set; None where there are none."""
    find = find_format(declaration.format_name).find_category_ids
    root, of = folder / declaration.root, (declaration.classes, declaration.options)
    try:
        return find(root, declaration.split, *of) if find else None
    except DatasetError:  # the files are not on this machine
        return None


def _make_loader(declaration: Declaration, folder: Path) -> Callable[[], list[dict[str, Any]]]:
    """A function that reads the files once and gives every caller dicts of its own."""
    cached: list[dict[str, Any]] = []

    def load() -> list[dict[str, Any]]:
        if not cached:
            cached.extend(_read_dicts(declaration, folder))
            category_ids_of(declaration.name)
        return [
            {**entry, "annotations": [dict(cell) for cell in entry["annotations"]]}
            for entry in cached
        ]

    return load


def _read_dicts(declaration: Declaration, folder: Path) -> list[dict[str, Any]]:
    records = read_declared_records(declaration, folder)
    return [record_to_dict(record, declaration.classes) for record in records]
