"""Time-lapses of label images: frames from any files, and one stack whose numbers persist.

A frame is a file of its own or a page of a stack. In the stack that is written, the number of a
cell is that of its track, in every frame; the axes are T, Y, X.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.label_bands import CellSource, label_bands
from cellseg.cells.labels import IntArray, label_dtype, label_image_to_runs
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.cells.tracks import Frame, Tracks
from cellseg.errors import LabelError
from cellseg.files import write_whole
from cellseg.images import (
    array_to_labels,
    open_planes,
    place_of,
    read_label_image,
    stem_of_image,
)
from cellseg.io.label_files import TIFF_LIMIT, ZLIB_LEVEL
from numpy.typing import NDArray

NO_PLACE = PlaceInFile()


@dataclass(frozen=True, eq=False)
class LabelRecord(ImageRecord):
    """A frame that was read from a label image.

    Attributes:
        labels: of each cell, int64 [N], ascending; they need not be consecutive.
    """

    labels: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))


def labels_of(record: Frame) -> IntArray:
    """The label of each cell in the label image of a record, int64 [N]."""
    if isinstance(record, LabelRecord):
        return record.labels
    return np.arange(1, record.num_cells + 1)


@dataclass(frozen=True)
class LabelPlane:
    """A label image on disk, which has not been read yet.

    Attributes:
        path: the file.
        image_id: names the frame.
        page: its number in the file, from 0; None where it is the only one.
        place: which plane of the file it is.
    """

    path: Path
    image_id: str
    page: int | None = None
    place: PlaceInFile = NO_PLACE


def find_label_planes(path: str | Path) -> list[LabelPlane]:
    """The label images of a file, from its header.

    Raises:
        ImageReadError: the file cannot be read.
    """
    with open_planes(path) as planes:
        return [
            LabelPlane(
                Path(path),
                f"{stem_of_image(path)}{plane.suffix}",
                number if len(planes) > 1 else None,
                place_of(plane),
            )
            for number, plane in enumerate(planes)
        ]


@dataclass(frozen=True)
class LabelFrames:
    """The frames of a time-lapse, read one after the other each time they are gone through.

    Attributes:
        planes: in order of time.
    """

    planes: Sequence[LabelPlane]

    def __len__(self) -> int:
        return len(self.planes)

    def __iter__(self) -> Iterator[LabelRecord]:
        """Read frame by frame; raises ImageReadError and LabelError."""
        for path, planes in groupby(self.planes, lambda plane: plane.path):
            for plane, labels in _read_planes(path, list(planes)):
                ids, runs = label_image_to_runs(labels)
                height, width = labels.shape
                cells = CellInstances.from_runs(runs, len(ids), (height, width))
                yield LabelRecord(plane.image_id, cells, path, plane.place, ids)


def _read_planes(
    path: Path, planes: Sequence[LabelPlane]
) -> Iterator[tuple[LabelPlane, NDArray[Any]]]:
    """Several pages of one file with the file opened once."""
    if planes[0].page is None:
        for plane in planes:
            yield plane, read_label_image(path)
        return
    with open_planes(path, palette_mode="P") as pages:
        for plane in planes:
            assert plane.page is not None
            yield plane, array_to_labels(pages[plane.page].read_whole(), path)


def draw_with_numbers(record: CellSource, numbers: IntArray, dtype: type) -> NDArray[Any]:
    """A label image in which each cell has a number of one's choice.

    Args:
        record: gone through piece by piece; where cells overlap, the higher score keeps the pixel.
        numbers: of each cell, [N]; one with 0 is not there, nor is what it covers.
        dtype: of the label image.
    """
    table: NDArray[Any] = np.zeros(record.num_cells + 1, dtype)
    table[1:] = numbers
    image: NDArray[Any] = np.zeros(record.image_hw, dtype)
    for _, labels in label_bands(record, max(1, record.image_hw[0])):
        image = table[labels]
    return image


def write_label_stack(path: str | Path, frames: Iterable[Frame], tracks: Tracks) -> None:
    """Write a TIFF [T, Y, X] in which the number of a cell is that of its track.

    See `write_label_images`. The size of a pixel is that of the first frame, where it is known.

    Args:
        path: ends in .tif by custom; whole or not there. One frame at a time is in memory.
        frames: those that the tracks were made of.
        tracks: at least of one frame.

    Raises:
        LabelError: frames and tracks do not belong together, or a frame has another size.
    """
    images = _draw_frames(frames, tracks, label_dtype(len(tracks)))
    first, size_um = next(images, (None, None))
    if first is None:
        raise LabelError(f"{path}: there is no frame to write")
    shape = (len(tracks.ids), *first.shape)
    pages = chain([first], (image for image, _ in images))
    with write_whole(path) as partial:
        write_label_images(partial, pages, shape, len(tracks), size_um)


def write_label_images(
    path: Path,
    images: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    highest: int,
    pixel_size_um: tuple[float, float] | None,
) -> None:
    """Write label images as the pages of one zlib-compressed TIFF [T, Y, X].

    uint16 and laid out as ImageJ's stacks; with labels above 65,535 uint32, and then, as from 4 GB
    on, an OME-TIFF.

    Args:
        path: the TIFF; its folder is there.
        images: T of [H, W], taken one at a time.
        shape: [T, H, W].
        highest: the highest label, or more; below 2**32.
        pixel_size_um: (height, width) of a pixel; None where it is not known.
    """
    dtype = label_dtype(highest)
    fits = dtype == np.uint16 and np.prod(shape) * 2 < TIFF_LIMIT
    how = _imagej_layout(pixel_size_um, highest) if fits else _ome_layout(pixel_size_um)
    tifffile.imwrite(
        path,
        (np.asarray(image, dtype) for image in images),
        shape=shape,
        dtype=dtype,
        compression="zlib",
        compressionargs={"level": ZLIB_LEVEL},
        **how,
    )


def _draw_frames(
    frames: Iterable[Frame], tracks: Tracks, dtype: type
) -> Iterator[tuple[NDArray[Any], tuple[float, float] | None]]:
    image_hw = None
    for record, ids in tracks.along(frames):
        image_hw = image_hw or record.image_hw
        if record.image_hw != image_hw:
            raise LabelError(
                f"{record.image_id}: (height, width) {record.image_hw}, the first frame has "
                f"{image_hw}: the frames of a time-lapse are of one size"
            )
        yield draw_with_numbers(record, ids, dtype), record.place.pixel_size_um


def _imagej_layout(size_um: tuple[float, float] | None, highest: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TYX", "min": 0.0, "max": float(max(1, highest))}
    if size_um is None:
        return {"imagej": True, "metadata": metadata}
    return {
        "imagej": True,
        "metadata": metadata | {"unit": "micron"},
        "resolution": (1 / size_um[1], 1 / size_um[0]),
        "resolutionunit": "NONE",  # ImageJ's unit is in the description
    }


def _ome_layout(size_um: tuple[float, float] | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "TYX"}
    if size_um is not None:
        metadata |= {
            "PhysicalSizeY": size_um[0],
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeX": size_um[1],
            "PhysicalSizeXUnit": "µm",
        }
    return {"ome": True, "metadata": metadata, "bigtiff": True}
