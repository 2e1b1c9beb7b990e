"""Detections that were not sure enough to be cells, kept beside, so that a click can take one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.corrections.masks import Canvas, Mask, window_of
from cellseg.errors import CorrectionError, LabelError
from cellseg.files import write_whole
from cellseg.json_text import read_json

NAME = "cellseg candidates of an image"


def write_candidates(path: Path, cells: CellInstances) -> None:
    """Write detections, whole or not at all; those of before go: a model finds them again."""
    content = {
        "format": NAME,
        "image_hw": list(cells.image_hw),
        "scores": cells.scores.tolist(),
        "classes": cells.classes.tolist(),
        "masks": [rle["counts"] for rle in cells.to_rles()],
    }
    try:
        with write_whole(path) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise CorrectionError(f"{path}: cannot be written: {reason}") from error


def read_candidates(path: Path, image_hw: tuple[int, int]) -> CellInstances:
    """What `write_candidates` wrote; no cells where nothing was.

    Raises:
        CorrectionError: it cannot be read, or is of an image of another size.
    """
    if not path.exists():
        return CellInstances.empty(image_hw)
    try:
        content: dict[str, Any] = read_json(path)
        rles = [{"size": content["image_hw"], "counts": text} for text in content["masks"]]
        return CellInstances.from_rles(
            rles, image_hw, scores=content["scores"], classes=content["classes"]
        )
    except (OSError, ValueError, KeyError, TypeError, LabelError) as error:
        raise CorrectionError(
            f"{path}: cannot be read as detections of an image of {image_hw[0]} x {image_hw[1]} "
            f"(rows x columns): {error}. Remove it, and find cells again"
        ) from error


def find_candidate(
    candidates: CellInstances, canvas: Canvas, row: int, column: int
) -> tuple[int, Mask] | None:
    """The best detection at a pixel that no cell has, and the pixels that are left for it.

    Of a detection that lies in cells by more than half nothing is given: it is one of them.

    Args:
        candidates: detections of the image.
        canvas: its cells.
        row, column: of the pixel; it need not lie in the image.
    """
    height, width = canvas.image_hw
    if not (0 <= row < height and 0 <= column < width) or canvas.labels[row, column]:
        return None
    x0, y0, x1, y1 = candidates.boxes_xyxy.T
    near = np.flatnonzero((x0 <= column) & (column < x1) & (y0 <= row) & (row < y1))
    for number in near[np.argsort(-candidates.scores[near], kind="stable")].tolist():
        top, left = candidates.offsets_rc[number].tolist()
        mask = (candidates.crops[number], (top, left))
        window = window_of(mask)
        inside = window.top <= row < window.bottom and window.left <= column < window.right
        if not inside or not mask[0][row - top, column - left]:
            continue
        free = canvas.free_part(mask)
        if 2 * np.count_nonzero(free[0]) >= np.count_nonzero(mask[0]):
            return number, free
    return None
