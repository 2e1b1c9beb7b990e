"""What files and the command line set, put into a config: which key, from where, and in words.

A CfgNode merges by itself, but its errors show Python types and whole sections, it refuses a whole
number in place of a float, and it takes `null` for any value. So what is given is looked at first,
key by key, and the node then merges what cannot fail.
"""

from __future__ import annotations

import ast
import numbers
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cellseg.arguments import check_argument
from cellseg.config.engine_combinations import find_value
from cellseg.config.engine_keys import ENGINE_RULES
from cellseg.config.files import ConfigTree
from cellseg.config.keys import KEYS
from cellseg.errors import MAX_PROBLEMS_LISTED, ConfigError, collect_problems
from cellseg.names import did_you_mean
from cellseg.rules import ANYTHING, FLAG, TEXT, Rule, list_of, number, show

COMMAND_LINE = "command line"

_RULES = ENGINE_RULES | {key.path: key.rule for key in KEYS.values()}
_ANY = number().accepts
_PLAIN = (str, int, float, list, tuple, type(None))
_AS_DEFAULT = {
    bool: FLAG,
    int: number(whole=True),
    float: Rule("a number", lambda value: type(value) in (int, float)),
    str: TEXT,
    list: Rule("a list", lambda value: isinstance(value, (list, tuple))),
    tuple: Rule("a list", lambda value: isinstance(value, (list, tuple))),
}

_PAIRS = list_of(ANYTHING, words="a list of KEY, VALUE, ... such as ['SEED', 1]")

Tree = dict[str, Any]


def pairs_to_tree(pairs: Sequence[Any]) -> ConfigTree:
    """KEY VALUE ..., as the command line has them, as a tree; of a key given twice the last.

    Args:
        pairs: names of keys and values, alternating; a text is read as a file's value is.

    Raises:
        InputTypeError: no list.
        ConfigError: a key without a value, or one that is no name.

    Example:
        >>> pairs_to_tree(["SOLVER.MAX_ITER", "9"]).tree
        {'SOLVER': {'MAX_ITER': '9'}}
    """
    check_argument("opts", pairs, _PAIRS)
    if len(pairs) % 2:
        raise ConfigError(
            f"{COMMAND_LINE}: expected KEY VALUE KEY VALUE ...; {show(pairs[-1])} has no value "
            "behind it"
        )
    tree: Tree = {}
    for key, value in zip(pairs[::2], pairs[1::2]):
        if not isinstance(key, str) or not all(key.split(".")):
            raise ConfigError(
                f"{COMMAND_LINE}: {show(key)} is no key of the config; expected one such as "
                "SOLVER.MAX_ITER"
            )
        place = tree
        *above, leaf = key.split(".")
        for part in above:
            below = place.setdefault(part, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{COMMAND_LINE}: {key}: {part} is given a value, too")
            place = below
        place[leaf] = _plain(value)
    return ConfigTree(COMMAND_LINE, tree, is_file=True)


def _plain(value: Any) -> Any:
    """Paths and the numbers of NumPy as what a config holds."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def read_value(value: Any) -> Any:
    """A text as the literal that it is, as a CfgNode reads it; other values as they are.

    Raises:
        ValueError: it has more brackets within each other than Python reads.

    Example:
        >>> read_value("(1, 2)"), read_value("dice"), read_value(3)
        ((1, 2), 'dice', 3)
    """
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError):
        return value
    except (MemoryError, RecursionError) as error:
        raise ValueError("too many brackets within each other") from error


def merge_given(cfg: Any, given: ConfigTree) -> None:
    """Put what a file or the command line says into a config.

    Values of the wrong kind are left to `check_keys`, which knows what is expected, unless the
    key is one of a plug-in.

    Args:
        cfg: a CfgNode with the keys of `add_cellseg_config`; it is changed.
        given: what is set, and where.

    Raises:
        ConfigError: unknown keys, values where sections belong or the other way round, nothing
            (`null`) where a value belongs, all in one message, each with its place.
    """
    problems = list(islice(_find_misfits(cfg, given.tree, "", cfg), MAX_PROBLEMS_LISTED))
    if len(problems) == 1:
        path, problem = problems[0]
        raise ConfigError(f"{given.places.get(path, given.place)}: {problem}")
    if problems:
        said = [_with_place(problem, given.places.get(path)) for path, problem in problems]
        raise ConfigError(collect_problems(f"{given.place}: cannot be used", said))
    before = {path: find_value(cfg, path) for path in leaf_names(cfg)}
    for path in before:
        _set(cfg, path, None)  # which takes a value of any type
    try:
        cfg.merge_from_other_cfg(type(cfg)(given.tree))
    except Exception as error:  # a key that a plug-in has renamed, for instance
        raise ConfigError(f"{given.place}: {show(str(error), 300)}") from error
    set_here = dict(_leaves(given.tree, ""))
    for path, value in before.items():  # the nodes may be other ones by now
        if path not in set_here:
            _set(cfg, path, value)
        else:
            merged = _as_its_kind(find_value(cfg, path), value)
            _set(cfg, path, set_here[path] if _is_name(path, set_here[path], value) else merged)


def leaf_names(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Whole names of all keys of a config that are no sections."""
    for key, value in cfg.items():
        if isinstance(value, dict):
            yield from leaf_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def describe_places(text: str, places: Mapping[str, str]) -> str:
    """Where the keys that a message names were set; "" where that is not known.

    Args:
        text: the message.
        places: file and line by the keys' whole names.

    Example:
        >>> describe_places("SEED is 'x'; expected ...", {"SEED": "a.yaml, line 3"})
        ' (SEED is set in a.yaml, line 3)'
    """
    words = {word.strip("`'\",;:()[]") for word in text.split()}
    named = [key for key in places if key in words]
    said = [f"{key} is set {_place_in_words(places[key])}" for key in named[:10]]
    if "\n" in text:  # a list of several
        return "".join(f"\n{one}" for one in said)
    return f" ({'; '.join(said)})" if said else ""


def _place_in_words(place: str) -> str:
    return f"on the {place}" if place == COMMAND_LINE else f"in {place}"


def _with_place(problem: str, place: str | None) -> str:
    return f"{problem} ({place})" if place else problem


def _find_misfits(node: Any, tree: Tree, below: str, root: Any) -> Iterator[tuple[str, str]]:
    """(whole name, problem) of what cannot stand where it stands."""
    for key, value in tree.items():
        path = f"{below}{key}"
        if key not in node:
            if not _may_be_unknown(node, path, root):
                yield path, _describe_unknown(path, root)
        elif isinstance(node[key], dict):
            if isinstance(value, dict):
                yield from _find_misfits(node[key], value, f"{path}.", root)
            else:
                found = "has nothing below it" if value is None else f"is {show(value)}"
                known = ", ".join(list(node[key])[:4])
                yield path, f"{path} {found}; expected a section: keys below it such as {known}"
        else:
            problem = _find_misfit(path, value, node[key])
            if problem:
                yield path, problem


def _may_be_unknown(node: Any, path: str, root: Any) -> bool:
    """Whether the node itself takes or explains a key that it does not have."""
    takes_new = getattr(node, "is_new_allowed", bool)()
    return bool(takes_new or root.key_is_deprecated(path) or root.key_is_renamed(path))


def _describe_unknown(path: str, root: Any) -> str:
    known = list(leaf_names(root))
    if path in known:
        section, _, leaf = path.rpartition(".")
        return f"{path} stands there as one word; expected {leaf}, indented below {section}"
    near = did_you_mean(path, [*known, *root]) or did_you_mean(path.rpartition(".")[0], known)
    return f"{show(path)[1:-1]} is no key of the config{near and f'; {near}'}"


def _find_misfit(path: str, value: Any, default: Any) -> str:
    """Why a value cannot be that of a key; "" where it can, or where `check_keys` will say."""
    rule = _RULES.get(path) or _AS_DEFAULT.get(type(default))
    expected = rule.expected if rule else "a value"
    if isinstance(value, dict):
        keys = ", ".join(map(str, list(value)[:4]))
        return f"{path} is a section with the keys {keys or 'none'}; expected {expected}"
    if not isinstance(value, _PLAIN):
        return f"{path} is {show(value)}, a {type(value).__name__}; expected {expected}"
    try:
        read = read_value(value)
    except ValueError as error:
        return f"{path} has {error}; expected {expected}"
    if read is None and rule and not rule.accepts(None) and default is not None:
        return f"{path} is null; expected {expected}. Leave the key out where it need not be set"
    if path in _RULES or not rule or rule.accepts(read) or _is_name(path, value, default):
        return ""
    return f"{path} is {show(read)}; expected {expected}, such as {show(default)}"


def _leaves(tree: Tree, below: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{below}{key}.")
        else:
            yield f"{below}{key}", value


def _set(cfg: Any, path: str, value: Any) -> None:
    node, _, leaf = path.rpartition(".")
    (find_value(cfg, node) if node else cfg)[leaf] = value


def _is_name(path: str, given: Any, default: Any) -> bool:
    """Whether a word is one although it reads as a number, such as the folder "2026"."""
    if path.startswith("CELLSEG.") or not (isinstance(default, str) and isinstance(given, str)):
        return False
    rule, read = _RULES.get(path, TEXT), read_value(given)
    return type(read) in (int, float) and not rule.accepts(read)


def _as_its_kind(value: Any, default: Any) -> Any:
    """Lists and tuples as the key has them, and a whole number as a float where it has one."""
    for own, other in ((list, tuple), (tuple, list)):
        if isinstance(default, own) and isinstance(value, other):
            return own(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if isinstance(default, float) and is_whole and _ANY(value) else value
