"""What a file holds before any pixel of it is read: scenes, and stacks of planes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cellseg.errors import ImageReadError
from cellseg.images.units import PixelSize
from numpy.typing import NDArray
from PIL import Image

ReadBlock = Callable[[tuple[int, ...], slice, slice], NDArray[Any]]
EVERYTHING = slice(None)

# No file comes near: blank tiles of 8192 x 8192, compressed as well as can be, have 30,000.
_PIXELS_PER_BYTE = 500_000
_KEPT_BYTES = 1 << 30
_PIXEL_SIZE_TOLERANCE = 1.02  # 0.5 um at level 0 may be 2.003 um at level 2


@dataclass(frozen=True)
class ImageStack:
    """The planes of one scene, at one level of its pyramid.

    Attributes:
        axes: a letter per dimension: Y, X, S (samples of a pixel, such as R, G, B), C (channels),
            Z, T, and others; Q and I where the file does not say.
        shape: the length along each of `axes`.
        read_block: (index of the first `leading` dimensions, rows, columns) -> array of the rest,
            cut down to these rows and columns along Y and X.
        leading: how many dimensions are read one by one; Y and X are none of them.
        channel_names: one per channel, or none.
        has_alpha: the last sample is transparency.
        pixel_size_um: (height, width) of a pixel in micrometres; None where the file does not say.
        chunk_hw: rows and columns of what is decoded at once; None where it is the whole plane.
        level: which level of a pyramid, 0 is the finest.
        downsample: pixels of level 0 along the side of a pixel of this level.

    Raises:
        ImageReadError: no image, or one that is too large to be true.
    """

    axes: str
    shape: tuple[int, ...]
    read_block: ReadBlock
    leading: int = 0
    channel_names: tuple[str, ...] = ()
    has_alpha: bool = False
    pixel_size_um: PixelSize | None = None
    chunk_hw: tuple[int, int] | None = None
    level: int = 0
    downsample: float = 1.0

    def __post_init__(self) -> None:
        if self.axes.count("Y") != 1 or self.axes.count("X") != 1 or 0 in self.shape:
            raise ImageReadError(f"expected an image; {self.found}")
        if is_large(self.chunk_hw or self.image_hw):
            raise ImageReadError(f"implausibly large: {self.found}")

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def found(self) -> str:
        """Shape and axes, for messages."""
        return f"found shape {list(self.shape)}, axes {self.axes}"

    def describe(self, positions: Sequence[int]) -> str:
        """Axes with their lengths, such as `T 3, Z 5`."""
        return ", ".join(f"{self.axes[at]} {self.shape[at]}" for at in positions)


@dataclass(frozen=True)
class Scene:
    """One scene, series or position of a file.

    Attributes:
        name: as the file calls it; "" where it does not.
        open_stack: wished size of a pixel in micrometres (None for level 0) -> its planes at the
            level that `choose_level` says.
        shape: for messages; () where it takes long to find out.
    """

    name: str
    open_stack: Callable[[float | None], ImageStack]
    shape: tuple[int, ...] = ()


def names_of_scenes(scenes: Sequence[Scene]) -> list[str]:
    """What a user may call the scenes by: their names, or s0, s1, ... where they have none."""
    return [scene.name or f"s{number}" for number, scene in enumerate(scenes)]


def list_scenes(names: Sequence[str], most: int = 50) -> str:
    """Numbers and names of scenes, for messages.

    Example:
        >>> list_scenes(["A1", "B2"])
        "0 'A1', 1 'B2'"
    """
    listed = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:most]))
    return listed + (", ..." if len(names) > most else "")


def choose_scenes(names: Sequence[str], wanted: Sequence[int | str]) -> list[int]:
    """Numbers of the scenes, each once; by default all."""
    chosen = []
    for one in wanted:
        matches = [number for number, name in enumerate(names) if name == one]
        if not matches and str(one).isdecimal() and int(one) < len(names):
            matches = [int(one)]
        if len(matches) != 1:
            problem = "several have that name" if matches else "no scene is called so"
            raise ImageReadError(
                f"scene {one!r}: {problem}; the file has {len(names)} ({list_scenes(names)}), "
                "chosen by number from 0 or by name"
            )
        chosen.append(matches[0])
    return list(dict.fromkeys(chosen)) if wanted else list(range(len(names)))


def is_large(image_hw: tuple[int, int]) -> bool:
    """More pixels than are decoded at once: twice `PIL.Image.MAX_IMAGE_PIXELS`."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and math.prod(image_hw) > 2 * limit


def check_claim(image_hw: tuple[int, int], stored_bytes: int) -> None:
    """Refuse a large plane for which the file, compressed or not, is far too small."""
    if is_large(image_hw) and math.prod(image_hw) > _PIXELS_PER_BYTE * stored_bytes:
        raise ImageReadError(
            f"implausibly large: the header claims {image_hw[0]} x {image_hw[1]} pixels, of which "
            f"{stored_bytes} bytes are stored"
        )


def choose_level(sizes_um: Sequence[PixelSize | None], wished_um: float | None) -> int:
    """The coarsest level of a pyramid whose pixels are not larger than wished.

    Args:
        sizes_um: size of a pixel per level, the finest level first.
        wished_um: in micrometres; None for the finest.

    Returns:
        Place in `sizes_um`; 0 where even the finest level's pixels are larger than wished.

    Raises:
        ImageReadError: there are several levels, and the file does not say how large pixels are.

    Example:
        >>> choose_level([(0.25, 0.25), (0.5, 0.5), (2.0, 2.0)], 1.0)
        1
    """
    if wished_um is None or len(sizes_um) == 1:
        return 0
    known = [size for size in sizes_um if size is not None]
    if len(known) < len(sizes_um):
        raise ImageReadError(
            f"a level with pixels of {wished_um:g} um is wished; the file has {len(sizes_um)} "
            "levels and does not say how large its pixels are"
        )
    fine = [k for k, size in enumerate(known) if max(size) <= wished_um * _PIXEL_SIZE_TOLERANCE]
    return max(fine, default=0, key=lambda k: max(known[k]))


class RecentArrays:
    """What was decoded last, up to a number of bytes, so that the next window finds it again."""

    def __init__(self, limit_bytes: int = _KEPT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._total_bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> NDArray[Any] | None:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def keep(self, key: Hashable, array: NDArray[Any]) -> None:
        with self._lock:
            if key in self._arrays:  # another thread was first
                return
            self._arrays[key] = array
            self._total_bytes += array.nbytes
            while len(self._arrays) > 1 and self._total_bytes > self.limit_bytes:
                self._total_bytes -= self._arrays.popitem(last=False)[1].nbytes


class WholeBlocks:
    """Windows of blocks that can only be decoded whole; one thread at a time decodes.

    Args:
        decode: index of the leading dimensions -> the whole block.
        axes: of a block.
        recent: where blocks are kept, one for all scenes of a file, so that memory does not grow
            with their number; by default one of its own.
    """

    def __init__(
        self,
        decode: Callable[[tuple[int, ...]], NDArray[Any]],
        axes: str,
        recent: RecentArrays | None = None,
    ) -> None:
        self.decode, self.axes, self.recent = decode, axes, recent or RecentArrays()
        self._lock = Lock()

    def __call__(self, index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        with self._lock:
            block = self.recent.get((self, index))
            if block is None:
                block = self.decode(index)
                window = cut_window(block, self.axes, rows, columns)
                if window.size == block.size:  # nobody will ask for another part of it
                    return block
                self.recent.keep((self, index), block)
        return cut_window(block, self.axes, rows, columns)


def cut_window(block: NDArray[Any], axes: str, rows: slice, columns: slice) -> NDArray[Any]:
    """The rows and columns of an array whose dimensions are called `axes`."""
    return block[tuple({"Y": rows, "X": columns}.get(axis, EVERYTHING) for axis in axes)]


def guess_axes(shape: tuple[int, ...]) -> str:
    """Axes of an array that names none: [H, W], [H, W, up to four samples], or stacks of [H, W].

    Example:
        >>> [guess_axes(shape) for shape in ((9, 8), (9, 8, 3), (5, 9, 8), (2, 5, 9, 8))]
        ['YX', 'YXS', 'QYX', 'QQYX']
    """
    if len(shape) == 3 and shape[-1] <= 4 and shape[-1] < min(shape[:2]):
        return "YXS"
    return "YX".rjust(len(shape), "Q")


def full_range(part: slice, length: int) -> slice:
    """The part with its first and its end as numbers.

    Raises:
        ValueError: it leaves out every second row, or goes backwards.
    """
    start, stop, step = part.indices(length)
    if step != 1:
        raise ValueError(f"windows are without gaps; found {part}")
    return slice(start, max(start, stop))


def is_whole(rows: slice, columns: slice, image_hw: tuple[int, int]) -> bool:
    return (rows, columns) == (slice(0, image_hw[0]), slice(0, image_hw[1]))


def as_chunk_hw(chunk: Sequence[int], image_hw: tuple[int, int]) -> tuple[int, int]:
    """What is decoded at once, at most the image."""
    return min(int(chunk[0]), image_hw[0]), min(int(chunk[1]), image_hw[1])
