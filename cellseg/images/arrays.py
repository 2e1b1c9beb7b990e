"""Arrays that NumPy has saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.stacks import ImageStack, Scene, cut_window, guess_axes
from numpy.typing import NDArray

NPY_MAGIC = b"\x93NUMPY"


@contextmanager
def open_npy(path: Path) -> Iterator[Sequence[Scene]]:
    """An array [H, W], [H, W, C] of up to four samples, or stacks of [H, W]; `guess_axes`.

    Raises:
        ImageReadError: it holds Python objects, which only a pickle could bring back: running
            what a file says is no way to read an image.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OverflowError) as error:
        if "mmap length" in str(error) or "memory mapped" in str(error):
            raise ImageReadError("its header claims more numbers than are in the file") from error
        if "Header" in str(error) or "header" in str(error):
            raise ImageReadError("its header cannot be read: damaged, or no NumPy array") from error
        if "Python objects" in str(error):
            raise ImageReadError(
                "holds Python objects (a pickle) and not only numbers, and is not opened: save "
                "the image alone, with np.save of an array of numbers"
            ) from error
        raise
    if array.ndim < 2:
        raise ImageReadError(f"expected an image; found shape {list(array.shape)}")
    axes = guess_axes(array.shape)

    def read_window(_: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        return np.array(cut_window(array, axes, rows, columns))

    def open_stack(_: float | None) -> ImageStack:
        chunk_hw = (1, array.shape[axes.index("X")])
        return ImageStack(axes, array.shape, read_window, chunk_hw=chunk_hw)

    yield [Scene("", open_stack)]
