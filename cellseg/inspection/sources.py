"""What there is to inspect: the splits of a registered or declared dataset, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.datasets.dataset_dicts import dict_to_cells
from cellseg.datasets.declarations import Declaration, builtin_declarations, read_declarations
from cellseg.datasets.registration import datasets_root, register_declarations
from cellseg.errors import DatasetError
from cellseg.io import find_format
from cellseg.names import suggest_name

_DECLARATION_SUFFIXES = (".yaml", ".yml")
_LISTED = "  - "


@dataclass(frozen=True)
class Split:
    """One split of a dataset.

    Attributes:
        name: the name it is registered by.
        classes: class names in the order of their ids.
        records: its images; none where it cannot be read.
        problems: why it cannot be read, one line per offending file.
        declaration: what it was declared by; None if other code registered it.
        bad_masks: by number of the record, what is wrong with the masks of which of its cells.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    problems: tuple[str, ...] = ()
    declaration: Declaration | None = None
    bad_masks: Mapping[int, Mapping[int, str]] = field(default_factory=dict)


def find_datasets(name_or_file: str) -> dict[str, list[str]]:
    """Names of the splits that belong together, by the name of their dataset.

    Args:
        name_or_file: a YAML declaration (every dataset in it), the name that a declaration gives a
            dataset (all its splits), or the name of one registered split.

    Raises:
        DatasetError: nothing of that name; the near ones are in the message.
    """
    from detectron2.data import DatasetCatalog

    if Path(name_or_file).suffix.lower() in _DECLARATION_SUFFIXES:
        return _register_file(Path(name_or_file))
    groups = {
        name: k for path in builtin_declarations() for name, k in _register_file(path).items()
    }
    registered = list(DatasetCatalog.list())
    if name_or_file in groups:
        return {name_or_file: groups[name_or_file]}
    if name_or_file in registered:
        return {name_or_file: [name_or_file]}
    hint = suggest_name(name_or_file, [*groups, *registered], count=3)
    hint += "" if hint.endswith("?") else "."
    raise DatasetError(
        f"{name_or_file}: no dataset of that name; {hint} For one of your own, give its YAML "
        "declaration (datasets/README.md)"
    )


def _register_file(path: Path) -> dict[str, list[str]]:
    """Register a declaration; its splits by dataset."""
    groups: dict[str, list[str]] = {}
    for declaration in read_declarations(path):
        dataset = declaration.name.removesuffix(f"_{declaration.split_name}")
        groups.setdefault(dataset, []).append(declaration.name)
    register_declarations([path])
    return groups


def read_split(name: str) -> Split:
    """Read a registered dataset; what is wrong with its files is in `problems`."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    metadata = MetadataCatalog.get(name)
    classes = tuple(metadata.get("thing_classes", ("cell",)))
    declaration = _declaration_of(name, metadata.get("declaration"))
    try:
        entries = DatasetCatalog.get(name)
    except (DatasetError, OSError) as error:
        return Split(name, classes, (), tuple(_lines_of(error)), declaration)
    records: list[ImageRecord] = []
    problems: list[str] = []
    bad_masks: dict[int, dict[int, str]] = {}
    for entry in entries:
        try:
            record, bad = dict_to_record(entry, classes)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(f"{entry.get('file_name', entry)}: not a dataset entry: {error!r}")
            continue
        bad_masks |= {len(records): bad} if bad else {}
        records.append(record)
    return Split(name, classes, tuple(records), tuple(problems), declaration, bad_masks)


def find_folders(splits: Sequence[Split]) -> list[Path]:
    """The folders that splits are read from: those of the images, and what declarations name."""
    paths = (record.image_path for split in splits for record in split.records)
    folders = [path.parent for path in paths if path is not None]
    for split in splits:
        one = split.declaration
        if one is not None and find_format(one.format_name).has_files:
            root = Path(datasets_root(), one.root)
            folders += [root / one.split] if isinstance(one.split, str) else [root]
    return list(dict.fromkeys(folders))


def _declaration_of(name: str, path: str | None) -> Declaration | None:
    if path is None:
        return None
    return next((found for found in read_declarations(path) if found.name == name), None)


def _lines_of(error: Exception) -> list[str]:
    """The offenders that a message lists, or the message itself."""
    lines = str(error).splitlines()
    listed = [line.removeprefix(_LISTED) for line in lines if line.startswith(_LISTED)]
    return listed or [str(error)]


def dict_to_record(
    entry: Mapping[str, Any], classes: Sequence[str]
) -> tuple[ImageRecord, dict[int, str]]:
    """A record from one entry of a Detectron2 dataset.

    Args:
        entry: with `file_name`, `height`, `width`, `image_id` and `annotations`, whose
            `segmentation` is an RLE, polygons, or a bitmap; without one the box is the cell.
        classes: class names in the order of `category_id`.

    Returns:
        The record, its boxes those of the annotations, and what is wrong with the masks of which
        cells; these have no pixel.

    Raises:
        KeyError, TypeError, ValueError, IndexError: it is no such entry.
    """
    cells, bad = dict_to_cells(entry, box_where_no_mask=True)
    for number in cells.classes.tolist():
        classes[number]
    path = Path(entry["file_name"])
    place = PlaceInFile(page=entry.get("page"))
    return ImageRecord(str(entry.get("image_id", path.stem)), cells, path, place), bad
