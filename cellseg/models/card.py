"""The card of a model, `model.yaml`: what it is, what it learned from, what it was measured at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml
from cellseg.arguments import REAL, check_fields, several
from cellseg.errors import ConfigError, collect_problems
from cellseg.names import suggest_name
from cellseg.rules import NAMES, TEXT, Rule, choice, describe_kind, list_of, number, or_empty, show
from cellseg.yaml_text import parse_yaml

FORMAT_VERSION = 1
"""Of the bundle format. It grows when an older cellseg could not read what a newer one writes."""

PRECISIONS = ("int8", "half", "full")

Tree = dict[str, Any]


@dataclass(frozen=True)
class TrainingSet:
    """Data that a model was trained on.

    Attributes:
        name: of the data set and its split.
        images, cells: how many; 0 where it is not known.
        licence: of the data, as SPDX calls it, such as CC0-1.0.
        attribution: what is to be said of their origin with anything derived from them.
    """

    name: str
    images: int = 0
    cells: int = 0
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class MeasuredMetric:
    """One metric of a model.

    Attributes:
        name: as docs/metrics.md calls it.
        value: what was measured.
        data: the data set that it was measured on.
        command: what measured it.
    """

    name: str
    value: float
    data: str
    command: str = ""


_TYPES = {
    "name": TEXT,
    "classes": several(TEXT, "a list of names"),
    **dict.fromkeys(("version", "description", "licence", "precision"), TEXT),
    **dict.fromkeys(("trained_on", "diameters_px", "metrics"), several()),
    "pixel_size_um": REAL,
}


@dataclass(frozen=True)
class ModelCard:
    """What is to be known about a model.

    Attributes:
        name: lower-case letters, digits, "-", "_" and ".".
        version: of the model, such as "1.0".
        description: what it was made for, in a sentence or two.
        licence: of the weights, as SPDX calls it.
        classes: names of the kinds of cells, in the order of their numbers.
        trained_on: the data it learned from.
        diameters_px: lowest, median and highest diameter of the cells that it knows, in pixels as
            the network sees them; empty where it is not known. The diameter of a cell is that of
            the circle of its area.
        pixel_size_um: of the images that it was trained on; None where there is no one size.
        thresholds: values of `CELLSEG.TEST` that decide which detections are cells, by key.
        metrics: what was measured.
        precision: how the weights are stored: int8, half or full.
        made_with: versions by name; "cellseg" is among them.
        sha256: of the bundle's other files, by name.
        format_version: of the bundle.
    """

    name: str
    classes: tuple[str, ...]
    version: str = "1.0"
    description: str = ""
    licence: str = ""
    trained_on: tuple[TrainingSet, ...] = ()
    diameters_px: tuple[float, ...] = ()
    pixel_size_um: float | None = None
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[MeasuredMetric, ...] = ()
    precision: str = "full"
    made_with: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_fields(self, _TYPES)

    def to_yaml(self) -> str:
        """The content of `model.yaml`."""
        values = asdict(self)
        tree = {
            key: list(values[key]) if isinstance(values[key], tuple) else values[key]
            for key in _RULES
        }
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)

    @classmethod
    def from_tree(cls, tree: Tree) -> ModelCard:
        """The card of what `find_card_problems` has no problem with."""
        values: Tree = {
            key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()
        }
        values |= {
            "trained_on": tuple(TrainingSet(**one) for one in tree.get("trained_on", ())),
            "metrics": tuple(MeasuredMetric(**one) for one in tree.get("metrics", ())),
        }
        return cls(**values)


def _is_diameters(value: Any) -> bool:
    positive = list_of(number(above=0))
    return positive.accepts(value) and len(value) == 3 and sorted(value) == list(value)


_NAME = Rule(
    'lower-case letters, digits, "-", "_" and ".", with a letter or digit first',
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", value)),
)
_FILLED = Rule("a text that is not empty", lambda value: isinstance(value, str) and value != "")
_COUNT = number(0, whole=True)
_TEXTS_BY_NAME = Rule(
    "names and texts",
    lambda value: (
        isinstance(value, dict) and all(isinstance(each, str) for each in (*value, *value.values()))
    ),
)
_TREES = list_of(Rule("", lambda value: isinstance(value, dict)))
_RULES: dict[str, Rule] = {
    "format_version": number(1, whole=True),
    "name": _NAME,
    "version": _FILLED.said("a text, in quotes where it is a number"),
    "description": TEXT,
    "licence": TEXT,
    "classes": Rule(
        "a list of names, at least one", lambda value: NAMES.accepts(value) and len(value) > 0
    ),
    "trained_on": _TREES.said("a list of data sets, each with a name"),
    "diameters_px": or_empty(
        Rule("[lowest, median, highest], ascending and more than 0", _is_diameters)
    ),
    "pixel_size_um": Rule(
        "a number of micrometres, or nothing",
        lambda value: value is None or number(above=0).accepts(value),
    ),
    "thresholds": Rule("keys of CELLSEG.TEST with values", lambda value: isinstance(value, dict)),
    "metrics": _TREES.said("a list of metrics, each with name, value and data"),
    "precision": choice(*PRECISIONS),
    "made_with": _TEXTS_BY_NAME,
    "sha256": _TEXTS_BY_NAME.said("names of files with their SHA-256"),
}
_PART_RULES: dict[str, dict[str, Rule]] = {
    "trained_on": {
        "name": _FILLED, "images": _COUNT, "cells": _COUNT, "licence": TEXT, "attribution": TEXT,
    },
    "metrics": {"name": _FILLED, "value": number(), "data": _FILLED, "command": TEXT},
}  # fmt: skip
_PART_NEEDS = {"trained_on": ("name",), "metrics": ("name", "value", "data")}
_NEEDED = ("format_version", "name", "version", "classes", "precision", "made_with", "sha256")
WRITTEN_BY_ITSELF = ("format_version", "precision", "made_with", "sha256")
"""What nobody fills in: it follows from the files."""


def find_card_problems(tree: Tree) -> Iterator[str]:
    """Say what in a `model.yaml` cannot be, or is missing: what was found and what was expected."""
    yield from _missing(tree, _NEEDED, _RULES, "")
    yield from _unusable(tree, _RULES, "")


def read_card_additions(text: str | bytes, place: str) -> Tree:
    """What a person adds to the card of a model: any of its keys but those that follow from files.

    Args:
        text: YAML, or the content of a file of it.
        place: what it was read from, for the message.

    Raises:
        ConfigError: no YAML, an unknown key, a value that cannot be, all in one message.
    """
    tree = parse_tree(text, place)
    written = [key for key in WRITTEN_BY_ITSELF if key in tree]
    problems = [f"{key}: is filled in by itself; leave it out" for key in written]
    own = {key: value for key, value in tree.items() if key not in WRITTEN_BY_ITSELF}
    problems += _unusable(own, _RULES, "")
    if problems:
        raise ConfigError(collect_problems(f"{place}: cannot be used", problems, _HINT))
    return own


_HINT = "docs/models.md describes every key."


def parse_tree(text: str | bytes, place: str) -> Tree:
    """The keys and values of a YAML text.

    Raises:
        ConfigError: it is no YAML, or something else than keys and values.
    """
    try:
        tree = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{place}: cannot be read as YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{place}: holds {describe_kind(tree)}; expected keys and values")
    return tree


def _missing(
    tree: Tree, needed: tuple[str, ...], rules: Mapping[str, Rule], place: str
) -> Iterator[str]:
    for key in needed:
        if key not in tree:
            yield f"{place}{key}: missing, expected {rules[key].expected}"


def _unusable(tree: Tree, rules: Mapping[str, Rule], place: str) -> Iterator[str]:
    for key, value in tree.items():
        if key not in rules:
            yield f"{place}{key}: unknown key; {suggest_name(str(key), rules)}"
        elif not rules[key].accepts(value):
            yield f"{place}{key}: found {show(value)}, expected {rules[key].expected}"
        elif key in _PART_RULES and not place:
            for index, part in enumerate(value):
                inside, own = f"{key}[{index}].", _PART_RULES[key]
                yield from _missing(part, _PART_NEEDS[key], own, inside)
                yield from _unusable(part, own, inside)


def describe_diameters(diameters_px: Sequence[float]) -> str:
    """The diameters that a model knows, for a table; "" where they are not known.

    Example:
        >>> describe_diameters((7.9, 16.5, 31.2))
        '8 to 31, half below 16'
    """
    if not diameters_px:
        return ""
    low, middle, high = diameters_px
    return f"{low:.0f} to {high:.0f}, half below {middle:.0f}"
