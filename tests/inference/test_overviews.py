"""Pictures of images that are too large to be drawn pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.drawing import draw_overlay, label_colours
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.inference import overviews
from cellseg.inference.model import plane_of_array
from cellseg.inference.overviews import draw_overview


@pytest.fixture
def labels() -> np.ndarray:
    """Two cells, 90 x 60 px, side by side."""
    labels = np.zeros((300, 410), np.int64)
    labels[60:150, 30:90], labels[60:150, 90:150] = 1, 2
    return labels


def test_a_small_image_is_drawn_pixel_by_pixel(labels: np.ndarray) -> None:
    image = (labels > 0).astype(np.uint8) * 90
    cells = CellInstances.from_label_image(labels)
    picture = draw_overview(plane_of_array(image), ImageRecord("a", cells))
    assert np.array_equal(picture, draw_overlay(image, cells))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_one_is_drawn_smaller(
    labels: np.ndarray, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third pixel; 410 is no multiple of three, and bands end within the cells."""
    monkeypatch.setattr(overviews, "LONGEST_SIDE_PX", 140)
    monkeypatch.setattr(overviews, "_BAND_ROWS", 16)
    image = (labels > 0).astype(np.uint16) * 4000
    if channels == 3:
        image = np.stack([image] * 3, axis=-1)
    record = ImageRecord("a", CellInstances.from_label_image(labels))
    picture = draw_overview(plane_of_array(image), record)
    assert picture.shape == (100, 136, 3)
    assert (picture[:18] == 0).all()
    colours = label_colours(np.array([1, 2]), False)
    for number, left in enumerate((10, 30)):
        outline = (picture[20:50, left : left + 20] == colours[number]).all(axis=2)
        expected = np.ones((30, 20), bool)
        expected[1:-1, 1:-1] = False
        assert np.array_equal(outline, expected)
    assert (picture[22:48, 12:28] == picture[30, 20]).all()  # inside: the image, bright
    assert picture[30, 20].min() > 200
