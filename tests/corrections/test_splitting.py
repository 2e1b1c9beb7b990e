"""Cells cut along a line: both parts are what lies on one side of it."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.pieces import count_pieces
from cellseg.corrections.masks import Mask
from cellseg.corrections.splitting import split_mask
from cellseg.errors import CorrectionError
from hypothesis import given
from hypothesis import strategies as st


def cell(*rows: str, at: tuple[int, int] = (0, 0)) -> Mask:
    return np.array([[letter == "#" for letter in row] for row in rows]), at


def draw(parts: tuple[Mask, Mask], hw: tuple[int, int]) -> list[str]:
    """`a` is the larger part and `b` the smaller one."""
    canvas = np.full(hw, ".")
    for letter, (crop, (row, column)) in zip("ab", parts):
        canvas[row : row + crop.shape[0], column : column + crop.shape[1]][crop] = letter
    return ["".join(row) for row in canvas]


def split(mask: Mask, *line: tuple[float, float]) -> list[str]:
    (row, column), (height, width) = mask[1], mask[0].shape
    return draw(split_mask(mask, np.array(line, float), "cell 1"), (row + height, column + width))


def test_pixels_below_the_line_go_to_the_nearer_side() -> None:
    assert split(cell("#####", "#####"), (-1, 1), (2, 1)) in (
        ["bbaaa", "bbaaa"],
        ["baaaa", "baaaa"],
    )
    assert split(cell("####"), (-1, 0.6), (1, 0.6)) in (["baaa"], ["bbaa"])


def test_the_place_in_the_image_counts() -> None:
    assert split(cell("####", at=(2, 1)), (0, 3.4), (9, 3.4))[2] in (".aabb", ".aaab", ".bbaa")


def test_a_diagonal_line_leaves_no_way_by_the_corners() -> None:
    parts = split_mask((np.ones((9, 9), bool), (0, 0)), np.array([(-1.0, -1), (9, 9)]), "cell 1")
    assert [count_pieces(crop) for crop, _ in parts] == [1, 1]
    assert sum(int(crop.sum()) for crop, _ in parts) == 81
    drawn = np.array([list(row) for row in draw(parts, (9, 9))])
    above, below = np.triu_indices(9, 2), np.tril_indices(9, -2)
    assert len(set(drawn[above])) == 1
    assert len(set(drawn[below])) == 1
    assert drawn[0, 8] != drawn[8, 0]


def test_a_bent_line_has_two_sides() -> None:
    drawn = split(cell(*["#######"] * 7), (3, -1), (3, 3), (7, 3))
    assert {drawn[5][1], drawn[6][0], drawn[5][2]} == {"b"}
    assert {drawn[0][0], drawn[0][6], drawn[6][6], drawn[1][3], drawn[5][5]} == {"a"}


def test_both_arms_of_a_bent_cell_are_one_side() -> None:
    bent = cell("##.##", "##.##", "##.##", "#####", "#####")
    drawn = split(bent, (1, -1), (1, 6))
    assert drawn[0] == "bb.bb"
    assert drawn[3:] == ["aaaaa", "aaaaa"]


def test_pieces_far_from_the_line_go_to_the_nearer_side() -> None:
    pieces = cell("######......##", "######........")
    assert split(pieces, (-1, 2), (2, 2))[0] in ("bbaaaa......aa", "bbbaaa......aa")


def test_a_line_between_two_pieces_parts_them() -> None:
    assert split(cell("###.##", "###.##"), (-1, 3), (2, 3)) == ["aaa.bb", "aaa.bb"]


@pytest.mark.parametrize(
    "line",
    [
        [(0, 2), (1, 2)],  # to the middle
        [(-1, -1), (-1, 9)],  # beside it
        [(40, 40), (50, 50)],
        [(1, 1), (1, 1)],  # a point
        [(-2, -2), (3, -2)],
    ],
)
def test_a_line_that_does_not_divide_the_cell_is_refused(line: list[tuple[int, int]]) -> None:
    with pytest.raises(CorrectionError, match="does not divide cell 7: draw it from outside"):
        split_mask((np.ones((4, 6), bool), (0, 0)), np.array(line, float), "cell 7")


def test_a_piece_that_hangs_on_by_a_corner_is_not_cut_off_by_a_line_beside_it() -> None:
    with pytest.raises(CorrectionError, match="does not divide"):
        split(cell("###..", "###..", "...#.", "....."), (3, -1), (3, 5))


def test_a_closed_line_cuts_out_its_inside() -> None:
    ring = [(2.0, 2.0), (2, 6), (6, 6), (6, 2), (2, 2)]
    drawn = split(cell(*["#########"] * 9), *ring)
    assert drawn[4][4] == "b"
    assert {drawn[0][0], drawn[8][8], drawn[0][8]} == {"a"}


def test_a_line_of_many_points_far_away_is_the_same_line() -> None:
    rows = np.linspace(-1e7, 1e7, 5001)
    line = np.stack([rows, np.full(5001, 2.0)], axis=1)
    parts = split_mask((np.ones((6, 9), bool), (0, 0)), line, "cell 1")
    assert [crop.shape[0] for crop, _ in parts] == [6, 6]


@given(
    st.integers(2, 12),
    st.integers(2, 12),
    st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 15)), min_size=2, max_size=5),
)
def test_no_pixel_is_lost_or_made(height: int, width: int, line: list[tuple[float, float]]) -> None:
    mask = np.ones((height, width), bool)
    try:
        parts = split_mask((mask, (0, 0)), np.array(line), "cell 1")
    except CorrectionError:
        return
    drawn = np.zeros((height, width), int)
    for crop, (row, column) in parts:
        assert crop.any()
        drawn[row : row + crop.shape[0], column : column + crop.shape[1]] += crop
    assert (drawn == 1).all()
    assert parts[0][0].sum() >= parts[1][0].sum()


@given(st.floats(0, 2 * np.pi), st.floats(-0.6, 0.6), st.integers(6, 30))
def test_a_straight_line_through_a_disc_parts_it_as_geometry_does(
    angle: float, shift: float, radius: int
) -> None:
    """Independently: the sign of a pixel's distance to the line, but for those next to it."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = rows**2 + columns**2 <= radius**2
    normal = np.array([np.cos(angle), np.sin(angle)])
    middle = normal * shift * radius + radius
    along = np.array([-normal[1], normal[0]]) * 3 * radius
    parts = split_mask((disc, (0, 0)), np.stack([middle - along, middle + along]), "cell 1")
    distance = rows * normal[0] + columns * normal[1] - shift * radius
    clear = disc & (np.abs(distance) > 1.5)
    drawn = np.array([list(row) for row in draw(parts, disc.shape)])
    for side in (distance > 0, distance < 0):
        assert len(set(drawn[clear & side])) == 1
