"""Charts as inline SVG: crisp at any size, coloured by the page's CSS variables, without ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 50
_INNER_W, _INNER_H = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
COLOURS = 6  # --series-0 .. --series-5 of the page's style
_MOST_TABLE_ROWS = 40


@dataclass(frozen=True)
class Axis:
    """A scale with its label; `low` < `high`, and 0 < `low` on a logarithmic one."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Four to ten round numbers within the scale."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


@dataclass(frozen=True)
class Series:
    """Values to draw.

    Attributes:
        style: "line", "dots", "markers" (a line with a mark at each value) or "bars" (from the
            lower end of the y axis, as wide as the values are apart).
        colour: 0 to 5; a line also has the dash pattern of this number.
        names: one per value, shown at the pointer.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "line"
    colour: int = 0
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """A chart; with `diagonal` also the line y = x, with `table` the values as a folded table."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series] = field(default=())
    note: str = ""
    diagonal: str = ""
    table: bool = False


def axis_around(
    label: str, *values: Sequence[float], log: bool = False, zero: bool = False
) -> Axis:
    """A scale that holds all finite values with a little room; 0 to 1 where there are none.

    Args:
        values: sequences of numbers; those below or at 0 do not count with `log`.
        zero: begins at 0.
    """
    known = [float(v) for part in values for v in part if math.isfinite(v) and (v > 0 or not log)]
    if not known:
        return Axis(label, 1.0 if log else 0.0, 10.0 if log else 1.0, log)
    low, high = min(known), max(known)
    if log:
        return Axis(label, low / 1.15, high * 1.15, True)
    low = min(low, 0.0) if zero else low
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return Axis(label, low if zero and low == 0 else low - room, high + room)


def draw_chart(chart: Chart) -> str:
    """HTML of a chart: caption, legend, SVG with a text for those who cannot see it, table."""
    parts = [_grid(chart)]
    if chart.diagonal:
        parts.append(_diagonal(chart))
    parts += [_draw_series(chart, one) for one in chart.series]
    drawn = "".join(parts)
    note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{_legend(chart)}'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_describe(chart))}">'
        f"{drawn}</svg>{note}"
        f"{_table(chart) if chart.table else ''}</figure>"
    )


def position(chart: Chart, x: float, y: float) -> tuple[float, float]:
    """SVG coordinates of a point of the chart."""
    return _LEFT + chart.x.share(x) * _INNER_W, _TOP + (1 - chart.y.share(y)) * _INNER_H


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


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) >= 4:
            return ticks
    return ticks


def _plausible(chart: Chart, x: float, y: float) -> bool:
    """Whether a point can be drawn: finite, and positive where the scale is logarithmic."""
    return all(
        math.isfinite(v) and (v > 0 or not axis.log) for v, axis in ((x, chart.x), (y, chart.y))
    )


def _grid(chart: Chart) -> str:
    bottom, right = _TOP + _INNER_H, _LEFT + _INNER_W
    parts = []
    for value in chart.x.ticks():
        x, text = position(chart, value, chart.y.low)[0], format_number(value)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>'
        )
    for value in chart.y.ticks():
        y, text = position(chart, chart.x.low, value)[1], format_number(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    middle = _TOP + _INNER_H / 2
    return (
        "".join(parts) + f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'
        f'<text class="label" x="{_LEFT + _INNER_W / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(chart.x.label)}</text>"
        f'<text class="label" transform="translate(15 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.y.label)}</text>"
    )


def _diagonal(chart: Chart) -> str:
    low, high = max(chart.x.low, chart.y.low), min(chart.x.high, chart.y.high)
    if low >= high:
        return ""
    (x1, y1), (x2, y2) = position(chart, low, low), position(chart, high, high)
    return f'<line class="diagonal" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _draw_series(chart: Chart, one: Series) -> str:
    points = [
        (k, *position(chart, x, y))
        for k, (x, y) in enumerate(zip(one.x, one.y))
        if _plausible(chart, x, y)
    ]
    css = f"s{one.colour % COLOURS}"
    if one.style == "bars":
        return _bars(chart, one, css)
    drawn = ""
    if one.style in ("line", "markers"):
        line = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in points)
        drawn = f'<polyline class="line {css}" points="{line}"/>'
    if one.style in ("dots", "markers"):
        radius = 3 if one.style == "dots" and len(points) > 200 else 4
        drawn += "".join(
            f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
            f"<title>{_tooltip(chart, one, k)}</title></circle>"
            for k, x, y in points
        )
    return drawn


def _bars(chart: Chart, one: Series, css: str) -> str:
    width = _INNER_W / max(1, len(one.x))
    bottom = _TOP + _INNER_H
    drawn = []
    for k, (value, height) in enumerate(zip(one.x, one.y)):
        if _plausible(chart, value, height):
            x, y = position(chart, value, height)
            drawn.append(
                f'<rect class="bar {css}" x="{x - width * 0.42:.1f}" y="{y:.1f}" '
                f'width="{width * 0.84:.1f}" height="{max(0.0, bottom - y):.1f}">'
                f"<title>{_tooltip(chart, one, k)}</title></rect>"
            )
    return "".join(drawn)


def _tooltip(chart: Chart, one: Series, k: int) -> str:
    name = f"{one.names[k]}\n" if one.names else ""
    return escape(
        f"{name}{chart.x.label}: {format_number(one.x[k])}\n"
        f"{chart.y.label}: {format_number(one.y[k])}"
    )


def _legend(chart: Chart) -> str:
    entries = [
        f'<li><svg class="key" viewBox="0 0 26 10" aria-hidden="true">{_key(one)}</svg>'
        f"{escape(one.name)}</li>"
        for one in chart.series
        if one.name
    ]
    if chart.diagonal:
        key = '<line class="diagonal" x1="0" x2="26" y1="5" y2="5"/>'
        entries.append(
            f'<li><svg class="key" viewBox="0 0 26 10" aria-hidden="true">{key}</svg>'
            f"{escape(chart.diagonal)}</li>"
        )
    return f'<ul class="legend">{"".join(entries)}</ul>' if entries else ""


def _key(one: Series) -> str:
    css = f"s{one.colour % COLOURS}"
    if one.style == "bars":
        return f'<rect class="bar {css}" x="4" y="0" width="18" height="10"/>'
    line = f'<polyline class="line {css}" points="0,5 26,5"/>' if one.style != "dots" else ""
    dot = f'<circle class="dot {css}" cx="13" cy="5" r="4"/>' if one.style != "line" else ""
    return line + dot


def _describe(chart: Chart) -> str:
    ranges = []
    for one in chart.series:
        known = [(x, y) for x, y in zip(one.x, one.y) if _plausible(chart, x, y)]
        if known:
            first, last = min(known), max(known)
            ranges.append(
                f"{one.name or 'values'}: {len(known)} points, {format_number(first[1])} at "
                f"{format_number(first[0])} to {format_number(last[1])} at {format_number(last[0])}"
            )
    return f"{chart.title}. {chart.y.label} against {chart.x.label}. {'; '.join(ranges)}"


def _table(chart: Chart) -> str:
    """The values row by row; only where all series have the same few x."""
    first = chart.series[0].x if chart.series else ()
    if not 0 < len(first) <= _MOST_TABLE_ROWS:
        return ""
    alike = [one for one in chart.series if list(one.x) == list(first)]
    head = "".join(f'<th scope="col">{escape(one.name or chart.y.label)}</th>' for one in alike)
    rows = "".join(
        f'<tr><th scope="row">{format_number(x)}</th>'
        + "".join(f"<td>{format_number(one.y[k])}</td>" for one in alike)
        + "</tr>"
        for k, x in enumerate(first)
    )
    return (
        f'<details><summary>Numbers</summary><div class="scroll"><table><thead><tr><th scope="col">'
        f"{escape(chart.x.label)}</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        "</details>"
    )
