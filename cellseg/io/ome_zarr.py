"""OME-Zarr (https://ngff.openmicroscopy.org): label images beside their image, as a pyramid.

    <root>/<split>/<id>.ome.zarr/         or <id>.zarr: an image of version 0.4 or 0.5
        0, 1, ...                         the image, every level half as large as the one before
        labels/cells/0, 1, ...            0 is background, every other value one cell

The class and the score of a cell are `class` and `score` among the `properties` of `image-label`;
where one class is declared, cells without are of it. `labels: nuclei` reads labels of another name.
Only two-dimensional labels are cells: further axes have to be of length 1. A pixel has one label:
of cells that overlap the one with the higher score keeps it, and regions of uncounted cells are not
written.

Predictions are written as `<id>.ome.zarr`, version 0.4 (Zarr 2, which QuPath and older readers
take) unless 0.5 is asked for, with the image where it is given. Needs the package `zarr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import label_image_to_runs
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, LabelError
from cellseg.files import write_whole_folder
from cellseg.images.listing import PassedOver
from cellseg.io.base import (
    CLASSES,
    EMPTY_IMAGES,
    FOLDER_NAME,
    HOLES,
    SCORES,
    FileFormat,
    Problems,
    WriteRecord,
    find_split_folder,
    list_files,
    read_all,
    stem_of,
    tell_passed_over,
)
from cellseg.io.checks import check_file_name
from cellseg.io.ome_zarr_writing import LABELS, PREDICTION, load_zarr, write_ome_zarr
from cellseg.io.per_image import classes_of_cells
from cellseg.json_text import read_json

SUFFIXES = (".ome.zarr", ".zarr")


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of the OME-Zarrs in a folder; see `cellseg.io.read_records`."""
    load_zarr()
    folder = find_split_folder(root, split)
    paths = _find_images(folder)
    if not paths:
        raise DatasetError(f"{folder}: no OME-Zarr in it, expected folders {' or '.join(SUFFIXES)}")

    def read_one(path: Path) -> ImageRecord | Problems:
        try:
            cells = read_image_cells(path, classes, str(options.get("labels", LABELS)))
        except (DatasetError, LabelError) as error:
            text = str(error)
            return Problems([text if str(path) in text else f"{path}: {text}"])
        if isinstance(cells, Problems):
            return cells
        return ImageRecord(stem_of(path, SUFFIXES), cells, path)

    return read_all(paths, read_one, folder)


def _find_images(folder: Path) -> list[Path]:
    found = list_files(folder, SUFFIXES)
    files = [PassedOver(path, "a file; expected a folder") for path in found if path.is_file()]
    tell_passed_over(folder, files)
    return [path for path in found if path.is_dir()]


def read_image_cells(
    path: Path, classes: tuple[str, ...] = ("cell",), labels: str = LABELS
) -> CellInstances | Problems:
    """The cells of an OME-Zarr, in the order of their labels.

    Args:
        path: the folder.
        classes: declared names; of one alone, cells without a name are too.
        labels: name of the labels.

    Returns:
        The cells, or what is wrong with their classes.

    Raises:
        DatasetError: there are no such labels, or they cannot be read.
        LabelError: they are no label image.
    """
    place = path / "labels" / labels
    attributes = _read_attributes(place)
    array = _read_array(place, attributes)
    ids, runs = label_image_to_runs(array)
    by_label = _properties_of(place, attributes)
    own = [by_label.get(label, {}) for label in ids.tolist()]
    named = [(f"label {label}", one.get("class")) for label, one in zip(ids.tolist(), own)]
    numbers, unknown = classes_of_cells(named, classes, "`class` of image-label's properties")
    if unknown:
        return Problems(f"{place}: {text}" for text in unknown)
    height, width = array.shape
    scores = [_score_of(place, one) for one in own]
    return CellInstances.from_runs(runs, len(ids), (height, width), classes=numbers, scores=scores)


def _read_attributes(place: Path) -> dict[str, Any]:
    """The metadata of labels, in the form of version 0.4."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = read_json(place / name)
            if name == "zarr.json":
                content = content["attributes"]["ome"]
            if isinstance(content, dict):
                return content
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{place / name}: no metadata of OME-Zarr: {error!r}") from error
    there = sorted(one.name for one in place.parent.glob("*/")) if place.parent.is_dir() else []
    raise DatasetError(
        f"{place}: no labels there; the image has {', '.join(there) or 'none'}. `labels: NAME` in "
        "the declaration reads others"
    )


def _read_array(place: Path, attributes: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The label image in full resolution."""
    try:
        name = str(attributes["multiscales"][0]["datasets"][0]["path"])
        array = load_zarr().open_array(str(place / name), mode="r")
        leading = array.shape[:-2]
        if array.ndim < 2 or any(length != 1 for length in leading):
            raise DatasetError(f"{place}: labels of shape {list(array.shape)}; expected [H, W]")
        return np.asarray(array[(0,) * len(leading)])
    except DatasetError:
        raise
    except Exception as error:  # damaged chunks and metadata raise nearly anything
        raise DatasetError(f"{place}: the labels cannot be read: {error!r}") from error


def _properties_of(place: Path, attributes: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """What is said of each label; nothing where there are no properties."""
    try:
        listed = attributes.get("image-label", {}).get("properties") or []
        return {int(one["label-value"]): one for one in listed}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{place}: image-label without label-value: {error!r}") from error


def _score_of(place: Path, properties: Mapping[str, Any]) -> float:
    score = properties.get("score", 1.0)
    if not isinstance(score, (int, float)) or not np.isfinite(score):
        raise DatasetError(f"{place}: the score is {score!r}, expected a number")
    return float(score)


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of classes in the properties of labels, sorted."""
    names = set()
    for path in _find_images(find_split_folder(root, split)):
        place = path / "labels" / str(options.get("labels", LABELS))
        found = _properties_of(place, _read_attributes(place)).values()
        names |= {str(one["class"]) for one in found if one.get("class")}
    return tuple(sorted(names))


@contextmanager
def open_predictions(folder: Path, classes: tuple[str, ...]) -> Iterator[WriteRecord]:
    """Write `<id>.ome.zarr` for each image; see `FileFormat.open_predictions`."""
    load_zarr()

    def write(record: ImageRecord) -> None:
        check_file_name(record)
        with write_whole_folder(folder / f"{record.image_id}{SUFFIXES[0]}") as partial:
            write_ome_zarr(record, partial, classes)

    yield write


FORMAT = FileFormat(
    read_split,
    options={"labels": FOLDER_NAME},
    open_predictions=open_predictions,
    prediction=PREDICTION,
    holds=frozenset((CLASSES, SCORES, HOLES, EMPTY_IMAGES)),
    find_classes=find_classes,
    code=read_image_cells,
)
