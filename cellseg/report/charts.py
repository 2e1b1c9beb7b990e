"""Charts as inline SVG: matplotlib finds the places, the page's style gives the colours.

What matplotlib writes is stripped of its own looks and ids, so that a chart follows the page from
light to dark and several charts in one page cannot clash.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from cellseg.report.page import format_number, render
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

_SIZE_PX = (460, 330)
_PX_PER_INCH = 72
_MARK_RADIUS_PX = 3.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 12, "axes.labelsize": 13,
    "axes.grid": True, "axes.axisbelow": True, "xtick.major.size": 0, "ytick.major.size": 0,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_CLASSES = ("line", "dots", "bars", "diagonal", "axis", "label", "xtick", "ytick")


@dataclass(frozen=True)
class Series:
    """Values to draw.

    Attributes:
        name: in the legend; none where it is "".
        x, y: as many numbers each; points that are not finite are left out.
        style: "line", "dots", "markers" (a line with a mark at each value) or "bars" (as wide as
            the values are apart).
        colour: 0 to 5, the CSS variables --s0 to --s5; a line also has the dashes of this number.
        names: one per value, shown at the pointer; or none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "line"
    colour: int = 0
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """A chart with one or more series.

    Attributes:
        title: above it.
        x_label, y_label: what the axes say.
        series: what is drawn.
        x_range, y_range: (lowest, highest) of the axes; None finds a value that suits the data.
        log: both axes are logarithmic, without a range, and only positive values are drawn.
        diagonal: where not "", the line y = x is drawn with this name, and both axes are alike.
        note: a sentence below it.
        table: the values follow as a folded table; all series have the same `x` then.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series] = field(default=())
    x_range: tuple[float | None, float | None] = (None, None)
    y_range: tuple[float | None, float | None] = (None, None)
    log: bool = False
    diagonal: str = ""
    note: str = ""
    table: bool = False

    def points(self, one: Series) -> list[tuple[int, float, float]]:
        """(number, x, y) of the values of a series that can be drawn."""
        return [
            (k, x, y)
            for k, (x, y) in enumerate(zip(one.x, one.y))
            if all(math.isfinite(value) and (value > 0 or not self.log) for value in (x, y))
        ]


def draw_chart(chart: Chart) -> Markup:
    """HTML of a chart: caption, legend, SVG with a text for those who cannot see it, table."""
    with mpl.rc_context(_STYLE):
        width, height = (px / _PX_PER_INCH for px in _SIZE_PX)
        figure = Figure(figsize=(width, height), layout="constrained")
        scale = "log" if chart.log else "linear"
        axes = figure.add_subplot(xscale=scale, yscale=scale)
        for one in chart.series:
            _draw_series(axes, chart, one)
        _set_up_axes(axes, chart)
        file = io.StringIO()
        figure.savefig(file, format="svg")
    return render("chart", chart=chart, svg=_to_inline_svg(file.getvalue(), chart))


def _draw_series(axes: Any, chart: Chart, one: Series) -> None:
    points = chart.points(one)
    x, y = [p[1] for p in points], [p[2] for p in points]
    if one.style == "bars":
        width = 0.84 * (one.x[1] - one.x[0]) if len(one.x) > 1 else 0.84
        for bar in axes.bar(x, y, width):
            bar.set_gid(f"bars s{one.colour}")
    if one.style in ("line", "markers"):
        axes.plot(x, y, gid=f"line s{one.colour}")
    if one.style in ("dots", "markers"):
        axes.plot(x, y, "o", gid=f"dots s{one.colour}")


def _set_up_axes(axes: Any, chart: Chart) -> None:
    axes.set_xlabel(chart.x_label, gid="label")
    axes.set_ylabel(chart.y_label, gid="label")
    if not chart.log:
        axes.set(xlim=chart.x_range, ylim=chart.y_range)
    if chart.diagonal:
        limits = [*axes.get_xlim(), *axes.get_ylim()]
        ends = [min(limits), max(limits)]
        axes.plot(ends, ends, gid="diagonal")
        axes.set(xlim=ends, ylim=ends)
    drawn = [point for one in chart.series for point in chart.points(one)]
    _set_ticks(axes.xaxis, chart.log, [x for _, x, _ in drawn])
    _set_ticks(axes.yaxis, chart.log, [y for _, _, y in drawn])
    for part in (axes.patch, axes.figure.patch):
        part.set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_gid("axis")


def _set_ticks(axis: Any, log: bool, values: Sequence[float]) -> None:
    low, high = axis.get_view_interval()
    if log:
        steps = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 6, 8)
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_minor_locator(NullLocator())
    elif high > 2 and all(float(value).is_integer() for value in values):
        axis.get_major_locator().set_params(integer=True)
    axis.set_major_formatter(lambda value, _: format_number(value))


def _to_inline_svg(svg: str, chart: Chart) -> Markup:
    """Matplotlib's SVG with classes in place of ids and looks, and a tooltip at each mark."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_NAMESPACE}metadata", f"{_NAMESPACE}defs"):
                parent.remove(child)
    tooltips = _write_tooltips(chart)
    for element in list(root.iter()):
        _strip_looks(element)
        if element.tag == "circle" or element.get("class", "").startswith("bars"):
            ElementTree.SubElement(element, "title").text = next(tooltips)
    size = f"0 0 {_SIZE_PX[0]} {_SIZE_PX[1]}"
    root.attrib = {"viewBox": size, "role": "img", "aria-label": _describe_chart(chart)}
    return Markup(ElementTree.tostring(root, "unicode"))


def _strip_looks(element: ElementTree.Element) -> None:
    """Keep of an element its place and, as class, the name that it was given here."""
    old = dict(element.attrib)
    element.tag = element.tag.removeprefix(_NAMESPACE)
    element.attrib = {key: " ".join(old[key].split()) for key in ("d", "x", "y") if key in old}
    name = re.sub(r"_\d+$", "", old.get("id", ""))
    if name.split(" ")[0] in _CLASSES:
        element.set("class", name)
    if element.tag == "use":  # the path of a mark, which is always a disc here
        element.tag = "circle"
        element.attrib = {"cx": old["x"], "cy": old["y"], "r": str(_MARK_RADIUS_PX)}
    if element.tag == "text":
        element.set("text-anchor", re.findall(r"text-anchor: (\w+)", old["style"])[0])
        if not old["transform"].startswith("rotate(-0 "):
            element.set("transform", old["transform"])
    element.text = (element.text or "").strip()
    element.tail = None


def _write_tooltips(chart: Chart) -> Iterator[str]:
    """A text for every mark, in the order in which they are drawn."""
    for one in chart.series:
        if one.style != "line":
            for k, x, y in chart.points(one):
                name = f"{one.names[k]}\n" if one.names else ""
                yield (
                    f"{name}{chart.x_label}: {format_number(x)}\n"
                    f"{chart.y_label}: {format_number(y)}"
                )


def _describe_chart(chart: Chart) -> str:
    ranges = []
    for one in chart.series:
        known = [(x, y) for _, x, y in chart.points(one)]
        if known:
            first, last = min(known), max(known)
            ranges.append(
                f"{one.name or 'values'}: {len(known)} points, {format_number(first[1])} at "
                f"{format_number(first[0])} to {format_number(last[1])} at {format_number(last[0])}"
            )
    return f"{chart.title}. {chart.y_label} against {chart.x_label}. {'; '.join(ranges)}"
