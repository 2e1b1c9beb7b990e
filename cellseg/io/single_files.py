"""One file with cells, without a data set around it: what somebody drops into a window.

    a.geojson, a.geojson.gz      QuPath's outlines
    a_rois.zip, a.roi            ImageJ's ROIs
    a_coco.json                  COCO's results, of one image or of many
    a_labels.tif, a_labels.csv   a label image, and a row `label,class,score` for each label

Outlines do not say how large their image is. It is looked for beside them, by its name; where there
is none, the cells have an image that just holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from cellseg.arguments import checked
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, labels_that_occur
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import DatasetError
from cellseg.files import write_whole
from cellseg.images import LABEL_SUFFIXES, is_readable_name, read_image_hw, read_label_image
from cellseg.io.base import Problems, raise_problems, stem_of
from cellseg.io.category_ids import read_companion
from cellseg.io.cell_file import CellFile, write_predicted
from cellseg.io.coco_results import read_coco_results, write_coco_results
from cellseg.io.geojson import GEOJSON_FILE
from cellseg.io.imagej_rois import ROI_FILE
from cellseg.io.label_files import write_label_file
from cellseg.io.label_tables import (
    ANY_CLASS,
    LabelTable,
    check_own_table,
    read_label_table,
    write_label_table,
)
from cellseg.rules import PATH

_FRAME_PX = 1 << 20  # of outlines whose image nobody knows; far more than any has
_ENDINGS = ("_labels", "_rois", "_coco", "_cp_masks", "_masks")
_HEAD_BYTES = 4096


class CellsOfFile(NamedTuple):
    """The cells of one image in a file.

    Attributes:
        image_id: what the file calls the image, or the file's own name.
        cells: in the order of their labels.
        ids: int64 [N], the label of each.
        classes: names of the classes.
    """

    image_id: str
    cells: CellInstances
    ids: IntArray
    classes: tuple[str, ...]


@checked(path=PATH)
def holds_cells(path: str | Path) -> bool:
    """Whether a file holds cells, by its name and its first bytes; label images by name alone."""
    return _reader_of(Path(path)) is not None


@checked(path=PATH)
def read_single_file(
    path: str | Path, image_hw: tuple[int, int] | None = None
) -> list[CellsOfFile]:
    """The cells of a file; several images in one file of COCO's results are several entries.

    Args:
        path: the file.
        image_hw: (height, width) of the image that outlines lie in, pixels; by default that of the
            image beside them, or what just holds them.

    Raises:
        DatasetError, ImageReadError, LabelError: it is none of these files, or cannot be read.
    """
    path = Path(path)
    reader = _reader_of(path)
    if reader is None:
        raise DatasetError(
            f"{path}: no file of cells; expected outlines as GeoJSON, ImageJ's ROIs, COCO's "
            "results, or a label image"
        )
    return reader(path, image_hw)


_Reader = Callable[[Path, "tuple[int, int] | None"], list[CellsOfFile]]


def _reader_of(path: Path) -> _Reader | None:
    name = path.name.lower()
    if name.endswith((".geojson", ".geojson.gz")):
        return lambda path, image_hw: _read_outlines(path, image_hw, GEOJSON_FILE)
    if name.endswith(".roi") or (name.endswith(".zip") and _holds_rois(path)):
        return lambda path, image_hw: _read_outlines(path, image_hw, ROI_FILE)
    if name.endswith(".json") and _is_list_of_results(path):
        return lambda path, _: _read_results(path)
    if is_named_as_labels(path):
        return lambda path, _: [_read_labels(path)]
    return None


@checked(path=PATH)
def is_named_as_labels(path: str | Path) -> bool:
    """Whether a file is a label image by its name, such as `a_labels.tif` or `a_masks.png`."""
    name = Path(path).name.lower()
    return name.endswith(LABEL_SUFFIXES) and Path(name).stem.endswith(_ENDINGS)


def _holds_rois(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, BadZipFile):
        return False
    return bool(names) and all(name.lower().endswith(".roi") for name in names)


def _is_list_of_results(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return False
    is_empty = b"".join(head.split()) == b"[]"
    return head.lstrip().startswith(b"[") and (b'"segmentation"' in head or is_empty)


def _read_outlines(
    path: Path, image_hw: tuple[int, int] | None, form: CellFile
) -> list[CellsOfFile]:
    assert form.find_classes is not None
    classes = tuple(sorted(form.find_classes(path, {}))) or ANY_CLASS
    known = image_hw or _find_image_hw(path, form)
    cells = form.read(path, known or (_FRAME_PX, _FRAME_PX), classes, {})
    if isinstance(cells, Problems):
        raise_problems(path, cells)
        cells = CellInstances.empty(known or (1, 1))
    if known is None:
        cells = _in_its_frame(cells)
    return [CellsOfFile(plain_stem(path, form.suffixes), cells, _numbers(cells), classes)]


def _in_its_frame(cells: CellInstances) -> CellInstances:
    """The same cells in an image that just holds them."""
    ends = cells.offsets_rc + np.array([crop.shape for crop in cells.crops]).reshape(-1, 2)
    height, width = ends.max(axis=0, initial=1).tolist()
    return CellInstances.from_crops(
        cells.crops,
        cells.offsets_rc,
        (height, width),
        scores=cells.scores,
        classes=cells.classes,
        is_crowd=cells.is_crowd,
    )


def _find_image_hw(path: Path, form: CellFile) -> tuple[int, int] | None:
    """The size of the image, or of the label image, of the same name beside a file."""
    stem = plain_stem(path, form.suffixes)
    for folder in (path.parent, path.parent.parent / "images"):
        for other in sorted(folder.glob(f"{stem}*")) if folder.is_dir() else ():
            if is_readable_name(other) and plain_stem(other) == stem:
                return read_image_hw(other)
    return None


def plain_stem(path: Path, suffixes: Sequence[str] = ()) -> str:
    """A file's name without its ending, and without what says which kind of result it is.

    >>> plain_stem(Path("movie_labels.tif"))
    'movie'
    """
    stem = stem_of(path, suffixes)
    ending = next((one for one in _ENDINGS if stem.endswith(one)), "")
    return stem.removesuffix(ending) or stem


def _numbers(cells: CellInstances) -> IntArray:
    return np.arange(1, len(cells) + 1)


def _read_results(path: Path) -> list[CellsOfFile]:
    companion = read_companion(path)
    classes = tuple(companion.values()) if companion else ANY_CLASS
    found = read_coco_results(path, classes)
    return [CellsOfFile(name, cells, _numbers(cells), classes) for name, cells in found.items()]


def _read_labels(path: Path) -> CellsOfFile:
    labels = read_label_image(path)
    cells = CellInstances.from_label_image(labels)
    ids = labels_that_occur(labels)
    table = read_label_table(path, ids)
    cells = cells.replace(classes=table.numbers, scores=table.scores)
    return CellsOfFile(plain_stem(path), cells, ids, table.classes)


@checked(path=PATH)
def write_single_file(
    found: CellsOfFile,
    path: str | Path,
    pixel_size_um: tuple[float, float] | None = None,
) -> list[Path]:
    """Write the cells of one image, each file whole or not at all.

    Args:
        found: the cells; labels are kept where the format has labels.
        path: its ending says what is written, as the module does; labels as .tif, .tiff. Beside
            results of COCO the names of the classes are written, beside labels the table.
        pixel_size_um: (height, width) of a pixel; None where it is not known.

    Returns:
        What was written; older files are replaced.

    Raises:
        DatasetError: an ending that says nothing, a class without a name, or no room on the disk.
    """
    path = Path(path)
    place = PlaceInFile(pixel_size_um=pixel_size_um)
    record = ImageRecord(found.image_id, _at_their_labels(found), place=place)
    name, form = path.name.lower(), None
    if name.endswith((".tif", ".tiff")):
        return _write_labels(record, found, path)
    if name.endswith(".json"):
        write_coco_results([ImageRecord(found.image_id, found.cells)], path, found.classes)
        return [path, path.with_suffix(".categories.json")]
    if name.endswith((".geojson", ".geojson.gz")):
        form = GEOJSON_FILE
    elif name.endswith(".zip"):
        form = ROI_FILE
    if form is None:
        raise DatasetError(
            f"{path}: the ending does not say what is to be written; expected .tif, .zip (ROIs), "
            ".geojson or .json (COCO's results)"
        )
    form.run_check(path.parent, found.classes)
    with write_whole(path) as partial:
        write_predicted(record, partial, form, found.classes)
    return [path]


def _write_labels(record: ImageRecord, found: CellsOfFile, path: Path) -> list[Path]:
    table = path.with_suffix(".csv")
    check_own_table(table)
    with write_whole(path) as partial, write_whole(table) as partial_table:
        occurs = write_label_file(record, partial)[found.ids]
        cells = found.cells[np.flatnonzero(occurs)]
        known = LabelTable(found.classes, cells.classes, cells.scores)
        write_label_table(partial_table, found.ids[occurs].tolist(), known)
    return [path, table]


def _at_their_labels(found: CellsOfFile) -> CellInstances:
    """The cells with empty ones between them, so that cell k has the label k + 1."""
    highest = int(found.ids.max(initial=0))
    if highest > 2 * len(found.cells) + 65_535 or len(set(found.ids.tolist())) < len(found.ids):
        raise DatasetError(
            f"labels up to {highest} for {len(found.cells)} cells; expected each once, from 1 on"
        )
    if highest == len(found.cells):
        return found.cells[np.argsort(found.ids)]
    places = np.full(highest, -1)
    places[found.ids - 1] = np.arange(len(found.ids))
    nothing = np.zeros((0, 0), bool)
    crops = [found.cells.crops[k] if k >= 0 else nothing for k in places.tolist()]
    is_there = places >= 0
    return CellInstances.from_crops(
        crops,
        np.where(is_there[:, None], found.cells.offsets_rc[places], 0),
        found.cells.image_hw,
        scores=np.where(is_there, found.cells.scores[places], 0),
        classes=np.where(is_there, found.cells.classes[places], 0),
    )
