"""Linking of real cells' shapes, and of the time-lapses of the shared cases.

The 50 images of Usiigaci that are shared are single ones, of which no two follow each other (no
pair of consecutive numbers correlates by more than 0.05). So their cells are made to move, divide,
leave, hide each other and be missed; then the truth is known to the pixel.
"""

from __future__ import annotations

import re
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


NAMES = ("set1", "set20", "set26")


def cells_of(datasets: Path, name: str) -> CellInstances:
    path = datasets / "usiigaci" / "full" / "labels" / f"{name}.png"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return CellInstances.from_label_image(read_label_image(path))


def accuracy(cells: CellInstances, step_px: float, metric: str = "overlap") -> LinkAccuracy:
    """Of 15 frames in which 1 % of the cells divide and 3 % are not found."""
    rng = np.random.default_rng(1)
    frames, true = let_move(cells, rng, num_frames=15, step_px=step_px, dividing=0.01, missed=0.03)
    return score_links(true, link_cells(frames, LinkRules(metric=metric)))


@pytest.mark.parametrize("step_px", [5, 15, 25])
def test_the_shares_that_docs_tell_of(real_datasets: Path, step_px: int) -> None:
    text = (REPOSITORY / "docs" / "time_lapse.md").read_text("utf-8")
    [row] = re.findall(rf"^\| {step_px} px \| (\d+) % \| (\d+) % \| (\d+) % \|", text, re.MULTILINE)
    found = [accuracy(cells_of(real_datasets, name), step_px) for name in NAMES]
    right = sum(one.right_links for one in found)
    shares = [
        right / sum(one.true_links for one in found),
        right / sum(one.found_links for one in found),
        sum(one.complete_tracks for one in found) / sum(one.true_tracks for one in found),
    ]
    assert sum(one.true_links for one in found) > 2000
    assert [100 * share for share in shares] == pytest.approx([float(one) for one in row], abs=1)


def test_cells_of_usiigaci_by_distance(real_datasets: Path) -> None:
    found = accuracy(cells_of(real_datasets, "set20"), 5, "distance")
    assert found.recall > 0.97
    assert found.precision > 0.97


def test_frames_in_which_labels_persist() -> None:
    path = REPOSITORY.parent / "shared" / "cases" / "time_lapse" / "train" / "labels" / "a.tif"
    if not path.is_file():
        pytest.skip(f"no shared cases: {path}")
    frames = LabelFrames(find_label_planes(path))
    labels = [record.labels.tolist() for record in frames]
    assert labels == [[1, 2, 3, 4]] * 2
    assert ids_of(link_cells(frames)) == labels
