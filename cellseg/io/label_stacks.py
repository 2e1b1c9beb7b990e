"""One TIFF with the label images of a time-lapse or a stack, and the table of its labels beside it.

A label is one cell in all planes, as of a track or a cell in depth, or at least of one class and
score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cellseg.arguments import checked
from cellseg.cells.labels import IntArray, labels_that_occur
from cellseg.errors import ImageReadError, LabelError
from cellseg.files import write_whole
from cellseg.images import PlaneImage, array_to_labels, by_scene, open_planes
from cellseg.io.label_frames import write_label_images
from cellseg.io.label_tables import (
    LabelTable,
    check_own_table,
    read_label_table,
    write_label_table,
)
from cellseg.io.single_files import plain_stem
from cellseg.limits import LimitError, check_memory
from cellseg.rules import PATH
from numpy.typing import NDArray


class LabelStack(NamedTuple):
    """The label images of one scene of a file.

    Attributes:
        image_id: the file's name without its ending and `_labels` or the like, and the scene where
            there are several.
        labels: integers [..., H, W], 0 is background.
        ids: the N labels that occur, ascending, int64 [N].
        table: class and score of each.
        pixel_size_um: (height, width) of a pixel; None where it is not known.
    """

    image_id: str
    labels: NDArray[Any]
    ids: IntArray
    table: LabelTable
    pixel_size_um: tuple[float, float] | None


@checked(path=PATH)
def read_label_stacks(path: str | Path) -> list[LabelStack]:
    """The stacks of label images in a file, one for each scene; [] where it has one plane only.

    Raises:
        DatasetError, ImageReadError, LabelError: it cannot be read, or would fill the memory.
    """
    path = Path(path)
    with open_planes(path, palette_mode="P") as planes:
        if len(planes) == 1:
            return []
        return [_read_scene(path, of_scene) for of_scene in by_scene(planes)]


def _read_scene(path: Path, planes: Sequence[PlaneImage]) -> LabelStack:
    first = planes[0]
    lengths, (height, width) = first.lengths or (len(planes),), first.image_hw
    what = f"{path}: {len(planes)} label images of {height} x {width} pixels"
    try:
        check_memory(2 * len(planes) * height * width * np.dtype(np.uint32).itemsize, what)
    except LimitError as error:
        raise ImageReadError(str(error)) from error
    stack = np.stack([array_to_labels(plane.read_whole(), path) for plane in planes])
    ids = labels_that_occur(stack)
    name = f"{plain_stem(path)} {first.scene}".strip()
    labels = stack.reshape((*lengths, height, width))
    return LabelStack(name, labels, ids, read_label_table(path, ids), first.pixel_size_um)


@checked(path=PATH)
def write_single_stack(stack: LabelStack, path: str | Path) -> list[Path]:
    """Write a stack of label images as TIFF [T, Y, X], and the table beside it.

    Args:
        stack: labels of shape [T, H, W]; below 2**32.
        path: ends in .tif by custom. Both files are whole or not there; older ones are replaced.

    Returns:
        What was written.

    Raises:
        DatasetError: a table of somebody else is in the way.
        LabelError: labels of another shape, or too high.
    """
    path = Path(path)
    shape = stack.labels.shape
    if len(shape) != 3:
        raise LabelError(f"{path}: expected labels [T, H, W]; found the shape {list(shape)}")
    lowest, highest = int(stack.ids.min(initial=1)), int(stack.ids.max(initial=0))
    if lowest < 0 or highest > np.iinfo(np.uint32).max:
        raise LabelError(
            f"{path}: expected labels from 0 to 2**32 - 1; found {lowest} to {highest}"
        )
    check_own_table(path.with_suffix(".csv"))
    with write_whole(path) as partial, write_whole(path.with_suffix(".csv")) as partial_table:
        write_label_images(partial, iter(stack.labels), shape, highest, stack.pixel_size_um)
        write_label_table(partial_table, stack.ids.tolist(), stack.table)
    return [path, path.with_suffix(".csv")]
