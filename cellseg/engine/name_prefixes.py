"""Parameters chosen by the beginning of their names."""

from __future__ import annotations

from collections.abc import Iterable

from cellseg.errors import ConfigError, collect_problems
from cellseg.names import find_near_names


def match_prefixes(key: str, prefixes: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """The longest prefix of each name that has one.

    A prefix ends where a part of the name ends: "backbone.res2" is one of "backbone.res2.weight",
    not of "backbone.res20.weight".

    Args:
        key: the config key that the prefixes come from, for the error.

    Returns:
        Prefix by name; names without one are left out.

    Raises:
        ConfigError: a prefix is one of no name.
    """
    wanted = set(prefixes)
    known: set[str] = set()
    found = {}
    for name in names:
        chain = beginnings(name)
        known.update(chain)
        matching = [prefix for prefix in chain if prefix in wanted]
        if matching:
            found[name] = matching[-1]
    problems = [
        f"{prefix!r}; {_nearest_names(prefix, known)}"
        for prefix in sorted(wanted)
        if prefix not in known
    ]
    if problems:
        raise ConfigError(collect_problems(f"{key} names no parameter of the model with", problems))
    return found


def beginnings(name: str) -> list[str]:
    """`a`, `a.b`, `a.b.c` of the name `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _nearest_names(prefix: str, known: Iterable[str]) -> str:
    near = find_near_names(prefix, known, likeness=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"it has {', '.join(sorted(name for name in known if '.' not in name))}"
