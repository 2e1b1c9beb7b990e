"""Links between pages lead somewhere in the repository, and every page is in the site's menu."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import REPOSITORY

PAGES = [
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(REPOSITORY / name / "README.md" for name in ("datasets", "benchmarks", "cellseg/embedded")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_menu() -> None:
    menu = re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text("utf-8"))
    pages = {str(page.relative_to(REPOSITORY / "docs")) for page in PAGES[:-6]}
    assert pages <= set(menu)
    assert len(menu) == len(set(menu))


def test_files_that_the_site_adds_are_in_the_menu() -> None:
    hooks = (REPOSITORY / "docs/site_hooks.py").read_text("utf-8")
    added = dict(re.findall(r'"(\S+\.md)": "(\S+\.md)"', hooks))
    menu = re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text("utf-8"))
    assert added
    assert set(added.values()) <= set(menu)
    assert all((REPOSITORY / name).is_file() for name in added)
