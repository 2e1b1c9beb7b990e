"""What a declaration says about splits of one folder, and what can be wrong with it.

Everything here is known from the YAML file alone; `cellseg.datasets.splits` looks at the images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import regex
from cellseg.names import suggest_name

GROUP_BY_EXPECTED = (
    "a regular expression with a group, such as '^(plate\\d+)', or {csv: a file below root, "
    "column: the groups, id: the ids}"
)


@dataclass(frozen=True)
class Grouping:
    """Which images belong together: by a pattern on the id, or by a column of a CSV file.

    Attributes:
        pattern: regular expression; what its groups match is the name of the image's group.
        csv: file below the dataset's root, used where there is no pattern.
        id_column: its column of image ids.
        group_column: its column of groups.
    """

    pattern: str = ""
    csv: str = ""
    id_column: str = "id"
    group_column: str = "group"


@dataclass(frozen=True)
class SplitPlan:
    """How the images of one folder are split; either by `shares` or by `lists`.

    Attributes:
        source: what the dataset's format reads all images from.
        shares: (split, share), in the order of their intervals.
        lists: (split, ids or the name of a file of ids below the dataset's root).
        seed: goes into every hash.
        grouping: None where every image is a group of its own.
    """

    source: Any
    shares: tuple[tuple[str, Fraction], ...] = ()
    lists: tuple[tuple[str, tuple[str, ...] | str], ...] = ()
    seed: str = ""
    grouping: Grouping | None = None


def is_derived(split: Any) -> bool:
    """Whether a declared split is a part of a folder, `{from: ..., share or ids: ...}`."""
    return isinstance(split, dict) and "from" in split


def find_plan_problems(
    content: Mapping[str, Any], accepts_source: Callable[[Any], bool]
) -> Iterator[str]:
    """What is wrong with the derived splits of a declaration, before any image is looked at.

    Args:
        content: the declaration's keys; `splits` is a list or a dict.
        accepts_source: the test of the format for what a split is read from.
    """
    splits = content["splits"]
    derived = (
        {name: split for name, split in splits.items() if is_derived(split)}
        if isinstance(splits, dict)
        else {}
    )
    for key in ("split_seed", "group_by"):
        if key in content and not derived:
            yield f"{key}: is for splits such as {{from: all, share: 0.8}}; there are none"
    for name, split in derived.items():
        yield from _split_problems(f"splits.{name}", split, accepts_source)
    sources = {json.dumps(split["from"], sort_keys=True) for split in derived.values()}
    if len(sources) > 1:
        yield (
            f"splits: taken from several places ({', '.join(sorted(sources))}); declare one "
            "dataset for each"
        )
    for name, split in splits.items() if derived else ():
        if not is_derived(split) and json.dumps(split, sort_keys=True) in sources:
            yield f"splits.{name}: is all of {split!r}, which other splits are parts of"
    by_share = [name for name, split in derived.items() if "share" in split]
    if 0 < len(by_share) < len(derived):
        yield f"splits: shares ({', '.join(by_share)}) and lists of ids cannot be mixed"
    elif by_share and all(is_share(split["share"]) for split in derived.values()):
        total = sum(to_fraction(split["share"]) for split in derived.values())
        if total > 1:
            yield f"splits: the shares add up to {float(total):g}; they may add up to 1 at most"


def _split_problems(
    where: str, split: Mapping[str, Any], accepts_source: Callable[[Any], bool]
) -> Iterator[str]:
    known = ("from", "share", "ids")
    strangers = [key for key in split if key not in known]
    for key in strangers:
        yield f"{where}.{key}: unknown key; {suggest_name(key, known)}"
    if strangers:
        return
    if not accepts_source(split["from"]):
        yield f"{where}.from: {split['from']!r} is nothing that this format reads images from"
    if ("share" in split) == ("ids" in split):
        yield f"{where}: expected either share or ids beside from; found {sorted(split)}"
    elif "share" in split and not is_share(split["share"]):
        yield f"{where}.share: found {split['share']!r}, expected a number above 0, at most 1"
    elif "ids" in split and not _is_ids(split["ids"]):
        yield (
            f"{where}.ids: found {split['ids']!r}, expected a list of different ids (quote those "
            "that are numbers), or the name of a .txt or .csv file below root"
        )


def is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def _is_ids(value: Any) -> bool:
    if isinstance(value, str):
        return Path(value).suffix.lower() in (".txt", ".csv")
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(one, str) and one for one in value)
        and len(set(value)) == len(value)
    )


def is_grouping(value: Any) -> bool:
    """Whether `group_by` can be used: a pattern that compiles and has a group, or a CSV file."""
    if isinstance(value, str):
        try:
            return regex.compile(value).groups > 0
        except regex.error:
            return False
    return (
        isinstance(value, dict)
        and {"csv", "column"} <= set(value) <= {"csv", "column", "id"}
        and all(isinstance(name, str) and name for name in value.values())
    )


def build_plan(content: Mapping[str, Any]) -> SplitPlan | None:
    """The plan of a declaration without problems; None where no split is derived."""
    splits = content["splits"]
    if not isinstance(splits, dict):
        return None
    derived = {name: split for name, split in splits.items() if is_derived(split)}
    if not derived:
        return None
    return SplitPlan(
        source=next(iter(derived.values()))["from"],
        shares=tuple(
            (name, to_fraction(split["share"]))
            for name, split in derived.items()
            if "share" in split
        ),
        lists=tuple(
            (name, split["ids"] if isinstance(split["ids"], str) else tuple(split["ids"]))
            for name, split in derived.items()
            if "ids" in split
        ),
        seed=str(content.get("split_seed", "")),
        grouping=_build_grouping(content.get("group_by")),
    )


def _build_grouping(value: Any) -> Grouping | None:
    if value is None:
        return None
    if isinstance(value, str):
        return Grouping(pattern=value)
    return Grouping(csv=value["csv"], id_column=value.get("id", "id"), group_column=value["column"])


def to_fraction(share: float) -> Fraction:
    """The decimal number as it was written: 0.7 + 0.2 + 0.1 is exactly 1."""
    return Fraction(str(share))
