"""Splits of one folder of images: by lists of ids, or by a hash of the id.

    my_cells:
      format: label_images
      root: my_cells
      splits:
        train: {from: all, share: 0.8}      # or ids: [a, b], or ids: train.txt
        val:   {from: all, share: 0.1}
        test:  {from: all, share: 0.1}
      split_seed: v1                        # another one splits anew
      group_by: '^(plate\\d+_well\\w+)'       # siblings stay together

Every group of images has one number, a hash of its name, and every split one interval of these
numbers. Hence no image lies in two splits, no group straddles, and adding images moves no old one.
What follows of it for the balance of classes is in docs/splits.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import regex
from cellseg.cells.records import ImageRecord
from cellseg.datasets.split_plans import Grouping, SplitPlan
from cellseg.errors import DatasetError, collect_problems
from cellseg.io.tables import read_text_rows
from cellseg.limits import LimitError, search_within_time
from cellseg.names import find_near_names

logger = logging.getLogger(__name__)

SPLITS_HINT = "docs/splits.md describes splits of one folder."
_HASH_BITS = 64
_NEAR_NAMES_FOR = 10  # ids; comparing names takes long where there are thousands


def hash_group(group: str, seed: str = "") -> int:
    """A whole number from 0 to 2 ** 64 - 1, the same on every machine.

    The first 8 bytes of SHA-256 of the JSON list [seed, group] in UTF-8, both in Unicode's
    composed form (file systems differ in how they store an accent).
    """
    names = [unicodedata.normalize("NFC", name) for name in (seed, group)]
    text = json.dumps(names, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def split_of_group(
    group: str, shares: Iterable[tuple[str, Fraction]], seed: str = ""
) -> str | None:
    """The split whose interval of the hash the group falls into; None behind the last one.

    Args:
        group: name of a group of images.
        shares: (split, share); the first has [0, share), the next begins where it ends.
        seed: goes into the hash.
    """
    place = Fraction(hash_group(group, seed), 2**_HASH_BITS)
    end = Fraction(0)
    for split, share in shares:
        end += share
        if place < end:
            return split
    return None


def find_groups(ids: Sequence[str], grouping: Grouping | None, root: Path) -> dict[str, str]:
    """The group of each image id.

    Args:
        ids: of all images.
        grouping: None: each id is its own group.
        root: the dataset's folder.

    Raises:
        DatasetError: ids that the pattern does not match or the CSV file does not name.
    """
    if grouping is None:
        return {image_id: image_id for image_id in ids}
    if not grouping.pattern:
        return _groups_of_csv(ids, grouping, root / grouping.csv)
    pattern = regex.compile(grouping.pattern)
    try:
        groups = {image_id: _match_group(pattern, image_id) for image_id in ids}
    except LimitError as error:
        raise DatasetError(f"{root}: group_by: {error}") from error
    missing = [image_id for image_id, group in groups.items() if not group]
    if missing:
        raise DatasetError(
            collect_problems(
                f"{root}: group_by {grouping.pattern!r} finds no group in these ids",
                missing,
                hint=f"Every image needs one. {SPLITS_HINT}",
            )
        )
    return groups


def _match_group(pattern: regex.Pattern[str], image_id: str) -> str:
    """What the pattern's groups match; "" if one of them does not, or matches nothing."""
    match = search_within_time(pattern, image_id)
    parts = match.groups() if match else ("",)
    if not all(parts):
        return ""
    return parts[0] if len(parts) == 1 else json.dumps(parts)


def _groups_of_csv(ids: Sequence[str], grouping: Grouping, path: Path) -> dict[str, str]:
    rows = read_text_rows(path, (grouping.id_column, grouping.group_column))
    groups: dict[str, str] = {}
    problems = []
    for line, row in enumerate(rows, 2):
        image_id, group = row[grouping.id_column], row[grouping.group_column]
        if not group:
            problems.append(f"line {line}: no {grouping.group_column} for {image_id!r}")
        elif groups.setdefault(image_id, group) != group:
            problems.append(f"line {line}: {image_id!r} is in {groups[image_id]!r} and {group!r}")
    problems += _absences([image_id for image_id in ids if image_id not in groups], groups, "row")
    if problems:
        raise DatasetError(collect_problems(f"{path}: problems", problems, hint=SPLITS_HINT))
    return {image_id: groups[image_id] for image_id in ids}


def _absences(missing: Sequence[str], known: Iterable[str], what: str) -> Iterator[str]:
    """A line for each missing id; with near names for the first few."""
    there = sorted(known)
    for number, image_id in enumerate(missing):
        near = find_near_names(image_id, there) if number < _NEAR_NAMES_FOR else []
        yield f"no {what} for {image_id!r}" + (f"; near names: {', '.join(near)}" if near else "")


def read_ids(path: Path, split: str) -> list[str]:
    """Ids of one split from a text file (one per line) or a CSV file.

    Args:
        path: `.txt`: blank lines and lines that begin with # are passed over. `.csv`: column `id`;
            where there is a column `split`, only rows of this split.
        split: the split's name.

    Raises:
        DatasetError: not readable, no column `id`, an id twice, or no id at all.
    """
    if path.suffix.lower() == ".csv":
        rows = read_text_rows(path, ["id"])
        ids = [row["id"] for row in rows if row.get("split", split) == split]
    else:
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise DatasetError(f"{path}: {error.strerror}; the declaration names it") from error
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}: cannot be read as text: {error}") from error
        ids = [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]
    twice = sorted(image_id for image_id, times in Counter(ids).items() if times > 1)
    if twice:
        raise DatasetError(f"{path}: ids that occur twice: {', '.join(twice[:10])}")
    if not ids:
        raise DatasetError(f"{path}: no ids for {split!r} in it")
    return ids


def assign_splits(ids: Sequence[str], plan: SplitPlan, root: Path) -> dict[str, str]:
    """The split of each image that has one.

    Args:
        ids: of all images of `plan.source`, different.
        plan: how they are split.
        root: the dataset's folder; lists and groups may lie in files below it.

    Returns:
        Id -> split, in the order of `ids`.

    Raises:
        DatasetError: ids without a group, listed ids that do not exist or stand in two lists, or
            listed siblings in two splits; all of a kind in one message.
    """
    groups = find_groups(ids, plan.grouping, root)
    if plan.shares:
        by_group = {
            group: split_of_group(group, plan.shares, plan.seed) for group in groups.values()
        }
        splits = {image_id: by_group[group] for image_id, group in groups.items()}
        return {image_id: split for image_id, split in splits.items() if split is not None}
    lists = {
        split: read_ids(root / listed, split) if isinstance(listed, str) else listed
        for split, listed in plan.lists
    }
    problems = [*_listed_problems(lists, set(ids)), *_straddling(lists, groups)]
    if problems:
        raise DatasetError(collect_problems(f"{root}: lists of ids", problems, hint=SPLITS_HINT))
    by_id = {image_id: split for split, listed in lists.items() for image_id in listed}
    return {image_id: by_id[image_id] for image_id in ids if image_id in by_id}


def _listed_problems(lists: Mapping[str, Sequence[str]], ids: set[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for split, listed in lists.items():
        for image_id in listed:
            if first.setdefault(image_id, split) != split:
                yield f"{split}: {image_id!r} is in {first[image_id]} as well"
        missing = [image_id for image_id in listed if image_id not in ids]
        yield from (f"{split}: {line}" for line in _absences(missing, ids, "image"))


def _straddling(lists: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> Iterator[str]:
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for split, listed in lists.items():
        for image_id in listed:
            if image_id in groups:
                members[groups[image_id]].setdefault(split, image_id)
    for group, by_split in members.items():
        if len(by_split) > 1 and len(set(by_split.values())) > 1:
            listed = ", ".join(f"{one!r} in {split}" for split, one in by_split.items())
            yield f"group {group!r} straddles: {listed}"


def select_split(
    records: Sequence[ImageRecord],
    plan: SplitPlan,
    split: str,
    root: Path,
    classes: Sequence[str],
) -> list[ImageRecord]:
    """Records of one split of a plan, in their order.

    Args:
        records: of all images of `plan.source`.
        plan: how the images are split.
        split: name of the split.
        root: the dataset's folder.
        classes: class names; a split without a cell of a class that others have is told of.

    Raises:
        DatasetError: as `assign_splits`, or no image falls into the split.
    """
    assigned = assign_splits([record.image_id for record in records], plan, root)
    chosen = [record for record in records if assigned.get(record.image_id) == split]
    if not chosen:
        groups = find_groups([r.image_id for r in records], plan.grouping, root)
        raise DatasetError(
            f"{root}: no image falls into {split}; there are {len(records)} images in "
            f"{len(set(groups.values()))} groups. Choose another split_seed or larger shares, or "
            f"list the ids. {SPLITS_HINT}"
        )
    if plan.lists and len(assigned) < len(records):
        logger.warning("%s: %d images are in no list", root, len(records) - len(assigned))
    absent = _classes_in(records) - _classes_in(chosen)
    if absent:
        names = sorted(classes[number] for number in absent)
        logger.warning("%s: %s has no cell of %s", root, split, ", ".join(names))
    return chosen


def _classes_in(records: Sequence[ImageRecord]) -> set[int]:
    return {number for record in records for number in np.unique(record.cells.classes).tolist()}
