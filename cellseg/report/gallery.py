"""The images of a data set from the worst to the best, true outlines beside predicted ones.

A picture is a JPEG inside the page; outlines are SVG paths in image pixels, so that they stay thin
at any zoom and each knows its kind and class.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from cellseg.cells.drawing import make_readable
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop
from cellseg.errors import ImageReadError
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.error_kinds import KIND_SENTENCES
from cellseg.evaluation.error_list import ERROR_SENTENCES, ERROR_WORDS
from cellseg.evaluation.scoring import Comparisons
from cellseg.report import measures
from cellseg.report.page import render
from markupsafe import Markup
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cellseg.report.results import DatasetResult  # reads datasets, and so needs the engine

MAX_SIDE_PX = 700
_JPEG_QUALITY = 85

WORDS = ERROR_WORDS | {"correct": "correct"}

KIND_MEANING = KIND_SENTENCES | {measures.CONFUSED: ERROR_SENTENCES[measures.CONFUSED]}


@dataclass(frozen=True, eq=False)
class GalleryImage:
    """An image of the gallery.

    Attributes:
        number: its own within the page.
        name, path: of the image.
        score: its AP.
        cells: its true and predicted cells, compared.
        page: number of the plane where it is one of a stack.
    """

    number: int
    name: str
    path: Path
    score: float
    cells: Comparison
    page: int | None = None


def draw_gallery(
    result: DatasetResult,
    kept: Comparisons,
    numbers: Iterator[int],
    *,
    max_images: int,
    read: Callable[..., NDArray[Any]],
) -> Markup:
    """The gallery of one dataset.

    Args:
        result: true and predicted cells of the images.
        kept: their comparisons with the detections that count as cells.
        numbers: gives every image its own number within the page.
        max_images: at most so many are shown, the worst of them first.
        read: file to image [H, W] or [H, W, C]; raises ImageReadError where it cannot.
    """
    scores = kept.metrics_by_image(["ap_dsb"])["ap_dsb"].tolist()
    order = sorted(range(len(scores)), key=lambda k: (scores[k], result.images[k].name))
    cards = []
    for k, number in zip(measures.choose_images(order, max_images), numbers):
        image, cells = result.images[k], kept.images[k].counted
        card = GalleryImage(number, image.name, image.path, scores[k], cells, image.page)
        cards.append(draw_card(card, result.classes, read))
    return render(
        "gallery", cards=cards, images=len(order), classes=result.classes,
        kinds=shown_kinds(result.classes), words=WORDS, meaning=KIND_MEANING,
    )  # fmt: skip


def shown_kinds(classes: Sequence[str]) -> list[str]:
    """The kinds of errors that there can be: classes are confused where there are several."""
    return [k for k in measures.ERROR_KINDS if k != measures.CONFUSED or len(classes) > 1]


def draw_card(
    image: GalleryImage, classes: Sequence[str], read: Callable[..., NDArray[Any]]
) -> Markup:
    """HTML of one image: name, score, errors, the two pictures.

    An image that cannot be read any more leaves its outlines on grey and a line that says so.

    Args:
        image: the image and its cells.
        classes: names of the classes, shown where there are several.
        read: file to image [H, W] or [H, W, C].
    """
    problem, bright, picture = "", False, ""
    try:
        picture, bright = encode_picture(
            read(image.path) if image.page is None else read(image.path, page=image.page)
        )
    except ImageReadError as error:
        problem = str(error)
    true, pred, kinds = (
        image.cells.true.cells,
        image.cells.pred.cells,
        measures.find_kinds(image.cells),
    )
    sides = (("true", true, kinds.true), ("predicted", pred, kinds.pred))
    height, width = true.image_hw
    return render(
        "card", number=image.number, name=image.name, score=image.score, bright=bright,
        picture=picture, problem=problem, height=height, width=width, words=WORDS,
        counts={kind: count for kind, count in kinds.counts.items() if count},
        tokens=_error_tokens(sides), panels=[_describe_panel(*side, classes) for side in sides],
    )  # fmt: skip


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
        crop: bool [h, w], True in the cell.
        offset_rc: (row, column) of the crop's first pixel in the image.

    Returns:
        Path data in image pixels; "" for a cell without a pixel.

    Example:
        A cell of two rows and three columns:

        >>> outline_path(np.ones((2, 3), bool), (10, 20))
        'M20.5 10.5l0 1 2 0 0 -1z'
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


def _describe_panel(
    side: str, cells: CellInstances, kinds: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """What the template shows of the true or the predicted cells."""
    what = f"{side} cell" if len(cells) == 1 else f"{side} cells"
    found = ", ".join(f"{kinds.count(kind)} {WORDS[kind]}" for kind in WORDS if kind in kinds)
    return {
        "label": f"{len(cells)} {what}{': ' if found else ''}{found}",
        "caption": f"{len(cells):,} {what}",
        "outlines": list(_describe_outlines(cells, kinds, classes, side == "predicted")),
    }


def _describe_outlines(
    cells: CellInstances, kinds: Sequence[str], classes: Sequence[str], scored: bool
) -> Iterator[dict[str, Any]]:
    """Paths of all cells, correct ones first, so that errors lie in front."""
    areas = cells.areas_px
    for k in sorted(range(len(cells)), key=lambda k: kinds[k] != "correct"):
        number = int(cells.classes[k])
        name = f", {classes[number]}" if len(classes) > 1 else ""
        tail = f", score {cells.scores[k]:.2f}" if scored else ""
        yield {
            "kind": kinds[k],
            "number": number,
            "path": outline_path(cells.crops[k], cells.offsets_rc[k].tolist()),
            "text": f"{WORDS[kinds[k]]}{name}, {int(areas[k]):,} px²{tail}",
        }


def _error_tokens(sides: Sequence[tuple[str, CellInstances, Sequence[str]]]) -> list[str]:
    """ "class:kind" of every kind of error and class in the image, "class:" of classes."""
    pairs = {pair for _, cells, kinds in sides for pair in zip(cells.classes.tolist(), [*kinds])}
    return sorted({f"{number}:{kind}" for number, kind in pairs} | {f"{n}:" for n, _ in pairs})
