"""YAML as cellseg reads it, wherever it reads any: configs, declarations, cards, options.

Plain values only: no tag builds an object. Files come from anywhere, so what a text may ask for is
bounded (depth, and what aliases repeat), and whatever is wrong with it is one `yaml.YAMLError` that
says the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 100
"""Levels of lists and sections within each other."""

MAX_REPEATED = 100_000
"""Values that aliases (`*name`) may add to those that the text has."""

MAX_BYTES = 64 * 2**20

_MERGE = "tag:yaml.org,2002:merge"  # `<<: *other`, whose keys may be set again
_SHOWN = 40


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice (the first one would be lost), and depth without end."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _too_deep(self.peek_event().start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):  # which PyYAML refuses
                continue
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise _fault(f"{name} stands there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as error:  # 30 February, or 5,000 digits
            shown = str(node.value)[:_SHOWN]
            raise _fault(f"{shown!r} is no value: {error}", node.start_mark) from error


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _too_deep(mark: Any) -> yaml.MarkedYAMLError:
    return _fault(f"more than {MAX_DEPTH} levels within each other", mark)


def parse_yaml(source: str | bytes) -> Any:
    """The value of a YAML text.

    Args:
        source: the text, or a file's content.

    Raises:
        yaml.YAMLError: it is no YAML or no UTF-8, a key stands twice at one place, a tag asks for
            an object, or it is deeper or larger than any config; the line is said.

    Example:
        >>> parse_yaml("SOLVER: {MAX_ITER: 10}")
        {'SOLVER': {'MAX_ITER': 10}}
    """
    return parse_with_lines(source)[0]


def parse_with_lines(source: str | bytes) -> tuple[Any, dict[str, int]]:
    """`parse_yaml`, and on which line each key stands.

    Returns:
        The value, and lines from 1 by the keys' whole names, such as "SOLVER.MAX_ITER".
    """
    try:
        loader = _StrictLoader(_decode(source) if isinstance(source, bytes) else source)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        _check_aliases(node)
        return loader.construct_document(node), dict(_lines_of(node, ""))
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(_describe(error)) from error
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(
            f"no text: it has the character {chr(error.character)!r} at place {error.position}"
            if isinstance(error.character, int)
            else f"no text: {error.reason}"
        ) from error


def read_yaml(path: str | Path) -> tuple[Any, dict[str, int]]:
    """`parse_with_lines` of a file.

    Raises:
        OSError: it cannot be read.
        yaml.YAMLError: as `parse_yaml`, or the file is far too large.
    """
    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise yaml.YAMLError(
            f"has {size / 2**20:.0f} MiB; expected at most {MAX_BYTES // 2**20} MiB"
        )
    return parse_with_lines(Path(path).read_bytes())


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise yaml.YAMLError(
            f"no text in UTF-8: byte 0x{content[error.start]:02X} (line {line}); expected a text "
            "file, saved as UTF-8"
        ) from error


def _describe(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    said = re.sub(
        r"could not determine a constructor for the tag ('.*')",
        r"the tag \1 asks for an object; expected plain values",
        said,
    )
    mark = error.problem_mark or error.context_mark
    return f"{said} (line {mark.line + 1}, column {mark.column + 1})" if mark else said


def _check_aliases(root: yaml.Node) -> None:
    """Refuse aliases that stand within what they name, or that repeat without bound."""
    counted: dict[int, tuple[int, int] | None] = {}
    size, _ = _measure(root, counted)
    if size - len(counted) > MAX_REPEATED:
        raise yaml.YAMLError(
            f"its aliases (*name) stand for {size:,} values; expected at most {MAX_REPEATED:,}"
        )


def _measure(node: yaml.Node, counted: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Number of values and depth of a node, with its aliases written out."""
    if id(node) in counted:
        known = counted[id(node)]
        if known is None:
            raise _fault("an alias (*name) stands within what it names", node.start_mark)
        return known
    counted[id(node)] = None
    sizes = [_measure(child, counted) for child in _children(node)]
    depth = 1 + max((below for _, below in sizes), default=0)
    if depth > MAX_DEPTH:
        raise _too_deep(node.start_mark)
    known = counted[id(node)] = (1 + sum(size for size, _ in sizes), depth)
    return known


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _lines_of(node: yaml.Node, below: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            name = f"{below}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _lines_of(value, f"{name}.")
