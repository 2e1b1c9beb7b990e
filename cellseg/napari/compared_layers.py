"""Two layers of labels, compared: the metrics, and every error with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.error_list import CellError, list_errors
from cellseg.evaluation.scoring import DEFAULT_METRICS
from cellseg.evaluation.tables import Sides, evaluate
from cellseg.napari.layers import (
    NO_CLASSES,
    LayerCells,
    classes_of_layer,
    draw_labels,
    layer_to_cells,
)
from napari.layers import Labels
from numpy.typing import NDArray


class Place(NamedTuple):
    """An error, and the plane that it is in.

    Attributes:
        plane: index along the axes before rows and columns.
        error: in it.
        true, pred: labels of its true and of its predicted cells.
    """

    plane: tuple[int, ...]
    error: CellError
    true: list[int]
    pred: list[int]


@dataclass(frozen=True, eq=False)
class Compared:
    """What a comparison gives.

    Attributes:
        found: as `evaluation.tables.evaluate` gives it.
        places: the errors, plane by plane.
        labels: int32 like the layers, error k is k + 1.
    """

    found: dict[str, Any]
    places: list[Place]
    labels: NDArray[np.int32]


def shape_of(layer: Labels) -> tuple[int, ...]:
    """Lengths of a layer's axes, of a pyramid of its finest level."""
    return tuple((layer.data[0] if layer.multiscale else layer.data).shape)


def common_classes(layers: Sequence[Labels]) -> tuple[str, ...]:
    """The names of the classes of all layers; one where a layer has no classes."""
    names = [classes_of_layer(layer) for layer in layers]
    if NO_CLASSES in names:
        return NO_CLASSES
    return tuple(dict.fromkeys(name for several in names for name in several))


def check_layers(truth: Labels | None, prediction: Labels | None) -> None:
    """Check that two layers can be compared.

    Raises:
        LabelError: says why not.
    """
    if truth is None or prediction is None or truth is prediction:
        raise LabelError(
            "Compare takes two different layers of labels, the true cells and the predicted ones"
        )
    shapes = [shape_of(layer) for layer in (truth, prediction)]
    if shapes[0] != shapes[1]:
        sizes = [" x ".join(map(str, shape)) for shape in shapes]
        raise LabelError(
            f"the layers are of different sizes: {truth.name!r} has {sizes[0]} pixels, "
            f"{prediction.name!r} {sizes[1]}; expected two of one image"
        )


def frozen(layer: Labels) -> Labels:
    """A layer as it is now, which is of no viewer: it may be read while the other is painted."""
    data = layer.data[0] if layer.multiscale else layer.data
    copied = data.copy() if isinstance(data, np.ndarray) else data
    features, about = layer.features.copy(), dict(layer.metadata)
    return Labels(copied, name=layer.name, features=features, metadata=about)


def compare_layers(truth: Labels, prediction: Labels) -> Compared:
    """Compare two layers of one shape, each plane of them an image.

    Raises:
        LabelError: neither has a cell, or labels are no numbers of cells.
    """
    layers, classes = (truth, prediction), common_classes((truth, prediction))
    planes = list(product(*map(range, shape_of(truth)[:-2])))
    true, pred = ([_read_plane(layer, plane, classes) for plane in planes] for layer in layers)
    if not any(len(one.cells) for one in (*true, *pred)):
        raise LabelError(f"neither {truth.name!r} nor {prediction.name!r} has a cell")
    ids = [str(list(plane)) for plane in planes]
    sides = Sides(ids, [one.cells for one in true], [one.cells for one in pred], classes)
    places: list[Place] = []
    labels = np.zeros(shape_of(truth), np.int32)
    for plane, image, *cells in zip(planes, sides.compared.images, true, pred):
        errors = list_errors(image)
        labels[plane] = draw_errors(image, errors, len(places))
        places += [_place(plane, error, *cells) for error in errors]
    return Compared(evaluate(sides, DEFAULT_METRICS), places, labels)


def _read_plane(layer: Labels, plane: tuple[int, ...], classes: tuple[str, ...]) -> LayerCells:
    if classes != NO_CLASSES:
        return layer_to_cells(layer, classes=classes, plane=plane)
    found = layer_to_cells(layer, plane=plane)
    return found._replace(cells=found.cells.replace(classes=np.zeros(len(found.cells), np.int64)))


def _place(plane: tuple[int, ...], error: CellError, true: LayerCells, pred: LayerCells) -> Place:
    return Place(plane, error, true.ids[error.true].tolist(), pred.ids[error.pred].tolist())


def draw_errors(image: Comparison, errors: Sequence[CellError], first: int) -> NDArray[np.int32]:
    """The cells of each error, int32 [H, W]: error k is first + k + 1.

    Args:
        image: the comparison.
        errors: of it.
        first: how many errors there are in earlier planes.
    """
    parts, ids = [], [np.zeros(0, np.int64)]
    for number, error in enumerate(errors, first + 1):
        parts += [image.true.cells[error.true], image.pred.cells[error.pred]]
        ids.append(np.full(len(error.true) + len(error.pred), number))
    cells = CellInstances.concatenate(parts, image.true.cells.image_hw)
    return draw_labels(cells, np.concatenate(ids))
