"""Link the cells of a time-lapse's frames to tracks.

Two steps, as Jaqaman et al. have them (Nature Methods 2008, 10.1038/nmeth.1237): cells of
consecutive frames are assigned to each other; then the ends of the pieces of tracks are joined with
later beginnings (gaps), and beginnings with cells that have a successor already (divisions). The
second step is laptrack's. The first is a sparse assignment of our own, since laptrack compares
every cell of a frame with every cell of the next, and knows nothing of pixels that two cells share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from cellseg.arguments import FLAG, REAL, WHOLE, any_of, check_fields, checked, of_type, or_nothing
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, disc_diameters
from cellseg.cells.overlaps import find_overlaps
from cellseg.cells.shapes import find_centroids
from cellseg.cells.tracks import Frame, Tracks
from cellseg.errors import ConfigError, LabelError
from cellseg.rules import TEXT, Rule
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

METRICS = ("overlap", "distance")
MAX_GROWTH = 1.5  # a division leaves 1 times the mother's pixels, a neighbour that appears makes 2
MIN_SHARE = 0.25  # of the second daughter's pixels, those that lie on the mother
INSTALL_LAPTRACK = "pip install laptrack, or pip install 'cellseg[track]'"

Numbers = NDArray[np.float64]

_FRAME = Rule("", lambda value: hasattr(value, "cells") or isinstance(value, CellInstances))
_RULES = {
    "max_distance_px": or_nothing(REAL),
    "max_gap_frames": WHOLE,
    "splitting": FLAG,
    "metric": TEXT,
}


@dataclass(frozen=True)
class LinkRules:
    """How the cells of consecutive frames are linked.

    Attributes:
        max_distance_px: the centre of a cell moves by less than this from one frame to the next;
            None for the median diameter of all cells (of circles of their areas).
        max_gap_frames: how many frames in a row a cell may be missing within its track.
        splitting: whether cells divide.
        metric: "overlap" where most cells share pixels with themselves in the next frame;
            "distance" where they move further than their own size, so that centres alone decide.

    Raises:
        ConfigError: a value that cannot be used.
    """

    max_distance_px: float | None = None
    max_gap_frames: int = 1
    splitting: bool = True
    metric: str = "overlap"

    def __post_init__(self) -> None:
        check_fields(self, _RULES)
        if self.max_distance_px is not None and not 0 < self.max_distance_px < np.inf:
            raise ConfigError(
                f"max_distance_px, a cell's greatest step, is {self.max_distance_px:g} pixels; "
                "expected a number above 0"
            )
        if self.max_gap_frames < 0:
            raise ConfigError(f"max_gap_frames is {self.max_gap_frames} frames; expected 0 or more")
        if self.metric not in METRICS:
            raise ConfigError(f"no metric {self.metric!r}; there are {', '.join(METRICS)}")


class _Series(NamedTuple):
    """What is kept of a time-lapse's cells, numbered through all frames; no pixels.

    Attributes:
        offsets: number of the first cell of each frame, and that behind the last, [T + 1].
        centroids: (row, column), [M, 2].
        areas: in pixels, [M].
        tracked: whether a cell takes part, bool [M].
        pairs: cells of consecutive frames that share pixels, as earlier * M + later, ascending.
        iou: of each pair.
        shares: share of the later cell's pixels that lie on the earlier one.
    """

    offsets: IntArray
    centroids: Numbers
    areas: IntArray
    tracked: NDArray[np.bool_]
    pairs: IntArray
    iou: Numbers
    shares: Numbers


class _Step(NamedTuple):
    """Pairs of cells of two consecutive frames that may be the same, or mother and daughter.

    Attributes:
        one, two: numbers of the earlier and of the later cell, [K].
        far: square of the distance of their centres over the limit, below 1, [K].
        iou, shares: as in `_Series`, 0 for cells that share no pixel.
    """

    one: IntArray
    two: IntArray
    far: Numbers
    iou: Numbers
    shares: Numbers


@checked(frames=any_of(_FRAME, "frames, each with cells"), rules=of_type(LinkRules, "LinkRules"))
def link_cells(frames: Iterable[Frame | CellInstances], rules: LinkRules | None = None) -> Tracks:
    """Find which cells of consecutive frames are the same, and which divide.

    From frame to frame, the assignment of the least total cost is taken. A cell without partner
    costs 1; a link costs 1 - IoU + (d / D)^2 by `overlap`, 2 (d / D)^2 by `distance`, where d is
    the distance of the centres and D the limit that it stays below. So a link below D is better
    than none, and one that makes its neighbours' links wrong is worse.

    Then what ends is joined with what begins below D up to `max_gap_frames` + 1 frames later. And
    what begins on a cell that has a successor (with a quarter of its pixels; by `distance`, below
    D) is the second daughter, if the two are together at most one and a half times as large as the
    mother.

    Nothing is known of speeds: two cells that change places between two frames are taken for two
    that stayed. The same cells always give the same tracks.

    Args:
        frames: the cells of each frame, in order of time, of images of one size; gone through
            once, with two frames at a time in memory.
        rules: how they are linked; `LinkRules()` by default.

    Returns:
        Tracks; regions of uncounted cells and cells without a pixel have none.

    Raises:
        LabelError: a frame has another size than the one before.
        ConfigError: gaps or divisions are looked for, and laptrack is not installed.

    Example:
        >>> first = CellInstances.from_label_image([[1, 1, 0, 0, 2, 2]])
        >>> second = CellInstances.from_label_image([[0, 0, 0, 0, 2, 2]])
        >>> tracks = link_cells([first, second], LinkRules(max_gap_frames=0, splitting=False))
        >>> [ids.tolist() for ids in tracks.ids]
        [[1, 2], [2]]
    """
    rules = rules or LinkRules()
    if rules.max_gap_frames or rules.splitting:
        load_laptrack()  # before anything is read
    series = _gather(frames)
    reach = rules.max_distance_px or _median_diameter(series)
    follower = np.full(len(series.areas), -1)
    divisions: dict[tuple[int, int], float] = {}
    for frame in range(len(series.offsets) - 2):
        step = _pairs_within_reach(series, frame, reach)
        overlap = rules.metric == "overlap"
        costs = 1 - step.iou + step.far if overlap else 2 * step.far
        chosen = _assign(step.one, step.two, costs)
        follower[step.one[chosen]] = step.two[chosen]
        if rules.splitting:
            divisions.update(_possible_divisions(series, step, follower, overlap))
    one = np.flatnonzero(follower >= 0)
    links = np.column_stack([one, follower[one]])
    if rules.max_gap_frames or divisions:
        more = _join_pieces(series, follower, divisions, rules.max_gap_frames, reach)
        links = np.concatenate([links, more])
    return _number_tracks(series, links)


def load_laptrack() -> Any:
    """The package that closes gaps and finds divisions.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import laptrack
    except ImportError as error:
        raise ConfigError(
            "cells are linked over time with the package laptrack, which is not installed: "
            f"{INSTALL_LAPTRACK}"
        ) from error
    return laptrack


def _gather(frames: Iterable[Frame | CellInstances]) -> _Series:
    """Go through the frames once and keep what links are made of."""
    counts, found, pairs = [], [], []
    before: CellInstances | None = None
    for number, frame in enumerate(frames):
        cells = frame if isinstance(frame, CellInstances) else frame.cells
        areas = cells.areas_px
        counts.append(len(cells))
        found.append((find_centroids(cells), areas, (areas > 0) & ~cells.is_crowd))
        if before is not None:
            pairs.append((number, _overlaps_of_frames(before, cells, number)))
        before = cells
    offsets = np.cumsum([0, *counts])
    nothing = (np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, bool))
    centroids, areas, tracked = (np.concatenate(parts) for parts in zip(nothing, *found))
    one = [offsets[number - 1] + shared.true_index for number, shared in pairs]
    two = [offsets[number] + shared.pred_index for number, shared in pairs]
    sizes = [shared.intersection_px for _, shared in pairs]
    later = np.concatenate([np.zeros(0, np.int64), *two])
    return _Series(
        offsets,
        centroids,
        areas,
        tracked,
        np.concatenate([np.zeros(0, np.int64), *one]) * offsets[-1] + later,
        np.concatenate([np.zeros(0), *(shared.iou for _, shared in pairs)]),
        np.concatenate([np.zeros(0), *sizes]) / areas[later],
    )


def _overlaps_of_frames(before: CellInstances, cells: CellInstances, number: int) -> Any:
    if before.image_hw != cells.image_hw:
        raise LabelError(
            f"frame {number} has (height, width) {cells.image_hw}, the one before "
            f"{before.image_hw}: the frames of a time-lapse are of one size"
        )
    return find_overlaps(before, cells)


def _median_diameter(series: _Series) -> float:
    """Of circles of the cells' areas, pixels; 1 where there are no cells."""
    areas = series.areas[series.tracked]
    return float(disc_diameters(np.median(areas))) if len(areas) else 1.0


def _pairs_within_reach(series: _Series, frame: int, reach: float) -> _Step:
    """Pairs of a cell of `frame` and one of the next whose centres are less than `reach` apart."""
    one, two = (
        first + np.flatnonzero(series.tracked[first:end])
        for first, end in zip(series.offsets[frame:], series.offsets[frame + 1 : frame + 3])
    )
    trees = cKDTree(series.centroids[one]), cKDTree(series.centroids[two])
    near = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    near = near[near["v"] < reach]
    near = near[np.lexsort((near["j"], near["i"]))]
    one, two = one[near["i"]], two[near["j"]]
    wanted = one * len(series.areas) + two
    at = np.searchsorted(series.pairs, wanted)
    at[at == len(series.pairs)] = -1
    shared = series.pairs[at] == wanted if len(series.pairs) else np.zeros(len(one), bool)
    iou, shares = np.zeros(len(one)), np.zeros(len(one))
    iou[shared], shares[shared] = series.iou[at[shared]], series.shares[at[shared]]
    return _Step(one, two, (near["v"] / reach) ** 2, iou, shares)


def _assign(one: IntArray, two: IntArray, costs: Numbers) -> IntArray:
    """One-to-one pairs of the least total cost, where each cell without a partner costs 1.

    The cells' own "partners" in the square matrix, each of cost 1, make not being paired a choice
    like any other; what is left of them is paired at no cost:

                  later cells    none
        earlier   costs          1
        none      1              0, where the pair's costs stand mirrored

    Args:
        one, two: numbers of the cells of each pair, [K].
        costs: of each pair, [K], 0 or more.

    Returns:
        Which pairs are taken, positions.

    Example:
        Two pairs of cost 0.9 are better than one of 0.1 and two cells that stay alone:

        >>> one, two = np.array([0, 0, 1]), np.array([5, 6, 5])
        >>> _assign(one, two, np.array([0.1, 0.9, 0.9])).tolist()
        [1, 2]
    """
    if not len(one):
        return np.zeros(0, np.int64)
    left, rows = np.unique(one, return_inverse=True)
    right, columns = np.unique(two, return_inverse=True)
    count, size = len(left), len(left) + len(right)
    singles = np.concatenate([np.arange(count), count + np.arange(len(right))])
    partners = np.concatenate([len(right) + np.arange(count), np.arange(len(right))])
    matrix = coo_matrix(
        (
            # A cost of exactly 0 would be no entry of a sparse matrix; 1 is added to every one of
            # the `size` links of any assignment, which changes nothing.
            1 + np.concatenate([costs, np.ones(size), np.zeros(len(one))]),
            (
                np.concatenate([rows, singles, count + columns]),
                np.concatenate([columns, partners, len(right) + rows]),
            ),
        ),
        shape=(size, size),
    )
    found_rows, found_columns = min_weight_full_bipartite_matching(matrix.tocsr())
    partner = np.zeros(size, np.int64)
    partner[found_rows] = found_columns
    return np.flatnonzero(partner[rows] == columns)


def _possible_divisions(
    series: _Series, step: _Step, follower: IntArray, overlap: bool
) -> dict[tuple[int, int], float]:
    """Cost of each (mother, second daughter); one half and more, as a gap is likelier.

    A cell that was missed in one frame comes back beside its neighbours too.
    """
    one, two = step.one, step.two
    alone = ~np.isin(two, follower[one])
    growth = (series.areas[two] + series.areas[follower[one]]) / series.areas[one]
    fit = (follower[one] >= 0) & alone & (growth <= MAX_GROWTH)
    if overlap:
        fit &= step.shares >= MIN_SHARE
    costs = (1 + (1 - step.shares if overlap else step.far)) / 2
    return dict(zip(zip(one[fit].tolist(), two[fit].tolist()), costs[fit].tolist()))


def _join_pieces(
    series: _Series,
    follower: IntArray,
    divisions: dict[tuple[int, int], float],
    max_gap_frames: int,
    reach: float,
) -> IntArray:
    """Links over gaps and from mothers to second daughters, [L, 2], by laptrack.

    It is given the ends of the pieces and the possible mothers alone, each as (row, column,
    number), and the pieces themselves as edges.
    """
    kept = series.tracked & (follower < 0)
    kept |= series.tracked & ~np.isin(np.arange(len(kept)), follower)
    kept[[mother for mother, _ in divisions]] = True
    numbers = np.flatnonzero(kept)
    if not len(numbers):
        return np.zeros((0, 2), np.int64)
    points = np.column_stack([series.centroids[numbers], numbers])
    frames = np.split(points, np.searchsorted(numbers, series.offsets[1:-1]))
    nodes = [(frame, k) for frame, part in enumerate(frames) for k in range(len(part))]
    node_of = dict(zip(numbers.tolist(), nodes))
    pieces = {(node_of[one], node_of[two]) for one, two in _edges_between(kept, follower)}

    tracker = _make_tracker(divisions, max_gap_frames, reach)
    tree = tracker.predict(frames, connected_edges=sorted(pieces))
    cell_of = dict(zip(nodes, numbers.tolist()))
    added = sorted(set(tree.edges()) - pieces)
    return np.array([(cell_of[a], cell_of[b]) for a, b in added], np.int64).reshape(-1, 2)


def _make_tracker(
    divisions: dict[tuple[int, int], float], max_gap_frames: int, reach: float
) -> Any:
    """A LapTrack for points (row, column, number of the cell)."""

    def gap(end: Numbers, start: Numbers) -> float:
        return float(((end[:2] - start[:2]) ** 2).sum() / reach**2)

    def division(start: Numbers, mother: Numbers) -> float:
        return divisions.get((int(mother[2]), int(start[2])), np.inf)

    return load_laptrack().LapTrack(
        metric="sqeuclidean",
        cutoff=0,  # consecutive frames are linked already
        gap_closing_metric=gap,
        gap_closing_cutoff=1 if max_gap_frames else False,
        gap_closing_max_frame_count=max_gap_frames + 1,
        splitting_metric=division,
        splitting_cutoff=1 if divisions else False,
        # With costs of 1, what costs less than 1 is joined, and of several the cheapest; laptrack's
        # own would depend on all the costs that happen to be there.
        segment_start_cost=1,
        segment_end_cost=1,
        no_splitting_cost=1,
        no_merging_cost=1,
    )


def _edges_between(kept: NDArray[np.bool_], follower: IntArray) -> list[tuple[int, int]]:
    """What is linked already, as links between the kept cells, over those that are left out."""
    edges = []
    last_kept = np.arange(len(kept))
    for one in np.flatnonzero(follower >= 0).tolist():
        two = int(follower[one])
        if kept[two]:
            edges.append((int(last_kept[one]), two))
        else:
            last_kept[two] = last_kept[one]
    return edges


def _number_tracks(series: _Series, links: IntArray) -> Tracks:
    frames = np.searchsorted(series.offsets, links, side="right") - 1
    cells = links - series.offsets[frames]
    counts = np.diff(series.offsets).tolist()
    rows = np.column_stack([frames[:, 0], cells[:, 0], frames[:, 1], cells[:, 1]])
    return Tracks.from_links(counts, rows, np.split(~series.tracked, series.offsets[1:-1]))
