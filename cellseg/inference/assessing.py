"""Look at images, or at tiles of large ones, for what a model is unsure of."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from cellseg.cells.records import PlaceInFile
from cellseg.cells.selection import select_cells
from cellseg.cells.thresholds import ENGINE_SCORE
from cellseg.cells.turning import TURNINGS
from cellseg.cells.windows import Window
from cellseg.errors import ImageReadError
from cellseg.images import Limits, PlaneImage, place_of
from cellseg.inference.features import kept_features
from cellseg.inference.file_work import FAILURES_IN_A_ROW, describe_failure
from cellseg.inference.files import show_progress
from cellseg.inference.inputs import InputFile
from cellseg.inference.magnification import Look
from cellseg.inference.model import LARGEST_WHOLE_PX, CellModel
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.uncertainty import Doubts, Known, measure_doubts
from numpy.typing import NDArray

DEFAULT_TILE_PX = 1024
DEFAULT_VIEWS = 2
MOST_VIEWS = len(TURNINGS)

logger = logging.getLogger(__name__)


class Failure(NamedTuple):
    """An image, or a whole file, that could not be looked at.

    Attributes:
        path: of the file.
        image_id: "" for the whole file.
        reason: one line that names the file.
    """

    path: str
    image_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Assessed:
    """An image, or a tile of one, that was looked at.

    Attributes:
        file: the image's.
        image_id: as `cellseg predict` names it.
        place: which plane of the file it is.
        plane: the same in short, such as "t07"; "" for the only one.
        image_hw: (height, width) of the image, pixels.
        window: the tile; the whole image where it was looked at as one.
        doubts: the signs.
        features: float32 [D], of length 1; None where the network gives none.
    """

    file: InputFile
    image_id: str
    place: PlaceInFile
    plane: str
    image_hw: tuple[int, int]
    window: Window
    doubts: Doubts
    features: NDArray[np.float32] | None


class Assessor:
    """Looks at planes.

    Args:
        model: whose doubts are wanted.
        tile_px: images that are larger, by more than their tiles overlap, are looked at in tiles of
            so many pixels to a side; smaller ones where the network could not take those.
        num_views: how many of `TURNINGS` are looked at, 1 to 8; each takes as long as a prediction.
    """

    def __init__(self, model: CellModel, tile_px: int, num_views: int) -> None:
        self.model, self.tile_px = model, tile_px
        self.turnings = TURNINGS[1:num_views]
        predictor = model.predictor
        self.known = Known(predictor.thresholds, model.magnification.known)
        self._lower = predictor.reaching_down_to(ENGINE_SCORE)

    def describe_losses(self) -> list[str]:
        """Which signs are missing, in sentences."""
        losses = []
        if not self.turnings:
            losses.append("One view of each image: nothing is known of the views' disagreement")
        if not self.known.diameters_px:
            losses.append(
                "The model has no CELLSEG.TEST.KNOWN_DIAMETERS: no cell is of an odd size to it"
            )
        return losses

    def assess_plane(
        self, plane: PlaneImage
    ) -> Iterator[tuple[Tile, Doubts, list[NDArray[np.float32]]]]:
        """Each tile of a plane, its doubts and its vectors, of which there may be none."""
        look, limits = self.model.look_at(plane), self.model.predictor.limits_of(plane)
        for tile in self._plan_tiles(plane.image_hw, look).tiles:
            yield tile, *self._assess_tile(plane, tile, look, limits)

    def _plan_tiles(self, image_hw: tuple[int, int], look: Look) -> TileGrid:
        scale, _ = self.model.scale_in_tiles(image_hw, look)
        allowed = max(int(math.isqrt(LARGEST_WHOLE_PX) / scale), 1)
        return self.model.plan_tiles(image_hw, look, min(self.tile_px, allowed))

    def _assess_tile(
        self, plane: PlaneImage, tile: Tile, look: Look, limits: Limits
    ) -> tuple[Doubts, list[NDArray[np.float32]]]:
        scale, is_smooth = self.model.scale_in_tiles(plane.image_hw, look)
        predictor, window = self.model.predictor, tile.window
        pixels = plane.read(window.rows, window.columns)
        with kept_features(predictor.model) as features:
            found = self._lower.detect_in_window(pixels, limits, scale, is_smooth=is_smooth)
        views = []
        for turning in self.turnings:
            turned = np.ascontiguousarray(turning.turn_image(pixels))
            seen = predictor.detect_in_window(turned, limits, scale, is_smooth=is_smooth)
            views.append(turning.turn_back(select_cells(seen, predictor.thresholds)))
        detections = select_cells(found, self._lower.thresholds)
        core = _move(tile.core, window)
        return measure_doubts(detections, views, self.known, scale, core), features


def _move(core: Window, window: Window) -> Window:
    """A core in the frame of its window."""
    rows, columns = window.top, window.left
    return Window(core.top - rows, core.left - columns, core.bottom - rows, core.right - columns)


def assess_files(
    assessor: Assessor, files: Sequence[InputFile], on_failure: Callable[[Failure], None]
) -> Iterator[Assessed]:
    """Look at each plane of each file; one that fails does not stop the rest.

    Args:
        assessor: looks at planes.
        files: each with a name of its own.
        on_failure: called with each image, or file, that fails.
    """
    with show_progress(len(files), "suggest") as bar:
        for file in files:
            try:
                with assessor.model.open_planes(file.path) as planes:
                    yield from _assess_planes(assessor, file, planes, on_failure)
            except Exception as error:
                on_failure(Failure(str(file.path), "", describe_failure(file, error)))
            bar.update()


def _assess_planes(
    assessor: Assessor,
    file: InputFile,
    planes: Sequence[PlaneImage],
    on_failure: Callable[[Failure], None],
) -> Iterator[Assessed]:
    failed_in_a_row = 0
    for number, plane in enumerate(planes):
        image_id = file.image_id(plane.suffix)
        if failed_in_a_row == FAILURES_IN_A_ROW:
            raise ImageReadError(
                f"{file.path}: {failed_in_a_row} planes in a row cannot be looked at; the other "
                f"{len(planes) - number}, from {image_id} on, are not tried"
            )
        try:
            found = list(assessor.assess_plane(plane))
        except Exception as error:
            on_failure(Failure(str(file.path), image_id, describe_failure(file, error)))
            failed_in_a_row += 1
            continue
        failed_in_a_row = 0
        about = (file, image_id, place_of(plane), plane.suffix.removeprefix("_"), plane.image_hw)
        for tile, doubts, features in found:
            vector = np.mean(features, axis=0) if features else None
            yield Assessed(*about, tile.core, doubts, vector)
