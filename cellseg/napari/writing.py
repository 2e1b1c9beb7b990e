"""File > Save Selected Layers: labels as a label image, ROIs, GeoJSON or COCO's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cellseg.errors import CellsegError, LabelError
from cellseg.io.single_files import CellsOfFile, write_single_file
from cellseg.napari.background import tell_error
from cellseg.napari.layers import classes_of, labels_to_cells, size_in_um


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer with its classes and scores, as npe2 asks for it.

    Args:
        path: its ending says what is written, see `cellseg.io.single_files`.
        data: label image, [H, W] or with axes of length 1 before.
        attributes: of the layer.

    Returns:
        The files; none where an error was told.
    """
    try:
        features = pd.DataFrame(attributes.get("features", {}))
        classes = classes_of(attributes.get("metadata", {}), features)
        found = labels_to_cells(_one_plane(data, attributes["name"]), features, classes)
        size_um = None
        if attributes.get("units") is not None:
            size_um = size_in_um(attributes["scale"], attributes["units"])
        name = str(attributes["name"]).removeprefix("cells of ")
        cells = CellsOfFile(name, found.cells, found.ids, classes)
        return [str(one) for one in write_single_file(cells, Path(path), size_um)]
    except CellsegError as error:
        tell_error(error)
        return []


def _one_plane(data: Any, name: str) -> np.ndarray:
    """The label image [H, W] of a layer that has one only."""
    labels = np.asarray(data)
    if any(length > 1 for length in labels.shape[:-2]):
        raise LabelError(
            f"layer {name!r} has {list(labels.shape[:-2])} planes; these files hold the cells of "
            "one. Save it with napari's own writer of TIFF"
        )
    return labels.reshape(labels.shape[-2:])
