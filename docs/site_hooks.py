"""Hooks of mkdocs: pages from elsewhere, links that hold on the site and in the repository.

A page links to files as they lie in the repository, so that its links can be followed there. On
the site a link to a page of the site leads to that page; one to another file, such as a config,
becomes the file's path.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES_ELSEWHERE = {
    "datasets/README.md": "datasets.md",
    "cellseg/embedded/README.md": "engine.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
COMMANDS_PAGE = "reference/commands.md"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_NAMED_BLOCK = re.compile(r"^( *)<!-- file: (\S+) -->\n\1```(\w+)$", flags=re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Shows `Example:` in a docstring as code, as griffe does with `Examples:` only."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub("^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere in the repository, and one of what the commands say."""
    for source, page in PAGES_ELSEWHERE.items():
        files.append(File.generated(config, page, content=(REPOSITORY / source).read_text("utf-8")))
    files.append(File.generated(config, COMMANDS_PAGE, content=_describe_commands()))
    return files


def _describe_commands() -> str:
    """A page with the `--help` of each command."""
    # Not above: what an import adds to sys.path while mkdocs loads its hooks is lost.
    from cellseg.cli import command_names, parse_command

    os.environ["COLUMNS"] = "100"  # which argparse asks for
    parts = [
        "# Commands",
        "What `cellseg COMMAND --help` says. `tools/*.py` take the same arguments.",
    ]
    for name in command_names():
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            parse_command(name, ["--help"], prog=f"cellseg {name}")
        parts += [f"## cellseg {name}", f"```text\n{said.getvalue()}```"]
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turn the page's links, and give blocks that are files a title."""
    place = page.file.src_uri
    sources = {uri: source for source, uri in PAGES_ELSEWHERE.items()}
    source = sources.get(place, f"docs/{place}")
    markdown = _NAMED_BLOCK.sub(r'\1```\3 title="\2"', markdown)
    return _LINK.sub(lambda link: _turn_link(link, source, place), markdown)


def _turn_link(link: re.Match[str], source: str, place: str) -> str:
    """The link for the site; what leads to no file of the repository stays, for mkdocs to refuse.

    Args:
        link: the Markdown link.
        source: path in the repository of the file that it stands in.
        place: path of the page on the site.
    """
    text, target = link.groups()
    path, hash_sign, anchor = target.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return link[0]
    named = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if named == "README.md":
        named = "docs/index.md"
    page = PAGES_ELSEWHERE.get(named, named.removeprefix("docs/") if named[:5] == "docs/" else "")
    if not (REPOSITORY / named).exists():
        return link[0]
    if not page:
        return text if text.startswith("`") else f"`{named}`"
    if text.endswith(".md"):  # the file's name is its title on the site
        text = (REPOSITORY / named).read_text("utf-8").partition("\n")[0].removeprefix("# ")
    relative = posixpath.relpath(page, posixpath.dirname(place) or ".")
    return f"[{text}]({relative}{hash_sign}{anchor})"
