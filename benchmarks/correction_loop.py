r"""Look, correct, retrain: twenty cells corrected through napari's widgets, and what that brings.

    QT_QPA_PLATFORM=offscreen python benchmarks/correction_loop.py --minutes 2

The shipped model looks at images of a kind that it was not trained on: the phase contrast of
Usiigaci, whole cells that it misses. In some of them a window with a few cells is corrected as the
ground truth says: a cell that is right is accepted, one that is none is
rejected, one that is missing is painted, and the window is marked as right. That is saved, a model
is trained on it, and both are measured on images that nobody has corrected. All of it is done with
the widgets of the plug-in, as a person would. Prints a Markdown table.

The images are the middles of the annotated fields, 512 px wide. The data lie below
$DETECTRON2_DATASETS, see datasets/usiigaci.yaml.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cellseg
import napari
import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.datasets.registration import datasets_root
from cellseg.evaluation import score
from cellseg.napari.correct import CorrectWidget
from cellseg.napari.open_corrections import corrections
from cellseg.napari.save_training_data import SaveTrainingDataWidget
from cellseg.napari.train import TrainWidget
from imageio.v3 import imread, imwrite
from numpy.typing import NDArray
from qtpy.QtWidgets import QApplication

SIDE_PX = 512
METRICS = ("ap_dsb@0.50", "ap_dsb", "recall@0.50", "precision@0.50")
RIGHT_FROM_IOU = 0.7
"""A person takes a cell for right from about here."""
WAIT_S = 600.0

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Field:
    """The middle of an annotated image: pixels [H, W], true label image [H, W]."""

    name: str
    pixels: NDArray[np.uint8]
    true: Labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="of training (default: 2)")
    parser.add_argument("--cells", type=int, default=20, help="to correct (default: 20)")
    parser.add_argument("--images", type=int, default=4, help="that they lie in (default: 4)")
    parser.add_argument("--held-out", type=int, default=6, help="to measure on (default: 6)")
    parser.add_argument("--model", default="nuclei", help="to start from (default: nuclei)")
    args = parser.parse_args()
    if os.environ.get("QT_QPA_PLATFORM") == "offscreen":
        answer_for_opengl()
    fields = read_fields()
    given = fields[: args.images]
    measured = fields[args.images : args.images + args.held_out]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        folder.mkdir()
        for field in given:
            imwrite(folder / f"{field.name}.png", field.pixels)
        new_model, done = correct_and_train(folder, given, args)
        print(
            f"{len(given)} images with {done} cells corrected; {args.minutes} minutes of training"
        )
        print(f"measured on {len(measured)} other images\n")
        print("| model |", " | ".join(METRICS), "|")
        print("| --- |", " --- |" * len(METRICS))
        for name, model in (("before", args.model), ("after", new_model)):
            figures = measure(model, measured)
            print(f"| {name} |", " | ".join(f"{figures[one]:.3f}" for one in METRICS), "|")


def read_fields() -> list[Field]:
    """The middles of all annotated images of Usiigaci, in the order of their names."""
    root = datasets_root() / "usiigaci" / "full"
    fields = []
    for path in sorted((root / "images").glob("*.png")):
        pixels = np.asarray(imread(path))
        true = np.asarray(imread(root / "labels" / path.name)).astype(np.int64)
        rows, columns = (slice((at - SIDE_PX) // 2, (at + SIDE_PX) // 2) for at in pixels.shape)
        fields.append(Field(path.stem, pixels[rows, columns], true[rows, columns]))
    return fields


def measure(model: str | Path, fields: Sequence[Field]) -> dict[str, float]:
    """The metrics of a model on images."""
    found = cellseg.load(model)
    true = [CellInstances.from_label_image(field.true) for field in fields]
    return score(true, [found.predict(field.pixels) for field in fields], METRICS)


def correct_and_train(
    folder: Path, given: Sequence[Field], args: argparse.Namespace
) -> tuple[Path, int]:
    """The loop, through the widgets; the new model and how many cells were corrected."""
    viewer = napari.Viewer(show=False)
    widget, save, train = (
        kind(viewer) for kind in (CorrectWidget, SaveTrainingDataWidget, TrainWidget)
    )
    widget.folder_box.images.setText(str(folder))
    widget.folder_box.author.setText("ground truth")
    widget.folder_box.open_button.click()
    widget.source.model.choose(args.model)
    widget.source.all_images.setChecked(True)
    widget.source.find_button.click()
    wait_for(lambda: widget.source.find_button.isEnabled())
    done = 0
    for left, field in zip(range(len(given), 0, -1), given):
        widget.open_image(field.name)
        done += correct_window(widget, field.true, round((args.cells - done) / left))
    save.held_out.setValue(1 / len(given))
    save.save_button.click()
    wait_for(lambda: corrections().training_data is not None)
    train.model.choose(args.model)
    train.minutes.setValue(args.minutes)
    train.start_button.click()
    wait_for(lambda: train.job is None or train.job.progress().has_ended, args.minutes)
    train.poll()
    print(train.verdict.text())
    assert train.job is not None
    new_model = train.job.progress().model
    if new_model is None:
        raise SystemExit("no model came of it")
    corrections().close()
    viewer.close()
    return new_model, done


def wait_for(is_so: Callable[[], bool], minutes: float = 0.0) -> None:
    """Let the window work until something is so."""
    ends = time.monotonic() + WAIT_S + 60 * minutes
    while not is_so():
        if time.monotonic() > ends:
            raise SystemExit("the window has hung")
        QApplication.processEvents()
        time.sleep(0.05)


def window_around(labels: Labels, count: int) -> tuple[slice, slice]:
    """The largest square window in the middle of an image with no more than so many cells."""
    chosen = None
    for half in range(8, max(labels.shape)):
        rows, columns = (slice(max(0, at // 2 - half), at // 2 + half) for at in labels.shape)
        if np.count_nonzero(np.unique(labels[rows, columns])) > count and chosen is not None:
            break
        chosen = rows, columns
    assert chosen is not None
    return chosen


def correct_window(widget: CorrectWidget, true: Labels, count: int) -> int:
    """Correct the cells of a window as the ground truth says; how many true ones there are."""
    shown = widget.shown
    assert shown is not None
    layer, window = shown.layer, window_around(true, count)
    wanted = [int(one) for one in np.unique(true[window]) if one]
    for number in wanted:
        mask = true == number
        ids, counts = np.unique(layer.data[mask], return_counts=True)
        found, shared = int(ids[counts.argmax()]), int(counts.max())
        union = np.count_nonzero(mask | (layer.data == found))
        if found and shared / union >= RIGHT_FROM_IOU:
            shown.choose([found])
            widget.buttons["accept"].click()
        else:
            widget.buttons["new"].click()  # what the brush goes over is the new cell's
            with layer.block_history():  # as a stroke of the mouse does
                layer.data_setitem(np.nonzero(mask), layer.selected_label)
    wrong = np.setdiff1d(layer.data[window][true[window] == 0], np.unique(layer.data[true > 0]))
    for number in [int(one) for one in wrong if one]:
        shown.choose([number])
        widget.buttons["reject"].click()
    layer.corner_pixels = np.array([[one.start, one.stop - 1] for one in window]).T
    widget.buttons["view done"].click()
    return len(wanted)


def answer_for_opengl() -> None:
    """Without a display nothing is drawn, and there is no OpenGL to ask what it can."""
    from vispy.gloo import gl
    from vispy.gloo.gl import _pyopengl2

    for module in (gl, _pyopengl2):
        module.glGetParameter = lambda name: (
            "GL_ARB_texture_float" if name == gl.GL_EXTENSIONS else 4096
        )


if __name__ == "__main__":
    main()
