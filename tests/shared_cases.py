"""Small inputs that users' files and reports made us look at, beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared_case(name: str) -> Path:
    """The case of that name; skips where it is not there."""
    for folder in Path(__file__).parents[2:]:
        if (folder / "shared" / "cases" / name).exists():
            return folder / "shared" / "cases" / name
    pytest.skip(f"../shared/cases/{name} is not there")
