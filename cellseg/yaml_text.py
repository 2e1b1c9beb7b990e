"""YAML as cellseg reads it, wherever it reads any: configs, declarations, cards, options."""

from __future__ import annotations

from typing import IO, Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"  # `<<: *other`, whose keys may be set again


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: the first one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name} stands there twice", key.start_mark
                )
            seen.append(name)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(source: str | IO[str]) -> Any:
    """The value of a YAML text.

    Args:
        source: the text, or an open file, which errors then name.

    Raises:
        yaml.YAMLError: it is no YAML, or a key stands twice at one place.

    Example:
        >>> parse_yaml("SOLVER: {MAX_ITER: 10}")
        {'SOLVER': {'MAX_ITER': 10}}
    """
    return yaml.load(source, _StrictLoader)
