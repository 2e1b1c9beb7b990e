"""Outlines and pictures of the gallery."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import disc
from cellseg.cells.instances import CellInstances
from cellseg.errors import ImageReadError
from cellseg.evaluation import compare
from cellseg.report.gallery import GalleryImage, draw_card, encode_picture, outline_path


def pixels_on(path: str, hw: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres are corners of an SVG path, or on a line between two, as bool[H, W]."""
    drawn = np.zeros(hw, np.uint8)
    for part in re.findall(r"M([^M]*)", path):
        start, _, steps = part.partition("l")
        x, y = (float(value) - 0.5 for value in start.split("h")[0].split())
        moves = np.array(steps.rstrip("z").split(), float).reshape(-1, 2)
        corners = np.cumsum([[x, y], *moves], axis=0).astype(np.int32)
        cv2.polylines(drawn, [corners], True, 1)
    return drawn.astype(bool)


def test_outline_of_a_rectangle():
    assert outline_path(np.ones((3, 5), bool), (10, 20)) == "M20.5 10.5l0 2 4 0 0 -2z"


def test_outline_follows_the_outermost_pixels_and_those_around_holes():
    mask = disc((40, 50), 25, 20, 15) & ~disc((40, 50), 25, 20, 5)
    found = pixels_on(outline_path(mask, (0, 0)), mask.shape)
    eroded = cv2.erode(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    border = mask & ~eroded.astype(bool)
    assert not (border & ~found)[~disc((40, 50), 25, 20, 8)].any()
    assert found[disc((40, 50), 25, 20, 8)].any()  # the hole has an outline too


def test_small_and_empty_cells():
    assert outline_path(np.ones((1, 1), bool), (4, 7)) == "M7.5 4.5h.01"
    assert outline_path(np.zeros((0, 0), bool), (0, 0)) == ""


def decode(uri: str) -> np.ndarray:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)


def test_pictures_are_limited_in_size_and_keep_their_shape():
    image = np.tile(np.arange(2100, dtype=np.uint16), (1050, 1))
    uri, bright = encode_picture(image)
    assert decode(uri).shape == (350, 700, 3)
    assert bright
    uri, bright = encode_picture(np.eye(30, 20) * 1000)
    assert decode(uri).shape == (30, 20, 3)
    assert not bright


def test_colours_are_not_swapped():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16] = (255, 0, 0)
    blue, _, red = decode(encode_picture(image)[0])[4, 4].tolist()
    assert red > 200
    assert blue < 60


def card(name: str = "a", read=lambda path: np.zeros((20, 30))) -> ElementTree.Element:
    true = CellInstances.from_crops([np.ones((6, 8), bool)], [(3, 4)], (20, 30))
    image = GalleryImage(3, name, Path("x.png"), 0.25, compare(true, true[:0]))
    return ElementTree.fromstring(draw_card(image, ["<b>", "c"], read))


def test_card():
    found = card('"><img>')
    assert found.get("data-errors") == "0: 0:missed"
    assert found.find(".//h4").text == '"><img>'
    (path,) = found.findall(".//path")
    assert path.get("class") == "cell missed"
    assert path.find("title").text == "missed, <b>, 48 px²"
    pictures = found.findall(".//svg")
    assert [one.get("viewBox") for one in pictures] == ["0 0 30 20"] * 2
    assert pictures[0].get("aria-label") == '"><img>: 1 true cell: 1 missed'
    assert pictures[1].get("aria-label") == '"><img>: 0 predicted cells'
    (shown,) = found.findall(".//image")
    assert found.find(".//use").get("href") == f"#{shown.get('id')}" == "#px-3"


def test_image_that_is_gone_leaves_its_outlines():
    def read(path: Path) -> np.ndarray:
        raise ImageReadError(f"{path}: <gone>")

    found = card(read=read)
    assert "x.png: <gone>" in found.find(".//p[@class='missing']").text
    assert found.findall(".//path")
    assert not found.findall(".//image") + found.findall(".//use")


# From linear RGB to what is seen without red or without green cones: Machado, Oliveira and
# Fernandes, IEEE TVCG 2009, severity 1.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
          [-0.003882, -0.048116, 1.051998]]  # fmt: skip
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
          [-0.011820, 0.042940, 0.968881]]  # fmt: skip


def colours_of(selector: str) -> dict[str, np.ndarray]:
    css = Path(__file__).parents[2].joinpath("cellseg/report/report.css").read_text("utf-8")
    block = re.search(rf"^{re.escape(selector)} {{(.*?)}}", css, re.DOTALL | re.MULTILINE)[1]
    return {
        name: np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)]) / 255
        for name, code in re.findall(r"--(\w+): #(\w{6})", block)
    }


def to_lab(rgb: np.ndarray, seen: list[list[float]]) -> np.ndarray:
    linear = np.clip(np.array(seen) @ rgb**2.2, 0, 1) ** (1 / 2.2)
    return cv2.cvtColor(linear.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("selector", [".card, .kinds", ".card.bright"])
@pytest.mark.parametrize("seen", [np.eye(3).tolist(), PROTAN, DEUTAN])
def test_kinds_differ_for_colour_blind_people(selector, seen):
    colours = {name: to_lab(rgb, seen) for name, rgb in colours_of(selector).items()}
    assert len(colours) == 7
    names = sorted(colours)
    distances = {
        (a, b): float(np.linalg.norm(colours[a] - colours[b]))
        for k, a in enumerate(names)
        for b in names[k + 1 :]
    }
    # 2.3 is a just noticeable difference of large areas; thin lines need several times as much.
    near = {pair: round(value, 1) for pair, value in distances.items() if value < 20}
    assert not near
