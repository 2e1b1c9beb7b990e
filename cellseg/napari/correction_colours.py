"""The colours of cells that are corrected: what is open, and of which class the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.corrections import FOUND
from cellseg.napari.layers import class_colours, score_colours
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

NEW_CELL = (1.0, 1.0, 1.0, 1.0)
"""Of a label that is being painted, and not a cell yet."""
BACKGROUND = (0.0, 0.0, 0.0, 0.0)


def colour_states(
    cells: CellInstances, ids: NDArray[Any], states: Sequence[str]
) -> DirectLabelColormap:
    """Open cells have the colour of their score, the others that of their class.

    Args:
        cells: N cells.
        ids: [N], their labels.
        states: of each, see `CorrectedImage.states`.
    """
    is_open = np.array([state == FOUND for state in states], bool)[:, None]
    colours = np.where(is_open, score_colours(cells.scores), class_colours(cells.classes))
    table: dict[int | None, Any] = {None: NEW_CELL, 0: BACKGROUND}
    table.update(zip(ids.tolist(), colours))
    return DirectLabelColormap(color_dict=table)
