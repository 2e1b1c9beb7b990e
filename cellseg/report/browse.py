"""The images of a data set from the worst to the best, with filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation.scoring import score
from cellseg.report import measures
from cellseg.report.gallery import KIND_MEANING, WORDS, GalleryImage, draw_card
from cellseg.report.results import DatasetResult
from numpy.typing import NDArray


def draw_gallery(
    result: DatasetResult,
    selection: DetectionThresholds,
    *,
    max_images: int,
    first_number: int,
    read: Callable[[Path], NDArray[Any]],
) -> tuple[str, int]:
    """Images from the worst to the best, with filters; the HTML and how many are in it."""
    scores = []
    for true, pred in result.counted_pairs(selection):
        figures = score([true], [pred], ["ap_dsb", "f1@0.50"])
        scores.append((figures["ap_dsb"], figures["f1@0.50"]))
    order = sorted(range(len(scores)), key=lambda k: (scores[k], result.images[k].name))
    chosen = measures.choose_images(order, max_images)
    cards = []
    for position, k in enumerate(chosen):
        image, pred = result.images[k], result.images[k].predicted(selection)
        card = GalleryImage(
            first_number + position, image.name, image.path, scores[k][0], image.true, pred,
            measures.find_kinds(image.true, pred),
        )  # fmt: skip
        cards.append(draw_card(card, result.classes, read))
    some = ""
    if len(chosen) < len(order):
        some = (
            f" Of {len(order):,} images {len(chosen):,} are shown: the worst, and others evenly "
            "from the rest (--max-images)."
        )
    body = (
        '<div class="browse"><p>From the worst image to the best, by its AP (ap_dsb); true cells '
        f"beside predicted ones.{some}</p>{_legend(len(result.classes) > 1)}"
        f'{_controls(result.classes)}<div class="gallery">{"".join(cards)}</div></div>'
    )
    return body, len(chosen)


def _legend(several_classes: bool) -> str:
    entries = [
        f'<li><svg viewBox="0 0 46 18" aria-hidden="true"><path class="cell {kind}" d="M5 9h36"/>'
        f"</svg><b>{WORDS[kind]}</b>: {meaning}</li>"
        for kind, meaning in KIND_MEANING.items()
        if several_classes or kind != measures.CONFUSED
    ]
    return f'<ul class="kinds">{"".join(entries)}</ul>'


def _controls(classes: Sequence[str]) -> str:
    kinds = [k for k in measures.ERROR_KINDS if len(classes) > 1 or k != measures.CONFUSED]
    options = "".join(f'<option value="{kind}">{WORDS[kind]}</option>' for kind in kinds)
    group = ""
    if len(classes) > 1:
        names = "".join(f'<option value="{k}">{escape(c)}</option>' for k, c in enumerate(classes))
        group = (
            '<label>Class <select data-role="class"><option value="">all</option>'
            f"{names}</select></label>"
        )
    return (
        '<div class="controls" hidden><label>Errors <select data-role="kind">'
        f'<option value="">all</option>{options}</select></label>{group}'
        '<label><input type="checkbox" data-role="correct" checked> outline correct cells</label>'
        '<span class="soft" data-role="status" role="status"></span></div>'
    )
