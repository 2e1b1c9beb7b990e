"""The colours of cells that are corrected: what is open, and of which class the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.cells.drawing import class_colour
from cellseg.cells.instances import CellInstances
from cellseg.corrections import FOUND
from napari.utils.colormaps import DirectLabelColormap, ensure_colormap
from numpy.typing import NDArray

NEW_CELL = (1.0, 1.0, 1.0, 1.0)
"""Of a label that is being painted, and not a cell yet."""
BACKGROUND = (0.0, 0.0, 0.0, 0.0)


def colour_states(
    cells: CellInstances, ids: NDArray[Any], states: Sequence[str]
) -> DirectLabelColormap:
    """Open cells have the colour of their score, dark blue to yellow, the others their class's.

    Args:
        cells: N cells.
        ids: [N], their labels.
        states: of each, see `CorrectedImage.states`.
    """
    colours = ensure_colormap("viridis").map(np.asarray(cells.scores, float))
    for k, state in enumerate(states):
        if state != FOUND:
            colours[k, :3] = np.array(class_colour(int(cells.classes[k]))) / 255
    table: dict[int | None, Any] = {None: NEW_CELL, 0: BACKGROUND}
    table.update(zip(ids.tolist(), colours))
    return DirectLabelColormap(color_dict=table)
