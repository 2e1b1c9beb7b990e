"""Which page and which channels of a file make the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from cellseg.arguments import WHOLE, checked
from cellseg.errors import ImageChoiceError, ImageReadError
from cellseg.images.stacks import EVERYTHING, ImageStack, full_range
from numpy.typing import NDArray

Window = tuple[slice, slice]

_UNNAMED_AXES = "QI"  # tifffile's letters where a file has several images and does not say why


@checked(page=WHOLE)
def select_image(
    stack: ImageStack,
    channels: Sequence[int | str] = (),
    page: int = -1,
    projection: str = "none",
    window: Window = (EVERYTHING, EVERYTHING),
) -> NDArray[Any]:
    """Read the chosen page and channels, and no others.

    Args:
        stack: what the file holds, of which one image is to be taken.
        channels: numbers from 0 or names, in the order wanted; empty for the one channel or the
            three of R, G, B (alpha is left out). Where axes C and S are both there, channel
            numbers count S fastest. An unnamed axis counts as channels where `channels` are given
            and it is not needed for `page`.
        page: from 0, counted over all axes that are neither Y, X nor channels, the last one
            fastest; -1 where there is one page only.
        projection: "max" takes the brightest value along Z (or along the only axis of pages, if
            that has no name) before pages are counted.
        window: the rows and the columns wanted.

    Returns:
        [H, W] for one channel, else [H, W, C], of the window; the file's own dtype.

    Raises:
        ImageReadError: a choice is missing, or is not in the file; it lists what there is.
    """
    channel_axes = _find_channel_axes(stack, bool(channels), page)
    numbers = _channel_numbers(stack, channel_axes, channels)
    others = [at for at in _stacked_axes(stack) if at not in channel_axes]
    depth = _find_depth(stack, others) if projection == "max" else []
    fixed = page_index(stack, [at for at in others if at not in depth], page)
    levels = (
        _read_channels(
            _BlockReader(stack, window), {**fixed, **dict(zip(depth, level))}, channel_axes, numbers
        )
        for level in np.ndindex(*(stack.shape[at] for at in depth))
    )
    return reduce(np.maximum, levels)


def page_axes(
    stack: ImageStack, channels: Sequence[int | str] = (), page: int = -1, projection: str = "none"
) -> list[int]:
    """The dimensions that pages are counted over, see `select_image`; places in `stack.axes`."""
    channel_axes = _find_channel_axes(stack, bool(channels), page)
    others = [at for at in _stacked_axes(stack) if at not in channel_axes]
    depth = _find_depth(stack, others) if projection == "max" else []
    return [at for at in others if at not in depth]


def select_channels(
    stack: ImageStack,
    page: int = -1,
    projection: str = "none",
    window: Window = (EVERYTHING, EVERYTHING),
) -> NDArray[Any]:
    """All channels of a page but alpha, [C, H, W]; see `select_image`."""
    channel_axes = _find_channel_axes(stack, False, page)
    count = math.prod(stack.shape[at] for at in channel_axes) - stack.has_alpha
    channels = list(range(count)) if channel_axes else ()
    image = select_image(stack, channels, page, projection, window)
    return image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)


def _stacked_axes(stack: ImageStack) -> list[int]:
    return [at for at, axis in enumerate(stack.axes) if axis not in "YX"]


def _find_channel_axes(stack: ImageStack, wanted: bool, page: int) -> list[int]:
    named = [at for at, axis in enumerate(stack.axes) if axis in "CS"]
    unnamed = [at for at, axis in enumerate(stack.axes) if axis in _UNNAMED_AXES]
    if named or not wanted or not unnamed:
        return named
    return unnamed[-1:] if page < 0 or len(_stacked_axes(stack)) > 1 else []


def _channel_numbers(
    stack: ImageStack, channel_axes: Sequence[int], channels: Sequence[int | str]
) -> list[int]:
    count = math.prod(stack.shape[at] for at in channel_axes) - stack.has_alpha
    if channels:
        return [_channel_number(stack, channel, count) for channel in channels]
    longer = [stack.axes[at] for at in channel_axes if stack.shape[at] > 1]
    is_colour = count == 3 and longer == ["S"]
    if count == 1 or is_colour:
        return list(range(count))
    raise ImageChoiceError(
        f"expected one channel or RGB; {stack.found}: choose up to three of "
        f"{_list_channels(stack, count)} with CELLSEG.INPUT.CHANNELS"
    )


def _channel_number(stack: ImageStack, channel: int | str, count: int) -> int:
    number = channel
    if isinstance(channel, str):
        matches = [k for k, name in enumerate(stack.channel_names[:count]) if name == channel]
        number = matches[0] if len(matches) == 1 else -1
    if isinstance(number, int) and 0 <= number < count:
        return number
    names = "" if stack.channel_names or isinstance(channel, int) else " (it has no channel names)"
    raise ImageReadError(
        f"CELLSEG.INPUT.CHANNELS asks for {channel!r}; the file has "
        f"{_list_channels(stack, count)}{names}; {stack.found}"
    )


def _list_channels(stack: ImageStack, count: int) -> str:
    if len(stack.channel_names) >= count:
        named = [f"{k} {name!r}" for k, name in enumerate(stack.channel_names[:count])]
        return f"channels {', '.join(named)}"
    return f"channels 0 to {count - 1}" if count > 1 else "channel 0"


def _find_depth(stack: ImageStack, others: Sequence[int]) -> list[int]:
    depth = [at for at in others if stack.axes[at] == "Z"]
    if not depth and len(others) == 1 and stack.axes[others[0]] in _UNNAMED_AXES:
        return list(others)
    return depth


def page_index(stack: ImageStack, positions: Sequence[int], page: int) -> dict[int, int]:
    """Where along the dimensions of `page_axes` a page lies; -1 for the only one.

    Raises:
        ImageReadError: there are several, or there is none of that number.
    """
    lengths = [stack.shape[at] for at in positions]
    count = math.prod(lengths)
    if page < 0 and count > 1:
        raise ImageChoiceError(
            f"expected one page; {stack.found}: {count} pages ({stack.describe(positions)}). "
            f"Choose one, 0 to {count - 1}, with CELLSEG.INPUT.PAGE"
            + _advice_on_axes(stack, positions)
        )
    if page >= count:
        pages = f"pages 0 to {count - 1}" if count > 1 else "page 0 only"
        raise ImageReadError(f"CELLSEG.INPUT.PAGE is {page}; the file has {pages}; {stack.found}")
    index = np.unravel_index(max(page, 0), lengths) if lengths else ()
    return dict(zip(positions, map(int, index)))


def _advice_on_axes(stack: ImageStack, positions: Sequence[int]) -> str:
    letters = {stack.axes[at] for at in positions}
    advice = ""
    if "Z" in letters or (len(positions) == 1 and letters <= set(_UNNAMED_AXES)):
        advice += ', or set CELLSEG.INPUT.PROJECTION to "max"'
    if letters & set(_UNNAMED_AXES):
        advice += "; if they are channels, choose with CELLSEG.INPUT.CHANNELS"
        if stack.shape[-1] <= 16 < stack.shape[0]:
            advice += (
                '; if the channels come last, the file was written without its axes: "YXC" is meant'
            )
    return advice


class _BlockReader:
    """Reads parts of blocks; a block that several channels lie in is read once."""

    def __init__(self, stack: ImageStack, window: Window) -> None:
        self.stack = stack
        height, width = stack.image_hw
        self.rows, self.columns = full_range(window[0], height), full_range(window[1], width)
        self._blocks: dict[tuple[int, ...], NDArray[Any]] = {}

    def __call__(self, at: dict[int, int]) -> NDArray[Any]:
        """The part of a block at an index; dimensions without one stay, in the file's order."""
        stack = self.stack
        leading = tuple(at[k] for k in range(stack.leading))
        if leading not in self._blocks:
            self._blocks[leading] = stack.read_block(leading, self.rows, self.columns)
        rest = range(stack.leading, len(stack.axes))
        return self._blocks[leading][tuple(at.get(k, slice(None)) for k in rest)]


def _read_channels(
    read: _BlockReader, index: dict[int, int], channel_axes: Sequence[int], numbers: Sequence[int]
) -> NDArray[Any]:
    stack = read.stack
    if list(numbers) == list(range(len(numbers))) and len(channel_axes) == 1 < len(numbers):
        (axis,) = channel_axes
        if axis >= stack.leading:  # all at once: what is usual for RGB
            position = [k for k in range(len(stack.axes)) if k not in index].index(axis)
            colour = np.moveaxis(read(index), position, -1)[..., : len(numbers)]
            return _rows_first(stack, colour)
    lengths = [stack.shape[at] for at in channel_axes]
    planes = []
    for number in numbers:
        where = np.unravel_index(number, lengths) if lengths else ()
        planes.append(read({**index, **dict(zip(channel_axes, map(int, where)))}))
    return _rows_first(stack, planes[0] if len(planes) == 1 else np.stack(planes, axis=-1))


def _rows_first(stack: ImageStack, image: NDArray[Any]) -> NDArray[Any]:
    is_turned = stack.axes.index("X") < stack.axes.index("Y")
    return image.swapaxes(0, 1) if is_turned else image
