from __future__ import annotations

import numpy as np
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.io.label_images import write_label_image


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
