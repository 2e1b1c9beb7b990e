"""What predictions can be saved as, image by image: the names, the files, what each cannot hold.

    <out>/plate1/a_t3_labels.tif        the results of the image `plate1/a_t3` as `labels`,
    <out>/plate1/a_t3_rois.zip          as `rois`, ...

The files of an image are whole or not there, so that a run can be taken up where it ended:
`prediction_files` says which they are. One file for all images, as some formats have it, is written
by `cellseg.io.open_predictions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.files import write_whole, write_whole_folder
from cellseg.io import FORMATS, find_format, geojson, ome_zarr_writing
from cellseg.io.base import CLASSES, EMPTY_IMAGES, HOLES, OVERLAPS, SCORES, PredictionFile
from cellseg.io.checks import check_place
from cellseg.names import suggest_name


class Saved(NamedTuple):
    """A name that results can be saved by.

    Attributes:
        format_name: the format, a key of `FORMATS`.
        file: the file of one image in it.
    """

    format_name: str
    file: PredictionFile


def _of_format(format_name: str) -> Saved:
    file = FORMATS[format_name].prediction
    assert file is not None
    return Saved(format_name, file)


SAVE_NAMES: dict[str, Saved] = {
    "labels": _of_format("label_images"),
    "coco": _of_format("coco_results"),
    "rois": _of_format("imagej_rois"),
    "geojson": _of_format("geojson"),
    "geojson.gz": Saved("geojson", geojson.COMPRESSED_PREDICTION),
    "zarr": _of_format("ome_zarr"),
    "zarr-0.5": Saved("ome_zarr", ome_zarr_writing.NEWER_PREDICTION),
    "csv-rle": _of_format("run_length_csv"),
    "outlines": _of_format("outlines"),
}

_LOST = {
    OVERLAPS: "overlaps (the cell with the higher score keeps the pixel)",
    HOLES: "holes",
    CLASSES: "classes",
    SCORES: "scores",
    EMPTY_IMAGES: "images without cells",
}


def save_names() -> list[str]:
    """All names that predictions can be saved by: the short ones, then formats that have none.

    Among the latter are those that hold all images in one file; `is_per_image` tells them apart.
    """
    taken = {saved.format_name for saved in SAVE_NAMES.values()}
    others = (name for name, one in FORMATS.items() if one.prediction or one.open_predictions)
    return [*SAVE_NAMES, *sorted(set(others) - taken)]


def is_per_image(name: str) -> bool:
    """Whether each image has a file of its own; otherwise `cellseg.io.open_predictions` writes.

    Args:
        name: one of `save_names()`, or any key of `FORMATS`.

    Raises:
        DatasetError: there is no such name, or predictions cannot be saved by it.
    """
    if name in SAVE_NAMES:
        return True
    if name not in FORMATS:
        hint = suggest_name(name, save_names(), "there are")
        raise DatasetError(f"results cannot be saved as {name!r}; {hint}")
    chosen = find_format(name)
    if chosen.prediction is None and chosen.open_predictions is None:
        raise DatasetError(
            f"results cannot be saved as {name}; choose one of {', '.join(save_names())}"
        )
    return chosen.prediction is not None


def find_saved(name: str) -> Saved:
    """The format and the file of one image that results saved by this name have.

    Raises:
        DatasetError: there is no such name, or it is one file for all images.
    """
    if not is_per_image(name):
        raise DatasetError(f"{name} holds all images in one file; there is none for a single image")
    return SAVE_NAMES[name] if name in SAVE_NAMES else _of_format(name)


def check_saved(name: str, classes: Sequence[str]) -> None:
    """Raise DatasetError, before anything is predicted, for what cannot be saved like this.

    A package that the format needs is not installed, or it cannot have these classes.
    """
    problem = find_saved(name).file.check(tuple(classes)) if is_per_image(name) else ""
    if problem:
        raise DatasetError(f"{name}: {problem}")


def describe_losses(name: str, classes: Sequence[str] = ("cell",)) -> str:
    """One sentence on what of predictions a format cannot hold; "" if it holds everything.

    Args:
        name: one of `save_names()`.
        classes: class names; of one alone nothing is lost.

    Example:
        >>> describe_losses("outlines", ("round", "long"))
        'outlines cannot hold classes, scores'
    """
    holds = find_format(SAVE_NAMES[name].format_name if name in SAVE_NAMES else name).holds
    lost = [
        text
        for kind, text in _LOST.items()
        if kind not in holds and (kind != CLASSES or len(classes) > 1)
    ]
    return f"{name} cannot hold {', '.join(lost)}" if lost else ""


def prediction_files(
    folder: str | Path, image_id: str, name: str, classes: Sequence[str] = ("cell",)
) -> list[Path]:
    """The files (for OME-Zarr a folder) of one image's results; all are there if the first is.

    Args:
        folder: of the results.
        image_id: may name sub-folders, as in `plate1/a_t3`.
        name: one of `save_names()` that `is_per_image`.
        classes: class names; label images have a table beside them where there are several.

    Raises:
        DatasetError: the id leads out of the folder or cannot be a file's name; the name is none.
    """
    check_place(image_id)
    file = find_saved(name).file
    suffixes = [file.suffix]
    if file.class_suffix and len(classes) > 1:
        suffixes.append(file.class_suffix)
    return [Path(folder, f"{image_id}{suffix}") for suffix in suffixes]


def write_image_prediction(
    record: ImageRecord,
    folder: str | Path,
    name: str,
    classes: Sequence[str] = ("cell",),
    **options: Any,
) -> list[Path]:
    """Write the results of one image in one format, each file whole or not at all.

    Args:
        record: an image and its cells; cells without a pixel are left out, but count in the labels
            (cell k has label k + 1).
        folder: of the results; sub-folders are made.
        name: one of `save_names()` that `is_per_image`.
        classes: class names, by the numbers of the cells' classes.
        options: `category_ids`, the id of each class in `coco`, by default 1 to C; `image`, the
            `PlaneImage` that `zarr` stores beside the cells. Formats pass over what is not theirs.

    Returns:
        `prediction_files` of the image; older ones are replaced.

    Raises:
        DatasetError: the id cannot be a file's name, a class has no name, a file cannot be written.
    """
    names, file = tuple(classes), find_saved(name).file
    paths = prediction_files(folder, record.image_id, name, names)
    check_saved(name, names)
    whole = write_whole_folder if file.is_folder else write_whole
    try:
        with ExitStack() as stack:  # the last to be entered takes its place first
            partial = [stack.enter_context(whole(path)) for path in paths]
            file.write(record, partial, names, {**file.options, **options})
    except OSError as error:
        raise DatasetError(f"{paths[0]}: cannot be written: {error.strerror or error}") from error
    return paths
