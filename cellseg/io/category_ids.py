"""The category-id rule: which number stands for which class in COCO's files.

In every file that cellseg writes the ids are those of the data set where it has some, else 1 to C
in the order of the classes. Beside a results file stands a small one that says so,
`<results>.categories.json`, since a list of results has no room for it.

Files without that companion (of older versions, of other programs) may count from 0 as the model
does, from 1, or by the data set's own ids. What they mean follows from the ids in them, or it is
asked for: nothing is guessed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellseg.errors import DatasetError
from cellseg.files import write_whole
from cellseg.json_text import read_json

FROM_0, FROM_1, DATASET = "from-0", "from-1", "dataset"
CHOICES = (FROM_0, FROM_1, DATASET)

logger = logging.getLogger(__name__)

CategoryIds = str | Sequence[int] | None
"""How a file counts: one of `CHOICES`, the id of each class, or None: as the file itself says."""


def choose_category_ids(num_classes: int, own: Mapping[int, int] | None = None) -> tuple[int, ...]:
    """The category id of each class in a file that is to be written.

    Args:
        num_classes: C.
        own: class of each category id of the data set; None, or without an id of its own for
            every class, gives 1 to C.

    Example:
        >>> choose_category_ids(2), choose_category_ids(2, {7: 1, 3: 0})
        ((1, 2), (3, 7))
    """
    ids = {number: category for category, number in (own or {}).items()}
    if len(ids) == len(own or {}) and set(ids) == set(range(num_classes)):
        return tuple(ids[number] for number in range(num_classes))
    return tuple(range(1, num_classes + 1))


def number_names(num_classes: int) -> list[str]:
    """Names for classes of which only the number is known: `cell`, or `class_1`, `class_2`, ..."""
    if num_classes == 1:
        return ["cell"]
    return [f"class_{number}" for number in range(1, num_classes + 1)]


def companion_of(results: Path) -> Path:
    """The file beside a results file that says what its category ids mean."""
    return results.with_suffix(".categories.json")


def write_companion(results: Path, ids: Sequence[int], classes: Sequence[str]) -> None:
    """Say beside a results file what its category ids mean.

    Args:
        results: the results file.
        ids: the category id of each class.
        classes: class names.
    """
    categories = [{"id": int(number), "name": name} for number, name in zip(ids, classes)]
    with write_whole(companion_of(results)) as partial:
        partial.write_text(json.dumps({"categories": categories}, indent=1), encoding="utf-8")


def read_companion(results: Path) -> dict[int, str] | None:
    """Name of each category id, in the order of classes; None where there is no such file.

    Raises:
        DatasetError: the file is damaged.
    """
    path = companion_of(results)
    try:
        categories = read_json(path)["categories"]
        return {int(category["id"]): str(category["name"]) for category in categories}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: {error!r}; expected {{'categories': [{{'id', 'name'}}, ...]}}; delete it and "
            "say with --category-ids how the results count"
        ) from error


def find_classes_of_ids(
    results: Path,
    found: Iterable[Any],
    classes: Sequence[str],
    *,
    own: Mapping[int, int] | None = None,
    asked: CategoryIds = None,
) -> dict[int, int]:
    """The class of each category id in a results file.

    Args:
        results: the file, for its companion and for messages.
        found: the category ids in it; of a mapping the values are the places where each stands
            first, for messages.
        classes: class names of the data set.
        own: class of each category id of the data set, where it has ids of its own.
        asked: what the user says of the file.

    Raises:
        DatasetError: an id is none of a class, or what the ids mean cannot be known.
    """
    places = found if isinstance(found, Mapping) else {}
    ids = set(found)
    if len(classes) == 1:  # whatever it is called, it is a cell
        return dict.fromkeys(ids, 0)
    if asked is not None:
        return _only_known(results, ids, _by_choice(results, asked, classes, own), places)
    named = read_companion(results)
    if named is not None:
        return _only_known(results, ids, _by_name(results, named, classes), places)
    if own:
        return _only_known(results, ids, _of_dataset(results, ids, dict(own), len(classes)), places)
    return _counted(results, ids, len(classes), places)


def _by_choice(
    results: Path, asked: str | Sequence[int], classes: Sequence[str], own: Mapping[int, int] | None
) -> dict[int, int]:
    if not isinstance(asked, str):
        if len(set(asked)) != len(classes):
            raise DatasetError(
                f"--category-ids has {len(set(asked))} ids; there are {len(classes)} classes: "
                f"{', '.join(classes)}"
            )
        return {number: place for place, number in enumerate(asked)}
    if asked == DATASET and not own:
        raise DatasetError(
            f"{results}: --category-ids {DATASET}, but the data set has no category ids of its own"
        )
    first = {FROM_0: 0, FROM_1: 1}.get(asked)
    if first is None:
        return dict(own or {})
    return {first + number: number for number in range(len(classes))}


def _by_name(results: Path, named: Mapping[int, str], classes: Sequence[str]) -> dict[int, int]:
    if len(named) == len(classes) and list(named.values()) == number_names(len(classes)):
        return {category: place for place, category in enumerate(named)}
    strange = [name for name in named.values() if name not in classes]
    if strange:
        raise DatasetError(
            f"{results}: its classes are {', '.join(named.values())} "
            f"({companion_of(results).name}); the data set has {', '.join(classes)}"
        )
    return {number: list(classes).index(name) for number, name in named.items()}


def _of_dataset(
    results: Path, ids: set[Any], own: dict[int, int], num_classes: int
) -> dict[int, int]:
    """COCO's results have the data set's ids; but older versions of cellseg counted from 0."""
    from_0 = {number: number for number in range(num_classes)}
    if not ids <= set(own) and ids <= set(range(num_classes + 1)):
        return _counted(results, ids, num_classes)
    if ids <= set(own) & set(from_0) and any(own[number] != from_0[number] for number in ids):
        raise _ambiguous(results, ids, f"{DATASET} (the data set's own) or {FROM_0}")
    return _told(results, own, "the data set's own")


def _counted(
    results: Path, ids: set[Any], num_classes: int, places: Mapping[Any, int] | None = None
) -> dict[int, int]:
    """From 0 or from 1: the file decides where the first or the last id is in it."""
    from_0 = {number: number for number in range(num_classes)}
    from_1 = {number + 1: number for number in range(num_classes)}
    if ids and ids <= set(from_0) & set(from_1):
        raise _ambiguous(results, ids, f"{FROM_0} or {FROM_1}")
    if ids <= set(from_1):
        return _told(results, from_1, "counted from 1")
    if ids <= set(from_0):
        return _told(results, from_0, "counted from 0")
    strange = sorted(ids - set(from_1), key=str) or sorted(ids, key=str)
    raise DatasetError(
        f"{results}: category_id {strange[-1]!r}, expected 1 to {num_classes} (or 0 to "
        f"{num_classes - 1}){_at(strange[-1], places or {})}; say with --category-ids which id "
        "each class has"
    )


def _told(results: Path, numbers: dict[int, int], how: str) -> dict[int, int]:
    logger.info("%s: category ids are %s", results, how)
    return numbers


def _ambiguous(results: Path, ids: set[Any], choices: str) -> DatasetError:
    listed = ", ".join(map(str, sorted(ids)))
    return DatasetError(
        f"{results}: category ids {listed} can mean different classes, and "
        f"{companion_of(results).name} is not beside it; say with --category-ids how it counts: "
        f"{choices}"
    )


def _at(category: Any, places: Mapping[Any, int]) -> str:
    """The first result that has a category id, where that is known."""
    return f" (result {places[category]})" if category in places else ""


def _only_known(
    results: Path, ids: set[Any], numbers: dict[int, int], places: Mapping[Any, int]
) -> dict[int, int]:
    strange = sorted(ids - set(numbers), key=str)
    if strange:
        raise DatasetError(
            f"{results}: category_id {strange[0]!r} is none of {sorted(numbers)}"
            f"{_at(strange[0], places)}; say with --category-ids how the file counts"
        )
    return numbers


def parse_category_ids(words: Sequence[str] | None) -> CategoryIds:
    """`--category-ids` from the command line: one of `CHOICES`, or the id of each class.

    Raises:
        DatasetError: neither.
    """
    if not words:
        return None
    if len(words) == 1 and words[0] in CHOICES:
        return words[0]
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise DatasetError(
            f"--category-ids {' '.join(words)}: expected {', '.join(CHOICES)}, or the category id "
            "of each class"
        ) from error
