"""Names that a configuration selects from a registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Registered = Iterable[tuple[str, Any]]
"""A registry of Detectron2's: iterating it gives names and what they stand for."""


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The question after the known names that are nearest to a mistyped one.

    Args:
        name: what was found.
        known: all that it could have been.
        most: how many of them are named.

    Returns:
        One text, or none where nothing is near.

    Example:
        >>> did_you_mean("MaskHed", ["MaskHead", "BoxHead"])
        ['did you mean MaskHead?']
    """
    near = difflib.get_close_matches(name, list(known), n=most)
    return [f"did you mean {' or '.join(near)}?"] if near else []


def describe_unknown_name(key: str, name: str, registry: Registered) -> str:
    """Say that `key` holds a name that nobody registered, with the nearest and all that there are.

    Example:
        >>> describe_unknown_name("HEAD", "MaskHed", [("MaskHead", object)])
        "HEAD is 'MaskHed'; did you mean MaskHead? Registered: MaskHead"
    """
    known = sorted(entry for entry, _ in registry)
    listed = f"Registered: {', '.join(known) or 'none'}"
    return f"{key} is {name!r}; {' '.join([*did_you_mean(name, known), listed])}"


def describe_unknown_names(key: str, names: Sequence[str], registry: Registered) -> Iterator[str]:
    """One `describe_unknown_name` for each of a list's names that nobody registered."""
    known = dict(registry)
    for number, name in enumerate(names):
        if name not in known:
            yield describe_unknown_name(f"{key}[{number}]", str(name), registry)
