"""How large images are looked at: so that their cells are of a size that the model knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.config import check_diameters
from numpy.typing import NDArray

AUTO = "auto"

SMALL = 0.5
"""Cells whose diameter is a smaller share of the known median are small: a look at the image made
larger is tried. They may be known ones, or larger ones in an image made smaller, of which the model
finds half."""
MORE_COVER = 1.05
"""That look is believed if cells cover more in it by this factor. Cells that are known as they are
gain nothing by being larger."""

LARGEST_SHARE = 0.5
"""Of the shorter side of what is looked at. At 1/16 a whole field may be taken for one cell."""

logger = logging.getLogger(__name__)


class Look(NamedTuple):
    """How large an image is looked at.

    Attributes:
        scale: what its sides are multiplied by before the network sees it; None for what the config
            says of every image.
        diameter_px: of its cells, in pixels of the image, as it was given or measured; None where
            nobody asked, or where no cell was found to measure.
        is_told: whether the choice is worth a line in the log.
    """

    scale: float | None = None
    diameter_px: float | None = None
    is_told: bool = False

    def describe(self) -> str:
        """One line for the log.

        Example:
            >>> Look(0.4615, 52, True).describe()
            'cells of about 52 px; looked at 0.46 times the size'
        """
        if self.diameter_px is None:
            return "no cells at a first look; looked at as it is"
        size = "as it is" if self.scale is None else f"{self.scale:.2g} times the size"
        return f"cells of about {self.diameter_px:.3g} px; looked at {size}"

    def note_in(self, place: PlaceInFile) -> PlaceInFile:
        """What a record says of an image that was looked at so."""
        return replace(place, scale=self.scale)


class Found(NamedTuple):
    """The cells of an image, and how large it was looked at."""

    cells: CellInstances
    look: Look = Look()


def tell_of_look(image_id: str, look: Look) -> None:
    """Log how large an image was looked at, where the diameter of its cells decided it."""
    if look.is_told:
        logger.info("%s: %s", image_id, look.describe())


class FirstLook(NamedTuple):
    """What is found in an image, or in parts of it, at one scale.

    Attributes:
        scale: what the sides were multiplied by.
        diameters_px: of the cells, in pixels of the image, float64 [N].
        scores: of the cells, [N].
    """

    scale: float
    diameters_px: NDArray[np.float64]
    scores: NDArray[Any]

    @classmethod
    def of(cls, scale: float, found: Sequence[CellInstances]) -> FirstLook:
        """Of the cells of several parts; those as large as half of their part do not count."""
        diameters = np.concatenate([cells.diameters_px for cells in found])
        scores = np.concatenate([cells.scores for cells in found])
        halves = [LARGEST_SHARE * min(cells.image_hw) for cells in found]
        largest = np.repeat(halves, [len(cells) for cells in found])
        counts = diameters < largest
        return cls(scale, diameters[counts], scores[counts])

    def keep(self, known: Sequence[float]) -> FirstLook:
        """The cells that have, as the network saw them, a diameter that is known."""
        seen = self.diameters_px * self.scale
        kept = (known[0] <= seen) & (seen <= known[2])
        return FirstLook(self.scale, self.diameters_px[kept], self.scores[kept])

    @property
    def evidence(self) -> float:
        """How much speaks for cells of this size: their diameters, each by its score's 6th power.

        The diameter, since pieces of a cell too large are many, but smaller than it; by their areas
        a few clumps would outweigh all the cells in them. The power, since both are doubtful: with
        a score of 0.8 one counts 0.26, a cell of 0.98 counts 0.89.
        """
        return float((self.scores**6 * self.diameters_px).sum())

    @property
    def cover(self) -> float:
        """The area that is taken for cells, each pixel by the square of its cell's score."""
        return float((self.scores**2 * self.diameters_px**2).sum())


@dataclass(frozen=True)
class Magnification:
    """What decides how large images are looked at.

    Attributes:
        diameter: CELLSEG.TEST.DIAMETER: "" for images as they are, "auto", or the diameter of the
            cells in the images, in pixels.
        known: CELLSEG.TEST.KNOWN_DIAMETERS: lowest, median and highest diameter of the cells that
            the model was trained on, in pixels as the network sees them; empty if unknown.

    Raises:
        ConfigError: a value that cannot be used, or a diameter where none are known.

    Example:
        >>> Magnification(52, (10, 26, 48)).fixed_look()
        Look(scale=0.5, diameter_px=52.0, is_told=True)
    """

    diameter: str | float = ""
    known: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_diameters(self.diameter, self.known)

    @classmethod
    def from_config(cls, cfg: Any, diameter: str | float | None = None) -> Magnification:
        """From the keys below CELLSEG.TEST.

        Args:
            cfg: the whole config.
            diameter: in place of the config's own, if it is not None.
        """
        own = cfg.CELLSEG.TEST
        return cls(own.DIAMETER if diameter is None else diameter, tuple(own.KNOWN_DIAMETERS))

    @property
    def is_automatic(self) -> bool:
        """Whether each image has to be looked at first."""
        return self.diameter == AUTO

    def fixed_look(self) -> Look:
        """How every image is looked at, where it does not depend on the image."""
        return Look() if isinstance(self.diameter, str) else self._look_for(float(self.diameter))

    def choose_look(self, first: Sequence[FirstLook]) -> Look:
        """How an image is looked at, after it was looked at in several scales.

        The scale with most evidence of cells of a known diameter is believed. If that is the
        first one, the image is looked at as it is; otherwise so that the median of the diameters
        found there becomes the median of those known.

        Args:
            first: looks at the same parts of the image; the first one as the config says.
        """
        kept = [look.keep(self.known) for look in first]
        best = max(kept, key=lambda look: look.evidence)  # of equal ones the first
        if not len(best.scores):
            return Look(is_told=True)
        diameter_px = float(np.median(best.diameters_px))
        if best is kept[0]:
            return Look(None, diameter_px, is_told=True)
        return self._look_for(diameter_px)

    def _look_for(self, diameter_px: float) -> Look:
        return Look(self.known[1] / diameter_px, diameter_px, is_told=True)

    def enlarge(self, look: Look, scale: float) -> Look | None:
        """A look that is worth a try, where cells are small in an image looked at as it is.

        Args:
            look: what `choose_look` chose.
            scale: what the config says that the image's sides are multiplied by.
        """
        if look.scale is not None or look.diameter_px is None:
            return None
        is_small = look.diameter_px * scale < SMALL * self.known[1]
        return self._look_for(look.diameter_px) if is_small else None

    def is_better(self, second: FirstLook, first: FirstLook) -> bool:
        """Whether a second look, at the image made larger, is to be believed."""
        return second.keep(self.known).cover > MORE_COVER * first.keep(self.known).cover
