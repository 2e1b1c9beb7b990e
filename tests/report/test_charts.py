"""Charts: where their marks are, what they say, and that no text becomes markup."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from cellseg.report.charts import Chart, Series, draw_chart
from cellseg.report.page import format_number

UNIT = (0, 1)


def parse(html: str) -> ElementTree.Element:
    """Fails where the markup is not well-formed."""
    return ElementTree.fromstring(html)


def draw(chart: Chart) -> ElementTree.Element:
    """The SVG with the drawing, which is the last one of a chart; before it stand the legend's."""
    return parse(draw_chart(chart)).findall(".//svg")[-1]


def marks(svg: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(one.get("cx")), float(one.get("cy"))) for one in svg.findall(".//circle")]


def numbers(path: ElementTree.Element) -> list[float]:
    return [float(text) for text in re.findall(r"-?[\d.]+", path.get("d"))]


def test_a_line_goes_through_its_points():
    series = [Series("s", [0, 5, 10], [0, 0.5, 0.25], "markers", 3)]
    svg = draw(Chart("t", "x", "y", series, (0, 10), UNIT))
    (line,) = svg.findall(".//g[@class='line s3']/path")
    dots = marks(svg)
    assert numbers(line) == pytest.approx([value for dot in dots for value in dot])
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2))
    assert y1 < y2 < y0  # upwards in the picture is down in SVG
    axis = svg.findall(".//g[@class='axis']/path")
    assert {round(x0, 3), round(y0, 3)} <= {round(v, 3) for path in axis for v in numbers(path)}


def test_dots_on_logarithmic_axes():
    series = [Series("", [1, 10, 100, 0, math.nan], [1, 10, 100, 5, 5], "dots")]
    dots = marks(draw(Chart("t", "px", "px", series, log=True, diagonal="equal")))
    assert len(dots) == 3  # neither 0 nor NaN has a place
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)


def test_bars_stand_on_the_axis():
    svg = draw(Chart("t", "x", "n", [Series("", [0.5, 1.5], [1, 4], "bars")], (0, 2)))
    corners = [numbers(path) for path in svg.findall(".//g[@class='bars s0']/path")]
    heights = [max(y) - min(y) for y in (one[1::2] for one in corners)]
    assert heights[1] == pytest.approx(4 * heights[0])
    assert max(corners[0][1::2]) == pytest.approx(max(corners[1][1::2]))
    titles = [one.text for one in svg.findall(".//g[@class='bars s0']/title")]
    assert titles == ["x: 0.5\nn: 1", "x: 1.5\nn: 4"]


def test_every_mark_says_its_own_value():
    series = [
        Series("a", [1, math.nan, 3], [4, 5, 6], "markers"),
        Series("b", [1, 2], [1, 2]),
        Series("c", [7], [8], "dots", 1, names=["<image>"]),
    ]
    svg = draw(Chart("t", "x", "y", series))
    titles = [one.findtext("title") for one in svg.findall(".//circle")]
    assert titles == ["x: 1\ny: 4", "x: 3\ny: 6", "<image>\nx: 7\ny: 8"]


def test_looks_are_those_of_the_page():
    """Neither a colour nor a font of matplotlib's: they would not follow from light to dark."""
    html = draw_chart(Chart("t", "x", "y", [Series("s", [0, 1], [0, 1], "markers")]))
    assert not re.search(r"#[0-9a-f]{3}|style=|font|url\(|https?:|xmlns|<defs|<metadata", html)


def test_the_table_has_the_numbers():
    chart = Chart(
        "t",
        "IoU",
        "y",
        [Series("a", [0.5, 0.6], [0.25, math.nan]), Series("b", [0.5, 0.6], [1, 0])],
        table=True,
    )
    rows = parse(draw_chart(chart)).findall(".//tr")
    texts = [["".join(cell.itertext()) for cell in row] for row in rows]
    assert texts == [["IoU", "a", "b"], ["0.5", "0.25", "1"], ["0.6", "–", "0"]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("series", [[], [Series("", [], [], "dots")]])
@pytest.mark.parametrize("log", [False, True])
def test_no_data_is_an_empty_chart(log, series):
    svg = draw(Chart("t", "x", "y", series, log=log, diagonal="equal"))
    assert not svg.findall(".//circle")
    assert len(svg.findall(".//text")) >= 4


def test_those_who_cannot_see_it_are_told():
    chart = Chart("T", "x", "y", [Series("s", [2, 1, math.nan], [30, 0.5, 1])])
    assert draw(chart).get("aria-label") == "T. y against x. s: 2 points, 0.5 at 1 to 30 at 2"


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
    html = draw_chart(Chart(evil, evil, evil, series, diagonal=evil, note=evil, table=True))
    assert "<img" not in html
    assert parse(html).find("figcaption").text == evil
    assert evil in [one.text for one in parse(html).findall(".//text")]
    assert not re.search(r"\bid=", html)  # several charts in one page cannot clash


def test_dollar_signs_are_no_formula():
    texts = [one.text for one in draw(Chart("t", "$x$", "y", [])).findall(".//text")]
    assert "$x$" in texts
