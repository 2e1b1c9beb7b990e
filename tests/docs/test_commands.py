"""Every `cellseg ...` command of README and docs has the arguments that the command takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.cli import command_names, parse_command
from pages import REPOSITORY, Page

PAGES = [
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "datasets/README.md", "benchmarks/README.md")),
]
LINE = re.compile(r"^ *(cellseg [a-z].*)$", flags=re.MULTILINE)


def commands_of(page: Path) -> list[list[str]]:
    """The words of each command that stands in a block."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    blocks += re.findall(r"(?:^    .*\n)+", text, flags=re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in LINE.findall(block)]


COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)}")
    for page in PAGES
    for words in commands_of(page)
    if "--plugin" not in words  # the page's own test imports it
]


@pytest.mark.parametrize("words", COMMANDS)
def test_arguments(words: list[str]) -> None:
    assert words[1] in command_names()
    parse_command(words[1], words[2:])


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20
    assert {param.values[0][1] for param in COMMANDS} >= {"train", "predict", "inspect", "find-lr"}


def test_commands_that_are_named_in_a_sentence() -> None:
    for page in PAGES:
        for name in re.findall(r"`cellseg ([a-z][a-z-]*)[ `]", page.read_text("utf-8")):
            assert name in command_names(), f"{page}: cellseg {name}"


@pytest.mark.parametrize("name", ["index", "predict", "train", "resume"])
def test_configs_load(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(f"docs/{name}.md")
    page.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in page.commands:
        words = shlex.split(command)
        if "--config-file" in words:
            args = parse_command(words[1], words[2:])
            [config] = args.config_file
            load_config(config, args.opts)
