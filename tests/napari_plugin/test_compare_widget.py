"""The widget Compare, driven as a person would: choose, click, look, go there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

from cellseg.evaluation import score
from cellseg.napari.compare import COLOURS, CompareWidget
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt


def draw(cells: dict[int, tuple[int, int, int, int]], hw: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Rectangles (top, left, bottom, right) by label."""
    labels = np.zeros(hw, np.uint16)
    for label, (top, left, bottom, right) in cells.items():
        labels[top:bottom, left:right] = label
    return labels


TRUTH = draw(
    {
        3: (0, 0, 10, 10),  # as it should be
        5: (0, 20, 10, 30),  # missed
        7: (20, 0, 30, 20),  # split
        8: (20, 30, 30, 40),  # merged with the next one
        9: (20, 40, 30, 50),
        11: (40, 0, 50, 10),  # badly outlined
    }
)
PREDICTION = draw(
    {
        1: (0, 0, 10, 10),
        2: (20, 0, 30, 10),
        4: (20, 10, 30, 20),
        6: (20, 30, 30, 50),
        8: (40, 4, 50, 14),
        9: (50, 60, 60, 70),  # spurious
    }
)
EXPECTED = {
    "missed": ("5", ""),
    "split": ("7", "2 4"),
    "merged": ("8 9", "6"),
    "badly outlined": ("11", "8"),
    "spurious": ("", "9"),
}


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


def open_widget(viewer: Any, qtbot: Any) -> CompareWidget:
    widget = CompareWidget(viewer)
    viewer.window.add_dock_widget(widget)
    return widget


def press_compare(widget: CompareWidget, qtbot: Any) -> None:
    qtbot.mouseClick(widget.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(widget.button.isEnabled, timeout=20_000)


def read(table: Any) -> list[list[str]]:
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def click_row(widget: CompareWidget, qtbot: Any, word: str) -> int:
    """Click the first error of a kind; its row."""
    row = next(k for k, values in enumerate(read(widget.errors)) if values[0] == word)
    item = widget.errors.item(row, 0)
    widget.errors.scrollToItem(item)
    middle = widget.errors.visualItemRect(item).center()
    qtbot.mouseClick(widget.errors.viewport(), Qt.MouseButton.LeftButton, pos=middle)
    return row


def test_errors_of_every_kind_their_colours_and_the_metrics(viewer: Any, qtbot: Any) -> None:
    truth, prediction = (viewer.add_labels(one.copy(), name=name) for one, name in
                         ((TRUTH, "truth"), (PREDICTION, "prediction")))  # fmt: skip
    widget = open_widget(viewer, qtbot)
    assert (widget.truth.layer(), widget.prediction.layer()) == (truth, prediction)
    press_compare(widget, qtbot)

    listed = {values[0]: tuple(values[3:5]) for values in read(widget.errors)}
    assert listed == EXPECTED
    assert widget.told.text() == "5 errors in 'prediction'"
    for kind, word in (("missed", "missed: 1"), ("catastrophe", "tangled: 0")):
        assert COLOURS[kind] in widget.legend.text()
        assert word in widget.legend.text()
    assert "wrong class" not in widget.legend.text()

    expected = score([TRUTH], [PREDICTION])
    assert read(widget.metrics) == [[name, f"{value:.4f}"] for name, value in expected.items()]

    layer = viewer.layers["errors of prediction"]
    kinds = dict(zip(layer.features["index"], layer.features["error"]))
    shown = {kinds.get(label, "") for label in np.unique(layer.data)}
    assert shown == {"", *EXPECTED}
    assert kinds[layer.data[25, 5]] == "split"
    assert kinds[layer.data[45, 2]] == kinds[layer.data[45, 12]] == "badly outlined"
    assert layer.data[5, 5] == 0  # the right one
    assert np.allclose(
        layer.get_color(layer.data[5, 25])[:3], [0xD5 / 255, 0x5E / 255, 0], atol=0.01
    )
    assert np.array_equal(truth.data, TRUTH)
    assert np.array_equal(prediction.data, PREDICTION)

    prediction.data = TRUTH.copy()
    press_compare(widget, qtbot)
    assert widget.errors.rowCount() == 0
    assert sum(one.name.startswith("errors") for one in viewer.layers) == 1


def test_a_click_goes_there(viewer: Any, qtbot: Any) -> None:
    for labels in (TRUTH, PREDICTION):
        viewer.add_labels(labels.copy(), scale=(0.5, 0.5), translate=(10, 20))
    widget = open_widget(viewer, qtbot)
    press_compare(widget, qtbot)
    click_row(widget, qtbot, "merged")
    # Rows 20 to 29, columns 30 to 49: the middle at (24.5, 39.5) pixels.
    assert viewer.camera.center[-2:] == pytest.approx((10 + 24.5 / 2, 20 + 39.5 / 2))
    zoom = viewer.camera.zoom
    click_row(widget, qtbot, "spurious")
    assert viewer.camera.center[-2:] == pytest.approx((10 + 54.5 / 2, 20 + 64.5 / 2))
    assert viewer.camera.zoom == pytest.approx(2 * zoom)  # it is half as wide
    viewer.camera.center = (0, 0)
    click_row(widget, qtbot, "spurious")  # once more
    assert viewer.camera.center[-2:] == pytest.approx((10 + 54.5 / 2, 20 + 64.5 / 2))
    viewer.layers.remove(next(one for one in viewer.layers if one.name.startswith("errors")))
    click_row(widget, qtbot, "missed")  # there is no layer of errors any more
    assert viewer.camera.center[-2:] == pytest.approx((10 + 54.5 / 2, 20 + 64.5 / 2))


def test_the_plane_of_a_stack_is_shown(viewer: Any, qtbot: Any) -> None:
    empty = np.zeros_like(TRUTH)
    viewer.add_labels(np.stack([TRUTH, empty, TRUTH]), name="truth")
    viewer.add_labels(np.stack([TRUTH, empty, PREDICTION]), name="prediction")
    widget = open_widget(viewer, qtbot)
    press_compare(widget, qtbot)
    assert {values[1] for values in read(widget.errors)} == {"2"}
    viewer.dims.set_point(0, 0)
    click_row(widget, qtbot, "split")
    assert viewer.dims.point[0] == 2
    assert viewer.layers["errors of prediction"].data.shape == (3, 60, 80)
    assert not viewer.layers["errors of prediction"].data[:2].any()


def test_classes_are_compared_where_both_have_some(viewer: Any, qtbot: Any) -> None:
    layers = [
        viewer.add_labels(TRUTH.copy(), name=name, features={"index": [3, 5, 7], "class": classes})
        for name, classes in (("truth", ["a", "b", "a"]), ("prediction", ["a", "a", "a"]))
    ]
    widget = open_widget(viewer, qtbot)
    press_compare(widget, qtbot)
    assert [values[0] for values in read(widget.errors)] == ["wrong class"]
    assert "wrong class: 1" in widget.legend.text()
    head = [widget.metrics.horizontalHeaderItem(k).text() for k in range(4)]
    assert head == ["metric", "all", "a", "b"]
    layers[0].features = {"index": [3, 5, 7]}
    press_compare(widget, qtbot)
    assert widget.errors.rowCount() == 0
    assert widget.metrics.columnCount() == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "two different layers"),
        ([TRUTH], "two different layers"),
        ([TRUTH, TRUTH[:-1]], "'a' has 60 x 80 pixels, 'b' 59 x 80"),
        ([TRUTH, np.stack([TRUTH] * 2)], "2 x 60 x 80"),
        ([np.zeros_like(TRUTH)] * 2, "neither 'a' nor 'b' has a cell"),
    ],
)
def test_what_cannot_be_compared_is_told(
    viewer: Any, qtbot: Any, given: list[np.ndarray], said: str
) -> None:
    for name, labels in zip("ab", given):
        viewer.add_labels(labels.copy(), name=name)
    widget = open_widget(viewer, qtbot)
    before = len(notification_manager.records)
    press_compare(widget, qtbot)
    assert said in widget.told.text()
    (record,) = notification_manager.records[before:]
    assert said in record.message
    assert not any(one.name.startswith("errors") for one in viewer.layers)


def test_one_empty_side_is_all_missed(viewer: Any, qtbot: Any) -> None:
    viewer.add_labels(TRUTH.copy(), name="truth")
    viewer.add_labels(np.zeros_like(TRUTH), name="nothing")
    widget = open_widget(viewer, qtbot)
    press_compare(widget, qtbot)
    assert [values[0] for values in read(widget.errors)] == ["missed"] * 6
    viewer.window.remove_dock_widget(widget)
