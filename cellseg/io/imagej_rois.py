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

Outlines are written along the pixels' edges, so that they are read back exactly. The score of a
predicted cell is its property `score`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.polygons import crops_to_rings
from cellseg.cells.records import ImageRecord
from cellseg.cells.run_lengths import IntArray
from cellseg.errors import DatasetError
from cellseg.io.base import EVERYTHING, Problems
from cellseg.io.outlines import Outline, outlines_to_cells, score_to_text
from cellseg.io.per_image import CellFile, format_of_files
from cellseg.io.roi_paths import path_to_rings, rings_to_path

SUFFIXES = (".zip", ".roi")
CLASS_PROPERTIES = ("qupath.object.classification", "class")
CROWD_PROPERTY, SCORE_PROPERTY = "crowd", "score"
NAME_ENDS = "-_ .:"
MAX_ROI_BYTES = 64 * 2**20
MAX_INTEGER = 32767  # of a ROI's 16-bit coordinates
MAX_GROUP = 255
OVAL_POINTS = 1024
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
    for name, roi in _read_rois(path):
        try:
            outlines.append(_to_outline(roi, name, classes))
        except DatasetError as error:
            problems.append(f"{path}: ROI {name}: {error}")
    where_from = "its property `class`, the beginning of its name, or its group"
    return outlines_to_cells(
        path, image_hw, outlines, classes, where_from=where_from, problems=problems
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


def write_image_cells(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the cells of one image as a RoiSet.

    Args:
        record: an image and its cells, each with a pixel.
        path: the zip file; its folder is there.
        classes: class names; the number of a class is the ROIs' group, up to 255.
        options: not used.
    """
    outlines = crops_to_rings(record.cells.crops, record.cells.offsets_rc)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, rings in enumerate(outlines):
            roi = _make_roi(rings, record.cells, number, classes)
            # A fixed date, so that the same cells give the same file.
            info = zipfile.ZipInfo(roi.name.replace("/", "_") + ".roi")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, roi.tobytes())


def _make_roi(
    rings: Sequence[IntArray], cells: CellInstances, number: int, classes: tuple[str, ...]
) -> Any:
    """A traced outline; a composite where there are holes, pieces or very large coordinates."""
    roifile = load_roifile()
    points = np.concatenate(rings)
    low, high = points.min(axis=0), points.max(axis=0)
    class_name, group = classes[cells.classes[number]], int(cells.classes[number]) + 1
    roi = roifile.ImagejRoi(
        name=f"{class_name}-{number + 1:04d}", group=group if group <= MAX_GROUP else 0
    )
    (roi.left, roi.top), (roi.right, roi.bottom) = low.tolist(), high.tolist()
    roi.props = f"{CLASS_PROPERTIES[0]}: {class_name}\n"
    roi.props += f"{CROWD_PROPERTY}: true\n" if cells.is_crowd[number] else ""
    if cells.scores[number] != 1:
        roi.props += f"{SCORE_PROPERTY}: {score_to_text(cells.scores[number])}\n"
    if len(rings) == 1 and high.max() <= MAX_INTEGER:
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.integer_coordinates = (rings[0] - low).astype(np.int32)
        roi.n_coordinates = len(rings[0])
    else:
        roi.roitype = roifile.ROI_TYPE.RECT
        roi.multi_coordinates = rings_to_path(rings)
        roi.shape_roi_size = roi.multi_coordinates.size
    return roi


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
    find_classes=find_file_classes,
    holds=EVERYTHING,
    check=_check_installed,
)
FORMAT = format_of_files(ROI_FILE)
