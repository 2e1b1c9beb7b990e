"""Cellpose's `_seg.npy`: its masks are read, and nothing of the pickle is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.errors import DatasetError
from cellseg.images import SeveralPlanesError
from cellseg.io import read_records
from cellseg.io.cellpose_seg import read_seg_masks
from shared_cases import shared_case

MASKS = np.zeros((8, 9), np.uint16)
MASKS[1:3, 1:4], MASKS[5:7, 2:8] = 1, 2


def save(path: Path, **content: Any) -> Path:
    everything: Any = {"masks": MASKS, "flows": [MASKS], "filename": "a.tif", **content}
    np.save(path, everything, allow_pickle=True)
    return path


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_the_masks_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a_seg.npy", diameter=np.float64(17.5), ismanual=np.zeros(2, bool))
    assert np.array_equal(read_seg_masks(path), MASKS)


def test_what_a_pickle_names_is_not_called(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    path = save(tmp_path / "a_seg.npy", model=Touch(victim), place=Path("/x"), kinds={1, 2})
    assert np.array_equal(read_seg_masks(path), MASKS)
    assert not victim.exists()
    np.load(path, allow_pickle=True)  # what is not done
    assert victim.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"masks": "none"}, "no array `masks` in it: in Cellpose: File > Save masks"),
        ({"masks": np.zeros((2, 2, 3, 4), np.uint8)}, r"masks of shape \[2, 2, 3, 4\]"),
    ],
)
def test_files_without_masks(tmp_path: Path, content: dict[str, Any], says: str) -> None:
    with pytest.raises(DatasetError, match=rf"a_seg\.npy: {says}"):
        read_seg_masks(save(tmp_path / "a_seg.npy", **content))


def test_other_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", MASKS)
    with pytest.raises(DatasetError, match=r"not read as .* \(an array of uint16 and no dict\)"):
        read_seg_masks(tmp_path / "a_seg.npy")
    (tmp_path / "a_seg.npy").write_bytes(save(tmp_path / "b.npy").read_bytes()[:400])
    with pytest.raises(DatasetError, match="not read as what Cellpose saves"):
        read_seg_masks(tmp_path / "a_seg.npy")


def test_masks_of_a_stack_go_to_its_planes(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    path = save(tmp_path / "train/a_seg.npy", masks=np.stack([MASKS, MASKS * 0]))
    with pytest.raises(SeveralPlanesError, match="masks of 2 planes"):
        read_seg_masks(path)
    stack = np.zeros((2, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "train/a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    records = read_records("cellpose", tmp_path, "train")
    assert [(one.image_id, one.cells.areas_px.tolist()) for one in records] == [
        ("a_z0", [6, 12]),
        ("a_z1", []),
    ]


def test_label_images_come_first(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    tifffile.imwrite(tmp_path / "train/a.tif", np.zeros((8, 9), np.uint8))
    tifffile.imwrite(tmp_path / "train/a_masks.tif", (MASKS == 1).astype(np.uint8))
    save(tmp_path / "train/a_seg.npy")
    (record,) = read_records("cellpose", tmp_path, "train")
    assert record.cells.areas_px.tolist() == [6]
    (record,) = read_records("cellpose", tmp_path, "train", mask_suffix="_seg")
    assert record.cells.areas_px.tolist() == [6, 12]


def test_case_of_a_user() -> None:
    (record,) = read_records("cellpose", shared_case("cellpose_seg_npy"), "train")
    assert record.cells.areas_px.tolist() == [253] * 4
