"""The parts of benchmarks/nuclei.py that give its figures, on cells whose answers are known."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cellseg.cells.synthetic import make_cells
from PIL import Image
from scipy import ndimage

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a module of benchmarks/, as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        pytest.importorskip("skimage")
        return importlib.import_module(name)

    return load


def square(size: int, start: int, stop: int) -> np.ndarray:
    labels = np.zeros((size, size), np.int32)
    labels[start:stop, start:stop] = 1
    return labels


def test_outlines_move_by_a_pixel_or_half_of_one(load) -> None:
    bounds = load("nuclei_bounds")
    areas = {
        name: [int((side > 0).sum()) for side in bounds.redraw_outlines(square(12, 3, 9), name)]
        for name in bounds.OUTLINES
    }
    # dilation with a cross leaves the corners as they are
    assert areas == {
        "half a pixel smaller": [144, 100],
        "half a pixel larger": [144, 144 + 4 * 12],
        "a pixel smaller": [36, 16],
        "a pixel larger": [36, 36 + 4 * 6],
        "half a pixel down and right": [144, 144],
    }


def test_touching_cells_stay_apart_and_cells_at_the_edge_are_not_eroded_there(load) -> None:
    bounds = load("nuclei_bounds")
    labels = np.repeat(np.array([[1, 1, 1, 2, 2, 2, 0]]), 3, axis=0)
    assert bounds.erode_labels(labels)[1].tolist() == [1, 1, 0, 0, 2, 0, 0]
    assert bounds.dilate_labels(labels)[1].tolist() == [1, 1, 1, 2, 2, 2, 2]


def test_shared_part_of_two_views(load) -> None:
    cut_shared = load("nuclei_bounds").cut_shared
    field = np.arange(7 * 9).reshape(7, 9)
    for row, column in ((0, 0), (2, 3), (2, -3), (-2, 3), (-2, -3)):
        top, left = max(0, -row), max(0, -column)
        first = field[top : top + 5, left : left + 6]
        second = field[top + row : top + row + 5, left + column : left + column + 6]
        one, other = cut_shared(first, second, (row, column))
        assert one.shape == (5 - abs(row), 6 - abs(column))
        assert (one == other).all()


def test_watershed_parts_touching_nuclei_and_leaves_out_dust(load) -> None:
    watershed = load("nuclei_watershed")
    rows, columns = np.mgrid[:60, :80]
    discs = [(30, 25), (30, 45)]  # of radius 12: they touch
    bright = np.zeros((60, 80), bool)
    for row, column in discs:
        bright |= (rows - row) ** 2 + (columns - column) ** 2 <= 12**2
    bright[5:8, 70:73] = True
    found = watershed.find_nuclei(100 + 900 * bright, watershed.Settings(1.0, 8, 60))
    assert found.max() == 2
    assert found[30, 25] != found[30, 45]
    assert (found[5:8, 70:73] == 0).all()
    flat = watershed.find_nuclei(np.full((9, 9), 7), watershed.Settings(1.0, 8, 60))
    assert not flat.any()


def test_settings_are_those_that_are_best(load) -> None:
    watershed = load("nuclei_watershed")
    true = square(40, 10, 30) + 2 * square(40, 2, 8)  # the small one is no dust
    chosen = watershed.choose_settings([200 * (true > 0)], [true])
    found = watershed.find_nuclei(200 * (true > 0), chosen)
    assert chosen.area == 20
    assert ndimage.label(found)[1] == 2


def test_the_benchmark_runs_on_a_set_of_two_images(load, tmp_path, monkeypatch, capsys) -> None:
    for split in ("val", "devtest"):
        folder = tmp_path / "bbbc039" / split
        for number in range(2):
            scene = make_cells(number, (64, 80), num_cells=6)
            for kind, pixels in (("images", scene.image), ("labels", scene.labels)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                pixels = pixels.astype(np.uint16 if kind == "labels" else pixels.dtype)
                Image.fromarray(pixels).save(folder / kind / f"field_{number}.png")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    threads = ["--threads", str(torch.get_num_threads())]
    words = ["--sets", "bbbc039", "--split", "devtest", "--otsu", "--bounds", *threads]
    load("nuclei").main(words)
    first, second = capsys.readouterr().out.split("| `ap_dsb` at IoU |")
    rows = [line.split(" | ") for line in first.splitlines() if line.startswith("| bbbc039")]
    assert [row[2] for row in rows][:2] == ["Otsu, watershed", "truth, half a pixel smaller"]
    assert rows[0][1] == "2"
    assert 0 < float(rows[0][3]) <= 1
    assert len(second.splitlines()[2].split(" | ")) == 12


def test_learning_rate_falls_with_the_time_that_is_used(load) -> None:
    share = load("stardist_nuclei").share_of_rate
    assert [round(share(at), 4) for at in (0, 0.25, 0.5, 1, 7)] == [1, 0.855, 0.505, 0.01, 0.01]


def test_a_stopped_training_knows_its_time(load, tmp_path: Path) -> None:
    make_state = load("stardist_nuclei").State
    first = make_state(tmp_path)
    first.steps, first.best_val_loss = 12, 0.5
    first.save()
    saved = first.cpu_seconds
    again = make_state(tmp_path)
    assert (again.steps, again.best_val_loss) == (12, 0.5)
    assert 0 < again.cpu_seconds < saved + 60


def test_augmentation_moves_image_and_labels_alike(load) -> None:
    augment = load("stardist_nuclei").augment
    labels = np.arange(12).reshape(3, 4)
    seen = set()
    for seed in range(40):
        image, turned = augment(100.0 * labels, labels, np.random.default_rng(seed))
        assert image.dtype == np.float32
        slope = np.polyfit(turned.ravel(), image.ravel(), 1)
        assert 59 < slope[0] < 201
        assert np.abs(np.polyval(slope, turned) - image).max() < 0.3
        seen.add((turned.shape, int(turned[0, 0])))
    assert len(seen) == 8


STAND_IN = """#!{python}
import json, sys
from pathlib import Path
import numpy as np
import tifffile
words = sys.argv[1:]
assert words[0].endswith("stardist_nuclei.py") and words[1:5] == ["--threads", "3", "predict", "M"]
output = Path(words[words.index("--output") + 1])
images = Path(words[words.index("--list") + 1]).read_text().splitlines()
for number, image in enumerate(images, 1):
    if image.endswith("broken.png"):
        sys.exit("cannot be read")
    tifffile.imwrite(output / f"{{Path(image).stem}}.tif", np.full((2, 3), number, np.uint16))
times = [{{"image": image, "seconds": 2.0, "cpu_seconds": 3.0}} for image in images]
(output / "times.json").write_text(json.dumps(times))
"""


def test_stardist_predicts_in_a_python_of_its_own(load, tmp_path: Path) -> None:
    nuclei = load("nuclei")
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    way = nuclei.way_of_stardist(str(python), "M", 3)
    found = way(nuclei.Images("bbbc039_val", [Path("b.png"), Path("a.png")], []))
    assert [int(labels[0, 0]) for labels in found.labels] == [1, 2]
    assert (found.seconds, found.cpu_seconds) == (2.0, 3.0)
    with pytest.raises(SystemExit, match="cannot be read"):
        way(nuclei.Images("bbbc039_val", [Path("broken.png")], []))
