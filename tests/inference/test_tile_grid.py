"""Where tiles lie, against the promises of the module, pixel by pixel."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from cellseg import limits
from cellseg.errors import InputValueError
from cellseg.inference.tile_grid import EDGE_PX, TileGrid
from cellseg.inference.tile_size import choose_tile
from cellseg.limits import available_memory


def random_grid(seed: int) -> TileGrid:
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 150)), int(rng.integers(1, 150)))
    tile, overlap, context = rng.integers((1, 0, 0), (60, 30, 12)).tolist()
    return TileGrid(hw, tile, overlap, context)


@pytest.mark.parametrize("seed", range(60))
def test_cores_partition_the_image_and_windows_hold_their_margin(seed: int) -> None:
    grid = random_grid(seed)
    height, width = grid.image_hw
    times_read = np.zeros(grid.image_hw, int)
    owner = np.full(grid.image_hw, -1)
    for number, tile in enumerate(grid.tiles):
        assert tile.number == number == tile.row * grid.shape[1] + tile.column
        core, window = tile.core, tile.window
        assert (owner[core.rows, core.columns] == -1).all()
        owner[core.rows, core.columns] = number
        times_read[window.rows, window.columns] += 1
        assert window.top <= max(core.top - grid.margin_px, 0)
        assert window.left <= max(core.left - grid.margin_px, 0)
        assert window.bottom >= min(core.bottom + grid.margin_px, height)
        assert window.right >= min(core.right + grid.margin_px, width)
        assert 0 <= window.top < window.bottom <= height  # nothing is padded
        assert 0 <= window.left < window.right <= width
    assert (owner >= 0).all()
    for tile in grid.tiles:
        interior = grid.interior(tile)
        alone = np.zeros(grid.image_hw, bool)
        if interior.top < interior.bottom and interior.left < interior.right:
            alone[interior.rows, interior.columns] = True
        window = np.zeros(grid.image_hw, bool)
        window[tile.window.rows, tile.window.columns] = True
        assert np.array_equal(alone, window & (times_read == 1))


@pytest.mark.parametrize("seed", range(60))
def test_a_box_up_to_the_overlap_is_whole_in_the_tile_that_has_its_middle(seed: int) -> None:
    grid = random_grid(seed)
    rng = np.random.default_rng(seed)
    size = np.minimum(rng.integers(1, max(grid.overlap_px, 1) + 1, (50, 2)), grid.image_hw)
    first = rng.integers(0, np.array(grid.image_hw) - size + 1)
    last = first + size
    boxes = np.column_stack([first[:, 1], first[:, 0], last[:, 1], last[:, 0]])
    owners = grid.tiles_of(boxes)
    if grid.overlap_px:
        assert grid.are_whole(boxes, owners).all()
    for (row, column), number in zip(((first + last) // 2).tolist(), owners.tolist()):
        core = grid.tile(number).core
        assert core.top <= row < core.bottom
        assert core.left <= column < core.right


def test_near_an_inner_edge_a_box_is_cut_and_at_the_image_edge_it_is_not() -> None:
    grid = TileGrid((40, 300), tile_px=100, overlap_px=20, context_px=10)
    assert [tile.window.columns for tile in grid.tiles] == [
        slice(0, 140),
        slice(80, 220),
        slice(160, 300),
    ]
    ends = np.array([140, 140 - EDGE_PX + 1, 140 - EDGE_PX])
    boxes = np.column_stack([ends - 10, ends * 0, ends, ends * 0 + 40])
    assert grid.are_whole(boxes, np.zeros(3, int)).tolist() == [False, False, True]
    assert grid.are_whole(np.array([[0, 0, 9, 9], [291, 0, 300, 9]]), np.array([0, 2])).all()


def test_an_image_smaller_than_a_tile_is_one_tile() -> None:
    (tile,) = TileGrid((30, 20), 64, 8, 8).tiles
    assert tile.core == tile.window == (0, 0, 30, 20)


def test_windows_of_a_large_image_are_of_one_size() -> None:
    grid = TileGrid((1000, 1500), 256, 32, 16)
    assert {tile.window.hw for tile in grid.tiles} == {(320, 320)}
    assert grid.shape == (4, 6)


def test_a_narrow_rest_makes_no_tile_of_its_own() -> None:
    grid = TileGrid((100, 530), 256, 20, 10)
    assert [tile.core.columns for tile in grid.tiles] == [slice(0, 256), slice(256, 530)]


def test_cores_begin_at_whole_chunks() -> None:
    for tile in TileGrid((3000, 2000), 512, 60, 30).tiles:
        assert tile.core.top % 256 == tile.core.left % 256 == 0


def test_an_image_without_a_pixel_has_no_tiles() -> None:
    assert list(TileGrid((0, 10), 5, 2, 2).tiles) == []


def test_a_grid_travels() -> None:
    grid = TileGrid((300, 200), 64, 8, 8)
    again = pickle.loads(pickle.dumps(grid))
    assert again == grid
    assert list(again.tiles) == list(grid.tiles)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile_px": 0}, "tile_px is 0; expected 1 or more"),
        ({"overlap_px": -1}, "overlap_px is -1; expected 0 or more"),
        ({"context_px": -3}, "context_px is -3"),
        ({"image_hw": (-1, 4)}, r"image_hw is \(-1, 4\)"),
    ],
)
def test_refuses(values: dict, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        TileGrid(**{"image_hw": (9, 9), "tile_px": 4, "overlap_px": 2, "context_px": 1, **values})


def test_tiles_grow_with_the_memory_up_to_the_image() -> None:
    sizes = [choose_tile((50_000, 50_000), gb * 10**9, 4000) for gb in (0, 1, 4, 16, 64, 10_000)]
    assert sizes == [256, 256, 256, 1024, 2560, 4096]
    assert choose_tile((2000, 3000), 64 * 10**9, 4000) == 3000
    assert choose_tile((0, 0), 0, 4000) == 1


def test_memory_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 2**24 < available_memory() < 2**50
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   5 kB\n")
    assert limits._free_by_kernel(tmp_path / "meminfo") == 5 * 1024
    assert limits._free_by_kernel(tmp_path / "nothing") == 0
    assert limits._left_in_container(tmp_path, 77) == 77
    (tmp_path / "memory.max").write_text("max\n")
    assert limits._left_in_container(tmp_path, 77) == 77
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert limits._left_in_container(tmp_path, 77) == 600
    monkeypatch.setattr(limits, "_free_by_kernel", lambda path: 0)
    monkeypatch.setattr(limits, "_free_by_psutil", lambda: 0)
    assert 2**24 < available_memory() < 2**50
