"""File formats: data sets, predictions and exports, all of them in and out as `ImageRecord`.

One module per format, which says in a `FileFormat` how it is read and written and what it can hold.
`read_records` reads a split of a data set, `write_predictions` writes cells without their images,
`cellseg.io.conversion` goes from one format to another.

A plug-in adds a format with one line, and it is then known to declarations, `convert`, `predict`
and `evaluate` alike. Most formats keep the cells of an image in a file of its own; then a function
that reads such a file and one that writes it are all it takes:

    from cellseg.io import FORMATS
    from cellseg.io.per_image import CellFile, format_of_files

    FORMATS["my_format"] = format_of_files(
        CellFile(
            kind="cell list",           # in messages: "no cell list cells/a.txt"
            folder="cells",             # beside the folder `images` of a split
            suffixes=(".txt",),
            written_suffix=".txt",
            read=read_my_cells,         # (path, image_hw, classes, options) -> CellInstances
            write=write_my_cells,       # (record, path, classes, options)
        )
    )

Any other layout is a `FileFormat` of its own functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellseg.arguments import FLAG, NAME, NAMES, any_of, check_argument, checked, either
from cellseg.cells.pieces import split_into_pieces
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import (
    cellpose,
    coco_json,
    coco_results,
    cvat,
    geojson,
    imagej_rois,
    instance_masks,
    label_images,
    label_studio,
    labelme,
    ome_zarr,
    outline_lines,
    run_length_csv,
    run_length_tables,
    synthetic,
    via,
    yolo_seg,
)
from cellseg.io.base import FileFormat, Option, WriteRecord, check_class_names
from cellseg.names import suggest_name
from cellseg.rules import PATH, TEXT, Rule, show

_RECORD = Rule("an ImageRecord", lambda value: hasattr(value, "batches"))

FORMATS: dict[str, FileFormat] = {
    "cellpose": cellpose.FORMAT,
    "coco_json": coco_json.FORMAT,
    "coco_results": coco_results.FORMAT,
    "cvat": cvat.FORMAT,
    "dsb2018_table": run_length_tables.DSB2018_TABLE,
    "geojson": geojson.FORMAT,
    "imagej_rois": imagej_rois.FORMAT,
    "instance_masks": instance_masks.FORMAT,
    "label_images": label_images.FORMAT,
    "label_studio": label_studio.FORMAT,
    "labelme": labelme.FORMAT,
    "ome_zarr": ome_zarr.FORMAT,
    "outlines": outline_lines.FORMAT,
    "run_length_csv": run_length_csv.FORMAT,
    "sartorius_table": run_length_tables.SARTORIUS_TABLE,
    "stardist": label_images.STARDIST,
    "synthetic": synthetic.FORMAT,
    "via": via.FORMAT,
    "yolo_seg": yolo_seg.FORMAT,
}

__all__ = [
    "FORMATS",
    "FileFormat",
    "ImageRecord",
    "Option",
    "WriteRecord",
    "find_format",
    "open_predictions",
    "read_records",
    "write_predictions",
]


@checked(name=NAME)
def find_format(name: str) -> FileFormat:
    """The format called `name`; a DatasetError with the near names if there is none."""
    if name not in FORMATS:
        hint = suggest_name(name, sorted(FORMATS), "there are")
        raise DatasetError(f"no dataset format {name!r}; {hint}")
    return FORMATS[name]


@checked(format_name=NAME, root=either(PATH, TEXT), classes=NAMES, connected_components=FLAG)
def read_records(
    format_name: str,
    root: str | Path,
    split: Any,
    *,
    classes: Sequence[str] = ("cell",),
    connected_components: bool = False,
    **options: Any,
) -> list[ImageRecord]:
    """Read one split of a dataset.

    Args:
        format_name: a key of `FORMATS`.
        root: the dataset's folder.
        split: what the format's splits are: the name of a folder below `root`; for `synthetic` a
            dict with `images` and `seed`.
        classes: class names; a cell's class is the place of its own among them. Cells of a dataset
            with one class need no further information.
        connected_components: every piece of a cell is a cell of its own, for binary masks that
            have one number for all cells.
        options: the format's own.

    Returns:
        Records in the order of their ids; images without cells are among them.

    Raises:
        DatasetError: nothing there, or all offending files in one message.
    """
    form, names = find_format(format_name), check_class_names(classes)
    if not form.split.accepts(split):
        raise DatasetError(f"split is {show(split)}; expected {form.split.expected}")
    records = form.read(Path(root), split, names, options)
    if not connected_components:
        return records
    return [replace(record, cells=split_into_pieces(record.cells)) for record in records]


@checked(folder=PATH, format_name=NAME, classes=NAMES)
def open_predictions(
    folder: str | Path, format_name: str, classes: Sequence[str] = ("cell",)
) -> AbstractContextManager[WriteRecord]:
    """A context whose value writes the predicted cells of one image after the other.

    Args:
        folder: made if needed; the files lie in it as those of a split do, without the images.
        format_name: a key of `FORMATS`.
        classes: class names, by the numbers of the cells' classes.

    Raises:
        DatasetError: the format cannot be written like this, or not with these classes.

    Example:
        >>> with open_predictions("found", "geojson") as write:  # doctest: +SKIP
        ...     write(ImageRecord("a", cells))
    """
    opener = find_format(format_name).open_predictions
    if opener is None:
        names = sorted(name for name, one in FORMATS.items() if one.open_predictions)
        raise DatasetError(
            f"predictions cannot be written as {format_name}; choose one of {', '.join(names)}"
        )
    return opener(Path(folder), check_class_names(classes))


@checked(
    records=any_of(words="image records"),
    folder=PATH,
    format_name=NAME,
    classes=NAMES,
)
def write_predictions(
    records: Iterable[ImageRecord],
    folder: str | Path,
    format_name: str,
    classes: Sequence[str] = ("cell",),
) -> int:
    """Write predicted cells, without their images; see `open_predictions`.

    Detections without a pixel, and what the format does not hold (`FileFormat.holds`), are not in
    the files: where a pixel can have one cell only, the one with the higher score keeps it.

    Args:
        records: may be a generator, may be empty.
        folder, format_name, classes: as in `open_predictions`.

    Returns:
        The number of images.
    """
    count = 0
    with open_predictions(folder, format_name, classes) as write:
        for record in records:
            check_argument("records", record, _RECORD)
            write(record)
            count += 1
    return count
