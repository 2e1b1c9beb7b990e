"""Layers and cells: the one place where labels of napari become cells, and cells become labels.

A Labels layer of cells has in its features one row per cell: `index`, the label, by which napari
finds the row of what is under the cursor; `class`, the name; `score`; and the cell's size. The
names of all classes, in the model's order, stand in the layer's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from cellseg.cells.drawing import class_colour
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, labels_that_occur
from cellseg.errors import LabelError
from cellseg.io.label_stacks import LabelStack
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image, Labels, Layer

INDEX, CLASS, SCORE, AREA_PX, AREA_UM2 = "index", "class", "score", "area_px", "area_um2"
METADATA = "cellseg"
"""Key of a layer's metadata: a dict; its "classes" are the names of the classes."""
MICROMETRE = "um"
NO_CLASSES = ("cell",)
COLOUR_BY = ("cell", "class", "score")
"""What the colours of labels can show: one cell from the next, its class, or its score."""

_DARKEST_SCORE = 0.5

LayerData = tuple[Any, dict[str, Any], str]


class LayerCells(NamedTuple):
    """Cells of a plane of a layer.

    Attributes:
        cells: in the order of their labels.
        ids: int64 [N], the label of each.
        classes: names of the classes.
    """

    cells: CellInstances
    ids: IntArray
    classes: tuple[str, ...]


def cells_to_layer(
    cells: CellInstances,
    classes: Sequence[str],
    name: str,
    *,
    ids: IntArray | None = None,
    pixel_size_um: tuple[float, float] | None = None,
) -> LayerData:
    """A Labels layer with cells, as napari's readers give it.

    Args:
        cells: where they overlap the one with the higher score has the pixel.
        classes: names of the classes.
        name: of the layer.
        ids: [N], the label of each cell, from 1; by default k + 1 for cell k.
        pixel_size_um: (height, width) of a pixel; None where it is not known.

    Returns:
        Label image, arguments of the layer, "labels". `viewer._add_layer_from_data`, or
        `viewer.add_labels(data, **arguments)` takes them.
    """
    ids = number_cells(cells) if ids is None else ids
    arguments = {
        "name": name,
        "features": cells_to_features(cells, classes, ids=ids, pixel_size_um=pixel_size_um),
        "metadata": {METADATA: {"classes": tuple(classes)}},
        **scale_arguments(pixel_size_um),
    }
    return draw_labels(cells, ids), arguments, "labels"


def number_cells(cells: CellInstances) -> IntArray:
    """The labels that cells have where nobody gave them others: k + 1."""
    return np.arange(1, len(cells) + 1)


def draw_labels(cells: CellInstances, ids: IntArray) -> NDArray[np.int32]:
    """The label image, int32 [H, W], in which cell k is `ids[k]`."""
    table = np.concatenate([[0], ids]).astype(np.int32)
    return table[cells.to_label_image()]


def cells_to_features(
    cells: CellInstances,
    classes: Sequence[str],
    *,
    ids: IntArray | None = None,
    pixel_size_um: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """The table of a Labels layer: one row per cell; area in µm² where it is known.

    Args:
        cells, classes, ids, pixel_size_um: as in `cells_to_layer`.

    Raises:
        LabelError: a cell's class has no name.
    """
    import pandas as pd

    if len(cells) and int(cells.classes.max()) >= len(classes):
        raise LabelError(
            f"a cell is of class {int(cells.classes.max())} (0-based); there are "
            f"{len(classes)} classes: {', '.join(classes)}"
        )
    areas = cells.areas_px
    ids = number_cells(cells) if ids is None else ids
    columns = _feature_columns(ids, classes, cells.classes, cells.scores)
    columns[AREA_PX] = areas
    if pixel_size_um is not None:
        columns[AREA_UM2] = (areas * pixel_size_um[0] * pixel_size_um[1]).round(3)
    return pd.DataFrame(columns)


def _feature_columns(
    ids: IntArray, classes: Sequence[str], numbers: IntArray, scores: NDArray[Any]
) -> dict[str, Any]:
    return {INDEX: ids, CLASS: np.asarray(classes, object)[numbers], SCORE: scores.round(4)}


def stack_to_layer(stack: LabelStack) -> LayerData:
    """A Labels layer of several planes; `cells_to_layer` says what it is."""
    import pandas as pd

    table = stack.table
    arguments = {
        "name": f"cells of {stack.image_id}",
        "features": pd.DataFrame(
            _feature_columns(stack.ids, table.classes, table.numbers, table.scores)
        ),
        "metadata": {METADATA: {"classes": table.classes}},
        **scale_arguments(stack.pixel_size_um, stack.labels.ndim - 2),
    }
    return stack.labels, arguments, "labels"


def layer_to_cells(
    layer: Labels, *, classes: Sequence[str] | None = None, plane: tuple[int, ...] = ()
) -> LayerCells:
    """The cells of a Labels layer, with what its features say of them.

    Args:
        layer: labels without a row, or without a class or score in it, get the first class and
            score 1, as those that were just painted.
        classes: names of the classes; by default those of the layer.
        plane: index along the axes before rows and columns, see `current_plane`.

    Raises:
        LabelError: a class that is not among `classes`, or an index of no plane.
    """
    names = tuple(classes) if classes is not None else classes_of(layer.metadata, layer.features)
    return labels_to_cells(plane_of(layer, plane), layer.features, names)


def labels_to_cells(
    labels: NDArray[Any], features: pd.DataFrame, classes: Sequence[str]
) -> LayerCells:
    """The cells of a label image [H, W] with such a table; see `layer_to_cells`."""
    cells = CellInstances.from_label_image(labels)
    ids = labels_that_occur(labels)
    names = tuple(classes)
    numbers, scores = classes_and_scores(ids, features, names)
    return LayerCells(cells.replace(classes=numbers, scores=scores), ids, names)


def classes_and_scores(
    ids: IntArray, features: pd.DataFrame, classes: tuple[str, ...]
) -> tuple[IntArray, NDArray[np.float32]]:
    """Class (0-based) and score of each label, [N], by a table; see `layer_to_cells`."""
    rows = _rows_of(features, ids)
    return _classes(rows, classes), _scores(rows)


def classes_of_layer(layer: Layer) -> tuple[str, ...]:
    """Names of the classes of a layer; see `classes_of`."""
    return classes_of(layer.metadata, layer.features)


def classes_of(metadata: Mapping[str, Any], features: pd.DataFrame) -> tuple[str, ...]:
    """Names of the classes: those in the metadata, else those in the features, sorted."""
    noted = metadata.get(METADATA, {}).get("classes")
    if noted:
        return tuple(noted)
    if CLASS in features:
        found = sorted(set(features[CLASS].dropna().astype(str)) - {""})
        return tuple(found) or NO_CLASSES
    return NO_CLASSES


def _rows_of(features: pd.DataFrame, ids: IntArray) -> pd.DataFrame:
    """The row of each label; NaN where there is none."""
    keyed = features.set_index(INDEX) if INDEX in features else features
    return keyed[~keyed.index.duplicated()].reindex(ids)


def _classes(rows: pd.DataFrame, names: tuple[str, ...]) -> IntArray:
    if CLASS not in rows:
        return np.zeros(len(rows), np.int64)
    found = rows[CLASS].where(rows[CLASS].notna(), names[0]).astype(str)
    if unknown := sorted(set(found) - {*names, ""}):
        raise LabelError(f"class {unknown[0]!r} of the layer; there are {', '.join(names)}")
    places = {"": 0, **{name: k for k, name in enumerate(names)}}
    return np.array([places[name] for name in found], np.int64)


def _scores(rows: pd.DataFrame) -> NDArray[np.float32]:
    if SCORE not in rows:
        return np.ones(len(rows), np.float32)
    return rows[SCORE].astype(float).fillna(1.0).to_numpy(np.float32)


def plane_of(layer: Layer, plane: tuple[int, ...] = ()) -> NDArray[Any]:
    """The pixels of one plane: [H, W], of RGB images [H, W, 3].

    Args:
        layer: of images or labels; of a pyramid the finest level is taken.
        plane: index along the axes before rows and columns.

    Raises:
        LabelError: an index of no plane.
    """
    return np.asarray(lazy_plane(layer, plane))


def lazy_plane(layer: Layer, plane: tuple[int, ...]) -> Any:
    """`plane_of` without reading pixels, where the layer's data are lazy."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    lengths = data.shape[: layer.ndim - 2]
    if len(plane) != len(lengths) or any(not 0 <= at < n for at, n in zip(plane, lengths)):
        raise LabelError(
            f"layer {layer.name!r} has no plane {list(plane)}; its planes are {list(lengths)}"
        )
    return data[tuple(plane)]


def current_plane(layer: Layer, point: Sequence[float]) -> tuple[int, ...]:
    """Index of the plane that is looked at, along the layer's axes before rows and columns.

    Args:
        layer: any layer of the viewer.
        point: `viewer.dims.point`.
    """
    own = np.asarray(point, float)[-layer.ndim :]
    at = np.round(layer.world_to_data(own)[: layer.ndim - 2]).astype(int)
    lengths = layer.extent.data[1][: layer.ndim - 2].round().astype(int) + 1
    return tuple(int(one) for one in np.clip(at, 0, np.maximum(lengths - 1, 0)))


def pixel_size_um(layer: Layer) -> tuple[float, float] | None:
    """(height, width) of a pixel in micrometres; None where the layer is not in units of length."""
    return size_in_um(layer.scale, layer.units)


def size_in_um(scale: Sequence[float], units: Sequence[Any]) -> tuple[float, float] | None:
    """(height, width) of a pixel in micrometres, of a layer's scale and units; None as above."""
    sides = []
    for length, unit in zip(scale[-2:], units[-2:]):
        if not unit.is_compatible_with(MICROMETRE):
            return None
        sides.append(float((float(length) * unit).to(MICROMETRE).magnitude))
    return sides[0], sides[1]


def scale_arguments(pixel_size_um: tuple[float, float] | None, leading: int = 0) -> dict[str, Any]:
    """`scale` and `units` of a layer; none where nothing is known.

    Args:
        pixel_size_um: (height, width) of a pixel, or None.
        leading: axes before rows and columns.
    """
    if pixel_size_um is None:
        return {}
    return {
        "scale": (1.0,) * leading + tuple(pixel_size_um),
        "units": ("pixel",) * leading + (MICROMETRE,) * 2,
    }


def placed_like(
    layer: Image | Labels, offset_rc: Sequence[int] = (0, 0), plane: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Arguments that put a layer onto another one.

    Args:
        layer: the other one.
        offset_rc: (row, column) in it of the new layer's first pixel.
        plane: where it lies along the other's axes before rows and columns. The new layer has
            these axes too, with length 1; without it, it has rows and columns only.
    """
    number = len(plane) + 2
    scale, translate = layer.scale[-number:], layer.translate[-number:]
    return {
        "scale": tuple(scale),
        "translate": tuple(translate + scale * np.array([*plane, *offset_rc], float)),
        "units": tuple(layer.units[-number:]),
    }


def colour_cells(layer: Labels, by: str, features: pd.DataFrame | None = None) -> None:
    """Colour the cells of a layer by what its features say.

    Args:
        layer: its labels.
        by: one of `COLOUR_BY`. Classes have the colours that they have in cellseg's pictures;
            scores go from dark blue, 0.5 and less, to yellow, 1.
        features: of all cells that the layer may come to show; by default its own.
    """
    from napari.utils.colormaps import DirectLabelColormap, label_colormap

    features = layer.features if features is None else features
    if by == "cell" or by not in features or INDEX not in features:
        layer.colormap = label_colormap(49)
        return
    if by == CLASS:
        colours = class_colours(_classes(features, classes_of_layer(layer)))
    else:
        colours = score_colours(_scores(features))
    table: dict[int | None, Any] = {None: (0.6, 0.6, 0.6, 1.0), 0: (0.0, 0.0, 0.0, 0.0)}
    table.update(zip(features[INDEX].tolist(), colours))
    layer.colormap = DirectLabelColormap(color_dict=table)


def score_colours(scores: NDArray[Any]) -> NDArray[Any]:
    """RGBA [N, 4] in 0 to 1: from dark blue, a score of 0.5 and less, to yellow, 1."""
    from napari.utils.colormaps import ensure_colormap

    share = ((np.asarray(scores, float) - _DARKEST_SCORE) / (1 - _DARKEST_SCORE)).clip(0, 1)
    colours: NDArray[Any] = ensure_colormap("viridis").map(share)
    return colours


def class_colours(classes: NDArray[Any]) -> NDArray[Any]:
    """RGBA [N, 4] in 0 to 1: those that classes have in cellseg's pictures."""
    rgb = np.array([class_colour(int(k)) for k in classes], float).reshape(-1, 3) / 255
    return np.column_stack([rgb, np.ones(len(rgb))])
