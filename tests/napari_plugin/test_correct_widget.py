"""The Correct widget, driven as a person would; what it leaves on disk is read anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cellseg
import numpy as np
import pytest
import torch

pytest.importorskip("napari")

from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.corrections import CorrectedImage, CorrectionFolder
from cellseg.modeling.building import build_model
from cellseg.napari.correct import CorrectWidget
from cellseg.napari.correction_keys import KEYS, describe_keys
from cellseg.napari.open_corrections import corrections
from napari.layers import Labels
from person import click, drag, press
from PIL import Image
from qtpy.QtCore import QSettings, Qt

CLASSES = "round, long"
LABELS = np.zeros((60, 80), np.int32)
LABELS[5:15, 5:15] = 1
LABELS[5:15, 15:25] = 2
LABELS[30:50, 30:60] = 3
SCORES = [0.9, 0.7, 0.55]


@pytest.fixture(autouse=True)
def _closed(tmp_path: Path):
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "own"))
    yield
    corrections().close()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images; the second one has the cells of the first one, mirrored."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, labels in (("a", LABELS), ("b", LABELS[:, ::-1])):
        Image.fromarray((40 * labels + 20).astype(np.uint8)).save(folder / f"{name}.png")
    with CorrectionFolder.open(tmp_path / "images_corrections", ("round", "long")) as kept:
        kept.add_images(folder)
        for name, labels, worse in (("a", LABELS, 0.0), ("b", LABELS[:, ::-1], 0.01)):
            cells = CellInstances.from_label_image(labels, scores=np.array(SCORES) + worse)
            kept.image(name).begin(cells, "nuclei", threshold=0.5)
    return folder


@pytest.fixture
def open_widget(make_napari_viewer, images: Path, qtbot):
    """The widget with the folder open, and its viewer."""
    viewer = make_napari_viewer()
    widget = CorrectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.folder_box.images.setText(str(images))
    widget.folder_box.author.setText("Ada")
    widget.folder_box.classes.setText(CLASSES)
    qtbot.mouseClick(widget.folder_box.open_button, Qt.MouseButton.LeftButton)
    assert corrections().folder is not None
    return viewer, widget


def on_disk(images: Path, image_id: str = "a") -> CorrectedImage:
    """What another program would read, whether or not the folder is open."""
    root = images.with_name("images_corrections")
    return CorrectionFolder.open(root, read_only=True).image(image_id)


def test_the_queue_goes_from_the_least_certain_cell_to_the_surest(
    open_widget, images: Path, qtbot
) -> None:
    viewer, widget = open_widget
    seen = []
    assert widget.progress.text() == "6 of 6 open"
    for _ in range(6):
        seen.append((widget.shown.image.image_id, widget.shown.chosen[0]))
        press(qtbot, viewer, "N")
    assert seen == [("a", 3), ("b", 3), ("a", 2), ("b", 2), ("a", 1), ("b", 1)]
    assert widget.said.text() == "no open cell is left"
    press(qtbot, viewer, "Shift+N")
    assert (widget.shown.image.image_id, widget.shown.chosen) == ("a", [1])
    assert len(on_disk(images).history) == 1


def test_the_camera_shows_the_cell_with_what_is_around_it(open_widget) -> None:
    viewer, widget = open_widget
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    assert widget.shown.chosen == [3]
    assert np.allclose(camera.center[-2:], (39.5, 44.5))
    frame = viewer.layers["chosen cells"].data[0]
    assert frame.min(axis=0).tolist() == [27.5, 27.5]
    assert frame.max(axis=0).tolist() == [51.5, 61.5]


def test_accept_reject_and_class_by_keys(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "A")
    assert on_disk(images).states == ["found", "found", "accepted"]
    assert widget.progress.text() == "5 of 6 open"
    press(qtbot, viewer, "R")  # the next one is in the other image
    assert on_disk(images, "b").ids.tolist() == [1, 2]
    press(qtbot, viewer, "2")
    there = on_disk(images)
    assert there.cells.classes.tolist() == [0, 1, 0]
    assert there.states == ["found", "accepted", "accepted"]
    assert {event.by for event in there.history[1:]} == {"Ada"}
    press(qtbot, viewer, "3")
    assert widget.said.text() == "there is no class 3"


def test_the_buttons_do_the_same(open_widget, images: Path, qtbot) -> None:
    _, widget = open_widget
    for name, states in (
        ("accept", ["found", "found", "accepted"]),
        ("undo", None),
        ("redo", None),
    ):
        widget.open_image("a")
        qtbot.mouseClick(widget.buttons[name], Qt.MouseButton.LeftButton)
        if states:
            assert on_disk(images).states == states
    assert [event.what for event in on_disk(images).history] == ["begin", "accept", "undo", "redo"]


def test_undo_goes_back_across_restarts(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "R")
    widget.open_image("a")
    assert on_disk(images).ids.tolist() == [1, 2]
    qtbot.mouseClick(widget.folder_box.open_button, Qt.MouseButton.LeftButton)  # opens it anew
    widget.open_image("a")
    assert widget.shown.image.ids.tolist() == [1, 2]
    press(qtbot, viewer, "Ctrl+Z")
    assert on_disk(images).ids.tolist() == [1, 2, 3]
    assert np.array_equal(widget.shown.layer.data, LABELS)
    assert widget.shown.chosen == [3]
    press(qtbot, viewer, "Ctrl+Shift+Z")
    assert on_disk(images).ids.tolist() == [1, 2]
    press(qtbot, viewer, "Ctrl+Shift+Z")
    assert widget.said.text() == "there is nothing to redo"
    assert "redo" in widget.controls.history.item(0).text()


def test_cells_that_are_clicked_on_are_merged(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    click(widget.shown.layer, 8, 8)
    press(qtbot, viewer, "M")
    assert "choose two cells" in widget.said.text()
    click(widget.shown.layer, 8, 20, held=["Shift"])
    assert widget.shown.chosen == [1, 2]
    assert len(viewer.layers["chosen cells"].data) == 2
    press(qtbot, viewer, "M")
    there = on_disk(images)
    assert (there.ids.tolist(), there.states) == ([1, 3], ["accepted", "found"])
    assert (widget.shown.layer.data[5:15, 5:25] == 1).all()


def test_a_click_that_moves_the_view_chooses_nothing(open_widget) -> None:
    _, widget = open_widget
    drag(widget.shown.layer, [(8, 8), (12, 8)])
    assert widget.shown.chosen == [3]


def test_a_cell_is_split_along_a_line(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "S")
    lines = viewer.layers["chosen cells"]
    assert viewer.layers.selection.active is lines
    drag(lines, [(25, 39.5), (30, 39.5), (40, 39.5), (52, 39.5), (53, 39.5)])
    qtbot.waitUntil(lambda: viewer.layers.selection.active is widget.shown.layer)
    there = on_disk(images)
    larger, smaller = there.cells.areas_px.tolist()[2:]
    assert larger + smaller == 600
    assert 170 < smaller < 210  # a line between columns 39 and 40 of 30 to 59
    assert there.states == ["found", "found", "accepted", "accepted"]
    assert np.array_equal(widget.shown.layer.data, there.label_image())
    assert len(lines.data) == 2


def test_a_line_through_no_cell_and_one_given_up(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "S")
    drag(viewer.layers["chosen cells"], [(55, 5), (55, 10), (55, 20), (55, 25)])
    qtbot.waitUntil(lambda: widget.said.text() == "the line crosses no cell")
    assert len(viewer.layers["chosen cells"].data) == 1
    press(qtbot, viewer, "S")
    press(qtbot, viewer, "Escape")
    assert viewer.layers.selection.active is widget.shown.layer
    assert len(on_disk(images).history) == 1


def test_a_new_cell_is_painted_stroke_by_stroke(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "N")
    widget.open_image("a")
    press(qtbot, viewer, "2")
    layer = widget.shown.layer
    qtbot.mouseClick(widget.buttons["new"], Qt.MouseButton.LeftButton)
    assert layer.mode == "paint"
    layer.brush_size = 4
    drag(layer, [(55, 5), (55, 9)])
    there = on_disk(images)
    assert (there.ids.tolist()[-1], there.states[-1]) == (4, "drawn")
    assert there.cells.classes.tolist()[-1] == 1
    first = int(there.cells.areas_px[-1])
    drag(layer, [(55, 9), (55, 14)])
    there = on_disk(images)
    assert there.ids.tolist() == [1, 2, 3, 4]
    assert int(there.cells.areas_px[-1]) > first
    assert there.history[-1].what == "repaint"
    assert np.array_equal(layer.data, there.label_image())


def test_a_cell_that_is_gone_gives_its_number_to_no_other(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "R")
    widget.open_image("a")
    press(qtbot, viewer, "D")
    layer = widget.shown.layer
    drag(layer, [(55, 5), (55, 9)])
    assert on_disk(images).ids.tolist() == [1, 2, 4]
    assert layer.selected_label == 4
    assert set(np.unique(layer.data)) == {0, 1, 2, 4}


def test_erasing_and_filling_are_corrections(open_widget, images: Path, qtbot) -> None:
    _, widget = open_widget
    layer = widget.shown.layer
    layer.mode, layer.brush_size = "erase", 3
    drag(layer, [(31, 30), (31, 40)])
    there = on_disk(images)
    assert there.states == ["found", "found", "accepted"]
    assert there.cells.areas_px[2] < 600
    layer.mode, layer.selected_label = "fill", 0
    click(layer, 40, 40)
    assert on_disk(images).ids.tolist() == [1, 2]


def test_a_polygon_is_taken_though_napari_paints_it_behind_its_event(
    open_widget, images: Path, qtbot
) -> None:
    viewer, widget = open_widget
    press(qtbot, viewer, "D")
    layer = widget.shown.layer
    layer.paint_polygon([(52, 5), (52, 15), (58, 15), (58, 5)], layer.selected_label)
    qtbot.waitUntil(lambda: on_disk(images).ids.tolist() == [1, 2, 3, 4])
    assert on_disk(images).cells.areas_px[-1] == 77
    press(qtbot, viewer, "Ctrl+Z")
    assert on_disk(images).ids.tolist() == [1, 2, 3]
    assert np.array_equal(layer.data, LABELS)


def test_a_click_takes_the_detection_below_the_threshold(open_widget, images: Path, qtbot) -> None:
    _, widget = open_widget
    unsure = np.zeros(LABELS.shape, np.int32)
    unsure[52:58, 64:76] = 1
    cells = CellInstances.from_label_image(unsure, scores=[0.3], classes=[1])
    widget.shown.image.keep_candidates(cells)
    click(widget.shown.layer, 20, 70)
    assert "no detection below the threshold" in widget.said.text()
    click(widget.shown.layer, 55, 70)
    there = on_disk(images)
    assert (there.ids.tolist(), there.states[-1]) == ([1, 2, 3, 4], "accepted")
    assert (there.cells.areas_px[-1], there.cells.classes[-1]) == (72, 1)
    assert widget.shown.chosen == [4]


def test_what_is_in_the_view_is_accepted_or_marked_as_right(
    open_widget, images: Path, qtbot
) -> None:
    viewer, widget = open_widget
    widget.shown.layer.corner_pixels = np.array([[0, 0], [24, 30]])
    press(qtbot, viewer, "Shift+A")
    assert on_disk(images).states == ["accepted", "accepted", "found"]
    press(qtbot, viewer, "W")
    there = on_disk(images)
    assert there.counted_region()[:25, :31].all()
    assert there.counted_region().sum() == 25 * 31
    qtbot.mouseClick(widget.buttons["image done"], Qt.MouseButton.LeftButton)
    there = on_disk(images)
    assert there.is_done
    assert there.states == ["accepted"] * 3
    assert widget.images.table.topLevelItem(0).text(3) == "all"


def test_colours_and_the_words_under_the_cursor_tell_the_state(open_widget, qtbot) -> None:
    viewer, widget = open_widget
    layer = widget.shown.layer
    before = layer.get_color(3)
    assert "state: found" in layer.get_status((40, 40), world=True)["value"]
    press(qtbot, viewer, "A")
    widget.open_image("a")
    layer = widget.shown.layer
    assert "state: accepted" in layer.get_status((40, 40), world=True)["value"]
    assert not np.allclose(before, layer.get_color(3))
    assert not np.allclose(layer.get_color(1), layer.get_color(2))


def test_a_folder_that_is_in_use_can_be_looked_at(make_napari_viewer, images: Path, qtbot) -> None:
    with CorrectionFolder.open(images.with_name("images_corrections"), author="Bob"):
        viewer = make_napari_viewer()
        widget = CorrectWidget(viewer)
        viewer.window.add_dock_widget(widget)
        box = widget.folder_box
        box.images.setText(str(images))
        box.classes.setText(CLASSES)
        qtbot.mouseClick(box.open_button, Qt.MouseButton.LeftButton)
        assert corrections().folder is None
        assert "is in use: this process has it open" in box.in_use.text()
        qtbot.mouseClick(box.look_button, Qt.MouseButton.LeftButton)
        assert not box.in_use.text()
        assert widget.shown.image.ids.tolist() == [1, 2, 3]
        press(qtbot, viewer, "A")
        assert "not only to look at it" in widget.said.text()
        assert len(on_disk(images).history) == 1


def test_the_selected_layer_names_its_file(make_napari_viewer, images: Path, qtbot) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((60, 80)), metadata={"path": str(images / "b.png")})
    widget = CorrectWidget(viewer)
    qtbot.addWidget(widget)
    box = widget.folder_box
    qtbot.mouseClick(box.layer_button, Qt.MouseButton.LeftButton)
    assert box.images.text() == str(images / "b.png")
    assert box.kept_in.text() == str(images / "b_corrections")
    qtbot.mouseClick(box.open_button, Qt.MouseButton.LeftButton)
    assert [one.image_id for one in corrections().folder.images] == ["b"]


def test_what_a_model_finds_is_what_predict_finds(
    make_napari_viewer, tmp_path: Path, tiny_model: list[str], qtbot
) -> None:
    options = ["CELLSEG.TEST.SCORE_THRESHOLD", "0.51", "INPUT.MIN_SIZE_TEST", "0"]
    options += ["TEST.DETECTIONS_PER_IMAGE", "1000", "CELLSEG.TEST.EXCLUSIVE", "True"]
    cfg = load_config("quick_start.yaml", [*tiny_model, *options])
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "run" / "model_final.pth")
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump(), "utf-8")
    path = tmp_path / "one.png"
    Image.fromarray((40 * LABELS + 20).astype(np.uint8)).save(path)
    widget = CorrectWidget(make_napari_viewer())
    qtbot.addWidget(widget)
    widget.folder_box.images.setText(str(path))
    widget.folder_box.classes.setText("cell")
    qtbot.mouseClick(widget.folder_box.open_button, Qt.MouseButton.LeftButton)
    widget.source.model.choose(tmp_path / "run")
    qtbot.mouseClick(widget.source.find_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.source.said.text(), timeout=60_000)
    image = corrections().folder.image("one")
    assert image.source == str(tmp_path / "run")
    model = cellseg.load(tmp_path / "run")
    given = model.predict(path)
    assert sorted(image.cells.scores.tolist()) == pytest.approx(sorted(given.scores.tolist()))
    assert len(image.candidates) > 0
    assert (image.candidates.scores < 0.51).any()


def test_the_images_that_teach_most_come_first(
    open_widget, images: Path, qtbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, widget = open_widget
    part = "cellseg.napari.correction_images"
    monkeypatch.setattr("cellseg.load", lambda name: name, raising=False)
    suggested = [
        SimpleNamespace(path=images / f"{one}.png", place=PlaceInFile(), reason=f"because of {one}")
        for one in "ba"
    ]
    monkeypatch.setattr(f"{part}.suggest_images", lambda model, paths, progress: suggested)
    qtbot.mouseClick(widget.images.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: widget.images.order == ["b", "a"])
    assert widget.images.table.topLevelItem(0).toolTip(0) == "because of b"
    assert (widget.shown.image.image_id, widget.shown.chosen) == ("b", [3])
    seen = []
    for _ in range(5):
        qtbot.mouseClick(widget.buttons["next"], Qt.MouseButton.LeftButton)
        seen.append(widget.shown.image.image_id)
    assert seen == ["b", "b", "a", "a", "a"]


def test_what_next_tells_how_far_it_is_and_stops(
    open_widget, qtbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, widget = open_widget
    go_on = threading.Event()

    def suggest(model: str, paths: list[Path], progress: Callable[[int, int], None]) -> None:
        progress(0, len(paths))
        assert go_on.wait(60)
        progress(1, len(paths))

    monkeypatch.setattr("cellseg.load", lambda name: name, raising=False)
    monkeypatch.setattr("cellseg.napari.correction_images.suggest_images", suggest)
    before = widget.images.order
    assert not widget.images.stop_button.isEnabled()
    qtbot.mouseClick(widget.images.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: widget.images.said.text().startswith("looks at 1 of 2 images"))
    qtbot.mouseClick(widget.images.stop_button, Qt.MouseButton.LeftButton)
    go_on.set()
    qtbot.waitUntil(widget.images.next_button.isEnabled)
    assert widget.images.order == before
    assert widget.images.said.text() == ""
    assert not widget.images.stop_button.isEnabled()


def test_cells_of_a_layer_and_who_corrects(open_widget, images: Path, qtbot) -> None:
    viewer, widget = open_widget
    mine = np.zeros(LABELS.shape, np.int32)
    mine[40:50, 2:12] = 7
    viewer.add_labels(mine, name="mine")
    widget.source.layer_choice.choose(viewer.layers["mine"])
    qtbot.mouseClick(widget.source.take_button, Qt.MouseButton.LeftButton)
    there = on_disk(images)
    assert (there.source, len(there.ids)) == ("layer mine", 1)
    assert CorrectWidget(viewer).folder_box.author.text() == "Ada"


def test_the_keys_are_told_and_hold_for_this_layer_alone(open_widget, qtbot) -> None:
    viewer, widget = open_widget
    told = dict(describe_keys())
    assert told["R or Delete or Backspace"] == "it is none: reject, and go on"
    assert {name for key in KEYS for name in [key.action]} <= set(widget.actions_by_name)
    other = viewer.add_labels(np.zeros((9, 9), int), name="other")
    viewer.layers.selection.active = other
    press(qtbot, viewer, "2")
    assert isinstance(other, Labels)
    assert other.mode == "paint"
    assert len(widget.shown.image.history) == 1
