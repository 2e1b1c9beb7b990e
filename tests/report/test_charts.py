"""Charts: where their marks are, and that no text becomes markup."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from cellseg.report.charts import Axis, Chart, Series, axis_around, draw_chart, format_number

# The drawing area, in the coordinates of the SVG: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 62, 446, 12, 280


def parse(html: str) -> ElementTree.Element:
    """Fails where the markup is not well-formed."""
    return ElementTree.fromstring(html)


def test_a_line_goes_through_its_points():
    chart = Chart("t", Axis("x", 0, 10), Axis("y", 0, 1), [Series("s", [0, 5, 10], [0, 0.5, 1])])
    line = parse(draw_chart(chart)).findall(".//polyline")[-1]
    middle = f"{(LEFT + RIGHT) / 2:.1f},{(TOP + BOTTOM) / 2:.1f}"
    assert line.get("points") == f"{LEFT}.0,{BOTTOM}.0 {middle} {RIGHT}.0,{TOP}.0"


def test_dots_on_logarithmic_axes():
    axis = Axis("px", 1, 100, log=True)
    chart = Chart("t", axis, axis, [Series("", [10, 0, math.nan], [10, 5, 5], "dots")])
    dots = parse(draw_chart(chart)).findall(".//circle")
    assert len(dots) == 1  # neither 0 nor NaN has a place
    assert float(dots[0].get("cx")) == (LEFT + RIGHT) / 2
    assert float(dots[0].get("cy")) == (TOP + BOTTOM) / 2


def test_bars_stand_on_the_axis():
    chart = Chart("t", Axis("x", 0, 2), Axis("n", 0, 4), [Series("", [0.5, 1.5], [1, 4], "bars")])
    bars = parse(draw_chart(chart)).findall(".//rect")
    assert [float(bar.get("height")) for bar in bars] == [(BOTTOM - TOP) / 4, BOTTOM - TOP]
    assert {float(bar.get("y")) + float(bar.get("height")) for bar in bars} == {BOTTOM}


def test_the_table_has_the_numbers():
    chart = Chart(
        "t",
        Axis("IoU", 0, 1),
        Axis("y", 0, 1),
        [Series("a", [0.5, 0.6], [0.25, math.nan]), Series("b", [0.5, 0.6], [1, 0])],
        table=True,
    )
    rows = parse(draw_chart(chart)).findall(".//tr")
    texts = [["".join(cell.itertext()) for cell in row] for row in rows]
    assert texts == [["IoU", "a", "b"], ["0.5", "0.25", "1"], ["0.6", "–", "0"]]


def test_no_data_is_an_empty_chart():
    figure = parse(draw_chart(Chart("t", axis_around("x", []), axis_around("y", []), [])))
    assert not figure.findall(".//circle")
    assert len(figure.findall(".//text")) >= 8


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", -0.1, 260), [0, 100, 200]),
        (Axis("", 0, 0.00052), [0, 0.0002, 0.0004]),
        (Axis("", 1, 10_000, True), [1, 10, 100, 1000, 10_000]),
        (Axis("", 4.5, 95, True), [5, 10, 20, 50]),
    ],
)
def test_ticks_are_round(axis, ticks):
    assert axis.ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("low", [1e-6, 0.3, 7, 12345])
@pytest.mark.parametrize("ratio", [1.01, 1.5, 9, 1e5])
@pytest.mark.parametrize("log", [False, True])
def test_every_scale_has_ticks_within_it(low, ratio, log):
    axis = axis_around("", [low, low * ratio], log=log)
    assert axis.low < low <= low * ratio < axis.high
    ticks = axis.ticks()
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert all(a < b for a, b in pairwise(ticks))
    assert len(ticks) <= 40


def test_axis_around():
    assert axis_around("", [1, 2], zero=True).low == 0
    assert axis_around("", [3, 3]).low < 3 < axis_around("", [3, 3]).high
    assert axis_around("", [math.nan, -1], log=True) == Axis("", 1, 10, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.123"), (1234, "1,234"), (1234.5, "1,234"), (math.nan, "–"),
     (0.0002, "2e-4"), (-0.00025, "-2.5e-4"), (math.inf, "–"), (12.34, "12.3")],
)  # fmt: skip
def test_format_number(value, text):
    assert format_number(value) == text


def test_texts_stay_texts():
    evil = '"><img src=x onerror=alert(1)>'
    series = [Series(evil, [1], [1], "dots", names=[evil])]
    html = draw_chart(
        Chart(evil, Axis(evil, 0, 2), Axis(evil, 0, 2), series, evil, evil, table=True)
    )
    assert "<img" not in html
    assert parse(html).find("figcaption").text == evil
    assert not re.search(r"\bid=", html)  # several charts in one page cannot clash
