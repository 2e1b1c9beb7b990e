"""File > Save Selected Layers: labels as a label image, ROIs, GeoJSON or COCO's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cellseg.cells.labels import labels_that_occur
from cellseg.errors import CellsegError, LabelError
from cellseg.io.label_stacks import LabelStack, write_single_stack
from cellseg.io.label_tables import LabelTable
from cellseg.io.single_files import CellsOfFile, write_single_file
from cellseg.napari.background import tell_error
from cellseg.napari.layers import classes_and_scores, classes_of, labels_to_cells, size_in_um
from numpy.typing import NDArray


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer with its classes and scores, as npe2 asks for it.

    Args:
        path: its ending says what is written, see `cellseg.io.single_files`.
        data: label image, [H, W], or as TIFF a stack of them, [T, H, W]; axes of length 1 before
            do not count.
        attributes: of the layer.

    Returns:
        The files; none where an error was told.
    """
    try:
        features = pd.DataFrame(attributes.get("features", {}))
        classes = classes_of(attributes.get("metadata", {}), features)
        size_um = None
        if attributes.get("units") is not None:
            size_um = size_in_um(attributes["scale"], attributes["units"])
        name = str(attributes["name"]).removeprefix("cells of ")
        labels = _without_single_axes(np.asarray(data))
        if labels.ndim == 2:
            found = labels_to_cells(labels, features, classes)
            cells = CellsOfFile(name, found.cells, found.ids, classes)
            written = write_single_file(cells, Path(path), size_um)
        else:
            _check_stack(labels, name, path)
            ids = labels_that_occur(labels)
            table = LabelTable(classes, *classes_and_scores(ids, features, classes))
            stack = LabelStack(name, labels, ids, table, size_um)
            written = write_single_stack(stack, Path(path))
        return [str(one) for one in written]
    except CellsegError as error:
        tell_error(error)
        return []


def _without_single_axes(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels [..., H, W] without those axes of length 1 that come before rows and columns."""
    kept = [length for length in labels.shape[:-2] if length != 1]
    return labels.reshape((*kept, *labels.shape[-2:]))


def _check_stack(labels: NDArray[Any], name: str, path: str) -> None:
    """Refuse what the files do not hold.

    Raises:
        LabelError: more axes than one of planes, or a file of the cells of one image.
    """
    planes = list(labels.shape[:-2])
    if len(planes) > 1:
        raise LabelError(
            f"layer {name!r} has {' x '.join(map(str, planes))} planes; a label image has one axis "
            "of planes at most. Save it with napari's own writer of TIFF"
        )
    if not path.lower().endswith((".tif", ".tiff")):
        raise LabelError(
            f"{path}: holds the cells of one image; layer {name!r} has {planes[0]} planes. Save it "
            "as .tif"
        )
