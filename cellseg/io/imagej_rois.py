"""ImageJ's regions of interest (ROIs): one RoiSet per image. Needs the package `roifile`.

    <root>/<split>/images/<id>.png          png, jpg, tif or bmp
    <root>/<split>/rois/<id>.zip            a RoiSet as the ROI Manager saves it, or <id>.roi with
                                            a single ROI

Every ROI is a cell: polygon, freehand, traced, ellipse, rectangle, oval, or a composite of them
(holes, several pieces). Points, lines, texts, rounded rectangles and outlines with a spline fit are
errors. The pixels of a cell are those that ImageJ itself counts: those whose centres lie inside the
outline, of centres on an edge those to its left (`cells.polygons.rings_to_crop`), and for
rectangles and ovals between pixels the box of whole numbers. What reaches beyond the image is cut.
An image without cells has a zip without ROIs; a missing file is an error, since a forgotten one
would look the same.

The class of a ROI is the first that it has of
- its property `qupath.object.classification` (which QuPath understands as well) or `class`,
- a declared class at the beginning of its name: alone, or before one of "-_ .:" as in `round-0012`,
- its group: 1 is the first of the declared classes.
Where one class is declared, ROIs without any of these are of it.

Of a stack, each ROI belongs to the plane of its position, and each plane with ROIs is an image,
`<id>_t07`; planes without any are left out, since nobody may have looked at them. ROIs on planes
that the image does not have are an error, which names them.

Outlines are written along the pixels' edges, so that they are read back exactly. The score of a
predicted cell is its property `score`, its name the number of its label and nothing else. A cell
with holes or of several pieces is one composite ROI.
"""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.errors import DatasetError
from cellseg.images import SeveralPlanesError
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
from cellseg.limits import LimitError, open_zip

logger = logging.getLogger(__name__)

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
        SeveralPlanesError: the ROIs have positions in a stack; `read_frames` reads them.
    """
    outlines, slices, problems = _read_outlines(path, classes)
    if any(map(any, slices)):
        raise SeveralPlanesError(f"{path}: ROIs with positions in a stack")
    return _to_cells(path, image_hw, outlines, classes, problems)


def read_frames(
    path: Path,
    image_hw: tuple[int, int],
    places: Sequence[PlaceInFile],
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> list[CellInstances | None] | Problems:
    """The cells of each plane of a stack by their positions; see `CellFile.read_frames`."""
    outlines, slices, problems = _read_outlines(path, classes)
    if len(places) == 1:
        if len({place for place in slices if any(place)}) > 1:
            return Problems([f"{path}: {_describe_slices(slices, outlines)}"])
        cells = _to_cells(path, image_hw, outlines, classes, problems)
        return cells if isinstance(cells, Problems) else [cells]
    by_page: dict[int, list[Outline]] = {}
    for outline, position in zip(outlines, slices):
        page = _page_of(position, places)
        if page is None:
            problems.append(
                f"{path}: {outline.name}: {_say_position(position)}; the image has "
                f"{len(places)} planes, and every ROI of a stack needs the position of one: set it "
                "in ImageJ (Image > Overlay, or the ROI Manager's Properties)"
            )
        else:
            by_page.setdefault(page, []).append(outline)
    pages = {
        page: _to_cells(path, image_hw, own, classes, problems) for page, own in by_page.items()
    }
    wrong = [cells for cells in pages.values() if isinstance(cells, Problems)]
    if wrong or problems:
        return wrong[0] if wrong else problems
    empty = len(places) - len(pages)
    if empty:
        logger.info("%s: %d planes without ROIs are left out", path, empty)
    return [None if isinstance(one := pages.get(k), Problems) else one for k in range(len(places))]


def _read_outlines(
    path: Path, classes: tuple[str, ...]
) -> tuple[list[Outline], list[tuple[int, ...]], Problems]:
    """The outlines of a file, where in a stack each lies, and what is wrong with the others."""
    outlines, slices, problems = [], [], Problems()
    for number, (name, roi) in enumerate(_read_rois(path), 1):
        try:
            outlines.append(_to_outline(roi, name, classes))
            slices.append(_slice_of(roi))
        except DatasetError as error:
            problems.append(f"{path}: ROI {name}: {error} (ROI {number} of the file)")
    return outlines, slices, problems


def _to_cells(
    path: Path,
    image_hw: tuple[int, int],
    outlines: Sequence[Outline],
    classes: tuple[str, ...],
    problems: Problems,
) -> CellInstances | Problems:
    return outlines_to_cells(
        path,
        image_hw,
        outlines,
        classes,
        where_from="its property `class`, the beginning of its name, or its group",
        problems=problems,
        as_imagej=True,
    )


def _slice_of(roi: Any) -> tuple[int, ...]:
    """Where in a stack a ROI lies, (slice) or (channel, slice, frame), from 1; 0 is on all."""
    place = (roi.c_position, roi.z_position, roi.t_position)
    return place if any(place) else (roi.position,)


def _page_of(position: tuple[int, ...], places: Sequence[PlaceInFile]) -> int | None:
    """Number of the plane at a ROI's position; None where there is none, or no single one.

    Example:
        >>> places = [PlaceInFile((("T", 0),)), PlaceInFile((("T", 1),))]
        >>> _page_of((2,), places), _page_of((0, 0, 2), places), _page_of((3,), places)
        (1, 1, None)
    """
    if len(position) == 1:
        return position[0] - 1 if 0 < position[0] <= len(places) else None
    asked = {"Z": position[1] - 1, "T": position[2] - 1}
    found = [
        page
        for page, place in enumerate(places)
        if all(asked.get(axis, -1) in (-1, number) for axis, number in place.position)
    ]
    if len(found) > 1 and len(places[0].position) == 1:  # a stack whose only axis has another name
        numbers = {number for number in (*asked.values(),) if number >= 0}
        found = [number for number in numbers if number < len(places)]
    return found[0] if len(found) == 1 else None


def _say_position(position: tuple[int, ...]) -> str:
    kind = "slice" if len(position) == 1 else "(channel, slice, frame)"
    return f"on {kind} {', '.join(map(str, position))}" if any(position) else "on no slice"


def _describe_slices(slices: Sequence[tuple[int, ...]], outlines: Sequence[Outline]) -> str:
    """What is wrong with ROIs of several slices, with the first ROI of each."""
    placed = [(place, outline.name) for place, outline in zip(slices, outlines) if any(place)]
    first = dict(reversed(placed))
    listed = [f"{first[place]} {_say_position(place)}" for place in sorted(first)[:5]]
    return (
        f"ROIs on {len(first)} slices of a stack ({'; '.join(listed)}); the image has one plane: "
        "name the stack itself as the image, or save each slice with a RoiSet of its own"
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
    except LimitError as error:
        raise DatasetError(f"{path}: {error}") from error
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
    with open_zip(path) as archive:
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
        # ImageJ draws them where they are, and counts the pixels of the box of whole numbers.
        left, top = math.trunc(roi.xd), math.trunc(roi.yd)
        width, height = max(1, math.ceil(roi.widthd)), max(1, math.ceil(roi.heightd))
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
    read_frames=read_frames,
    find_classes=find_file_classes,
    holds=EVERYTHING,
    check=_check_installed,
)
FORMAT = format_of_files(ROI_FILE)
