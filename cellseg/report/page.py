"""The HTML page around the sections of a report."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_HERE = Path(__file__).resolve().parent

# The text that the viewer of single images starts with; filled by report.js.
_VIEWER = """<dialog aria-label="Enlarged image" tabindex="-1"><div class="bar-top"><h4></h4>
<button type="button" data-act="previous" title="p">Previous</button>
<button type="button" data-act="next" title="n">Next</button>
<button type="button" data-act="in" title="+" aria-label="Zoom in">+</button>
<button type="button" data-act="out" title="-" aria-label="Zoom out">−</button>
<button type="button" data-act="whole" title="0">Whole image</button>
<button type="button" data-act="close" title="Esc">Close</button></div>
<div class="holder"></div>
<p class="soft">Keys: + and − zoom, arrows move, 0 whole image, n and p next and previous image, Esc
close. Mouse: wheel zooms, drag moves; rest the pointer on an outline to read about the cell.</p>
</dialog>"""


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in its table of contents; `body` is HTML."""

    anchor: str
    title: str
    body: str


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """One HTML document that loads nothing: style and script are inside.

    The Content-Security-Policy lets a browser run this script only (by its hash) and show embedded
    pictures only, so that even a name that slipped through the escaping could do nothing.

    Args:
        title, subtitle: plain text.
        sections: in their order.
    """
    style = (_HERE / "report.css").read_text("utf-8")
    script = (_HERE / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    links = " ".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    bodies = "\n".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body>\n"
        f'<header><div><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p></div>'
        '<button type="button" class="theme" hidden></button></header>\n'
        f'<nav aria-label="Contents">{links}</nav><main>\n{bodies}\n</main>{_VIEWER}'
        f"<script>{script}</script></body></html>\n"
    )


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, what: bool = True) -> str:
    """A table of plain texts: names to the left, numbers to the right, explanations last.

    Args:
        head: titles of the columns.
        rows: as many texts each as `head`.
        what: the last column explains and is no number.
    """
    last = len(head) - 1 if what else len(head)

    def css(column: int) -> str:
        if column == last:
            return ' class="what"'
        return ' class="number"' if column else ""

    top = "".join(f'<th scope="col"{css(k)}>{escape(text)}</th>' for k, text in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{css(k)}>{escape(text)}</td>" for k, text in enumerate(row) if k)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def render_missing(text: str) -> str:
    """A line that says what is not there, and why; plain text."""
    return f'<p class="missing">{escape(text)}</p>'
