"""From corrected cells to a new model: the widgets Save as training data and Train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("napari")

from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.config.runs import find_run_weights
from cellseg.corrections import CorrectionFolder, TrainingData
from cellseg.datasets.declarations import read_declarations
from cellseg.engine.fine_tuning_progress import Progress
from cellseg.errors import ConfigError
from cellseg.modeling.building import build_model
from cellseg.napari import train
from cellseg.napari.model_choice import ModelChoice, known_models
from cellseg.napari.open_corrections import corrections
from cellseg.napari.save_training_data import SaveTrainingDataWidget
from cellseg.napari.train import TrainWidget
from commands import Command
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox

inspect = Command("inspect")
TINY = "SOLVER.MAX_ITER 2 TEST.EVAL_PERIOD 1"


@pytest.fixture(autouse=True)
def _closed():
    yield
    corrections().close()
    corrections().training_data = None
    known_models().paths.clear()


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectionFolder:
    """Two images that are done, and one of which a cell was accepted and the others were not."""
    (tmp_path / "images").mkdir()
    folder = CorrectionFolder.open(tmp_path / "kept", ("cell",), author="Ada")
    for seed in range(3):
        labels = np.zeros((64, 64), np.int32)
        for k, (row, col) in enumerate(((4, 6), (8, 34), (36, 10), (40, 40)), 1):
            labels[row : row + 12 + seed, col : col + 14] = k
        path = tmp_path / "images" / f"{seed}.png"
        Image.fromarray((labels * 40 + 20).astype(np.uint8)).save(path)
        folder.add_images(path)
        image = folder.image(str(seed))
        image.begin(CellInstances.from_label_image(labels), "nuclei", threshold=0.5)
        if seed < 2:
            image.mark_done()
        else:
            image.accept(image.ids[:1])
    corrections().take(folder)
    return folder


@pytest.fixture
def run_dir(tiny_model: list[str], tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = load_config("quick_start.yaml", [*tiny_model, "INPUT.MIN_SIZE_TEST", "0"])
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    return folder


def test_what_was_corrected_is_saved(corrected: CorrectionFolder, qtbot, capsys) -> None:
    widget = SaveTrainingDataWidget(ViewerModel())
    qtbot.addWidget(widget)
    assert "3 of 3 images with corrections: 9 cells" in widget.summary.text()
    assert "2 windows or images marked as right. 3 cells" in widget.summary.text()
    qtbot.mouseClick(widget.save_button, Qt.MouseButton.LeftButton)
    declared = corrected.root / "training_data" / "declaration.yaml"
    assert str(declared) in widget.result.toPlainText()
    assert {one.name for one in read_declarations(declared)} == {
        "training_data_train",
        "training_data_val",
    }
    assert not inspect.main([str(declared)])
    assert "\n0 errors" in capsys.readouterr().out


def test_nothing_to_save_is_told(qtbot, tmp_path: Path, monkeypatch) -> None:
    widget = SaveTrainingDataWidget(ViewerModel())
    qtbot.addWidget(widget)
    assert "in the widget Correct" in widget.summary.text()
    assert not widget.save_button.isEnabled()
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    folder = CorrectionFolder.open(tmp_path / "kept", ("cell",))
    folder.add_images(tmp_path / "a.png")
    corrections().take(folder)
    qtbot.mouseClick(widget.save_button, Qt.MouseButton.LeftButton)
    assert told
    assert corrections().training_data is None
    assert not (folder.root / "training_data").exists()


@pytest.mark.slow
def test_a_model_is_trained_and_offered(corrected: CorrectionFolder, run_dir: Path, qtbot) -> None:
    corrections().keep(corrected.save_training_data(corrected.root / "data", held_out=0.3))
    elsewhere = ModelChoice()
    widget = TrainWidget(ViewerModel())
    for one in (elsewhere, widget):
        qtbot.addWidget(one)
    widget.model.choose(run_dir)
    widget.minutes.setValue(0.1)
    widget.keys.setText(TINY)
    qtbot.mouseClick(widget.start_button, Qt.MouseButton.LeftButton)
    assert widget.stop_button.isEnabled()
    assert not widget.start_button.isEnabled()
    qtbot.waitUntil(lambda: bool(widget.verdict.text()), timeout=120_000)
    progress = widget.job.progress()
    assert progress.state == "done", progress.message
    assert widget.verdict.text() == progress.message
    assert widget.curves.num_points == (len(progress.losses), len(progress.metrics))
    assert len(progress.losses)
    assert find_run_weights(progress.model).is_file()
    assert elsewhere.models.findData(str(progress.model)) >= 0
    assert widget.output_dir.text() != str(progress.model)  # the next one has another place


class Job:
    """A training whose progress is told by the test."""

    def __init__(self, *given, **more) -> None:
        self.given, self.more, self.stopped = given, more, 0
        self.seen = Progress("training", 0.25, ((20, 1.5), (40, 1.0)), ((20, 0.4),), before=0.5)

    def start(self) -> None: ...

    def progress(self) -> Progress:
        return self.seen

    def stop(self) -> None:
        self.stopped += 1
        self.seen = Progress("stopped", losses=self.seen.losses)


@pytest.fixture
def training(qtbot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TrainWidget:
    """The widget with a training under way."""
    monkeypatch.setattr(train, "FineTuning", Job)
    data = TrainingData(tmp_path / "data" / "d.yaml", "d_train", "d_val", 3, 1, 9, ("cell",))
    widget = TrainWidget(ViewerModel())
    qtbot.addWidget(widget)
    assert not widget.start_button.isEnabled()
    assert "save training data first" in widget.data.text()
    corrections().keep(data)
    assert widget.data.text().startswith("3 images, 9 cells of ")
    qtbot.mouseClick(widget.start_button, Qt.MouseButton.LeftButton)
    return widget


def test_how_far_it_is_and_that_it_is_worse(training: TrainWidget, tmp_path: Path, qtbot) -> None:
    job = training.job
    assert job.given[0] == "nuclei"
    assert job.given[2:4] == ("d_train", "d_val")
    assert Path(job.given[4]).parent == tmp_path / "models"
    assert training.state.text() == "trains: 25 % of its time, iteration 40; before: 0.500"
    assert training.curves.num_points == (2, 1)
    job.seen = Progress("done", 1.0, message="Worse on the images held out", model=tmp_path)
    qtbot.waitUntil(lambda: training.verdict.text() == "Worse on the images held out")
    assert known_models().paths == [str(tmp_path)]
    assert training.start_button.isEnabled()


def test_it_stops_when_asked(training: TrainWidget, qtbot) -> None:
    qtbot.mouseClick(training.stop_button, Qt.MouseButton.LeftButton)
    assert training.job.stopped == 1
    assert training.state.text() == "stopped, iteration 40"
    assert not training.stop_button.isEnabled()


def test_napari_asks_before_it_is_closed(training: TrainWidget, qtbot, monkeypatch) -> None:
    window = QMainWindow()
    window.setCentralWidget(training)
    qtbot.addWidget(window)
    window.show()
    for answer, stopped in (("No", 0), ("Yes", 1)):
        button = getattr(QMessageBox.StandardButton, answer)
        monkeypatch.setattr(QMessageBox, "question", lambda *_, button=button: button)
        event = QCloseEvent()
        QApplication.sendEvent(window, event)
        assert event.isAccepted() == bool(stopped)
        assert training.job.stopped == stopped


def test_what_cannot_be_trained_is_told(training: TrainWidget, qtbot, monkeypatch) -> None:
    training.stop()
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)

    def refuse(*given, **more) -> None:
        raise ConfigError("there is no such model")

    monkeypatch.setattr(train, "FineTuning", refuse)
    qtbot.mouseClick(training.start_button, Qt.MouseButton.LeftButton)
    assert told == ["there is no such model"]
    assert training.start_button.isEnabled()
