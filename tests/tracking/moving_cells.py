"""Real cells that are made to move, so that the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.tracks import Tracks


@dataclass
class Moving:
    """One cell on its way."""

    mask: np.ndarray  # bool [h, w]
    row: float
    col: float
    speed: np.ndarray
    parent: int = -1
    born: int = 0
    ended: bool = False


def let_move(
    cells: CellInstances,
    rng: np.random.Generator,
    *,
    num_frames: int,
    step_px: float,
    dividing: float = 0.0,
    missed: float = 0.0,
) -> tuple[list[CellInstances], Tracks]:
    """A time-lapse of the cells of one image, in a new order in each frame, and its tracks.

    Args:
        step_px: mean length of a step; directions change slowly.
        dividing: share of cells that divide across their longer side in each step.
        missed: share of cells that are not found in each frame.
    """
    crowd = [
        Moving(crop, *offset, rng.normal(0, step_px / 1.25, 2))
        for crop, offset in zip(cells.crops, cells.offsets_rc.astype(float))
    ]
    frames, counts, links = [], [], []
    seen: dict[int, tuple[int, int]] = {}
    for frame in range(num_frames):
        if frame:
            crowd = move_on(crowd, rng, step_px, dividing, frame)
        image = np.zeros(cells.image_hw, np.int64)
        for number in rng.permutation(len(crowd)).tolist():
            if not crowd[number].ended:
                draw(image, crowd[number], number + 1)
        found = [n for n in np.unique(image[image > 0]).tolist() if rng.random() >= missed]
        rng.shuffle(found)
        bitmaps = CellInstances.from_label_image(image)
        order = np.searchsorted(np.unique(image[image > 0]), found)
        frames.append(bitmaps[order])
        counts.append(len(found))
        for cell, number in enumerate(n - 1 for n in found):
            source = seen.get(number) or seen.get(crowd[number].parent)
            if source:
                links.append((*source, frame, cell))
            seen[number] = (frame, cell)
    return frames, Tracks.from_links(counts, links)


def move_on(
    crowd: list[Moving], rng: np.random.Generator, step_px: float, dividing: float, frame: int
) -> list[Moving]:
    new = []
    for number, cell in enumerate(crowd):
        if cell.ended:
            continue
        cell.speed = 0.8 * cell.speed + 0.6 * rng.normal(0, step_px / 1.25, 2)
        cell.row, cell.col = cell.row + cell.speed[0], cell.col + cell.speed[1]
        if rng.random() < dividing and cell.mask.sum() > 40 and cell.born < frame - 2:
            cell.ended = True
            new += halves(cell, number, frame)
    return crowd + new


def halves(cell: Moving, number: int, frame: int) -> list[Moving]:
    """Both sides of the line through the centre, across the longer side, a pixel apart."""
    height, width = cell.mask.shape
    rows, cols = np.nonzero(cell.mask)
    along = cols if width >= height else rows
    second = np.zeros_like(cell.mask)
    second[rows[along > along.mean()], cols[along > along.mean()]] = True
    apart = np.array([0.0, 1.0]) if width >= height else np.array([1.0, 0.0])
    return [
        Moving(mask, cell.row + way[0], cell.col + way[1], cell.speed + way, number, frame)
        for mask, way in ((cell.mask & ~second, -apart), (second, apart))
    ]


def draw(image: np.ndarray, cell: Moving, label: int) -> None:
    """As far as it lies in the image; later cells lie on top."""
    rows, cols = np.nonzero(cell.mask)
    rows, cols = rows + round(cell.row), cols + round(cell.col)
    inside = (rows >= 0) & (cols >= 0) & (rows < image.shape[0]) & (cols < image.shape[1])
    image[rows[inside], cols[inside]] = label
