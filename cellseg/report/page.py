"""The HTML page around the sections of a report, and the templates that all of its parts use."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in its table of contents.

    Attributes:
        anchor: id of the section, its own within the page.
        title: plain text.
        body: HTML; plain text would be escaped.
    """

    anchor: str
    title: str
    body: Markup


def format_number(value: float) -> str:
    """Three significant digits, thousands apart: 0.123, 12.3, 1,230, 2e-4; a dash for no number."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.3g}"


def format_share(value: float) -> str:
    """A share in percent, 0.62 as 62%; a dash for no number."""
    return f"{value:.0%}" if math.isfinite(value) else "–"


def typeset(text: str) -> str:
    """A text of a log as the page shows it: ≥ for >=, ≤ for <=."""
    return text.replace(">=", "≥").replace("<=", "≤")


_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"number": format_number, "share": format_share}


def render(template: str, **values: Any) -> Markup:
    """HTML from `templates/<template>.html.j2`; every text among `values` is escaped."""
    return Markup(_TEMPLATES.get_template(f"{template}.html.j2").render(values))


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """One HTML document that loads nothing: style and script are inside.

    The Content-Security-Policy lets a browser run this script only (by its hash) and show embedded
    pictures only, so that even a name that slipped through the escaping could do nothing.

    Args:
        title: heading of the page, plain text.
        subtitle: line below the heading, plain text.
        sections: the parts of the page in their order.
    """
    script = (_HERE / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    style = Markup((_HERE / "report.css").read_text("utf-8"))
    return render(
        "page", title=title, subtitle=subtitle, sections=sections,
        style=style, script=Markup(script), digest=digest,
    )  # fmt: skip


def render_missing(text: str) -> Markup:
    """A line that says what is not there, and why; plain text."""
    return Markup('<p class="missing">{}</p>').format(text)
