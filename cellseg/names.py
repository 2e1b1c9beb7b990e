"""Names that somebody typed, what they may have meant, and names that never collide."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Registered = Iterable[tuple[str, Any]]
"""A registry of Detectron2's: iterating it gives names and what they stand for."""


_NOT_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's kinds of characters that move the cursor, turn text round, break lines, or are bytes of
no text at all."""
_JOINERS = "\u200c\u200d"  # of letters of Persian and Indian scripts, and of emoji
_LISTED_LINE = re.compile(r"\n(?=  )")


def printable(text: str) -> str:
    r"""A name, or any text of somebody else's, in one line that a terminal can show.

    Example:
        >>> printable("cell\x1b[31m.png"), printable("a\nb"), printable("Käfer 7")
        ('cell\\x1b[31m.png', 'a\\nb', 'Käfer 7')
    """
    if text.isprintable():
        return text
    return "".join(map(_show, text))


def _show(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) not in _NOT_SHOWN:
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def printable_lines(text: str) -> str:
    r"""`printable` for a text of several lines, such as a table or a list.

    Example:
        >>> printable_lines("a.png\n  1 cell\x07")
        'a.png\n  1 cell\\x07'
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_message(text: str) -> str:
    r"""`printable` for an error, whose list of problems keeps its lines.

    A line break before anything else comes from a name and is shown as one.

    Example:
        >>> printable_message("2 problems:\n  - a.png: empty\nSee docs")
        '2 problems:\n  - a.png: empty\nSee docs'
        >>> printable_message("a\nb.png: no such file")
        'a\\nb.png: no such file'
    """
    first = _LISTED_LINE.search(text)
    if first is None:
        return printable(text)
    return f"{printable(text[: first.start()])}{printable_lines(text[first.start() :])}"


def why_unsafe_name(name: str) -> str:
    """Why nothing is called so that is written to a folder; "" for a name that may be.

    It may name sub-folders, as in `plate1/a_t3`, but nothing outside the folder.

    Example:
        >>> why_unsafe_name("plate1/a_t3"), why_unsafe_name("../evil")
        ('', 'expected names joined by /, none empty and none that begins with a dot')
    """
    parts = name.replace("\\", "/").split("/")
    if any(not part or part.startswith(".") or "\0" in part for part in parts):
        return "expected names joined by /, none empty and none that begins with a dot"
    return ""


def find_near_names(
    name: str, known: Iterable[str], count: int = 3, likeness: float = 0.6
) -> list[str]:
    """The known names that are most like `name`, the nearest first.

    Args:
        name: what was typed.
        known: the names that there are.
        count: how many are given at most.
        likeness: share of equal letters, 0 to 1, below which a name is not given.

    Example:
        >>> find_near_names("labels", ["label", "cell", "label_images"])
        ['label', 'label_images']
    """
    return difflib.get_close_matches(str(name), list(known), n=count, cutoff=likeness)


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """The question after the known names that are most like `name`; "" where none is near.

    Args:
        name: what was typed.
        known: the names that there are.
        count: how many are named at most.

    Example:
        >>> did_you_mean("MaskHed", ["MaskHead", "BoxHead"])
        'did you mean MaskHead?'
    """
    near = find_near_names(name, known, count)
    return f"did you mean {' or '.join(near)}?" if near else ""


def suggest_name(
    name: str, known: Iterable[str], otherwise: str = "known are", count: int = 1
) -> str:
    """`did you mean cell?`, or where nothing is near `known are cell, nucleus`.

    Args:
        name: what was typed.
        known: the names that there are.
        otherwise: what comes before the list of them all.
        count: how many near names are given at most.

    Example:
        >>> suggest_name("cel", ["cell", "nucleus"]), suggest_name("x", ["cell", "nucleus"])
        ('did you mean cell?', 'known are cell, nucleus')
    """
    names = list(known)
    return did_you_mean(name, names, count) or f"{otherwise} {', '.join(names) or 'none'}"


def describe_unknown_name(key: str, name: str, registry: Registered) -> str:
    """Say that `key` holds a name that nobody registered, with the nearest and all that there are.

    Example:
        >>> describe_unknown_name("HEAD", "MaskHed", [("MaskHead", object)])
        "HEAD is 'MaskHed'; did you mean MaskHead? Registered: MaskHead"
    """
    known = sorted(entry for entry, _ in registry)
    listed = f"Registered: {', '.join(known) or 'none'}"
    return f"{key} is {name!r}; {did_you_mean(name, known)} {listed}".replace(";  ", "; ")


def describe_unknown_names(key: str, names: Sequence[str], registry: Registered) -> Iterator[str]:
    """One `describe_unknown_name` for each of a list's names that nobody registered."""
    known = dict(registry)
    for number, name in enumerate(names):
        if name not in known:
            yield describe_unknown_name(f"{key}[{number}]", str(name), registry)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with `_2`, `_3`, ... behind those that came before.

    Example:
        >>> unique_names(["a", "a", "a_2"])
        ['a', 'a_3', 'a_2']
    """
    taken, used = set(names), set[str]()
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in used or (candidate != name and candidate in taken):
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate)
        unique.append(candidate)
    return unique
