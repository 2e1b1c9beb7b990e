"""ImageJ's ROI files, written ROI by ROI; `cellseg.io.imagej_rois` says what is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.polygons import crops_to_rings
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.cells.run_lengths import IntArray
from cellseg.errors import DatasetError
from cellseg.io.checks import cells_with_labels
from cellseg.io.outlines import score_to_text
from cellseg.io.roi_paths import rings_to_path

CLASS_PROPERTIES = ("qupath.object.classification", "class")
CROWD_PROPERTY, SCORE_PROPERTY = "crowd", "score"
POSITION_FIELDS = {"C": "c_position", "Z": "z_position", "T": "t_position"}
MAX_INTEGER = 32767  # of a ROI's 16-bit coordinates
MAX_GROUP = 255
ZIP_LEVEL = 1  # a ROI is a few hundred bytes
_OLDEST_ROIFILE = 2026


def load_roifile() -> ModuleType:
    """The package that reads and writes ROIs.

    Raises:
        DatasetError: it is not installed, or so old that it loses the classes of ROIs.
    """
    try:
        import roifile
    except ImportError as error:
        raise DatasetError(
            "ImageJ's ROIs are read and written by the package roifile, which is not installed: "
            "pip install roifile, or pip install 'cellseg[imagej]'"
        ) from error
    if int(roifile.__version__.partition(".")[0]) < _OLDEST_ROIFILE:
        raise DatasetError(
            f"roifile {roifile.__version__} loses the properties of ROIs, where classes are: "
            f"pip install 'roifile>={_OLDEST_ROIFILE}'"
        )
    return roifile


def write_image_cells(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the cells of one image as a RoiSet, named `<class>-<number>`.

    Args:
        record: an image and its cells, each with a pixel.
        path: the zip file; its folder is there.
        classes: class names; the number of a class is the ROIs' group, up to 255.
        options: not used.
    """
    _write_set(record, path, classes, lambda class_name, label: f"{class_name}-{label:04d}")


def write_predicted_cells(
    record: ImageRecord, path: Path, classes: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    """Write the predicted cells of one image as a RoiSet, each named by its label alone.

    Arguments as in `write_image_cells`.
    """
    _write_set(record, path, classes, lambda class_name, label: str(label))


def _write_set(
    record: ImageRecord, path: Path, classes: tuple[str, ...], name: Callable[[str, int], str]
) -> None:
    """One ROI per cell, in their order, with the position of the image's plane in its file."""
    position = _position_of(record.place)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=ZIP_LEVEL) as archive:
        for labels, cells in cells_with_labels(record, classes):
            outlines = crops_to_rings(cells.crops, cells.offsets_rc)
            for k, (label, rings) in enumerate(zip(labels, outlines)):
                class_name = classes[cells.classes[k]]
                roi = _make_roi(rings, cells, k, class_name, name(class_name, label))
                for key, value in position.items():
                    setattr(roi, key, value)
                # A fixed date, so that the same cells give the same file.
                info = zipfile.ZipInfo(roi.name.replace("/", "_") + ".roi")
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, roi.tobytes())


def _position_of(place: PlaceInFile) -> dict[str, int]:
    """ImageJ's positions, which count from 1: in a hyperstack, and in a stack of one axis."""
    position = {
        POSITION_FIELDS[axis]: number + 1
        for axis, number in place.position
        if axis in POSITION_FIELDS
    }
    if len(place.position) == 1:
        position["position"] = place.position[0][1] + 1
    return position


def _make_roi(
    rings: Sequence[IntArray], cells: CellInstances, k: int, class_name: str, name: str
) -> Any:
    """A traced outline; a composite where there are holes, pieces or very large coordinates."""
    roifile = load_roifile()
    points = np.concatenate(rings)
    low, high = points.min(axis=0), points.max(axis=0)
    group = int(cells.classes[k]) + 1
    roi = roifile.ImagejRoi(name=name, group=group if group <= MAX_GROUP else 0)
    (roi.left, roi.top), (roi.right, roi.bottom) = low.tolist(), high.tolist()
    roi.props = f"{CLASS_PROPERTIES[0]}: {class_name}\n"
    roi.props += f"{CROWD_PROPERTY}: true\n" if cells.is_crowd[k] else ""
    if cells.scores[k] != 1:
        roi.props += f"{SCORE_PROPERTY}: {score_to_text(cells.scores[k])}\n"
    if len(rings) == 1 and high.max() <= MAX_INTEGER:
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.integer_coordinates = (rings[0] - low).astype(np.int32)
        roi.n_coordinates = len(rings[0])
    else:
        roi.roitype = roifile.ROI_TYPE.RECT
        roi.multi_coordinates = rings_to_path(rings)
        roi.shape_roi_size = roi.multi_coordinates.size
    return roi
