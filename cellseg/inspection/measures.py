"""Measures of every image and every cell, from one reading of the image.

The work per cell is done on its crop, so that thousands of cells cost little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, IntArray, disc_diameters
from cellseg.cells.overlaps import find_overlaps
from cellseg.cells.pieces import count_pieces
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageChoiceError, ImageReadError
from cellseg.images import ImageInput, open_planes
from cellseg.inspection.fingerprints import Fingerprint, fingerprint
from cellseg.io.base import path_of_image
from numpy.typing import NDArray

PERCENTILES = (1.0, 50.0, 99.8)


@dataclass(frozen=True, eq=False)
class CellTable:
    """One row per cell of an image, in the order of its record; crowd regions are left out.

    Attributes:
        index: int64 [N], number of the cell in the record.
        class_name: str [N].
        area_px: int64 [N]; 0 where the mask has no pixel.
        width_px, height_px: int64 [N], of the tight box.
        x_px, y_px: int64 [N], left upper corner of the tight box.
        pieces: int64 [N], parts that do not touch, not even by a corner.
        holes, hole_px: int64 [N], number of holes and pixels in them.
        overlap_px: int64 [N], pixels that another cell claims too.
        on_border: bool [N], a pixel lies in the image's outermost row or column.
        mean: float64 [N], mean intensity (of all channels); NaN without an image or a pixel.
    """

    index: IntArray
    class_name: NDArray[np.str_]
    area_px: IntArray
    width_px: IntArray
    height_px: IntArray
    x_px: IntArray
    y_px: IntArray
    pieces: IntArray
    holes: IntArray
    hole_px: IntArray
    overlap_px: IntArray
    on_border: NDArray[np.bool_]
    mean: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def diameter_px(self) -> NDArray[np.float64]:
        """Diameter of the disc of the same area."""
        return disc_diameters(self.area_px)

    @property
    def aspect_ratio(self) -> NDArray[np.float64]:
        """Height over width of the tight box; NaN where there is none."""
        empty = self.width_px == 0
        return np.where(empty, np.nan, self.height_px / np.where(empty, 1, self.width_px))

    @staticmethod
    def column_names() -> list[str]:
        return [field.name for field in fields(CellTable)]


@dataclass(frozen=True)
class Intensities:
    """Values of one image; all channels together.

    Attributes:
        dtype: as stored.
        channels: 1 for grey; also where three channels are equal.
        low, high: least and greatest value.
        percentiles: values at `PERCENTILES`.
        top_share: share of the pixels at the greatest value that the type holds (for more than 8
            bits, at the greatest value there is).
        bits: bits that the greatest value takes; 0 for floats.
    """

    dtype: str
    channels: int
    low: float
    high: float
    percentiles: tuple[float, ...]
    top_share: float
    bits: int


@dataclass(frozen=True, eq=False)
class ImageMeasures:
    """What is known of one image.

    Attributes:
        split: name of its dataset.
        record: the image and its cells.
        file_hw: (height, width) of the file; None where it cannot be read.
        read_error: why it cannot be read, or not as it is, or "".
        needs_choice: training cannot read it before channels, a page or a scene are chosen;
            `read_error` says so. The measures are those of all channels of its first plane.
        intensities: None where it cannot be read.
        fingerprint: for comparison with other images; None where it cannot be read.
        cells: measures of the cells.
        covered_px: pixels in any cell.
        overlap_px: pixels in more than one.
        edge_step_px: greatest common divisor of all the places where a row or column enters or
            leaves a cell; 1 for masks drawn at the image's own resolution.
        bad_masks: numbers of cells whose masks cannot be used, with the reason; they have no pixel.
        same_cells: pairs of cells that share at least 80 % of their joint area.
    """

    split: str
    record: ImageRecord
    file_hw: tuple[int, int] | None
    read_error: str
    intensities: Intensities | None
    fingerprint: Fingerprint | None
    cells: CellTable
    covered_px: int
    overlap_px: int
    edge_step_px: int
    bad_masks: tuple[tuple[int, str], ...]
    same_cells: tuple[tuple[int, int], ...]
    needs_choice: bool = False


SAME_CELL_IOU = 0.8
AS_THEY_ARE = ImageInput()
"""Images of one plane, grey or RGB."""


def read_to_look_at(record: ImageRecord, image_input: ImageInput) -> tuple[NDArray[Any], str]:
    """An image as training reads it, or where nobody chose what it shall read, all there is.

    Returns:
        [H, W] or [H, W, C], of which C may be any number where a choice is missing: all channels
        of the first plane; and what has to be chosen, or "".

    Raises:
        DatasetError: the image is not known.
        ImageReadError: the file is damaged, or does not have what was chosen.
    """
    path = path_of_image(record)
    try:
        return image_input.read(path, record.place.page), ""
    except ImageChoiceError as error:
        scenes = () if image_input.scene == "" else (image_input.scene,)
        with open_planes(path, scenes=scenes) as planes:
            channels = planes[0].read_channels(slice(None), slice(None))
        return np.moveaxis(channels, 0, -1), str(error)


def measure_image(
    record: ImageRecord,
    split: str,
    classes: Sequence[str],
    bad_masks: Mapping[int, str] | None = None,
    image_input: ImageInput = AS_THEY_ARE,
) -> ImageMeasures:
    """Read an image and measure it and its cells; nothing that is wrong with it raises.

    Args:
        record: the image and its cells.
        split: name of its dataset.
        classes: class names.
        bad_masks: what is wrong with the masks of which cells of the record.
        image_input: how training reads images.
    """
    image, read_error = None, ""
    try:
        image, read_error = read_to_look_at(record, image_input)
    except (DatasetError, ImageReadError) as error:
        read_error = str(error)
    except OSError as error:
        read_error = f"{record.image_path}: {error.strerror or error}"
    grey = None
    if image is not None and image.shape[:2] == record.image_hw:
        grey = image if image.ndim == 2 else image.mean(axis=2)
    cells = record.cells.counted
    crops, offsets_rc = cells.crops, cells.offsets_rc
    count = _count_cells(crops, offsets_rc, record.image_hw)
    table = _measure_cells(record.cells, classes, count, grey)
    return ImageMeasures(
        split=split,
        record=record,
        file_hw=None if image is None else (image.shape[0], image.shape[1]),
        read_error=read_error,
        needs_choice=image is not None and bool(read_error),
        intensities=None if image is None else _measure_intensities(image),
        fingerprint=None if image is None else fingerprint(image),
        cells=table,
        covered_px=int(np.count_nonzero(count)),
        overlap_px=int(np.count_nonzero(count > 1)),
        edge_step_px=_edge_step(crops, offsets_rc, record.image_hw),
        bad_masks=tuple(
            (k, reason)
            for k, reason in sorted((bad_masks or {}).items())
            if not record.cells.is_crowd[k]
        ),
        same_cells=tuple(_find_same(cells, table)),
    )


def _count_cells(
    crops: Sequence[Crop], offsets_rc: IntArray, image_hw: tuple[int, int]
) -> NDArray[np.uint16]:
    """How many cells claim each pixel."""
    count = np.zeros(image_hw, np.uint16)
    for crop, (row, col) in zip(crops, offsets_rc.tolist()):
        count[row : row + crop.shape[0], col : col + crop.shape[1]] += crop
    return count


def _measure_cells(
    every: CellInstances,
    classes: Sequence[str],
    count: NDArray[np.uint16],
    grey: NDArray[Any] | None,
) -> CellTable:
    index = np.flatnonzero(~every.is_crowd)
    cells = every.counted
    crops, offsets_rc = cells.crops, cells.offsets_rc
    rows: list[tuple[int, ...]] = []
    means: list[float] = []
    for crop, (row, col) in zip(crops, offsets_rc.tolist()):
        window = slice(row, row + crop.shape[0]), slice(col, col + crop.shape[1])
        area = int(np.count_nonzero(crop))
        overlap = int(np.count_nonzero(crop & (count[window] > 1)))
        rows.append((area, *_pieces_and_holes(crop), overlap))
        means.append(float(grey[window][crop].mean()) if grey is not None and area else np.nan)
    counts = np.array(rows, np.int64).reshape(-1, 5)
    sizes_hw = np.array([crop.shape for crop in crops], np.int64).reshape(-1, 2)
    at_edge = (offsets_rc == 0) | (offsets_rc + sizes_hw == cells.image_hw)
    return CellTable(
        index=index.astype(np.int64),
        class_name=np.array([classes[number] for number in cells.classes], np.str_),
        area_px=counts[:, 0],
        width_px=sizes_hw[:, 1],
        height_px=sizes_hw[:, 0],
        x_px=offsets_rc[:, 1],
        y_px=offsets_rc[:, 0],
        pieces=counts[:, 1],
        holes=counts[:, 2],
        hole_px=counts[:, 3],
        overlap_px=counts[:, 4],
        on_border=at_edge.any(axis=1) & (counts[:, 0] > 0),
        mean=np.array(means, np.float64),
    )


def _pieces_and_holes(crop: Crop) -> tuple[int, int, int]:
    """Pieces (eight neighbours), holes (four neighbours) and the pixels in these."""
    if not crop.size:
        return 0, 0, 0
    solid = crop.astype(np.uint8)
    pieces = count_pieces(crop)
    around = np.pad(1 - solid, 1, constant_values=1)
    parts, _, stats, _ = cv2.connectedComponentsWithStats(around, connectivity=4)
    # Part 0 is the cell; one of the others is the frame, whose box is the whole picture.
    inside = stats[1:][(stats[1:, :2] > 0).all(axis=1)]
    return pieces, parts - 2, int(inside[:, cv2.CC_STAT_AREA].sum())


def _edge_step(crops: Sequence[Crop], offsets_rc: IntArray, image_hw: tuple[int, int]) -> int:
    """Greatest common divisor of the rows and columns at which cells begin or end."""
    step = 0
    for axis in (0, 1):
        places: set[int] = set()
        for crop, offset in zip(crops, offsets_rc[:, axis].tolist()):
            changes = (np.diff(crop.astype(np.int8), axis=axis) != 0).any(axis=1 - axis)
            inner = np.flatnonzero(changes) + 1
            places.update((inner + offset).tolist())
            places.update((offset, offset + crop.shape[axis]) if crop.size else ())
        places -= {0, image_hw[axis]}
        step = int(np.gcd.reduce([step, *places]))
        if step == 1:
            break
    return max(step, 1)


def _find_same(cells: CellInstances, table: CellTable) -> Iterator[tuple[int, int]]:
    """Numbers of cells of which one is a copy of the other, or nearly."""
    suspects = np.flatnonzero(table.overlap_px > SAME_CELL_IOU / 2 * np.maximum(table.area_px, 1))
    pairs = find_overlaps(cells[suspects], cells[suspects])
    same = (pairs.iou >= SAME_CELL_IOU) & (pairs.true_index < pairs.pred_index)
    for first, second in zip(pairs.true_index[same], pairs.pred_index[same]):
        yield int(table.index[suspects[first]]), int(table.index[suspects[second]])


def _measure_intensities(image: NDArray[Any]) -> Intensities:
    low, high = image.min(), image.max()
    is_grey = image.ndim == 2 or bool((image == image[..., :1]).all())
    top: Any = high
    if image.dtype == np.uint8:
        top = 255
    sample = image[..., 0] if image.ndim == 3 and is_grey else image
    return Intensities(
        dtype=str(image.dtype),
        channels=1 if is_grey else int(image.shape[-1]),
        low=float(low),
        high=float(high),
        percentiles=tuple(float(v) for v in np.percentile(sample, PERCENTILES)),
        top_share=float(np.mean(sample == top)),
        bits=int(high).bit_length() if image.dtype.kind in "iu" else 0,
    )
