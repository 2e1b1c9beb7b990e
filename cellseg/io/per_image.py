"""What the formats with one annotation file per image share: pairs of files, cells to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.labels import Crop, IntArray
from cellseg.errors import DatasetError, LabelError
from cellseg.io.base import find_split_folder, list_files, match_classes, raise_problems
from cellseg.io.records import CellRecord


@dataclass(frozen=True)
class Pair:
    """An image, and the file that says where its cells are."""

    image_id: str
    image: Path
    annotation: Path


def find_pairs(
    folder: Path, images: str, annotations: str, suffixes: tuple[str, ...], kind: str
) -> list[Pair]:
    """Pairs of equal stem in two folders of a split.

    Args:
        folder: the split.
        images: name of the folder of images.
        annotations: name of the other folder.
        suffixes: endings that the other files may have, the two usual ones first.
        kind: what the other files are called in messages.

    Raises:
        DatasetError: a folder or the images are missing; all files without a partner.
    """
    image_folder = find_split_folder(folder, images)
    other_folder = find_split_folder(folder, annotations)
    return match_pairs(
        folder,
        [(path.stem, path) for path in list_files(image_folder)],
        [(path.stem, path) for path in list_files(other_folder, suffixes)],
        no_images=f"{image_folder}: no images in it",
        other_name=f"{kind} {annotations}/{{}}{suffixes[0]} or {suffixes[1]}",
        image_name=f"image {images}/{{}}.*",
    )


def match_pairs(
    folder: Path,
    images: Sequence[tuple[str, Path]],
    annotations: Sequence[tuple[str, Path]],
    *,
    no_images: str,
    other_name: str,
    image_name: str,
) -> list[Pair]:
    """Pairs of equal id, in the order of the images; see `find_pairs`.

    Args:
        folder: named in the message.
        images: ids and files.
        annotations: ids and files.
        no_images: message where there is none at all.
        other_name: what an image without partner lacks, with {} for the id.
        image_name: what an annotation file without partner lacks, likewise.
    """
    if not images:
        raise DatasetError(no_images)
    problems = [*_duplicates(images), *_duplicates(annotations)]
    partners, ids = dict(annotations), {image_id for image_id, _ in images}
    problems += [
        f"{path}: no {other_name.replace('{}', image_id)}"
        for image_id, path in images
        if image_id not in partners
    ]
    problems += [
        f"{path}: no {image_name.replace('{}', image_id)}"
        for image_id, path in annotations
        if image_id not in ids
    ]
    raise_problems(folder, problems)
    return [Pair(image_id, path, partners[image_id]) for image_id, path in images]


def _duplicates(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    first: dict[str, Path] = {}
    for image_id, path in files:
        if first.setdefault(image_id, path) is not path:
            yield f"{path}: same id as {first[image_id].name}"


def classes_of_cells(
    named: Sequence[tuple[str, str | None]], classes: tuple[str, ...], where_from: str
) -> tuple[list[str], list[str]]:
    """Declared class of each cell.

    Args:
        named: what a message calls the cell, and the name of its class in the file, if any.
        classes: declared names; of one alone, cells without a name are too.
        where_from: where the file would have the name, for the message.

    Returns:
        The classes, and the problems; where there are any, the classes are of no use.
    """
    to_declared, problems = match_classes({name for _, name in named if name}, classes)
    nameless = [cell for cell, name in named if not name] if len(classes) > 1 else []
    if nameless:
        listed = ", ".join(nameless[:5]) + (", ..." if len(nameless) > 5 else "")
        problems.append(
            f"{len(nameless)} without a class ({listed}); with several classes declared "
            f"({', '.join(classes)}) each cell has its own in {where_from}"
        )
    return [to_declared.get(name or "", classes[0]) for _, name in named], problems


def decode_cells(record: CellRecord, classes: tuple[str, ...]) -> tuple[list[Crop], IntArray]:
    """Tight crops of a record's cells that are to be written, and their offsets [N, 2].

    Raises:
        DatasetError: a cell without pixels, with damaged run lengths, or of a class that is not
            among `classes`.
    """
    strangers = sorted({cell.class_name for cell in record.cells} - set(classes))
    if strangers:
        raise DatasetError(
            f"{record.image_path}: cells of class {', '.join(strangers)}; "
            f"the classes to write are {', '.join(classes)}"
        )
    rles = [cell.rle for cell in record.cells]
    try:
        crops, offsets_rc = LabelPlanes.from_rles(rles, record.image_hw).crops()
    except LabelError as error:
        raise DatasetError(f"{record.image_path}: {error}") from error
    empty = [number for number, crop in enumerate(crops, 1) if not crop.size]
    if empty:
        raise DatasetError(f"{record.image_path}: cell {empty[0]} has no pixel")
    return crops, offsets_rc


def check_folder_names(classes: Iterable[str]) -> None:
    """Raise DatasetError for classes that cannot be the name of a folder."""
    for name in classes:
        if Path(name).name != name or name.startswith("."):
            raise DatasetError(f"the class {name!r} cannot be the name of a folder; rename it")
