"""The whole page as text; the fixtures `run` and `page` are in conftest.py."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cellseg.errors import ConfigError, DatasetError
from cellseg.report.build import write_report
from cellseg.report.page import Section, render, render_missing, render_page

EVIL = '"><img src=x onerror=alert(1)>'
VOID = {"meta", "link", "br", "input"}


class Elements(HTMLParser):
    """Tags and attributes, and whether each one that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(page: Path) -> Elements:
    return Elements(page.read_text("utf-8"))


def test_names_do_not_become_markup(page):
    elements = read(page)
    assert elements.tags["img"] == 0
    assert elements.tags["script"] == 1
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert EVIL in elements.texts
    assert "</script><script>alert(2)</script>'&" in elements.texts


def test_page_loads_nothing(page):
    links = [value for name, value in read(page).attributes if name in ("src", "href", "srcset")]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    text = page.read_text("utf-8")
    assert not re.search(r"url\(|@import|https?://", text)


def test_ids_are_unique_and_links_lead_somewhere(page):
    elements = read(page)
    ids = [value for name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value[1:] for name, value in elements.attributes if name == "href" and value[0] == "#"}
    assert links <= set(ids)


def test_policy_allows_this_script_only(page):
    text = page.read_text("utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_every_picture_has_a_text(page):
    text = page.read_text("utf-8")
    for tag in re.findall(r"<svg [^>]*>", text):
        assert "aria-label=" in tag or 'aria-hidden="true"' in tag


def test_metrics_and_errors(page):
    """Counted by hand from the boxes in conftest.py, at score >= 0.5."""
    text = page.read_text("utf-8")
    # Found in their class: both of `perfect`, one half of the split cell (IoU 0.5), one half of the
    # merged pair (IoU 0.5), one of `confused`. Detections: 2 + 4 + 2.
    assert "Of 8 true cells in 4 images, 5 were found (62%)." in text
    assert "Of 8 predicted cells, 3 are not true cells (38%)." in text
    found = {
        kind: int(count)
        for kind, count in re.findall(
            r'<th scope="row">([a-z ]+)</th><td class="number">(\d+)</td>', text
        )
    }
    expected = {"missed": 1, "spurious": 1, "split": 1, "merged": 1, "tangled": 0, "wrong class": 1}
    assert {kind: found[kind] for kind in expected} == expected


def test_confusion_matrix_is_in_the_page(page):
    table = re.search(r'class="confusion">(.*?)</table>', page.read_text("utf-8"), re.DOTALL)[1]
    counts = [int(n) for n in re.findall(r"--share:[\d.]+\">(\d+)<", table)]
    # true nucleus: perfect, half of the split one; one taken for the other class; one missed
    assert counts == [2, 1, 1, 0, 3, 1, 2, 0]


def test_images_are_sorted_from_the_worst(page):
    names = re.findall(r"<article.*?<h4>(.*?)</h4>", page.read_text("utf-8"), re.DOTALL)
    assert [html.unescape(name) for name in names] == [EVIL, "confused", "empty", "perfect"]


def test_gallery_is_limited(run, tmp_path):
    path = write_report(run.cfg, run.folder, tmp_path / "r.html", max_images=2)
    text = path.read_text("utf-8")
    assert text.count("<article") == 2
    assert "Of 4 images 2 are shown" in text


def test_score_threshold(run, tmp_path):
    path = write_report(run.cfg, run.folder, tmp_path / "r.html", score_threshold=0.1)
    assert "Of 9 predicted cells" in path.read_text("utf-8")


def test_missing_pieces_are_named(run, tmp_path):
    text = write_report(run.cfg, tmp_path, tmp_path / "r.html").read_text("utf-8")
    assert "There are no predictions" in text
    assert "There are no learning curves" in text
    assert "<article" not in text


def test_two_test_sets(run, tmp_path):
    cfg = run.cfg.clone()
    cfg.DATASETS.TEST = (run.cfg.DATASETS.TEST[0],) * 2
    elements = read(write_report(cfg, run.folder, tmp_path / "r.html"))
    ids = [value for name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {"gallery-0", "gallery-1", "px-7"} <= set(ids)


def test_what_cannot_be_reported_leaves_no_file(run, tmp_path):
    output = tmp_path / "out" / "r.html"
    cfg = run.cfg.clone()
    cfg.DATASETS.TEST = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST is empty"):
        write_report(cfg, run.folder, output)
    with pytest.raises(ConfigError, match="predictions of other"):
        write_report(run.cfg, run.folder, output, predictions={"other": run.predictions})
    name = run.cfg.DATASETS.TEST[0]
    with pytest.raises(DatasetError, match="no such file"):
        write_report(run.cfg, run.folder, output, predictions={name: tmp_path / "none.json"})
    assert not output.parent.exists()


def test_page_and_tables_escape():
    text = render_page(EVIL, EVIL, [Section("a", EVIL, render_missing(EVIL))])
    text += render_page(EVIL, EVIL, [Section("a", EVIL, EVIL)])  # a body that is no markup
    values = dict.fromkeys(("cells", "images", "found", "predicted", "wrong"), 0)
    text += render(
        "results", **values, recall=1, precision=1, selection=EVIL, columns=[EVIL, EVIL],
        metrics=[[EVIL, EVIL], [EVIL, EVIL]], errors=[[EVIL, EVIL]], confusion=[(EVIL, [(1, 1)])],
    )  # fmt: skip
    assert Elements(text).tags["img"] == 0
