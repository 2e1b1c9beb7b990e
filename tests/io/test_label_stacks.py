"""Stacks of label images with their table: what is written is read again; what is none is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.io.label_stacks import LabelStack, read_label_stacks, write_single_stack
from cellseg.io.label_tables import LabelTable

LABELS = np.zeros((2, 8, 9), np.int64)
LABELS[0, 1:3, 1:4] = 3
LABELS[1, 2:4, 1:4] = 3
LABELS[1, 5:7, 5:8] = 70_000
TABLE = LabelTable(("a", "b"), np.array([1, 0]), np.array([0.25, 0.1], np.float32))
STACK = LabelStack("film", LABELS, np.array([3, 70_000]), TABLE, (0.5, 0.25))


@pytest.mark.parametrize("highest", [70_000, 4])
def test_what_is_written_is_read_again(highest: int, tmp_path: Path) -> None:
    labels = np.where(LABELS == 70_000, highest, LABELS)
    stack = STACK._replace(labels=labels, ids=np.array([3, highest]))
    path = tmp_path / "film_labels.tif"
    assert write_single_stack(stack, path) == [path, path.with_suffix(".csv")]
    (again,) = read_label_stacks(path)
    assert np.array_equal(again.labels, labels)
    assert again.ids.tolist() == [3, highest]
    assert (again.image_id, again.pixel_size_um) == ("film", (0.5, 0.25))
    assert again.table.classes == ("a", "b")
    assert again.table.numbers.tolist() == [1, 0]
    assert again.table.scores.tolist() == TABLE.scores.tolist()


def test_without_a_table_all_are_of_one_class(tmp_path: Path) -> None:
    path = tmp_path / "film_masks.tif"
    tifffile.imwrite(path, LABELS.astype(np.uint32)[:, None], metadata={"axes": "TZYX"}, ome=True)
    (stack,) = read_label_stacks(path)
    assert stack.labels.shape == (2, 8, 9)
    assert (stack.table.classes, stack.table.scores.tolist()) == (("cell",), [1, 1])


def test_axes_of_a_time_lapse_in_depth_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "film_masks.tif"
    labels = np.stack([LABELS, LABELS, LABELS]).astype(np.uint32)
    tifffile.imwrite(path, labels, metadata={"axes": "TZYX"}, ome=True)
    (stack,) = read_label_stacks(path)
    assert np.array_equal(stack.labels, labels)


def test_one_plane_is_no_stack(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_labels.tif", LABELS[0].astype(np.uint16))
    assert read_label_stacks(tmp_path / "a_labels.tif") == []


def test_no_cells_at_all(tmp_path: Path) -> None:
    nothing = LabelTable(("cell",), np.zeros(0, np.int64), np.zeros(0, np.float32))
    stack = LabelStack("film", LABELS * 0, np.zeros(0, np.int64), nothing, None)
    write_single_stack(stack, tmp_path / "film_labels.tif")
    (again,) = read_label_stacks(tmp_path / "film_labels.tif")
    assert (again.labels.shape, again.labels.any(), len(again.ids)) == (LABELS.shape, False, 0)


def test_what_cannot_be_written_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "film_labels.tif"
    write_single_stack(STACK, path)
    before = path.read_bytes()
    with pytest.raises(LabelError, match=r"expected labels \[T, H, W\]; found the shape \[8, 9\]"):
        write_single_stack(STACK._replace(labels=LABELS[0]), path)
    with pytest.raises(LabelError, match=r"from 0 to 2\*\*32 - 1; found -1 to 3"):
        write_single_stack(STACK._replace(ids=np.array([-1, 3])), path)
    path.with_suffix(".csv").write_text("my,own,table\n")
    with pytest.raises(DatasetError, match="is there and is no table of labels"):
        write_single_stack(STACK, path)
    assert path.read_bytes() == before


def test_a_stack_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_single_stack(STACK, tmp_path / "film_labels.tif")
    monkeypatch.setattr("cellseg.limits.available_memory", lambda: 1000)
    monkeypatch.setattr("cellseg.limits._HARMLESS_BYTES", 0)
    with pytest.raises(ImageReadError, match=r"film_labels\.tif: 2 label images of 8 x 9 "):
        read_label_stacks(tmp_path / "film_labels.tif")
