"""Linking of real cells' shapes, and of the time-lapses of the shared cases.

The 50 images of Usiigaci that are shared are single ones, of which no two follow each other (no
pair of consecutive numbers correlates by more than 0.05). So their cells are made to move, divide,
leave, hide each other and be missed; then the truth is known to the pixel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.images import read_label_image
from cellseg.io.label_frames import LabelFrames, find_label_planes
from cellseg.tracking.accuracy import LinkAccuracy, score_links
from cellseg.tracking.linking import LinkRules, link_cells
from commands import REPOSITORY
from moving_cells import let_move
from time_lapse_scenes import ids_of

pytest.importorskip("laptrack")


def cells_of(datasets: Path, name: str) -> CellInstances:
    path = datasets / "usiigaci" / "full" / "labels" / f"{name}.png"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return CellInstances.from_label_image(read_label_image(path))


def accuracy(cells: CellInstances, rules: LinkRules | None = None, **motion: float) -> LinkAccuracy:
    rng = np.random.default_rng(1)
    frames, true = let_move(cells, rng, num_frames=15, **motion)  # type: ignore[arg-type]
    return score_links(true, link_cells(frames, rules))


@pytest.mark.parametrize("name", ["set1", "set20", "set26"])
@pytest.mark.parametrize("metric", ["overlap", "distance"])
def test_slow_cells_of_usiigaci(real_datasets: Path, name: str, metric: str) -> None:
    """48 to 114 cells of 40 to 60 pixels that move by 5, 1 % divide, 3 % are missed per frame."""
    cells = cells_of(real_datasets, name)
    rules = LinkRules(metric=metric)
    found = accuracy(cells, rules, step_px=5, dividing=0.01, missed=0.03)
    assert found.true_links > 500
    assert found.recall > 0.97
    assert found.precision > 0.97
    assert found.complete_tracks > 0.75 * found.true_tracks


def test_fast_cells_of_usiigaci(real_datasets: Path) -> None:
    """A third of their size per step, over and under each other."""
    found = accuracy(cells_of(real_datasets, "set26"), step_px=15, dividing=0.01, missed=0.03)
    assert found.recall > 0.9
    assert found.precision > 0.9


def test_frames_in_which_labels_persist() -> None:
    path = REPOSITORY.parent / "shared" / "cases" / "time_lapse" / "train" / "labels" / "a.tif"
    if not path.is_file():
        pytest.skip(f"no shared cases: {path}")
    frames = LabelFrames(find_label_planes(path))
    labels = [record.labels.tolist() for record in frames]
    assert labels == [[1, 2, 3, 4]] * 2
    assert ids_of(link_cells(frames)) == labels
