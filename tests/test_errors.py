"""Messages that list many offenders."""

from __future__ import annotations

import pytest
from cellseg import errors
from cellseg.errors import CellsegError, collect_problems


def test_problems_are_listed_with_their_number_and_a_hint() -> None:
    assert collect_problems("2 files", ["a: empty", "b: gone"], hint="Remove them.") == (
        "2 files (2):\n  - a: empty\n  - b: gone\nRemove them."
    )


def test_a_long_list_is_cut_and_says_so() -> None:
    lines = collect_problems("files", [f"file {n}" for n in range(53)]).splitlines()
    assert lines[0] == "files (53):"
    assert lines[50] == "  - file 49"
    assert lines[51:] == ["  ... and 3 more"]


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("DatasetError", ValueError),
        ("LabelError", ValueError),
        ("ImageReadError", OSError),
        ("InputValueError", ValueError),
        ("InputTypeError", TypeError),
        ("PluginError", ImportError),
        ("CheckpointError", RuntimeError),
    ],
)
def test_every_error_is_one_of_ours_and_a_builtin(name: str, builtin: type) -> None:
    error = getattr(errors, name)
    assert issubclass(error, CellsegError)
    assert issubclass(error, builtin)
