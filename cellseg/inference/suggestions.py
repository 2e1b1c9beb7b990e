"""What to annotate next: images, or tiles of large ones, in the order in which they teach most.

Two things make a list worth annotating from the top: the model is unsure of what stands there, and
no two entries teach the same.

How unsure it is, the doubt of an image, is the mean of its ranks among all images by the signs of
`cellseg.inference.uncertainty` (uncertainty, disagreement, odd sizes): ranks, since shares of
different things have different spreads, and no weights, since none would hold for another model. A
rank is given as a share of the images: 1 for the most suspicious one. A sign that cannot be
measured on an image counts as 1/2.

For the spread, images are chosen one after the other: each time the one of the largest product of
doubt and novelty. Novelty is the distance to the nearest image that was chosen before, in halves of
the largest distance between two images of the set, and at most 1. It is the greedy k-centre choice
of core-set selection (Sener and Savarese, Active learning for convolutional neural networks: a
core-set approach, ICLR 2018) with the doubt as a weight. Of ten nearly equal frames one is near the
top and nine are at the end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import checked, of_type, several
from cellseg.cells.records import PlaceInFile
from cellseg.cells.windows import Window
from cellseg.inference.assessing import (
    DEFAULT_TILE_PX,
    DEFAULT_VIEWS,
    MOST_VIEWS,
    Assessed,
    Assessor,
    Failure,
    assess_files,
)
from cellseg.inference.inputs import find_inputs
from cellseg.inference.model import CellModel
from cellseg.inference.uncertainty import Doubts
from cellseg.rules import PATH, number
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

FloatArray = NDArray[np.float64]

COLUMNS = (
    *("rank", "image", "file", "plane", "top", "left", "height", "width"),
    *("score", "doubt", "novelty"),
    *(field.name for field in fields(Doubts)),
    "reason",
)
"""Of the table of suggestions; docs/suggest.md describes them."""
SIGNS = ("uncertainty", "disagreement", "odd_sizes")
"""Fields of `Doubts` that are ranked."""
SPREAD_FIRST = 2000
"""So many are chosen one after the other; those behind them are no novelty to each other."""
DISTANCES_OF = 500
"""Among so many places, evenly picked, the largest distance is looked for."""
ALIKE = 0.25
"""A novelty below it is worth a word."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suggestion:
    """An image, or a tile of one, and how much annotating it promises.

    Attributes:
        rank: 1 for what should be annotated next.
        image_id: as `cellseg predict` names the image.
        path: of its file.
        place: which plane of the file it is.
        plane: the same in short, such as "t07"; "" for the only one.
        image_hw: (height, width) of the image, pixels.
        window: the tile; the whole image where it was looked at as one.
        score: in [0, 1], doubt times novelty.
        doubt: in [0, 1], the mean rank by the three signs.
        novelty: in [0, 1], how unlike those of lower ranks it is; 1 where that was not asked for.
        doubts: the signs themselves.
        reason: in words.
    """

    rank: int
    image_id: str
    path: Path
    place: PlaceInFile
    plane: str
    image_hw: tuple[int, int]
    window: Window
    score: float
    doubt: float
    novelty: float
    doubts: Doubts
    reason: str

    @property
    def is_tile(self) -> bool:
        """Whether it is a part of its image."""
        return self.window.hw != self.image_hw

    def to_row(self) -> dict[str, Any]:
        """Its columns in tables, with None for what is not known; see docs/suggest.md."""
        (height, width), about = self.window.hw, asdict(self.doubts)
        numbers = {"score": self.score, "doubt": self.doubt, "novelty": self.novelty, **about}
        return {
            "rank": self.rank,
            "image": self.image_id,
            "file": str(self.path),
            "plane": self.plane,
            "top": self.window.top,
            "left": self.window.left,
            "height": height,
            "width": width,
            **{
                name: None if math.isnan(value) else round(value, 4)
                for name, value in numbers.items()
            },
            "reason": self.reason,
        }


@checked(
    model=of_type(CellModel, "a model (cellseg.load)"),
    inputs=several(PATH, "a list of files, folders and patterns"),
    tile_px=number(64, whole=True),
    num_views=number(1, MOST_VIEWS, whole=True),
    spread=number(0, 1),
)
def suggest_images(
    model: CellModel,
    inputs: Sequence[str | Path],
    *,
    tile_px: int = DEFAULT_TILE_PX,
    num_views: int = DEFAULT_VIEWS,
    spread: float = 1.0,
    on_failure: Callable[[Failure], None] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Suggestion]:
    """Rank images by what a model would learn from their annotation.

    Each plane of a stack or time-lapse is an image. Nothing has to be annotated yet.

    Args:
        model: from `cellseg.load`; its thresholds say what it takes for cells.
        inputs: files, folders and patterns, as of `cellseg predict`.
        tile_px: larger images are looked at, and ranked, in tiles of so many pixels to a side;
            those that exceed it by no more than tiles overlap are one.
        num_views: in how many ways each image is looked at, mirrored and turned, 1 to 8; with 1
            nothing is known of their disagreement.
        spread: in [0, 1]; 0 ranks by doubt alone, also where all those on top look alike.
        on_failure: called with each image or file that cannot be looked at, and each input that
            gave none; by default it is logged. The others are ranked all the same.
        progress: called with the numbers of files done and of all files, again and again; what it
            raises ends the work.

    Returns:
        Everything that was looked at, what should be annotated next first.

    Raises:
        ImageReadError: a list of inputs cannot be read.

    Example:
        >>> model = cellseg.load("nuclei")  # doctest: +SKIP
        >>> suggest_images(model, ["plate_1"])[0].reason  # doctest: +SKIP
        '12 of 52 detections near the score threshold; views agree on 61 %'
    """
    found = find_inputs([str(word) for word in inputs])
    tell = on_failure or _log_failure
    for word in found.missing:
        tell(Failure(word, "", f"{word}: no image found"))
    assessor = Assessor(model, tile_px, num_views)
    numbers = {file.name: number for number, file in enumerate(found.files)}
    places: list[Assessed] = []
    progress(0, len(numbers))
    for place in assess_files(assessor, found.files, tell):
        places.append(place)
        progress(numbers[place.file.name], len(numbers))
    progress(len(numbers), len(numbers))
    return rank_places(places, spread)


def _log_failure(failure: Failure) -> None:
    logger.error("%s", failure.reason)


def rank_places(places: Sequence[Assessed], spread: float = 1.0) -> list[Suggestion]:
    """Rank what was looked at; see the head of this module.

    Args:
        places: images and tiles, in any order; of equal ones the first is preferred.
        spread: in [0, 1], how much of the novelty counts: doubt is multiplied by
            1 - spread + spread * novelty.
    """
    doubt = mean_ranks([place.doubts for place in places])
    vectors = [place.features for place in places if place.features is not None]
    is_spread = spread > 0 and 0 < len(places) == len(vectors)
    features = np.stack(vectors) if is_spread else np.zeros((len(places), 0), np.float32)
    order, novelty = spread_choice(doubt, features, spread)
    suggestions = []
    for rank, (index, new) in enumerate(zip(order.tolist(), novelty.tolist()), 1):
        place, score = places[index], float(doubt[index]) * (1 - spread + spread * new)
        about = (place.image_id, place.file.path, place.place, place.plane, place.image_hw)
        numbers = (score, float(doubt[index]), new)
        reason = describe_doubts(place.doubts, new)
        suggestions.append(Suggestion(rank, *about, place.window, *numbers, place.doubts, reason))
    return suggestions


def mean_ranks(doubts: Sequence[Doubts]) -> FloatArray:
    """The mean rank by the signs, as shares of the images, float64 [N].

    Signs that are known of no image play no part; without any, all have 1/2.
    """
    ranks = [np.full(len(doubts), 0.5)]
    for sign in SIGNS:
        values = np.array([getattr(one, sign) for one in doubts], np.float64)
        known = np.isfinite(values)
        if known.any():
            shares = np.full(len(doubts), 0.5)
            shares[known] = (rankdata(values[known]) - 0.5) / known.sum()
            ranks.append(shares)
    return np.mean(ranks[1:] or ranks, axis=0)


def spread_choice(
    doubt: FloatArray, features: NDArray[np.float32], spread: float = 1.0
) -> tuple[NDArray[np.int64], FloatArray]:
    """Choose one after the other by doubt and novelty.

    Args:
        doubt: float64 [N].
        features: float32 [N, D]; D = 0 for no spread.
        spread: as of `rank_places`.

    Returns:
        int64 [N], all numbers in the order of choice; float64 [N], the novelty of each when it was
        chosen, in that order.

    Example:
        Of two equal ones on top, the second comes last:

        >>> features = np.array([[0, 0], [0, 0], [1, 0], [0, 1]], np.float32)
        >>> order, novelty = spread_choice(np.array([0.9, 0.8, 0.3, 0.2]), features)
        >>> order.tolist(), novelty.tolist()
        ([0, 2, 3, 1], [1.0, 1.0, 1.0, 0.0])
    """
    far, novelty = half_of_largest_distance(features), np.ones(len(doubt))
    left, order, at_choice = np.ones(len(doubt), bool), [], []
    for _ in range(min(len(doubt), SPREAD_FIRST) if far else 0):
        value = np.where(left, doubt * (1 - spread + spread * novelty), -1)
        chosen = int(value.argmax())
        order.append(chosen)
        at_choice.append(novelty[chosen])
        left[chosen] = False
        away = np.linalg.norm(features - features[chosen], axis=1) / far
        novelty = np.minimum(novelty, away)
    rest = np.flatnonzero(left)
    value = doubt * (1 - spread + spread * novelty)
    rest = rest[np.argsort(-value[rest], kind="stable")]
    return np.array([*order, *rest], np.int64), np.array([*at_choice, *novelty[rest]])


def half_of_largest_distance(features: NDArray[np.float32]) -> float:
    """Of N vectors [N, D]; 0 where all are equal, or D or N is 0."""
    away = pdist(features[:: -(-len(features) // DISTANCES_OF) or 1])
    return float(away.max(initial=0)) / 2


def describe_doubts(doubts: Doubts, novelty: float = 1.0) -> str:
    """The reason in words.

    Args:
        doubts: of an image.
        novelty: in [0, 1]; where it is small, that is said too.

    Example:
        >>> describe_doubts(Doubts(40, 52, 12, 0, 0.6, 0.39, 0.0))
        '12 of 52 detections near the score threshold; views agree on 61 %'
    """
    parts = [
        f"{doubts.num_uncertain} of {doubts.num_detections} detections near the score threshold"
    ]
    if doubts.num_cells == 0:
        parts.insert(0, "no cell found")
    if not doubts.num_detections:
        parts.pop()
    if math.isfinite(doubts.disagreement):
        parts.append(f"views agree on {100 * (1 - doubts.disagreement):.0f} %")
    if doubts.odd_sizes > 0:
        parts.append(f"{doubts.num_odd} of {doubts.num_cells} cells of odd size")
    if novelty < ALIKE:
        parts.append("much like one further up")
    return "; ".join(parts)
