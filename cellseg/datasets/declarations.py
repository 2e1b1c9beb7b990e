"""Datasets declared in YAML files.

    dsb2018:                          # gives dsb2018_train, dsb2018_val
      format: instance_masks          # a key of cellseg.io.FORMATS
      root: dsb2018                   # below $DETECTRON2_DATASETS
      splits: [train, val]            # folders; or {train: folder_1, val: folder_2}
      classes: [nucleus]              # [cell] by default
      cache: true                     # keep parsed annotations; the default
      connected_components: false     # true: every piece is a cell (binary masks)

Splits of one folder, by a hash or by lists of ids, are in `cellseg.datasets.splits`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cellseg.arguments import checked
from cellseg.cells.pieces import check_pieces
from cellseg.cells.records import ImageRecord
from cellseg.datasets.cache import Reading, cached_records
from cellseg.datasets.split_plans import (
    GROUP_BY_EXPECTED,
    SplitPlan,
    build_plan,
    find_plan_problems,
    is_derived,
    is_grouping,
)
from cellseg.datasets.splits import select_split
from cellseg.errors import DatasetError, collect_problems
from cellseg.files import check_no_pipe
from cellseg.io import find_format, read_records
from cellseg.io.base import FileFormat, Option
from cellseg.names import suggest_name, why_unsafe_name
from cellseg.rules import PATH, show
from cellseg.shipped import shipped_folder
from cellseg.yaml_text import read_yaml

logger = logging.getLogger(__name__)

DECLARATIONS_HINT = "datasets/README.md describes every key."

_ROOT = Option("the name of a folder", lambda value: isinstance(value, str) and value != "")
_NAMES = Option(
    "a list of different names",
    lambda value: (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    ),
)
_KEYS_OF_FILES = {
    "root": _ROOT,
    "split_seed": Option(
        "a text or a whole number",
        lambda value: isinstance(value, (str, int)) and not isinstance(value, bool),
    ),
    "group_by": Option(GROUP_BY_EXPECTED, is_grouping),
    "cache": Option("true or false", lambda value: isinstance(value, bool)),
    "connected_components": Option("true or false", lambda value: isinstance(value, bool)),
}


@dataclass(frozen=True)
class Declaration:
    """One split of one declared dataset.

    Attributes:
        name: the name it is registered by, `<dataset>_<split>`.
        format_name: key of `cellseg.io.FORMATS`.
        root: the dataset's folder, below the root of all datasets; "" if the format has none.
        split: what the format's splits are declared by, usually a folder; where there is a plan,
            what all its splits are taken from.
        classes: class names in the order of their ids.
        options: the format's own keys.
        path: the YAML file; two that declare the same do not contradict each other.
        split_name: what stands behind the dataset's name in `name`.
        plan: how splits are taken from one folder; None where `split` is a folder of its own.
        use_cache: whether parsed annotations are kept.
        connected_components: whether every piece of a cell is a cell of its own.
    """

    name: str
    format_name: str
    root: str
    split: Any
    classes: tuple[str, ...]
    options: Mapping[str, Any]
    path: Path = field(compare=False)
    split_name: str = ""
    plan: SplitPlan | None = None
    use_cache: bool = True
    connected_components: bool = False


def builtin_declarations() -> list[Path]:
    """The declarations that come with cellseg."""
    return sorted(shipped_folder("datasets").glob("*.yaml"))


@checked(path=PATH)
def read_declarations(path: str | Path) -> list[Declaration]:
    """Read a YAML file of datasets.

    Returns:
        One declaration per dataset and split.

    Raises:
        DatasetError: missing, no YAML, or unknown keys and unusable values, all in one message.
    """
    file = Path(path)
    tree = _load_yaml(file)
    problems: list[str] = []
    declarations: list[Declaration] = []
    for name, content in tree.items():
        found = list(_problems_of(str(name), content))
        problems += found
        if not found:
            declarations += _split_declarations(file, str(name), content)
    if problems:
        raise DatasetError(
            collect_problems(f"{file}: cannot be used", problems, hint=DECLARATIONS_HINT)
        )
    return declarations


def _load_yaml(file: Path) -> dict[str, Any]:
    try:
        check_no_pipe(file)
        tree, _ = read_yaml(file)
    except OSError as error:
        raise DatasetError(
            f"{file}: {error.strerror or error}; expected a dataset declaration"
        ) from error
    except yaml.YAMLError as error:
        raise DatasetError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(tree, dict) or not tree:
        raise DatasetError(f"{file}: expected the name of a dataset, then its keys indented below")
    return tree


def _problems_of(name: str, content: Any) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"{name}: expected keys format, root, splits, classes; found {show(content)}"
        return
    try:
        format_ = find_format(str(content.get("format", "(none given)")))
    except DatasetError as error:
        yield f"{name}.format: {error}"
        return
    allowed = _allowed_keys(format_)
    for key in content:
        if key not in allowed:
            yield f"{name}.{key}: unknown key; {suggest_name(key, allowed)}"
        elif not allowed[key].accepts(content[key]):
            yield f"{name}.{key}: found {show(content[key])}, expected {allowed[key].expected}"
    for key in ("root", "splits") if format_.has_files else ("splits",):
        if key not in content:
            yield f"{name}.{key}: missing, expected {allowed[key].expected}"
    if _are_splits(content.get("splits"), format_):
        for split in content["splits"]:
            # Folders of results are called so, and so.
            if reason := why_unsafe_name(name) or why_unsafe_name(f"{name}_{split}"):
                yield f"{name!r}: no name for a data set whose split is {split!r}: {reason}"
        for problem in find_plan_problems(content, format_.split.accepts):
            yield f"{name}.{problem}"


def _allowed_keys(format_: FileFormat) -> dict[str, Option]:
    keys = {
        "format": Option("the name of a format", lambda value: isinstance(value, str)),
        "splits": Option(
            f"names and for each {format_.split.expected}",
            lambda value: _are_splits(value, format_),
        ),
        "classes": _NAMES,
        **format_.options,
    }
    return {**keys, **_KEYS_OF_FILES} if format_.has_files else keys


def _are_splits(value: Any, format_: FileFormat) -> bool:
    if isinstance(value, list):
        return format_.has_files and _NAMES.accepts(value)
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and all(is_derived(split) or format_.split.accepts(split) for split in value.values())
    )


def _split_declarations(file: Path, name: str, content: dict[str, Any]) -> Iterator[Declaration]:
    general = ("format", "splits", "classes", *_KEYS_OF_FILES)
    splits = content["splits"]
    plan = build_plan(content)
    for split_name, split in (
        ((s, s) for s in splits) if isinstance(splits, list) else splits.items()
    ):
        yield Declaration(
            name=f"{name}_{split_name}",
            format_name=content["format"],
            root=content.get("root", ""),
            split=split["from"] if is_derived(split) else split,
            classes=tuple(content.get("classes", ["cell"])),
            options={key: value for key, value in content.items() if key not in general},
            path=file,
            split_name=split_name,
            plan=plan if is_derived(split) else None,
            use_cache=content.get("cache", True),
            connected_components=content.get("connected_components", False),
        )


def read_declared_records(
    declaration: Declaration, datasets_folder: str | Path
) -> list[ImageRecord]:
    """Records of one declared split, through the cache.

    Args:
        declaration: as `read_declarations` returns it.
        datasets_folder: what the dataset's root is below.

    Raises:
        DatasetError: files that cannot be used, or a split that cannot be made; it begins with
            the dataset's name and the declaration.
    """
    root = Path(datasets_folder).absolute() / declaration.root
    try:
        records = _read_source(declaration, root)
        if text := check_pieces(record.cells for record in records):
            logger.warning("%s (%s): %s", declaration.name, declaration.path, text)
        if declaration.plan is None:
            return records
        return select_split(
            records, declaration.plan, declaration.split_name, root, declaration.classes
        )
    except DatasetError as error:
        raise DatasetError(f"{declaration.name} ({declaration.path}): {error}") from error


def _read_source(declaration: Declaration, root: Path) -> list[ImageRecord]:
    """All records of what the declaration's split is, or is taken from."""
    format_ = find_format(declaration.format_name)

    def read() -> list[ImageRecord]:
        return read_records(
            declaration.format_name,
            root,
            declaration.split,
            classes=declaration.classes,
            connected_components=declaration.connected_components,
            **declaration.options,
        )

    if not (declaration.use_cache and format_.has_files):
        return read()
    reading = Reading(
        declaration.format_name,
        root,
        declaration.split,
        declaration.classes,
        {**declaration.options, "connected_components": declaration.connected_components},
        format_.code or format_.read,
    )
    return cached_records(reading, read)
