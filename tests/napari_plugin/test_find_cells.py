"""Find cells, as somebody at the window does it, with a tiny untrained model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

import cellseg
from cellseg import load_config
from cellseg.errors import ImageReadError
from cellseg.napari import find_cells
from cellseg.napari.find_cells import AUTOMATIC, RECTANGLE, RECTANGLES, VIEW, FindCells
from cellseg.napari.layers import layer_to_cells, pixel_size_um
from commands import REPOSITORY
from qtpy.QtCore import Qt


@pytest.fixture(scope="module")
def run_folder(checkpoint_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that never was: a config and the tiny model's weights."""
    folder = tmp_path_factory.mktemp("run")
    cfg = load_config(REPOSITORY / "configs/quick_start.yaml", checkpoint_options)
    cfg.MODEL.DEVICE = "cpu"
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    weights = Path(cfg.MODEL.WEIGHTS)
    (folder / "model_final.pth").write_bytes(weights.read_bytes())
    (folder / "last_checkpoint").write_text("model_final.pth", "utf-8")
    return folder


def make_image(image_hw: tuple[int, int] = (60, 90)) -> np.ndarray:
    image = np.zeros(image_hw, np.uint8)
    image[::9, ::7] = 200
    image[10:30, 20:50] = 160
    return image


@pytest.fixture
def widget(make_napari_viewer, qtbot, run_folder: Path) -> FindCells:
    viewer = make_napari_viewer()
    found = FindCells(viewer)
    viewer.window.add_dock_widget(found, name="Find cells")
    found.model.choose(run_folder)
    return found


def press_find(widget: FindCells, qtbot: Any) -> Any:
    """Press the button, wait, and give the layer that is there then."""
    before = len(widget._viewer.layers)
    qtbot.mouseClick(widget.find_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(widget.find_button.isEnabled, timeout=60_000)
    assert len(widget._viewer.layers) == before + 1
    return widget._viewer.layers[-1]


def test_the_cells_are_those_of_predict(widget, qtbot, run_folder: Path) -> None:
    image = make_image()
    widget._viewer.add_image(image, name="field", scale=(0.5, 0.25), units=("um", "um"))
    layer = press_find(widget, qtbot)
    expected = cellseg.load(run_folder).predict(image)
    found = layer_to_cells(layer)
    assert layer.name == "cells of field"
    assert len(expected) > 3
    # where cells overlap the surer one has the pixel, so those that are covered have none
    assert np.array_equal(layer.data > 0, expected.to_label_image() > 0)
    assert set(found.cells.scores.tolist()) <= set(expected.scores.round(4).tolist())
    assert len(layer.features) == len(expected)
    assert pixel_size_um(layer) == (0.5, 0.25)
    assert layer.features["area_um2"].tolist() == (layer.features["area_px"] / 8).tolist()
    under_cursor = np.argwhere(layer.data)[0] * (0.5, 0.25)
    assert "score: " in layer.get_status(under_cursor, world=True)["value"]


def test_sliders_choose_at_once(widget, qtbot, run_folder: Path, monkeypatch) -> None:
    image = make_image()
    widget._viewer.add_image(image)
    layer = press_find(widget, qtbot)
    monkeypatch.setattr(find_cells, "detect_softly", None)  # the network is not asked again
    sliders, everything = widget.sliders, len(layer.features)
    middle = float(np.median(layer.features["score"]))
    with qtbot.waitSignal(sliders.chosen):
        sliders.score_slider.setValue(middle)
    scores = layer.features["score"]
    assert 0 < len(scores) < everything
    assert scores.min() >= round(middle, 2) - 0.0001
    with qtbot.waitSignal(sliders.chosen):
        sliders.mask_slider.setValue(0.49)
    options = ["CELLSEG.TEST.SCORE_THRESHOLD", sliders.score_slider.value()]
    options += ["CELLSEG.TEST.MASK_THRESHOLD", 0.49]
    expected = cellseg.load(run_folder, options).predict(image)
    assert np.array_equal(layer.data > 0, expected.to_label_image() > 0)
    areas = layer.features["area_px"]
    with qtbot.waitSignal(sliders.chosen):
        low, high = int(areas.quantile(0.3)), int(areas.quantile(0.7))
        sliders.area_slider.setValue((low, high))
    assert layer.features["area_px"].between(low, high).all()
    assert 0 < len(layer.features) < len(areas)
    assert sliders.count.text().startswith(f"{len(layer.features)} cells")


def test_colours_and_outlines(widget, qtbot) -> None:
    widget._viewer.add_image(make_image())
    layer = press_find(widget, qtbot)
    first = layer.features["index"].iloc[0]
    plain = layer.get_color(first)
    widget.sliders.colour_by.setCurrentIndex(widget.sliders.colour_by.findData("score"))
    assert not np.array_equal(plain, layer.get_color(first))
    widget.sliders.outlines.click()
    assert layer.contour == 1


def test_what_was_painted_stays(widget, qtbot) -> None:
    widget._viewer.add_image(make_image())
    layer = press_find(widget, qtbot)
    layer.selected_label = 500
    layer.mode = "paint"
    with layer.block_history():  # from pressing the mouse button to letting it go
        layer.paint((5, 5), 500)
    assert not widget.sliders.isEnabled()
    before = layer.data.copy()
    widget.sliders.score_slider.setValue(0.9)
    qtbot.wait(50)
    assert np.array_equal(layer.data, before)
    assert 500 in layer.data


def test_a_drawn_rectangle_of_a_plane_of_a_stack(widget, qtbot) -> None:
    stack = np.stack([make_image() * 0, make_image(), make_image() // 2])
    viewer = widget._viewer
    viewer.add_image(stack, scale=(4, 0.5, 0.5), translate=(0, 100, 50), name="stack")
    viewer.dims.set_point(0, 4.0)
    widget.where.setCurrentText(RECTANGLE)
    shapes = viewer.layers[RECTANGLES]
    assert shapes.mode == "add_rectangle"
    shapes.add_rectangles([[9.6, 19.7], [49.6, 79.7]])
    layer = press_find(widget, qtbot)
    assert layer.data.shape == (1, 40, 60)
    assert layer.scale.tolist() == [4, 0.5, 0.5]
    assert layer.translate.tolist() == [4, 105, 60]
    assert layer.data.any()


def test_a_rectangle_that_nobody_drew(widget, qtbot, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)
    qtbot.mouseClick(widget.find_button, Qt.MouseButton.LeftButton)
    widget._viewer.add_image(make_image())
    widget.where.setCurrentText(RECTANGLE)
    qtbot.mouseClick(widget.find_button, Qt.MouseButton.LeftButton)
    assert ["there is no image" in told[0], "no rectangle is drawn" in told[1]] == [True, True]
    assert widget.find_button.isEnabled()


def test_the_view(widget, qtbot) -> None:
    image = widget._viewer.add_image(make_image())
    image.corner_pixels = np.array([[10, 20], [39, 79]])
    widget.where.setCurrentText(VIEW)
    layer = press_find(widget, qtbot)
    assert layer.data.shape == (30, 60)
    assert layer.translate.tolist() == [10, 20]


def test_stop_stops_within_the_network(widget, qtbot, monkeypatch) -> None:
    widget._viewer.add_image(make_image())
    layers, looked, pressed = [], find_cells.detect_softly, threading.Event()

    def look(*args: Any, progress: Any, **more: Any) -> Any:
        def tell(done: int, total: int) -> None:
            layers.append(done)
            if len(layers) == 5:
                pressed.wait(30)
            progress(done, total)

        return looked(*args, progress=tell, **more)

    monkeypatch.setattr(find_cells, "detect_softly", look)
    qtbot.mouseClick(widget.find_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(layers) == 5, timeout=60_000)
    qtbot.mouseClick(widget.stop_button, Qt.MouseButton.LeftButton)
    pressed.set()
    qtbot.waitUntil(widget.find_button.isEnabled, timeout=60_000)
    assert len(layers) == 5
    assert len(widget._viewer.layers) == 1
    assert not widget.stop_button.isEnabled()


def test_errors_are_told_and_not_raised(widget, qtbot, monkeypatch, tmp_path) -> None:
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)
    widget._viewer.add_image(make_image())

    def fail(*args: Any, **more: Any) -> Any:
        raise ImageReadError("field.tif: broken")

    monkeypatch.setattr(find_cells, "detect_softly", fail)
    qtbot.mouseClick(widget.find_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(widget.find_button.isEnabled, timeout=60_000)
    widget.model.choose(tmp_path / "no_model")
    assert told[0] == "field.tif: broken"
    assert "no_model: no such model" in told[1]


def test_diameters_need_a_model_that_knows_some(widget) -> None:
    assert not widget.diameter.isEnabled()
    assert not widget.no_diameter.isHidden()
    widget.model.choose("nuclei")
    assert widget.diameter.isEnabled()
    assert widget.no_diameter.isHidden()
    widget.diameter.setCurrentText(AUTOMATIC)
    assert widget._diameter() == "auto"


def test_a_model_of_two_channels(widget, qtbot, run_folder: Path, tmp_path: Path) -> None:
    config = (run_folder / "config.yaml").read_text("utf-8")
    for path in run_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = config.replace("    CHANNELS: []", "    CHANNELS: [DAPI, 0]")
    assert changed != config
    (tmp_path / "config.yaml").write_text(changed, "utf-8")
    viewer = widget._viewer
    viewer.add_image(make_image(), name="actin")
    viewer.add_image(make_image()[::-1], name="DAPI")
    widget.model.choose(tmp_path)
    assert [choice.layer().name for choice in widget.channels] == ["DAPI", "DAPI"]
    widget.channels[1].choose(viewer.layers["actin"])
    layer = press_find(widget, qtbot)
    both = np.stack([make_image()[::-1], make_image()], axis=-1)
    expected = cellseg.load(tmp_path).predict(both)
    assert np.array_equal(layer.data > 0, expected.to_label_image() > 0)
