"""Stacks and files of many channels: inspected as a training would read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from builders import rectangle, scene_of_masks
from cellseg.images import ImageInput
from cellseg.inspection.contact_sheet import draw_tile
from cellseg.inspection.report import inspect_splits
from cellseg.inspection.sources import Split
from cellseg.inspection.suggestions import suggest_config
from cellseg.shipped import shipped_folder
from commands import Command
from inspection_scenes import make_record, texture

HW = (48, 64)
MASKS = list(scene_of_masks([rectangle(HW, 5, 7, 18, 21)], HW).masks)
DIM, BRIGHT = texture(1, HW).astype(np.uint16), 40 * texture(2, HW).astype(np.uint16)


def make_split(path: Path, image: np.ndarray, axes: str) -> Split:
    tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": axes})
    return Split("s", ("cell",), (make_record("a", path, HW, MASKS),))


@pytest.mark.parametrize(
    ("image", "axes", "chosen"),
    [
        (np.stack([DIM, BRIGHT]), "CYX", {"channels": [1]}),
        (np.stack([DIM, BRIGHT, DIM, DIM, DIM]), "CYX", {"channels": [1]}),
        (np.stack([DIM, BRIGHT]), "TYX", {"page": 1}),
        (np.stack([DIM, BRIGHT]), "ZYX", {"projection": "max"}),
    ],
    ids=["two channels", "five channels", "time", "depth"],
)
def test_what_is_chosen_is_measured(
    tmp_path: Path, image: np.ndarray, axes: str, chosen: dict[str, object]
) -> None:
    split = make_split(tmp_path / "a.tif", image, axes)
    found = inspect_splits([split], image_input=ImageInput(**chosen))  # type: ignore[arg-type]
    measured = found.images[0].intensities
    assert measured is not None
    expected = image.max(axis=0) if chosen.get("projection") else BRIGHT
    assert (measured.low, measured.high) == (expected.min(), expected.max())
    assert found.images[0].cells.mean[0] == expected[7:21, 5:18].mean()
    assert [finding.kind for finding in found.findings] == []
    text = suggest_config(found, shipped_folder("configs") / "quick_start.yaml")
    (key,) = chosen
    assert f"    {key.upper()}: " in text


@pytest.mark.parametrize("axes", ["CYX", "TYX"])
def test_without_a_choice_there_are_figures_and_a_warning(tmp_path: Path, axes: str) -> None:
    found = inspect_splits([make_split(tmp_path / "a.tif", np.stack([DIM, BRIGHT]), axes)])
    assert [(one.severity, one.kind) for one in found.findings] == [("warning", "choice_needed")]
    assert "CELLSEG.INPUT." in found.findings[0].text
    measured = found.images[0].intensities
    assert measured is not None
    assert measured.channels == (2 if axes == "CYX" else 1)
    assert measured.high == (max(DIM.max(), BRIGHT.max()) if axes == "CYX" else DIM.max())
    tile = draw_tile(found.images[0], [])
    assert tile[150, 150].tolist() != [225, 225, 225]  # the grey of what cannot be read


def test_a_wrong_choice_is_an_error(tmp_path: Path) -> None:
    split = make_split(tmp_path / "a.tif", np.stack([DIM, BRIGHT]), "CYX")
    found = inspect_splits([split], image_input=ImageInput(channels=[5]))
    assert [one.kind for one in found.findings] == ["image_unreadable"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    tifffile.imwrite(
        tmp_path / "train/images/a.tif", np.stack([DIM, BRIGHT]), metadata={"axes": "CYX"}
    )
    tifffile.imwrite(tmp_path / "train/labels/a.tif", MASKS[0].astype(np.uint16))
    (tmp_path / "two.yaml").write_text(
        f"two_{tmp_path.name}: {{format: label_images, root: {tmp_path}, splits: [train]}}"
    )
    tool = Command("inspect")
    assert tool.main([str(tmp_path / "two.yaml"), "CELLSEG.INPUT.CHANNELS", "[1, 0]"]) == 0
    assert "Nothing found." in capsys.readouterr().out
