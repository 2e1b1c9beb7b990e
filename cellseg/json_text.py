"""JSON as cellseg reads it, wherever it reads any: what is wrong is said with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cellseg.limits import check_memory

_BYTES_PER_LETTER = 12  # of memory, for lists of small numbers, which take most
_MOST_DIGITS = 18  # of a whole number that 64 bits hold in any case
_LONG_NUMBER = re.compile(rf"[0-9]{{{_MOST_DIGITS + 1}}}")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Args:
        text: bytes are UTF-8, perhaps with a mark at the beginning.

    Raises:
        ValueError: it is no JSON, in one line that says where and what; it is nested too deeply, a
            whole number is beyond 64 bits, or what it holds does not fit into memory.

    Example:
        >>> parse_json(b'[{"score": 0.5}]')
        [{'score': 0.5}]
        >>> parse_json("[1,")
        Traceback (most recent call last):
        ...
        ValueError: line 1, column 4: Expecting value
    """
    check_memory(len(text) * _BYTES_PER_LETTER, "it")
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        if _LONG_NUMBER.search(text):
            return json.loads(text, parse_int=_parse_whole)
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError("brackets in brackets, too many of them") from error
    except _TooLongError as error:
        line = str(text).count("\n", 0, str(text).find(str(error))) + 1
        raise ValueError(f"line {line}: a whole number beyond 64 bits, {error!s:.30}") from error


def read_json(path: str | Path) -> Any:
    """The value of a JSON file; see `parse_json`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON.
    """
    path = Path(path)
    check_memory(path.stat().st_size * _BYTES_PER_LETTER, "it")
    return parse_json(path.read_bytes())


class _TooLongError(ValueError):
    """Its text is the number's."""


def _parse_whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS and not (len(digits) < 21 and -(2**63) <= int(digits) < 2**63):
        raise _TooLongError(digits)
    return int(digits)
