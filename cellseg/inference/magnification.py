"""How large images are looked at: so that their cells are of a size that the model knows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.config import check_diameters

AUTO = "auto"

logger = logging.getLogger(__name__)


class Look(NamedTuple):
    """How large an image is looked at.

    Attributes:
        zoom: what its sides are multiplied by, on top of what the config says of every image.
        diameter_px: of its cells, in pixels of the image, as it was given or measured; None where
            nobody asked, or where no cell was found to measure.
        is_chosen: whether a diameter decided, given or measured; where it did not, nothing is told.
    """

    zoom: float = 1.0
    diameter_px: float | None = None
    is_chosen: bool = False

    def describe(self) -> str:
        """One line for the log.

        Example:
            >>> Look(0.4615, 52, True).describe()
            'cells of about 52 px; looked at 0.46 times the size'
        """
        if self.diameter_px is None:
            return "no cells at a first look; looked at as it is"
        size = "as it is" if self.zoom == 1 else f"{self.zoom:.3g} times the size"
        return f"cells of about {self.diameter_px:.3g} px; looked at {size}"

    def note_in(self, place: PlaceInFile) -> PlaceInFile:
        """What a record says of an image that was looked at so."""
        return replace(place, zoom=self.zoom) if self.is_chosen else place


class Found(NamedTuple):
    """The cells of an image, and how large it was looked at."""

    cells: CellInstances
    look: Look = Look()


def tell_of_look(image_id: str, look: Look) -> None:
    """Log how large an image was looked at, where the diameter of its cells decided it."""
    if look.is_chosen:
        logger.info("%s: %s", image_id, look.describe())


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
        Look(zoom=0.5, diameter_px=52.0, is_chosen=True)
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
        if isinstance(self.diameter, str):
            return Look()
        return Look(self.zoom_for(self.diameter), float(self.diameter), is_chosen=True)

    def zoom_for(self, diameter_px: float) -> float:
        """What makes cells of a diameter as large as the median of those that are known."""
        return self.known[1] / diameter_px
