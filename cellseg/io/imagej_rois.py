"""ImageJ's regions of interest (ROIs): one RoiSet per image. Needs the package `roifile`.

    <root>/<split>/images/<id>.png          png, jpg, tif or bmp
    <root>/<split>/rois/<id>.zip            a RoiSet as the ROI Manager saves it, or <id>.roi with
                                            a single ROI

Every ROI is a cell: polygon, freehand, traced, ellipse, rectangle, oval, or a composite of them
(holes, several pieces). Points, lines, texts, rounded rectangles and outlines with a spline fit are
errors. A pixel belongs to a cell if its centre lies inside the outline; what reaches beyond the
image is cut. An image without cells has a zip without ROIs; a missing file is an error, since a
forgotten one would look the same.

The class of a ROI is the first that it has of
- its property `qupath.object.classification` (which QuPath understands as well) or `class`,
- a declared class at the beginning of its name: alone, or before one of "-_ .:" as in `round-0012`,
- its group: 1 is the first of the declared classes.
Where one class is declared, ROIs without any of these are of it.

ROIs on several slices of a stack are an error, which names them: an image is one plane.

Outlines are written along the pixels' edges, so that they are read back exactly. The score of a
predicted cell is its property `score`, its name the number of its label and nothing else. A cell
with holes or of several pieces is one composite ROI.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import DatasetError
from cellseg.io.base import EVERYTHING, Problems
from cellseg.io.cell_file import CellFile
from cellseg.io.outlines import Outline, outlines_to_cells
from cellseg.io.per_image import format_of_files
from cellseg.io.roi_paths import path_to_rings
from cellseg.io.roi_writing import (
    CLASS_PROPERTIES,
    CROWD_PROPERTY,
    SCORE_PROPERTY,
    load_roifile,
    write_image_cells,
    write_predicted_cells,
)

SUFFIXES = (".zip", ".roi")
NAME_ENDS = "-_ .:"
MAX_ROI_BYTES = 64 * 2**20
OVAL_POINTS = 1024


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ("cell",),
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a RoiSet or of a single ROI's file, in its order.

    Args:
        path: the file.
        image_hw: (height, width) of the image, pixels.
        classes: declared names.
        options: not used.

    Returns:
        The cells, or what is wrong with the ROIs.

    Raises:
        DatasetError: the file cannot be read, or `roifile` is not installed.
    """
    problems, outlines = Problems(), []
    slices: dict[tuple[int, ...], str] = {}
    for name, roi in _read_rois(path):
        if any(_slice_of(roi)):
            slices.setdefault(_slice_of(roi), name)
        try:
            outlines.append(_to_outline(roi, name, classes))
        except DatasetError as error:
            problems.append(f"{path}: ROI {name}: {error}")
    if len(slices) > 1:
        problems.append(f"{path}: {_describe_slices(slices)}")
    where_from = "its property `class`, the beginning of its name, or its group"
    return outlines_to_cells(
        path, image_hw, outlines, classes, where_from=where_from, problems=problems
    )


def _slice_of(roi: Any) -> tuple[int, ...]:
    """Where in a stack a ROI lies, (slice) or (channel, slice, frame), from 1; 0 is on all."""
    place = (roi.c_position, roi.z_position, roi.t_position)
    return place if any(place) else (roi.position,)


def _describe_slices(slices: Mapping[tuple[int, ...], str]) -> str:
    """What is wrong with ROIs of several slices, with the first ROI of each."""
    listed = [
        f"ROI {name} on {'slice' if len(place) == 1 else '(channel, slice, frame)'} "
        f"{', '.join(map(str, place))}"
        for place, name in list(slices.items())[:5]
    ]
    return (
        f"ROIs on {len(slices)} slices of a stack ({'; '.join(listed)}): one file of ROIs belongs "
        "to one image; save each slice as an image, with a RoiSet of its own"
    )


def _to_outline(roi: Any, name: str, classes: tuple[str, ...]) -> Outline:
    properties = _properties(roi)
    is_crowd = properties.get(CROWD_PROPERTY) == "true"
    try:
        score = float(properties.get(SCORE_PROPERTY, 1.0))
    except ValueError as error:
        raise DatasetError(f"its property `{SCORE_PROPERTY}` is no number: {error}") from error
    return Outline(f"ROI {name}", _rings(roi), _class_of(roi, name, classes), is_crowd, score)


def _read_rois(path: Path) -> Iterator[tuple[str, Any]]:
    """Names and ROIs of a file, in its order."""
    parse = load_roifile().ImagejRoi.frombytes
    name = path.name
    try:
        for name, data in _read_entries(path):
            roi = parse(data)
            yield roi.name or Path(name).stem, roi
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{path}: no whole zip file: {error}") from error
    except DatasetError:
        raise
    except Exception as error:  # parsing damaged bytes raises nearly anything
        raise DatasetError(f"{path}: {name} cannot be read as a ROI: {error}") from error


def _read_entries(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix.lower() != ".zip":
        yield path.name, path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            file_name = info.filename.rpartition("/")[2]
            if not file_name.lower().endswith(".roi") or file_name.startswith("."):
                continue
            if info.file_size > MAX_ROI_BYTES:
                raise DatasetError(f"{path}: {info.filename}: {info.file_size} bytes are no ROI")
            yield info.filename, archive.read(info)


def _rings(roi: Any) -> list[Any]:
    """Closed rings of a ROI, (x, y) in pixels of the image.

    Raises:
        DatasetError: it is no area, or one that cannot be drawn exactly.
    """
    roifile = load_roifile()
    kinds, subtypes = roifile.ROI_TYPE, roifile.ROI_SUBTYPE
    if roi.subtype in (subtypes.TEXT, subtypes.ARROW, subtypes.IMAGE):
        raise DatasetError(f"a {roi.subtype.name.lower()} is no outline of a cell: delete it")
    if roi.composite:
        return path_to_rings(roi.multi_coordinates)
    if roi.roitype in (kinds.RECT, kinds.OVAL):
        return [_box_ring(roi, is_oval=roi.roitype == kinds.OVAL)]
    if roi.roitype not in (kinds.POLYGON, kinds.FREEHAND, kinds.TRACED):
        raise DatasetError(f"a {roi.roitype.name.lower()} is no area: delete it")
    if roi.options & roifile.ROI_OPTIONS.SPLINE_FIT:
        raise DatasetError("outline with a spline fit: Edit > Selection > Interpolate it in ImageJ")
    return [roi.coordinates()]


def _box_ring(roi: Any, is_oval: bool) -> Any:
    """A rectangle, or the oval inside it."""
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
    else:
        left, top, width, height = roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
    if is_oval:
        angles = np.arange(OVAL_POINTS) * (2 * np.pi / OVAL_POINTS)
        unit = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5
    elif roi.rounded_rect_arc_size:
        raise DatasetError("a rounded rectangle: Edit > Selection > Interpolate it in ImageJ")
    else:
        unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    return unit * (width, height) + (left, top)


def _properties(roi: Any) -> dict[str, str]:
    """ImageJ's lines of `key: value`."""
    lines = (line.partition(":") for line in roi.props.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _class_in_properties(roi: Any) -> str | None:
    properties = _properties(roi)
    return next((properties[key] for key in CLASS_PROPERTIES if properties.get(key)), None)


def _class_of(roi: Any, name: str, classes: tuple[str, ...]) -> str | None:
    """Name of a ROI's class as the file has it; None if it has none."""
    said = _class_in_properties(roi)
    if said or len(classes) == 1:
        return said
    named = [one for one in classes if name == one or name[: len(one) + 1] in _beginnings(one)]
    if named:
        return max(named, key=len)
    if roi.group:
        return classes[roi.group - 1] if roi.group <= len(classes) else f"group {roi.group}"
    return name.rstrip("0123456789" + NAME_ENDS) or None


def _beginnings(class_name: str) -> list[str]:
    return [class_name + end for end in NAME_ENDS]


def find_file_classes(path: Path, options: Mapping[str, Any]) -> set[str]:
    """Classes in the properties of a file's ROIs."""
    return {name for _, roi in _read_rois(path) if (name := _class_in_properties(roi))}


def _check_installed(classes: tuple[str, ...]) -> str:
    """Fail before anything is read or written where `roifile` is missing."""
    load_roifile()
    return ""


ROI_FILE = CellFile(
    kind="ROIs",
    folder="rois",
    suffixes=SUFFIXES,
    written_suffix=SUFFIXES[0],
    read=read_image_cells,
    write=write_image_cells,
    write_prediction=write_predicted_cells,
    find_classes=find_file_classes,
    holds=EVERYTHING,
    check=_check_installed,
)
FORMAT = format_of_files(ROI_FILE)
