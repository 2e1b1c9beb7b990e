"""CellModel: finds cells in images of any size, with what memory there is."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import select_cells
from cellseg.cells.spool import SpooledCells
from cellseg.images import Limits, PlaneImage, open_planes, place_of
from cellseg.images.in_memory import to_image_array
from cellseg.inference.first_windows import (
    FIRST_WINDOW_PX,
    coarse_scales,
    crop_centre,
    read_windows,
)
from cellseg.inference.magnification import (
    FirstLook,
    Found,
    Look,
    Magnification,
    tell_of_look,
)
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.tile_size import choose_tile
from cellseg.inference.tiles import TileWork, predict_tiled
from cellseg.limits import available_memory
from numpy.typing import NDArray

BYTES_PER_PIXEL = 1500
"""Of memory that the network takes per pixel that it sees, with room for its detections. Measured
with R50-FPN in float32 on the CPU: 400 without detections."""
LARGEST_WHOLE_PX, LARGEST_TILE_PX = 2048**2, 1024
"""Larger images are looked at in tiles even where memory is plenty, both as the network sees them:
it finds so many proposals and detections in one image and no more, and larger ones have more."""
ALIGNMENT_PX = 64
"""The coarsest stride of the network. Where windows begin at multiples of it, anchors lie in a tile
as they do in the whole image."""
SMALLER_TILES_PX = (2048, 1024, 512, 256)
"""What is tried in turn when memory runs out."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

logger = logging.getLogger(__name__)


class Overlaps(NamedTuple):
    """How tiles overlap, in pixels of the image.

    Attributes:
        cells: the length of the largest cell that is expected.
        margin: how far windows reach beyond cores.
        context: the part of it that is context only.
    """

    cells: int
    margin: int
    context: int


@dataclass
class CellModel:
    """A trained model for images, files and planes of any size.

    Images that fit into memory are looked at as a whole, larger ones in tiles, whose size the
    memory decides or CELLSEG.TEST.TILE. If memory runs out all the same, tiles become smaller, and
    at last the CPU takes over.

    Attributes:
        predictor: the network with its thresholds.
        scenes: numbers or names of the scenes of files to look at; by default that of
            CELLSEG.INPUT.SCENE, or all of them.
        at_pixel_size_um: size of a pixel, in micrometres, that slides and other pyramids are
            looked at with; None for their finest level.
        spool_folder: where the cells of an image that is looked at in tiles are kept; the system's
            folder for temporary files by default.
        memory_share: how much of the free main memory is this process's, in (0, 1]; less where
            several of them are at work on one machine.

    Example:
        >>> model = cellseg.load("output/quick_start")  # doctest: +SKIP
        >>> cells = model.predict("field_1.tif")  # doctest: +SKIP
    """

    predictor: CellPredictor
    scenes: Sequence[int | str] = ()
    at_pixel_size_um: float | None = None
    spool_folder: Path | None = None
    memory_share: float = 1.0
    _diameter: str | float | None = field(default=None, init=False)
    _largest_px: float = field(default=float("inf"), init=False)
    _tile_px: int = field(default=0, init=False)

    def predict(
        self,
        image: Any,
        *,
        diameter: str | float | None = None,
    ) -> CellInstances:
        """Find the cells of an image, or of a file of one image.

        Args:
            image: [H, W] or [H, W, C] as `CellPredictor` takes it, what `to_image_array` makes one
                of (a tensor, a Pillow image, nested lists), or the path of a file.
            diameter: of the cells in it, in pixels: it is looked at so large that they become as
                large as those that the model knows. "auto" measures it; "" looks at the image as
                it is. By default what CELLSEG.TEST.DIAMETER says.

        Returns:
            Cells by their first pixel, row by row: cell k has label k + 1 in `to_label_image`.

        Raises:
            ImageReadError: an image of another shape, or a file that cannot be read.
            InputTypeError: no image.
            ConfigError: a diameter, and the model's CELLSEG.TEST.KNOWN_DIAMETERS is empty.
        """
        if diameter is not None:
            return self.with_diameter(diameter).predict(image)
        if isinstance(image, (str, Path)):
            image = self.predictor.read_image(image)
        image = to_image_array(image)
        plane = plane_of_array(image)
        if not self.is_tiled(plane):
            (found,) = self.predict_images([image])
            tell_of_look("image", found.look)
            return found.cells
        with self.predict_plane(plane, "image") as record:
            return record.cells

    def with_diameter(self, diameter: str | float) -> CellModel:
        """The same model for images whose cells have this diameter; see `predict`."""
        other = copy.copy(self)
        other._diameter = diameter
        return other

    def open_planes(self, path: str | Path) -> AbstractContextManager[Sequence[PlaneImage]]:
        """The planes of a file, of the scenes and at the pixel size that were chosen."""
        choices = self.predictor.input_choices
        if self.scenes:
            choices["scenes"] = self.scenes
        return open_planes(path, **choices, pixel_size_um=self.at_pixel_size_um)

    @property
    def magnification(self) -> Magnification:
        """What decides how large images are looked at.

        Raises:
            ConfigError: as `Magnification`.
        """
        return Magnification.from_config(self.predictor.cfg, self._diameter)

    def is_tiled(self, plane: PlaneImage) -> bool:
        """Whether a plane is looked at in tiles, and never read as a whole."""
        look = self.magnification.fixed_look()
        return self._choose_tile(plane.image_hw, look) < max(plane.image_hw)

    def _choose_tile(self, image_hw: tuple[int, int], look: Look) -> int:
        """Side of the tiles' cores, pixels; the image's longer side where it is looked at whole."""
        chosen = int(self.predictor.cfg.CELLSEG.TEST.TILE)
        if chosen:
            reach = chosen + 2 * self._overlaps(image_hw, look).margin
            return chosen if max(image_hw) > reach else max(image_hw)
        if image_hw[0] * image_hw[1] >= self._largest_px:
            return self._tile_px
        scale = look.scale or self.predictor.scale_of(image_hw)
        # The network sees no side shorter than its stride: a line is a broad image to it.
        height, width = (max(side, math.ceil(ALIGNMENT_PX / scale)) for side in image_hw)
        allowed = choose_tile((height, width), self.memory_at_hand(), BYTES_PER_PIXEL * scale**2)
        if height * width * scale**2 <= LARGEST_WHOLE_PX:
            return min(allowed, max(image_hw)) if allowed >= max(height, width) else allowed
        return min(allowed, max(SMALLER_TILES_PX[-1], int(LARGEST_TILE_PX / scale)))

    def memory_at_hand(self) -> int:
        """Bytes that can be had for the network."""
        device = self.predictor.cfg.MODEL.DEVICE
        share = self.memory_share if torch.device(device).type == "cpu" else 1.0
        return int(memory_of(device) * share)

    def _overlaps(self, image_hw: tuple[int, int], look: Look) -> Overlaps:
        """How tiles overlap; what is looked at smaller may hold cells that are as much larger."""
        scale, _ = self.scale_in_tiles(image_hw, look)
        shrunk = min(scale / self.scale_in_tiles(image_hw, Look())[0], 1.0)
        overlap = math.ceil(int(self.predictor.cfg.CELLSEG.TEST.TILE_OVERLAP) / shrunk)
        step, half = math.ceil(ALIGNMENT_PX / shrunk), (overlap + 1) // 2
        margin = -(-(half + step) // step) * step
        return Overlaps(overlap, margin, margin - half)

    def predict_images(self, images: Sequence[NDArray[np.generic]]) -> list[Found]:
        """The cells of images of one size, each in the order of `predict`."""
        found = self._predict_alike(images, self.magnification.fixed_look())
        if not self.magnification.is_automatic:
            return found
        return [self._look_again(image, one.cells) for image, one in zip(images, found)]

    def _predict_alike(self, images: Sequence[NDArray[np.generic]], look: Look) -> list[Found]:
        try:
            found = self.predictor.predict_batch(images, look.scale)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return [Found(self._predict_in_less(image, error, look), look) for image in images]
        return [Found(cells.sort_by_position(), look) for cells in found]

    def _look_again(self, image: NDArray[np.generic], cells: CellInstances) -> Found:
        """What is found in an image, of which `cells` were found as it is, in the right scale."""
        image_hw, rule = (image.shape[0], image.shape[1]), self.magnification
        scale = self.predictor.scale_of(image_hw)
        first = [FirstLook.of(scale, [cells])]
        for coarse in coarse_scales(scale, image_hw, rule.known):
            first.append(FirstLook.of(coarse, self.predictor.predict_batch([image], coarse)))
        look = rule.choose_look(first)
        if look.scale is not None:
            return Found(self._predict_at(image, look), look)
        if (larger := rule.enlarge(look, scale)) and larger.scale:
            again = self._predict_at(image, larger)
            if rule.is_better(FirstLook.of(larger.scale, [again]), first[0]):
                return Found(again, larger)
        return Found(cells, look)

    def _predict_at(self, image: NDArray[np.generic], look: Look) -> CellInstances:
        """The cells of an image in memory, which in the scale of the look may be too large."""
        plane = plane_of_array(np.asarray(image))
        if self._choose_tile(plane.image_hw, look) == max(plane.image_hw):
            return self._predict_alike([image], look)[0].cells
        with self._predict_as_planned(plane, "image", look) as record:
            return record.cells

    def _predict_in_less(
        self, image: NDArray[np.generic], error: Exception, look: Look
    ) -> CellInstances:
        """Find the cells of an image when memory has run out."""
        plane = plane_of_array(np.asarray(image))
        with self._tiled_in_less(plane, "image", error, look) as record:
            return record.cells

    def look_at(self, plane: PlaneImage) -> Look:
        """How large a plane is looked at that is looked at in tiles; a few windows tell."""
        if not self.magnification.is_automatic:
            return self.magnification.fixed_look()
        rule, limits = self.magnification, self.predictor.limits_of(plane)
        scale, _ = self.scale_in_tiles(plane.image_hw, Look())
        windows = read_windows(plane, round(FIRST_WINDOW_PX / scale))
        scales = (scale, *coarse_scales(scale, windows[0].shape[:2], rule.known))
        look = rule.choose_look([self._look_in(windows, limits, each) for each in scales])
        if (larger := rule.enlarge(look, scale)) and larger.scale:
            parts = [crop_centre(one, round(LARGEST_TILE_PX / larger.scale)) for one in windows]
            first, second = (self._look_in(parts, limits, one) for one in (scale, larger.scale))
            return larger if rule.is_better(second, first) else look
        return look

    def _look_in(self, windows: Sequence[NDArray[Any]], limits: Limits, scale: float) -> FirstLook:
        found = []
        for pixels in windows:
            seen = self.predictor.detect_in_window(pixels, limits, scale, is_smooth=True)
            found.append(select_cells(seen, self.predictor.thresholds))
        return FirstLook.of(scale, found)

    def predict_plane(self, plane: PlaneImage, image_id: str) -> SpooledCells:
        """The cells of a plane, found in tiles; the record is to be closed.

        Args:
            plane: its windows are read as they are needed.
            image_id: of the record.

        Raises:
            ImageReadError: a window cannot be read.
        """
        look = self.look_at(plane)
        tell_of_look(image_id, look)
        return self._predict_as_planned(plane, image_id, look)

    def _predict_as_planned(self, plane: PlaneImage, image_id: str, look: Look) -> SpooledCells:
        tile_px = self._choose_tile(plane.image_hw, look)
        try:
            return self._predict_in_tiles(plane, image_id, tile_px, look)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return self._tiled_in_less(plane, image_id, error, look)

    def _tiled_in_less(
        self, plane: PlaneImage, image_id: str, error: Exception, look: Look
    ) -> SpooledCells:
        """Smaller and smaller tiles, then the CPU; the size that works is kept for later images."""
        before = min(self._choose_tile(plane.image_hw, look), max(plane.image_hw))
        for tile_px in SMALLER_TILES_PX:
            if tile_px >= before:
                continue
            _release_memory()
            height, width = plane.image_hw
            logger.warning(
                "%s (%d x %d px): out of memory, trying tiles of %d px",
                image_id,
                height,
                width,
                tile_px,
            )
            try:
                record = self._predict_in_tiles(plane, image_id, tile_px, look)
            except Exception as again:
                if not is_out_of_memory(again):
                    raise
                error = again
                continue
            self._largest_px, self._tile_px = min(self._largest_px, height * width), tile_px
            return record
        if self.predictor.cfg.MODEL.DEVICE == "cpu":
            raise error
        logger.warning("%s: out of memory; going on with the CPU, which is slower", image_id)
        self.predictor.move_to_cpu()
        self._largest_px = float("inf")
        return self._predict_as_planned(plane, image_id, look)

    def _predict_in_tiles(
        self, plane: PlaneImage, image_id: str, tile_px: int, look: Look
    ) -> SpooledCells:
        work = self._plan_work(plane, self.plan_tiles(plane.image_hw, look, tile_px), look)
        about: dict[str, Any] = {
            "image_id": image_id,
            "image_path": plane.path,
            "place": look.note_in(place_of(plane)),
        }
        folder = self.spool_folder or tempfile.gettempdir()
        return predict_tiled(work, folder, self._run_tiles, **about).record

    def plan_tiles(
        self, image_hw: tuple[int, int], look: Look, tile_px: int | None = None
    ) -> TileGrid:
        """The tiles that an image is looked at in; one, if it is looked at as a whole.

        Args:
            image_hw: (height, width), pixels.
            look: how large it is looked at.
            tile_px: side of their cores, pixels; by default what memory allows or the config says.
        """
        tile_px = self._choose_tile(image_hw, look) if tile_px is None else tile_px
        overlaps = self._overlaps(image_hw, look)
        return TileGrid(image_hw, tile_px, overlaps.cells, overlaps.context)

    def _plan_work(self, plane: PlaneImage, grid: TileGrid, look: Look) -> TileWork:
        """What is done in each tile of a plane."""
        limits = self.predictor.limits_of(plane)
        scale, is_smooth = self.scale_in_tiles(plane.image_hw, look)

        def predict(pixels: NDArray[Any], tile: Tile) -> CellInstances:
            return self.predictor.detect_in_window(pixels, limits, scale, is_smooth=is_smooth)

        return TileWork(grid, self.predictor.thresholds, plane.read, predict)

    def _run_tiles(self, do: Callable[[Tile], Any], tiles: Iterable[Tile]) -> Iterable[Any]:
        """What the work on each tile gives."""
        return map(do, tiles)

    def scale_in_tiles(self, image_hw: tuple[int, int], look: Look) -> tuple[float, bool]:
        """What windows are resized by, and whether smoothly.

        As the whole image, or, where TILE is set, as an image so large, or as the look says.
        """
        if look.scale is not None:
            return look.scale, True
        chosen = int(self.predictor.cfg.CELLSEG.TEST.TILE)
        return self.predictor.scale_of((chosen, chosen) if chosen else image_hw), False


def plane_of_array(image: NDArray[Any]) -> PlaneImage:
    """An image in memory as a plane."""

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        return image[rows, columns]

    def read_channels(rows: slice, columns: slice) -> NDArray[Any]:
        window = image[rows, columns]
        return window[None] if window.ndim == 2 else np.moveaxis(window, -1, 0)

    return PlaneImage(Path("image"), (image.shape[0], image.shape[1]), read, read_channels)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left, on the device or in the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def memory_of(device: str) -> int:
    """Bytes that can be had on a device."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def _release_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
