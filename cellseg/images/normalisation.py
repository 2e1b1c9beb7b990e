"""How intensities become 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.arguments import ENDS, IMAGE, VECTOR, array_of, checked
from cellseg.config import KEYS, check_value
from cellseg.errors import ConfigError, ImageReadError
from numpy.typing import NDArray

_CHANNEL = array_of(1, 2, 3, words="an array of numbers, not empty", filled=True)

DEFAULT_PERCENTILES = (1.0, 99.8)

BRIGHT_FROM = 0.75
"""Of a grey image's range. The medians of 535 images of fluorescence lie at 0 to 0.13 of it, those
of two of empty noise at 0.5 and 0.57; of phase contrast (42 images) at 0.25 to 0.42."""

BRIGHT_COLOURS_FROM = 0.5
"""Of the range of an image in colours: the medians of 100 of stained tissue lie at 0.52 to 0.90."""

DYE_FROM = 0.1
"""Of the widest range among the channels: what has less is no dye."""

Floats = NDArray[np.float64]
Limits = tuple[tuple[float, float], ...]


@checked(image=IMAGE, limits=ENDS, value_range=ENDS)
def normalize_image(
    image: NDArray[Any],
    mode: str = "auto",
    limits: Sequence[float] = DEFAULT_PERCENTILES,
    value_range: Sequence[float] = (),
) -> NDArray[Any]:
    """Bring intensities to the range 0 to 255 that the model's pixel mean and deviation are for.

    Args:
        image: [H, W] or [H, W, C] of any integer or float type.
        mode: "minmax" (darkest pixel 0, brightest 255), "percentile" (values at the two
            percentiles become 0 and 255, what lies beyond is clipped), "range" (the two values of
            `value_range` become 0 and 255), "none" (values stay as they are, also beyond 255), or
            "auto": "none" for uint8, else "percentile". "minmax" and "percentile" work per channel.
        limits: the two percentiles.
        value_range: the two intensities of "range".

    Returns:
        float32 of the same shape; uint8 stays uint8 where nothing is changed. A channel of one
        value becomes 0 in "minmax" and "percentile". Where both percentiles fall on one value
        (a few cells on an even background), the channel's least and greatest value take their
        place.

    Raises:
        ConfigError: unknown mode, or limits or a range that do not ascend.
        ImageReadError: values that are not finite.
    """
    check_normalization(mode, limits, value_range)
    check_finite(image)
    return apply_limits(image, find_limits(image, mode, limits, value_range))


def find_limits(
    image: NDArray[Any],
    mode: str = "auto",
    percentiles: Sequence[float] = DEFAULT_PERCENTILES,
    value_range: Sequence[float] = (),
) -> Limits:
    """Which intensities of each channel become 0 and 255; see `normalize_image`.

    Returns:
        (low, high) per channel; empty where the values stay as they are.
    """
    planes = image[..., None] if image.ndim == 2 else image
    fixed = fixed_limits(planes.dtype, planes.shape[-1], mode, value_range)
    if fixed is not None:
        return fixed
    return tuple(
        _channel_limits(planes[..., number], mode, percentiles)
        for number in range(planes.shape[-1])
    )


def _channel_limits(
    channel: NDArray[Any], mode: str, percentiles: Sequence[float]
) -> tuple[float, float]:
    if mode != "minmax":
        low, high = channel_percentiles(channel, percentiles)
        if low < high:
            return as_limits(low, high)
    return as_limits(channel.min(), channel.max())


def fixed_limits(
    dtype: np.dtype[Any], channels: int, mode: str, value_range: Sequence[float]
) -> Limits | None:
    """The limits that do not depend on the pixels; None where they do."""
    if mode == "none" or (mode == "auto" and dtype == np.uint8):
        return ()
    if mode == "range":
        return (as_limits(*value_range),) * channels
    return None


def as_limits(low: float, high: float) -> tuple[float, float]:
    """The two as Python's floats; of the two zeros, the positive one."""
    return float(low) + 0.0, float(high) + 0.0


def apply_limits(image: NDArray[Any], limits: Limits) -> NDArray[Any]:
    """Make 0 and 255 of each channel's limits, so that a window becomes what it is in the whole.

    Args:
        image: [H, W] or [H, W, C] of any integer or float type, all finite.
        limits: of `find_limits`; of a channel that is inverted, the higher one comes first.

    Returns:
        As `normalize_image`.

    Raises:
        ImageReadError: another number of channels than limits.
    """
    if not limits:
        return image if image.dtype == np.uint8 else image.astype(np.float32)
    planes = image[..., None] if image.ndim == 2 else image
    if planes.shape[-1] != len(limits):
        raise ImageReadError(
            f"the limits are those of {len(limits)} channels; found shape {list(image.shape)}"
        )
    stretched = np.empty(planes.shape, np.float32)
    for number, (low, high) in enumerate(limits):
        stretched[..., number] = _stretch_plane(planes[..., number], low, high)
    return stretched.reshape(image.shape)


def invert_limits(limits: Limits, channels: int) -> Limits:
    """The limits that make 255 of what became 0, and 0 of what became 255.

    Args:
        limits: of `find_limits`; empty where values stay as they are, 0 to 255.
        channels: how many the image has.

    Example:
        >>> inverted = invert_limits(((10, 50),), 1)
        >>> apply_limits(np.uint16([[10, 20, 50]]), inverted).astype(int).tolist()
        [[255, 191, 0]]
    """
    return tuple((high, low) for low, high in limits or ((0.0, 255.0),) * channels)


def mirror_percentiles(percentiles: Sequence[float]) -> tuple[float, float]:
    """Those of an image that are the given ones of its negative.

    >>> mirror_percentiles((1, 99))
    (1, 99)
    """
    return 100 - percentiles[1], 100 - percentiles[0]


def outer_percentiles(percentiles: Sequence[float]) -> tuple[float, float, float]:
    """Lowest, middle and highest percentile by which an image's ground is seen to be bright.

    The outer two lie equally far out, so that an image and its negative are judged alike.
    """
    share = min(percentiles[0], 100 - percentiles[1])
    return share, 50.0, 100 - share


def is_grey(image: NDArray[Any]) -> bool:
    """Whether an image has one channel, or equal ones, as grey images stored in RGB have."""
    return image.ndim == 2 or bool((image == image[..., :1]).all())


def is_bright(values: NDArray[Any], grey: bool) -> bool:
    """Whether an image shows dark cells on bright ground, as transmitted light does.

    It does where its median lies in the brightest quarter of a grey image's range, or in the
    brighter half of that of one in colours, all channels together.

    Args:
        values: [channels, 3], each channel's at `outer_percentiles`.
        grey: whether the channels are equal, or there is one.

    Example:
        >>> grey = [np.array([[0, 90, 100]]), np.array([[0, 60, 100]]), np.array([[7, 7, 7]])]
        >>> [is_bright(each, grey=True) for each in grey]
        [True, False, False]
        >>> is_bright(np.array([[60, 200, 240], [20, 150, 230], [90, 190, 240]]), grey=False)
        True
    """
    low, median, high = values.T
    share = BRIGHT_FROM if grey else BRIGHT_COLOURS_FROM
    return bool((median - low).sum() > share * (high - low).sum())


def is_bright_image(image: NDArray[Any], percentiles: Sequence[float]) -> bool:
    """`is_bright` of an image, [H, W] or [H, W, C].

    Args:
        image: of any integer or float type, all finite.
        percentiles: CELLSEG.INPUT.PERCENTILES.
    """
    grey = is_grey(image)
    planes = image[..., None] if image.ndim == 2 else image
    percents = outer_percentiles(percentiles)
    channels = range(1 if grey else planes.shape[-1])
    values = [channel_percentiles(planes[..., number], percents) for number in channels]
    return is_bright(np.stack(values), grey)


def merge_dyes(stretched: NDArray[Any], limits: Limits) -> NDArray[np.float32]:
    """An image of dyes on dark ground in grey: the mean of the channels that show something.

    Models learn fluorescence from grey images, and one dye is often stored in the colour that it
    has under the microscope. A channel shows nothing where its range is below `DYE_FROM` of the
    widest one's, as what compression leaves beside a dye.

    Args:
        stretched: [H, W, C], what `apply_limits` made of it.
        limits: of the whole image, by which it was stretched.

    Returns:
        [H, W]; of equal channels exactly one of them.

    Example:
        >>> merge_dyes(np.float32([[[9, 0, 120]]]), ((0, 3), (0, 0), (0, 200))).tolist()
        [[120.0]]
    """
    ranges = [high - low for low, high in limits]
    shown = [number for number, each in enumerate(ranges) if each >= DYE_FROM * max(ranges)]
    return stretched[..., shown].mean(axis=-1, dtype=np.float64).astype(np.float32)


def check_normalization(mode: str, limits: Sequence[float], value_range: Sequence[float]) -> None:
    """Raise ConfigError for what `normalize_image` cannot use."""
    check_value("INPUT.NORMALIZE", mode)
    check_value("INPUT.PERCENTILES", tuple(limits))
    check_value("INPUT.RANGE", tuple(value_range))
    if mode == "range" and not len(value_range):
        raise ConfigError(
            f"CELLSEG.INPUT.RANGE is []; expected {KEYS['INPUT.RANGE'].rule.expected}"
        )


def check_finite(image: NDArray[Any]) -> None:
    """Raise ImageReadError for NaN and infinite values."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = np.count_nonzero(~np.isfinite(image))
        raise ImageReadError(f"{bad} of {image.size} values are not finite (NaN or infinite)")


@checked(channel=_CHANNEL, percents=VECTOR)
def channel_percentiles(channel: NDArray[Any], percents: Sequence[float]) -> Floats:
    """The same values as `np.percentile(channel.astype(float), percents)`, sooner.

    Args:
        channel: any shape with at least one value, integers or floats.
        percents: which percentiles, each 0 to 100.

    Returns:
        float64, one per percent; linear between neighbouring values.
    """
    ranks = percentile_ranks(channel.size, percents)
    return interpolate_ranks(channel.size, percents, _ordered_values(channel, ranks))


def percentile_ranks(size: int, percents: Sequence[float]) -> NDArray[np.int64]:
    """Which of `size` values in ascending order, from 0, percentiles lie between.

    Returns:
        The lower neighbour of each percentile, then the upper neighbour of each.
    """
    below = np.floor(_virtual_ranks(size, percents)).astype(np.int64)
    return np.concatenate([below, np.minimum(below + 1, size - 1)])


def interpolate_ranks(size: int, percents: Sequence[float], values: Floats) -> Floats:
    """The percentiles, of the values at `percentile_ranks`."""
    virtual = _virtual_ranks(size, percents)
    weight = virtual - np.floor(virtual)
    lower, upper = values[: len(virtual)], values[len(virtual) :]
    step = upper - lower
    # As NumPy rounds: from the nearer of the two values.
    return np.where(weight >= 0.5, upper - step * (1 - weight), lower + step * weight)


def _virtual_ranks(size: int, percents: Sequence[float]) -> Floats:
    return np.asarray(percents, np.float64) / 100 * (size - 1)


def _ordered_values(channel: NDArray[Any], ranks: NDArray[np.int64]) -> Floats:
    """Values at the given ranks (from 0) of all values in ascending order."""
    values = channel.ravel()
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        counts = np.bincount(_from_zero(values)).cumsum()
        levels = np.searchsorted(counts, ranks, side="right")
        return (levels + _least_value(values.dtype)).astype(np.float64)
    return np.partition(values, np.unique(ranks))[ranks].astype(np.float64)


def _least_value(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).min)


def _from_zero(values: NDArray[Any]) -> NDArray[Any]:
    """Integers of up to 16 bits, moved to begin at 0."""
    return (
        values if values.dtype.kind == "u" else values.astype(np.intp) - _least_value(values.dtype)
    )


def _stretch_plane(plane: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    if plane.dtype.kind not in "iu" or plane.dtype.itemsize > 2:
        return _scale_values(plane.astype(np.float64), low, high)
    least, greatest = _least_value(plane.dtype), int(np.iinfo(plane.dtype).max)
    table = _scale_values(np.arange(least, greatest + 1, dtype=np.float64), low, high)
    return table[_from_zero(plane)]


def _scale_values(values: Floats, low: float, high: float) -> NDArray[np.float32]:
    """Works in `values`, which are lost."""
    values -= low
    values /= high - low if high != low else 1
    np.clip(values, 0, 1, out=values)
    values *= 255
    return values.astype(np.float32)
