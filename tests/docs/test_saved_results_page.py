"""docs/saved_results.md: its names are those there are, its example runs."""

from __future__ import annotations

import re
from pathlib import Path

from cellseg.io.predictions import SAVE_NAMES, describe_losses, prediction_files
from pages import REPOSITORY, Page

PATH = "docs/saved_results.md"
LINES = (REPOSITORY / PATH).read_text("utf-8").splitlines()
ROWS = [line.strip("| ").split(" | ") for line in LINES if line.startswith("| `")]


def test_every_name_with_its_file_and_what_it_cannot_hold() -> None:
    names: list[str] = []
    for own, files, *others in ROWS:
        for name in re.findall("`(.+?)`", own):
            names.append(name)
            (path,) = prediction_files("", "plate1/a", name)
            assert f"`{path}`" in files
            lost = others[-1] if len(others) > 1 else ""
            for word in re.findall(r"[a-z][a-z ]+(?=,|$)", lost):
                assert word in describe_losses(name, ("round", "long"))
            assert bool(lost.strip()) == bool(describe_losses(name, ("round", "long")))
    assert sorted(names) == sorted(SAVE_NAMES)


def test_the_example(tmp_path: Path) -> None:
    page = Page(PATH)
    page.write_files(tmp_path)
    page.run("python save_results.py", tmp_path)
    assert (tmp_path / "results/plate1/a.geojson").is_file()
