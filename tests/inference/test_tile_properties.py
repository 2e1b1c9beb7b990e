"""For images, tiles and cells of any size: each cell comes out of tiles once, and as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.inference.tile_grid import TileGrid
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from strategies import label_images
from tile_scenes import tiled, whole

grids = st.builds(
    TileGrid,
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile_px=st.integers(1, 40),
    overlap_px=st.integers(0, 30),
    context_px=st.integers(0, 20),
)


@given(grids)
def test_cores_share_out_the_image_and_windows_lie_in_it(grid: TileGrid) -> None:
    seen = np.zeros(grid.image_hw, int)
    for tile in grid.tiles:
        seen[tile.core.rows, tile.core.columns] += 1
        assert tile.window.top <= tile.core.top < tile.core.bottom <= tile.window.bottom
        assert tile.window.left <= tile.core.left < tile.core.right <= tile.window.right
        assert (tile.window.top, tile.window.left) >= (0, 0)
        assert tile.window.bottom <= grid.image_hw[0]
        assert tile.window.right <= grid.image_hw[1]
    assert (seen == 1).all()


@given(grids, st.data())
def test_a_box_up_to_the_overlap_is_whole_in_its_tile(grid: TileGrid, data: st.DataObject) -> None:
    height, width = grid.image_hw
    longest = st.integers(1, max(1, min(grid.overlap_px, height, width)))
    h, w = data.draw(longest), data.draw(longest)
    y, x = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    box = np.array([[x, y, x + w, y + h]])
    assert grid.overlap_px == 0 or grid.are_whole(box, grid.tiles_of(box)).all()


Scene = tuple[CellInstances, TileGrid]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Cells that do not overlap, each of one piece, of up to 12 x 12 px, and tiles below that."""
    hw = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    labels: Any = draw(label_images(hw))
    pieces, count = np.zeros(hw, int), 0
    for label in range(1, int(labels.max(initial=0)) + 1):
        found, number = ndimage.label(labels == label)
        pieces[found > 0] = found[found > 0] + count
        count += number
    large = np.kron(pieces, np.ones((3, 3), int))  # pieces of a pixel are no cells
    grid = TileGrid(
        large.shape,
        tile_px=draw(st.integers(4, 40)),
        overlap_px=draw(st.integers(36, 50)),
        context_px=draw(st.integers(0, 8)),
    )
    return CellInstances.from_label_image(large), grid


@given(scenes())
def test_cells_up_to_the_overlap_come_out_as_they_are(
    scene: tuple[CellInstances, TileGrid],
) -> None:
    cells, grid = scene
    assert tiled(cells, grid).equals(whole(cells))
