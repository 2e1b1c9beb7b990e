"""Napari is killed while somebody corrects: nothing is lost; others are told meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")

from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectionFolder
from cellseg.napari.correction_folder_box import CorrectionFolderBox, corrections_beside
from cellseg.napari.open_corrections import corrections
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import Qt

CHILD = Path(__file__).with_name("correcting_child.py")


def test_nothing_is_lost_when_napari_is_killed(
    qtbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.zeros((60, 80), np.int32)
    labels[30:50, 30:60], labels[5:15, 5:15], labels[5:15, 20:30] = 3, 1, 2
    (tmp_path / "images").mkdir()
    Image.fromarray((40 * labels).astype(np.uint8)).save(tmp_path / "images" / "a.png")
    root = corrections_beside(tmp_path / "images")
    with CorrectionFolder.open(root, ("round", "long")) as folder:
        folder.add_images(tmp_path / "images")
        folder.image("a").begin(CellInstances.from_label_image(labels), "nuclei")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(tmp_path / "images"), "a"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        told = [child.stdout.readline().split() for _ in range(5)]

        box = CorrectionFolderBox(ViewerModel())
        qtbot.addWidget(box)
        box.images.setText(str(tmp_path / "images"))
        box.classes.setText("round, long")
        qtbot.mouseClick(box.open_button, Qt.MouseButton.LeftButton)
        assert corrections().folder is None
        assert f"is in use: process {child.pid}" in box.in_use.text()
        assert box.look_button.isVisibleTo(box)
    finally:
        child.kill()
        rest, _ = child.communicate()
    told += [line.split() for line in rest.splitlines()]  # each said when it was on disk
    num_events, *ids = map(int, told[-1])
    with CorrectionFolder.open(root) as folder:
        image = folder.image("a")
        assert len(image.history) >= num_events
        assert set(ids) <= set(image.ids.tolist())
        while len(image.history) < 3 * num_events and image.undo():
            pass
        assert image.ids.size == 0  # back to the very beginning
