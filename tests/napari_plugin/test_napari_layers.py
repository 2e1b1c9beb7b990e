"""Labels of napari and cells become each other."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")

import pandas as pd
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError
from cellseg.napari.correction_colours import colour_states
from cellseg.napari.layers import (
    cells_to_layer,
    class_colours,
    colour_cells,
    current_plane,
    layer_to_cells,
    pixel_size_um,
    placed_like,
    score_colours,
)
from napari.components import ViewerModel
from napari.layers import Image, Labels

LABELS = np.array([[0, 3, 3, 0], [7, 7, 0, 9]])
CLASSES = ("round", "long")


def make_cells() -> CellInstances:
    return CellInstances.from_label_image(LABELS, classes=[1, 0, 1], scores=[0.625, 0.5, 0.75])


def make_layer(**more) -> Labels:
    data, arguments, kind = cells_to_layer(make_cells(), CLASSES, "cells", **more)
    assert kind == "labels"
    return Labels(data, **arguments)


def test_cells_become_a_layer_and_are_the_same_again() -> None:
    layer = make_layer(ids=np.array([3, 7, 9]), pixel_size_um=(0.5, 0.25))
    assert layer.data.tolist() == LABELS.tolist()
    assert layer.features["class"].tolist() == ["long", "round", "long"]
    assert layer.features["area_px"].tolist() == [2, 2, 1]
    assert layer.features["area_um2"].tolist() == [0.25, 0.25, 0.125]
    assert pixel_size_um(layer) == (0.5, 0.25)
    found = layer_to_cells(layer)
    assert found.ids.tolist() == [3, 7, 9]
    assert found.classes == CLASSES
    assert found.cells.equals(make_cells())


def test_an_image_without_cells() -> None:
    data, arguments, _ = cells_to_layer(CellInstances.empty((2, 3)), CLASSES, "none")
    found = layer_to_cells(Labels(data, **arguments))
    assert (len(found.cells), found.cells.image_hw, found.classes) == (0, (2, 3), CLASSES)


def test_what_was_painted_has_the_first_class_and_score_1() -> None:
    layer = make_layer()
    layer.data[0, 0] = 12
    found = layer_to_cells(layer)
    assert found.ids.tolist() == [1, 2, 3, 12]
    assert found.cells.classes.tolist() == [1, 0, 1, 0]
    assert found.cells.scores.tolist() == [0.625, 0.5, 0.75, 1.0]


def test_labels_of_another_program() -> None:
    found = layer_to_cells(Labels(LABELS))
    assert found.classes == ("cell",)
    assert found.cells.scores.tolist() == [1, 1, 1]
    named = Labels(LABELS, features=pd.DataFrame({"index": [7, 3], "class": ["b", "a"]}))
    found = layer_to_cells(named)
    assert found.classes == ("a", "b")
    assert found.cells.classes.tolist() == [0, 1, 0]
    with pytest.raises(LabelError, match="'b' of the layer; there are a"):
        layer_to_cells(named, classes=["a"])


def test_the_hover_text_of_napari_has_score_class_and_area() -> None:
    layer = make_layer(pixel_size_um=(0.5, 0.5))
    status = layer.get_status((0.1, 0.6), world=True)["value"]
    assert "class: long" in status
    assert "score: 0.625" in status
    assert "area_px: 2" in status
    assert "area_um2: 0.5" in status


def test_the_plane_that_is_looked_at() -> None:
    stack = np.stack([LABELS, LABELS * 0, LABELS * 2])
    viewer = ViewerModel()
    layer = viewer.add_labels(stack, scale=(3, 0.5, 0.5))
    flat = viewer.add_labels(LABELS)
    viewer.dims.set_point(0, 6.2)
    assert current_plane(layer, viewer.dims.point) == (2,)
    assert current_plane(flat, viewer.dims.point) == ()
    assert layer_to_cells(layer, plane=(2,)).ids.tolist() == [6, 14, 18]
    with pytest.raises(LabelError, match=r"no plane \[3\]; its planes are \[3\]"):
        layer_to_cells(layer, plane=(3,))


def test_a_part_is_placed_where_it_was() -> None:
    image = Image(np.zeros((5, 9, 9)), scale=(2, 0.5, 0.25), translate=(0, 10, 20))
    placed = placed_like(image, (4, 2))
    assert (placed["scale"], placed["translate"]) == ((0.5, 0.25), (12.0, 20.5))


def test_colours() -> None:
    layer = make_layer()
    colour_cells(layer, "class")
    first, second, third = (layer.get_color(label) for label in (1, 2, 3))
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)
    colour_cells(layer, "score")
    assert len({tuple(layer.get_color(label)) for label in (1, 2, 3)}) == 3
    colour_cells(layer, "cell")
    assert len({tuple(layer.get_color(label)) for label in (1, 2, 3)}) == 3


def test_a_score_has_one_colour_wherever_it_is_shown() -> None:
    cells = CellInstances.from_label_image([[1, 2, 3]], scores=[0.3, 0.75, 0.9], classes=[0, 1, 1])
    table = colour_states(cells, np.array([4, 5, 6]), ["found", "found", "accepted"]).color_dict
    expected = np.concatenate([score_colours([0.5, 0.75]), class_colours([1])])
    assert np.allclose([table[4], table[5], table[6]], expected)
    assert not np.allclose(expected[0], expected[1])
