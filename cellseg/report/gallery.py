"""Images with true outlines beside predicted ones, as HTML that needs nothing else.

The picture is a JPEG inside the page; outlines are SVG paths in image pixels, so that they stay
thin at any zoom and each knows its kind and class.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.cells.drawing import make_readable
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop
from cellseg.errors import ImageReadError
from cellseg.report.measures import ERROR_KINDS, CellKinds
from numpy.typing import NDArray

MAX_SIDE_PX = 700
_JPEG_QUALITY = 85

WORDS = {
    "missed": "missed",
    "spurious": "spurious",
    "split": "split",
    "merge": "merged",
    "catastrophe": "tangled",
    "confused": "wrong class",
    "correct": "correct",
}

KIND_MEANING = {
    "correct": "true and predicted cell match with an IoU above 0.6",
    "missed": "a true cell that no predicted cell matches",
    "spurious": "a predicted cell that matches no true cell",
    "split": "one true cell, predicted in several pieces",
    "merge": "several true cells, predicted as one",
    "catastrophe": "several true and several predicted cells mixed up",
    "confused": "right outline, wrong class",
}


@dataclass(frozen=True, eq=False)
class GalleryImage:
    """An image of the gallery; `number` is its own within the page."""

    number: int
    name: str
    path: Path
    score: float
    true: CellInstances
    pred: CellInstances
    kinds: CellKinds


def draw_card(
    image: GalleryImage, classes: Sequence[str], read: Callable[[Path], NDArray[Any]]
) -> str:
    """HTML of one image: name, figures, the two pictures.

    An image that cannot be read any more leaves its outlines on grey and a line that says so.

    Args:
        classes: names, shown where there are several.
        read: file to image [H, W] or [H, W, C].
    """
    problem, bright, href = "", False, ""
    try:
        href, bright = encode_picture(read(image.path))
    except ImageReadError as error:
        problem = f'<p class="missing">The image cannot be shown: {escape(str(error))}</p>'
    height, width = image.true.image_hw
    source = f"px-{image.number}"
    picture = f'<image id="{source}" href="{href}" width="{width}" height="{height}"/>'
    sides = [
        _panel(image, classes, "true", picture if href else ""),
        _panel(image, classes, "pred", f'<use href="#{source}"/>' if href else ""),
    ]
    return (
        f'<article class="card{" bright" if bright else ""}" id="image-{image.number}" '
        f'data-errors="{escape(" ".join(_error_tokens(image)))}">'
        f'<div class="head"><h4>{escape(image.name)}</h4><button type="button" class="enlarge" '
        f'hidden="" aria-label="Enlarge {escape(image.name)}">Enlarge</button></div>'
        f'{_facts(image)}{problem}<div class="pair">{"".join(sides)}</div></article>'
    )


def encode_picture(image: NDArray[Any]) -> tuple[str, bool]:
    """A readable JPEG of at most 700 x 700 pixels as data URI, and whether it is a bright one."""
    picture, bright = make_readable(image)
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    text = base64.b64encode(encoded.tobytes()).decode("ascii")
    return f"data:image/jpeg;base64,{text}", bright


def outline_path(crop: Crop, offset_rc: Sequence[int]) -> str:
    """SVG path through the centres of a cell's outermost pixels, holes too; x is the column.

    Args:
        crop: bool [h, w].
        offset_rc: (row, column) of its first pixel.

    Returns:
        Path data in image pixels; "" for a cell without a pixel.
    """
    if not crop.any():
        return ""
    lines, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for line in lines:
        points = line[:, 0].astype(int)
        x, y = points[0] + [offset_rc[1], offset_rc[0]]
        steps = " ".join(f"{dx} {dy}" for dx, dy in np.diff(points, axis=0).tolist())
        parts.append(f"M{x + 0.5:g} {y + 0.5:g}" + (f"l{steps}z" if steps else "h.01"))
    return "".join(parts)


def _panel(image: GalleryImage, classes: Sequence[str], side: str, picture: str) -> str:
    cells, kinds = (
        (image.true, image.kinds.true) if side == "true" else (image.pred, image.kinds.pred)
    )
    height, width = image.true.image_hw
    what = ("true" if side == "true" else "predicted") + (" cell" if len(cells) == 1 else " cells")
    found = [f"{kinds.count(kind)} {WORDS[kind]}" for kind in WORDS if kind in kinds]
    label = f"{image.name}: {len(cells)} {what}{': ' if found else ''}{', '.join(found)}"
    return (
        f'<figure><svg class="panel" viewBox="0 0 {width} {height}" data-hw="{height} {width}" '
        f'role="img" aria-label="{escape(label)}">{picture}'
        f"{_outlines(cells, kinds, classes, side)}</svg>"
        f"<figcaption>{len(cells):,} {what}</figcaption></figure>"
    )


def _outlines(cells: CellInstances, kinds: Sequence[str], classes: Sequence[str], side: str) -> str:
    """Paths of all cells, correct ones first, so that errors lie in front."""
    drawn = []
    order = sorted(range(len(cells)), key=lambda k: kinds[k] != "correct")
    areas = cells.areas_px
    for k in order:
        number = int(cells.classes[k])
        text = WORDS[kinds[k]]
        if len(classes) > 1:
            text += f", {classes[number]}"
        text += f", {int(areas[k]):,} px²"
        if side == "pred":
            text += f", score {cells.scores[k]:.2f}"
        path = outline_path(cells.crops[k], cells.offsets_rc[k].tolist())
        drawn.append(
            f'<path class="cell {kinds[k]}" data-class="{number}" d="{path}">'
            f"<title>{escape(text)}</title></path>"
        )
    return "".join(drawn)


def _facts(image: GalleryImage) -> str:
    counts = [
        f'<span class="tag {kind}">{image.kinds.counts[kind]:,} {WORDS[kind]}</span>'
        for kind in ERROR_KINDS
        if image.kinds.counts[kind]
    ]
    errors = " ".join(counts) or '<span class="tag correct">no errors</span>'
    return f'<p class="facts">AP <b>{image.score:.3f}</b> {errors}</p>'


def _error_tokens(image: GalleryImage) -> list[str]:
    """ "class:kind" of every kind of error and class in the image, "class:" of classes."""
    both = ((image.true, image.kinds.true), (image.pred, image.kinds.pred))
    tokens = set()
    for cells, kinds in both:
        for number, kind in zip(cells.classes.tolist(), kinds):
            tokens |= {f"{number}:", f"{number}:{kind}"}
    return sorted(tokens)
