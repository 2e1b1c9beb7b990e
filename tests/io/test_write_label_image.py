from __future__ import annotations

import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.cells.spool import SpooledCells
from cellseg.io import label_files
from cellseg.io.label_images import write_image_cells, write_label_image


def dots(count: int, image_hw: tuple[int, int]) -> CellInstances:
    """Cell k is the k-th pixel in row-major order."""
    offsets = np.stack(np.unravel_index(np.arange(count), image_hw), axis=1)
    return CellInstances.from_crops([np.ones((1, 1), bool)] * count, offsets, image_hw)


def test_labels_follow_the_order_of_the_cells(tmp_path):
    write_label_image(dots(3, (2, 2)), tmp_path / "new" / "cells.tif")
    labels = tifffile.imread(tmp_path / "new" / "cells.tif")
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[1, 2], [3, 0]]


def test_higher_score_on_top(tmp_path):
    crops = [np.ones((1, 2), bool)] * 3
    cells = CellInstances.from_crops(
        crops, [(0, 0), (0, 1), (0, 2)], (1, 4), scores=[0.5, 0.9, 0.7]
    )
    write_label_image(cells, tmp_path / "cells.tif")
    assert tifffile.imread(tmp_path / "cells.tif").tolist() == [[1, 2, 2, 3]]


def test_more_cells_than_sixteen_bits_count(tmp_path):
    for count, dtype in ((65_535, np.uint16), (65_536, np.uint32)):
        write_label_image(dots(count, (256, 257)), tmp_path / "cells.tif")
        labels = tifffile.imread(tmp_path / "cells.tif")
        assert labels.dtype == dtype
        assert labels.max() == count
        assert len(np.unique(labels)) == count + 1


def test_no_cells(tmp_path):
    write_label_image(CellInstances.empty((3, 5)), tmp_path / "cells.tif")
    labels = tifffile.imread(tmp_path / "cells.tif")
    assert labels.shape == (3, 5)
    assert not labels.any()


def test_file_is_compressed(tmp_path):
    write_label_image(CellInstances.empty((1000, 1000)), tmp_path / "cells.tif")
    assert (tmp_path / "cells.tif").stat().st_size < 20_000


@pytest.mark.parametrize("count", [300, 66_000])
def test_a_large_image_in_tiles_has_the_same_pixels(tmp_path, monkeypatch, count):
    """Overlapping cells, some across tiles; the last tiles are cut off."""
    rng = np.random.default_rng(count)
    crops = [rng.random((7, 9)) < 0.7 for _ in range(count)]
    offsets = np.stack([rng.integers(0, 1293, count), rng.integers(0, 891, count)], axis=1)
    cells = CellInstances.from_crops(crops, offsets, (1300, 900), scores=rng.random(count))
    with SpooledCells(tmp_path, (1300, 900)) as spooled:
        cells = cells.sort_by_position()
        for start in range(0, count, 1000):
            spooled.append(cells[start : start + 1000])
        monkeypatch.setattr(label_files, "LARGE_PX", 1_000_000)
        write_label_image(spooled, tmp_path / "cells.tif")
    labels = tifffile.imread(tmp_path / "cells.tif")
    expected = cells.to_label_image()
    assert labels.dtype == expected.dtype
    assert np.array_equal(labels, expected)
    with tifffile.TiffFile(tmp_path / "cells.tif") as file:
        assert (file.pages[0].is_tiled, file.is_bigtiff) == (True, False)
        assert file.pages[0].tile == (512, 512)


def test_beyond_4_gib_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(label_files, "LARGE_PX", 0)
    monkeypatch.setattr(label_files, "TIFF_LIMIT", 1000)
    write_label_image(dots(3, (30, 20)), tmp_path / "cells.tif")
    with tifffile.TiffFile(tmp_path / "cells.tif") as file:
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), dots(3, (30, 20)).to_label_image())


def test_the_table_of_classes_of_a_large_image_has_the_labels_that_occur(tmp_path, monkeypatch):
    monkeypatch.setattr(label_files, "LARGE_PX", 0)
    bitmaps = np.zeros((3, 8, 8), bool)
    bitmaps[0, :2], bitmaps[1, :2], bitmaps[2, 5:] = True, True, True
    cells = CellInstances.from_bitmaps(bitmaps, [0.5, 0.9, 0.7], [0, 1, 0])
    folder = tmp_path / "labels"
    folder.mkdir()
    write_image_cells(ImageRecord("a", cells), folder / "a.tif", ("round", "flat"))
    table = (tmp_path / "classes" / "a.csv").read_text().split()
    assert table == ["label,class", "2,flat", "3,round"]
