"""Tables of splits: images dealt so that every split has its share of every class.

A hash deals each group by itself, so shares are met on average only. Here all images are looked
at, and what was decided is kept in a table: new images are dealt around the old ones.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from cellseg.data.records import CellRecord
from cellseg.data.split_plans import Grouping, is_share, to_fraction
from cellseg.data.splits import find_groups, hash_group, read_table
from cellseg.errors import DatasetError
from cellseg.export.files import write_whole

NO_CELLS = "(no cells)"


def dominant_class(record: CellRecord) -> str:
    """The class of most of an image's cells, the first by name of equals; NO_CELLS without any."""
    counts = Counter(cell.class_name for cell in record.cells)
    return min(counts, key=lambda name: (-counts[name], name), default=NO_CELLS)


def stratify_ids(
    records: Sequence[CellRecord],
    shares: Mapping[str, float],
    *,
    grouping: Grouping | None = None,
    root: Path = Path(),
    seed: str = "",
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Deal images so that each split has its share of each stratum, for a table that is kept.

    The stratum of a group is the dominant class of most of its images. Within a stratum the groups
    come in the order of their hashes, each to the split that is furthest below its share.

    Args:
        records: all images.
        shares: split -> share, together at most 1; what is left over gets no split.
        grouping: which images stay together.
        root: the dataset's folder, for groups in a CSV file.
        seed: goes into the hashes.
        known: id -> split of an earlier call; these images, and their siblings, stay there.

    Returns:
        Id -> split, in the order of `records`; `write_split_table` keeps it.

    Raises:
        DatasetError: unusable shares, ids without a group, or `known` has a group in two splits or
            an unknown split.
    """
    problem = _shares_problem(shares)
    if problem:
        raise DatasetError(problem)
    groups = find_groups([record.image_id for record in records], grouping, root)
    members: dict[str, list[CellRecord]] = defaultdict(list)
    for record in records:
        members[groups[record.image_id]].append(record)
    dealt = _known_groups(known or {}, groups, shares)
    exact: dict[str | None, Fraction] = {name: to_fraction(s) for name, s in shares.items()}
    exact[None] = 1 - sum(exact.values(), Fraction(0))
    strata: dict[str, list[str]] = defaultdict(list)
    for group, siblings in members.items():
        strata[_stratum(siblings)].append(group)
    for in_stratum in strata.values():
        weights = {group: len(members[group]) for group in in_stratum}
        _deal_stratum(weights, exact, seed, dealt)
    splits = {record.image_id: dealt[groups[record.image_id]] for record in records}
    return {image_id: split for image_id, split in splits.items() if split is not None}


def _shares_problem(shares: Mapping[str, float]) -> str:
    if not shares or not all(is_share(share) for share in shares.values()):
        return f"shares {dict(shares)}: expected numbers above 0, at most 1"
    total = sum(to_fraction(share) for share in shares.values())
    return f"shares {dict(shares)}: they add up to {float(total):g}, above 1" if total > 1 else ""


def _known_groups(
    known: Mapping[str, str], groups: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str | None]:
    dealt: dict[str, str | None] = {}
    for image_id, split in known.items():
        if split not in shares:
            raise DatasetError(f"{image_id!r} is in the unknown split {split!r}; {list(shares)}")
        if image_id in groups and dealt.setdefault(groups[image_id], split) != split:
            raise DatasetError(
                f"group {groups[image_id]!r} is in {dealt[groups[image_id]]} and in {split} "
                f"({image_id!r}) already"
            )
    return dealt


def _stratum(siblings: Sequence[CellRecord]) -> str:
    counts = Counter(dominant_class(record) for record in siblings)
    return min(counts, key=lambda name: (-counts[name], name))


def _deal_stratum(
    weights: Mapping[str, int],
    shares: Mapping[str | None, Fraction],
    seed: str,
    dealt: dict[str, str | None],
) -> None:
    """Give each group of a stratum that has no split one; writes into `dealt`."""
    total = sum(weights.values())
    lacking = {split: share * total for split, share in shares.items()}
    for group in weights:
        if group in dealt:
            lacking[dealt[group]] -= weights[group]
    for group in sorted(weights, key=lambda name: hash_group(name, seed)):
        if group not in dealt:
            dealt[group] = max(lacking, key=lambda split: lacking[split])
            lacking[dealt[group]] -= weights[group]


def write_split_table(dealt: Mapping[str, str], path: str | Path) -> None:
    """Write `id,split`, sorted by id, for `splits: {train: {from: all, ids: <file>}, ...}`."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("id", "split"), *sorted(dealt.items())])


def read_split_table(path: str | Path) -> dict[str, str]:
    """Id -> split of a table that `write_split_table` wrote.

    Raises:
        DatasetError: not readable, or without these columns.
    """
    return {row["id"]: row["split"] for row in read_table(Path(path), ("id", "split"))}
