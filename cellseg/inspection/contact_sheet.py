"""Pages of images with the outlines of their cells, those with findings first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.cells.drawing import colour_neighbours, make_readable, write_picture
from cellseg.cells.instances import CellInstances
from cellseg.errors import CellsegError
from cellseg.images import ImageInput
from cellseg.inspection.checks import ERROR, NOTE, WARNING, Finding
from cellseg.inspection.measures import AS_THEY_ARE, ImageMeasures, read_to_look_at
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

TILE_PX = 300
COLUMNS, ROWS = 5, 4
TILES_PER_PAGE = COLUMNS * ROWS

_CAPTION_PX = 52
_GAP_PX = 8
_READABLE_PX = 13  # diameter of a cell on the page below which a part of the image is shown
_PAPER = 250
_TEXT = (30, 30, 30)
_SHARP_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_WEIGHTS = {ERROR: 10_000, WARNING: 100, NOTE: 1}
_SEVERITY_COLOURS = {ERROR: (200, 0, 0), WARNING: (190, 95, 0), NOTE: (60, 60, 60)}
_MARK: tuple[int, int, int] = (255, 40, 40)
_ON_DARK = ((70, 210, 255), (255, 225, 50), (255, 120, 240), (80, 240, 100), (160, 160, 255))
_ON_BRIGHT = ((0, 110, 255), (0, 190, 40), (250, 130, 0), (0, 185, 215), (200, 170, 0))
_MOST_FRAMED = 12
_COMMON_KINDS = ("dim", "saturated", "no_cells")  # often true of half a dataset: not put first


def write_contact_sheets(
    folder: Path,
    images: Sequence[ImageMeasures],
    findings: Sequence[Finding],
    *,
    max_pages: int = 3,
    image_input: ImageInput = AS_THEY_ARE,
) -> list[Path]:
    """Write `contact_sheet_1.png`, ... with 20 images each.

    Images with the worst findings come first; the others follow evenly over the splits. Cells
    that a finding is about are red. Of an image whose cells would be too small to be seen, the
    part around those cells (or the middle) is shown.

    Args:
        folder: made if needed.
        images: of one dataset.
        findings: about them.
        max_pages: pages at most.
        image_input: how images are read; of channels beyond three the first three are shown.

    Returns:
        The files, by page.
    """
    by_image: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_image.setdefault((finding.split, finding.image_id), []).append(finding)
    chosen = order_images(images, by_image)[: max_pages * TILES_PER_PAGE]
    paths = []
    for page, start in enumerate(range(0, len(chosen), TILES_PER_PAGE), 1):
        tiles = [
            draw_tile(image, by_image.get((image.split, image.record.image_id), []), image_input)
            for image in chosen[start : start + TILES_PER_PAGE]
        ]
        paths.append(folder / f"contact_sheet_{page}.png")
        write_picture(paths[-1], _lay_out(tiles))
    return paths


def order_images(
    images: Sequence[ImageMeasures], by_image: dict[tuple[str, str], list[Finding]]
) -> list[ImageMeasures]:
    """Worst findings first; then the images without any, the splits taking turns."""

    def badness(image: ImageMeasures) -> int:
        found = by_image.get((image.split, image.record.image_id), [])
        return sum(_WEIGHTS[f.severity] for f in found if f.kind not in _COMMON_KINDS)

    worst = sorted((m for m in images if badness(m)), key=badness, reverse=True)
    good: dict[str, list[ImageMeasures]] = {}
    for image in images:
        if not badness(image):
            good.setdefault(image.split, []).append(image)
    # The place of each image in its split, as a share: sorting by it interleaves the splits.
    shares = [
        ((_spread_places(place, len(own)), image) for place, image in enumerate(own))
        for own in good.values()
    ]
    rest = sorted((pair for own in shares for pair in own), key=lambda pair: pair[0])
    return worst + [image for _, image in rest]


def _spread_places(place: int, number: int) -> float:
    """A share from 0 to 1 by which the first few of a list are spread over the whole list."""
    bits = max(1, (number - 1).bit_length())
    return int(f"{place:0{bits}b}"[::-1], 2) / 2**bits


def draw_tile(
    image: ImageMeasures, findings: Sequence[Finding], image_input: ImageInput = AS_THEY_ARE
) -> Picture:
    """One image with outlines and up to three lines of text, RGB uint8 [352, 300, 3]."""
    tile = np.full((TILE_PX + _CAPTION_PX, TILE_PX, 3), _PAPER, np.uint8)
    try:
        pixels, _ = read_to_look_at(image.record, image_input)
    except (CellsegError, OSError):
        picture, is_part = _draw_unreadable(), False
    else:
        picture, is_part = _draw_image(_at_most_three(pixels), image, findings)
    top, left = (TILE_PX - picture.shape[0]) // 2, (TILE_PX - picture.shape[1]) // 2
    tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    for line, (text, colour) in enumerate(_write_captions(image, findings, is_part)):
        _write_text(tile, text, (2, TILE_PX + 14 + 16 * line), colour)
    return tile


def _at_most_three(pixels: NDArray[Any]) -> NDArray[Any]:
    """Grey or RGB; the third of two channels is black."""
    if pixels.ndim == 2 or pixels.shape[-1] == 1:
        return pixels.reshape(pixels.shape[:2])
    missing = max(0, 3 - pixels.shape[-1])
    return np.pad(pixels[..., :3], ((0, 0), (0, 0), (0, missing)))


def _draw_image(
    pixels: NDArray[Any], image: ImageMeasures, findings: Sequence[Finding]
) -> tuple[Picture, bool]:
    """The image or the part of it that is shown, and whether it is a part."""
    marked = {k for finding in findings for k in finding.cells}
    cells = image.record.cells.counted if pixels.shape[:2] == image.record.image_hw else None
    picture, bright = make_readable(pixels)
    top, left, height, width = _find_window(image, marked)
    is_part = (height, width) != image.record.image_hw
    if cells is None:
        top, left, (height, width), is_part = 0, 0, picture.shape[:2], False
    shown = picture[top : top + height, left : left + width]
    scale = TILE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shown = np.asarray(cv2.resize(shown, size, interpolation=smooth), np.uint8)
    if cells is not None:
        _draw_outlines(shown, cells, (top, left), scale, marked, _ON_BRIGHT if bright else _ON_DARK)
    return shown, is_part


def _find_window(image: ImageMeasures, marked: set[int]) -> tuple[int, int, int, int]:
    """(row, column, height, width) of what is shown: all, unless the cells would be specks."""
    height, width = image.record.image_hw
    diameters = image.cells.diameter_px[image.cells.area_px > 0]
    if not diameters.size:
        return 0, 0, height, width
    scale = TILE_PX / max(height, width)
    typical = float(np.median(diameters))
    if typical * scale >= _READABLE_PX:
        return 0, 0, height, width
    side = max(64, round(TILE_PX * typical / _READABLE_PX))
    rows, cols = min(height, side), min(width, side)
    centre = _centre_of_interest(image, marked)
    top, left = (
        int(np.clip(round(middle - part / 2), 0, whole - part))
        for middle, part, whole in zip(centre, (rows, cols), (height, width))
    )
    return top, left, rows, cols


def _centre_of_interest(image: ImageMeasures, marked: set[int]) -> tuple[float, float]:
    cells = image.cells
    for k in np.flatnonzero(np.isin(cells.index, sorted(marked)) & (cells.area_px > 0)).tolist():
        return (
            float(cells.y_px[k] + cells.height_px[k] / 2),
            float(cells.x_px[k] + cells.width_px[k] / 2),
        )
    return float(np.median(cells.y_px)), float(np.median(cells.x_px))


def _draw_outlines(
    picture: Picture,
    cells: CellInstances,
    origin_rc: tuple[int, int],
    scale: float,
    marked: set[int],
    palette: Sequence[tuple[int, int, int]],
) -> None:
    """Draw thin lines into `picture`, marked cells last, red and (if few) framed."""
    colours = colour_neighbours(cells, len(palette))
    order = sorted(range(len(cells)), key=lambda k: k in marked)
    for k in order:
        crop = cells.crops[k]
        if not crop.size:
            continue
        outlines, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        row, col = cells.offsets_rc[k]
        shift = np.array([col - origin_rc[1] + 0.5, row - origin_rc[0] + 0.5])
        points = [
            np.round(((line + shift) * scale - 0.5) * 2**_SHARP_SHIFT).astype(np.int32)
            for line in outlines
        ]
        is_marked = k in marked
        colour = _MARK if is_marked else palette[colours[k]]
        cv2.polylines(picture, points, True, colour, 1, cv2.LINE_AA, _SHARP_SHIFT)
        if is_marked and len(marked) <= _MOST_FRAMED:
            x, y, width, height = cv2.boundingRect(np.concatenate(points) >> _SHARP_SHIFT)
            low, high = (x - 5, y - 5), (x + width + 4, y + height + 4)
            cv2.rectangle(picture, low, high, _MARK, 1)


def _draw_unreadable() -> Picture:
    picture = np.full((TILE_PX, TILE_PX, 3), 225, np.uint8)
    _write_text(picture, "cannot be read", (70, TILE_PX // 2), _SEVERITY_COLOURS[ERROR], 0.6)
    return picture


def _write_captions(
    image: ImageMeasures, findings: Sequence[Finding], is_part: bool
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    height, width = image.record.image_hw
    tail = f"{width} x {height}, {len(image.cells)} cells{', part' if is_part else ''}"
    name = f"{image.split}/{image.record.image_id}"
    yield _shorten_text(name, 44), _TEXT
    yield tail, _TEXT
    if findings:
        kinds = " ".join(dict.fromkeys(finding.kind for finding in findings))
        worst = min((f.severity for f in findings), key=list(_WEIGHTS).index)
        yield _shorten_text(kinds, 46, keep_end=False), _SEVERITY_COLOURS[worst]


def _shorten_text(text: str, length: int, keep_end: bool = True) -> str:
    """At most `length` characters that OpenCV's font has; the middle or the end is left out."""
    text = "".join(c if 32 <= ord(c) < 127 else "?" for c in text)
    if len(text) <= length:
        return text
    tail = max(0, min(8, length // 3)) if keep_end else 0
    return f"{text[: length - tail - 2]}..{text[len(text) - tail :]}"


def _write_text(
    picture: Picture,
    text: str,
    at_xy: tuple[int, int],
    colour: tuple[int, int, int],
    size: float = 0.4,
) -> None:
    cv2.putText(picture, text, at_xy, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _lay_out(tiles: Sequence[Picture]) -> Picture:
    """Tiles row by row on paper."""
    columns = min(COLUMNS, len(tiles))
    blanks = [np.full_like(tiles[0], _PAPER)] * (-len(tiles) % columns)
    whole = np.stack([*tiles, *blanks])
    framed = np.pad(whole, ((0, 0), (_GAP_PX, 0), (_GAP_PX, 0), (0, 0)), constant_values=_PAPER)
    rows = [np.hstack(list(framed[k : k + columns])) for k in range(0, len(framed), columns)]
    return np.pad(np.vstack(rows), ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=_PAPER)
