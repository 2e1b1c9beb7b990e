"""The page in headless Chromium: what it loads, its filters, keyboard and colours.

Skipped where `chromium` and `chromedriver` (Debian: chromium, chromium-driver) are not installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from chromium_driver import Chromium, is_installed

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="needs Chromium (apt-get install chromium chromium-driver)"
)
SHOWN = "return [...document.querySelectorAll('.card:not([hidden]) h4')].map((e) => e.textContent)"
EVIL = '"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    chromium = Chromium()
    yield chromium
    chromium.close()


@pytest.fixture
def opened(browser, page) -> Chromium:
    browser.set_dark(False)
    browser.requests()
    browser.open(page)
    return browser


def choose(browser: Chromium, role: str, value: str) -> None:
    browser.run(
        f"const s = document.querySelector('[data-role={role}]'); s.value = '{value}';"
        "s.dispatchEvent(new Event('change'))"
    )


def outlined(browser: Chromium) -> dict[str, int]:
    """Outlines that can be seen, by kind."""
    return browser.run(
        "const n = {}; for (const c of document.querySelectorAll('.card:not([hidden]) .cell'))"
        "if (getComputedStyle(c).display !== 'none') {"
        "const k = c.classList[1]; n[k] = (n[k] || 0) + 1 } return n"
    )


def view_box(browser: Chromium) -> list[list[float]]:
    boxes = browser.run(
        "return [...document.querySelectorAll('dialog .panel')]"
        ".map((p) => p.getAttribute('viewBox'))"
    )
    return [[float(value) for value in box.split()] for box in boxes]


def test_nothing_is_loaded_and_nothing_goes_wrong(opened, page):
    asked = opened.requests()
    assert page.resolve().as_uri() in asked
    assert [u for u in asked if not u.startswith("data:")] == [page.resolve().as_uri()]
    assert opened.console() == []
    assert opened.run("return document.images.length + document.scripts.length") == 1


def test_pictures_are_drawn(opened):
    ratio = opened.run(
        "const b = document.querySelector('.panel').getBoundingClientRect();"
        "return b.width / b.height"
    )
    assert ratio == pytest.approx(80 / 60, rel=0.01)


def test_filter_by_kind_and_class(opened):
    assert opened.run(SHOWN) == [EVIL, "confused", "empty", "perfect"]
    choose(opened, "kind", "confused")
    assert opened.run(SHOWN) == ["confused"]
    assert outlined(opened) == {"confused": 2, "correct": 2}
    choose(opened, "kind", "split")
    assert opened.run(SHOWN) == [EVIL]
    assert outlined(opened) == {"split": 3}
    choose(opened, "class", "1")  # the split cell is of class 0
    assert opened.run(SHOWN) == []
    choose(opened, "kind", "merge")
    assert opened.run(SHOWN) == [EVIL]
    assert outlined(opened) == {"merge": 3}
    choose(opened, "kind", "")
    assert opened.run(SHOWN) == [EVIL, "confused", "perfect"]
    status = opened.run("return document.querySelector('[data-role=status]').textContent")
    assert status == "3 of 4 images"


def test_correct_cells_can_be_hidden(opened):
    assert outlined(opened)["correct"] == 6
    opened.run("document.querySelector('[data-role=correct]').click()")
    assert "correct" not in outlined(opened)
    assert outlined(opened)["split"] == 3


def test_viewer_by_keyboard(opened):
    title = "return document.querySelector('dialog h4').textContent"
    opened.run("document.querySelectorAll('.enlarge')[0].focus()")
    opened.press("Enter")
    assert opened.run("return document.querySelector('dialog').open")
    assert opened.run(title) == EVIL
    assert view_box(opened) == [[0, 0, 80, 60]] * 2
    opened.press("+")
    left, right = view_box(opened)
    assert left == right == pytest.approx([80 / 6, 10, 160 / 3, 40])
    opened.press("ArrowRight", "ArrowDown")
    assert view_box(opened)[0] == pytest.approx([80 / 6 + 8, 16, 160 / 3, 40])
    opened.press("-", "-")
    assert view_box(opened)[0] == [0, 0, 80, 60]
    opened.press("n")
    assert opened.run(title) == "confused"
    opened.press("p", "p")
    assert opened.run(title) == EVIL
    opened.press("+", "Escape")
    assert not opened.run("return document.querySelector('dialog').open")
    for _ in range(100):  # the browser tells of the closing a moment later
        if opened.run(SHOWN)[0] == EVIL:
            break
        time.sleep(0.05)
    assert opened.run(SHOWN) == [EVIL, "confused", "empty", "perfect"]  # back in their places
    assert (
        opened.run("return document.querySelector('.panel').getAttribute('viewBox')") == "0 0 80 60"
    )
    focus = "return document.activeElement.getAttribute('aria-label')"
    assert opened.run(focus) == f"Enlarge {EVIL}"
    assert opened.console() == []


def test_viewer_skips_what_the_filter_hides(opened):
    choose(opened, "class", "0")
    opened.run("document.querySelectorAll('.enlarge')[1].focus()")
    opened.press("Enter", "n")
    assert opened.run("return document.querySelector('dialog h4').textContent") == "perfect"
    opened.press("Escape")


def test_every_control_is_reached_with_the_tab_key(opened):
    opened.run("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(40):
        opened.press("Tab")
        reached.append(
            opened.run(
                "const e = document.activeElement;"
                "return e.dataset.role || e.className || e.getAttribute('href') || e.tagName"
            )
        )
    assert {"theme", "#gallery-0", "kind", "class", "correct", "enlarge"} <= set(reached)


def luminances(browser: Chromium) -> tuple[float, float]:
    """Relative luminance (WCAG) of the page and of its text."""
    colours = browser.run(
        "const s = getComputedStyle(document.body);"
        "return [s.backgroundColor, s.color].map((c) => c.match(/\\d+/g).map(Number))"
    )

    def luminance(rgb: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
                  for c in (v / 255 for v in rgb)]  # fmt: skip
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    page, text = (luminance(rgb) for rgb in colours)
    assert (max(page, text) + 0.05) / (min(page, text) + 0.05) > 7  # WCAG's highest level
    return page, text


def test_dark_and_light(opened):
    page, text = luminances(opened)
    assert page > text
    opened.set_dark(True)
    page, text = luminances(opened)
    assert page < text
    opened.run("document.querySelector('.theme').click()")  # the switch wins over the system
    page, text = luminances(opened)
    assert page > text


def test_charts_follow_the_page(opened):
    """Lines, marks, labels and the grid of a chart have other colours in the dark."""
    look = (
        "return ['.line path', '.dots circle', '.bars path', '.label text', '.xtick path']"
        ".map((s) => { const c = getComputedStyle(document.querySelector('.chart > svg ' + s));"
        "return [c.stroke, c.fill] })"
    )
    light = opened.run(look)
    opened.set_dark(True)
    dark = opened.run(look)
    assert all(one != other for one, other in zip(light, dark))
    line, label = dark[0], dark[3]
    assert line == ["rgb(86, 180, 233)", "none"]  # --s0 of the dark style
    assert label[1] == "rgb(232, 234, 237)"  # --text


def test_print_is_light_and_without_controls(opened):
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.devtools("Emulation.setEmulatedMedia", media="print", features=features)
    try:
        page, text = luminances(opened)
        assert page > text
        hidden = opened.run(
            "return ['nav', '.controls', '.enlarge', '.theme']"
            ".map((s) => getComputedStyle(document.querySelector(s)).display)"
        )
        assert hidden == ["none"] * 4
    finally:
        opened.devtools("Emulation.setEmulatedMedia", media="", features=[])


def test_narrow_window_does_not_scroll_sideways(opened):
    opened.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    try:
        assert opened.run("return document.documentElement.scrollWidth") <= 390
    finally:
        opened.devtools("Emulation.clearDeviceMetricsOverride")
