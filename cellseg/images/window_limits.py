"""Limits of intensities of images that are read by window: exact, without holding the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from cellseg.images.normalisation import (
    Floats,
    Limits,
    as_limits,
    fixed_limits,
    interpolate_ranks,
    is_bright,
    is_grey,
    outer_percentiles,
    percentile_ranks,
)
from cellseg.images.planes import PlaneImage, windows_of
from numpy.typing import NDArray

Windows = Callable[[], Iterator[NDArray[Any]]]

_DIGIT_BITS = 16  # of a key, counted in one pass: 65,536 counters per channel and prefix
_DIGITS = 1 << _DIGIT_BITS


def plane_limits(
    plane: PlaneImage,
    mode: str,
    percentiles: Sequence[float],
    value_range: Sequence[float],
    window_px: int,
) -> Limits:
    """`find_limits` of a whole plane, read window by window.

    Percentiles of up to 16 bits take one pass over the plane, of 32 bits two, of 64 bits four.

    Args:
        plane: read by its chosen channels.
        mode: see `normalize_image`, as are `percentiles` and `value_range`.
        window_px: about how many pixels are held at a time.

    Raises:
        ImageReadError: what `plane.read` raises, such as for values that are not finite.
    """
    sample = plane.read(slice(0, 1), slice(0, 1))
    channels = 1 if sample.ndim == 2 else sample.shape[-1]
    fixed = fixed_limits(sample.dtype, channels, mode, value_range)
    if fixed is not None:
        return fixed

    def read_windows() -> Iterator[NDArray[Any]]:
        """[pixels, channels] of one window after the other."""
        for rows, columns in windows_of(plane.image_hw, plane.chunk_hw, window_px):
            yield plane.read(rows, columns).reshape(-1, channels)

    if mode == "minmax":
        return tuple(_extremes(read_windows, channels))
    size = plane.image_hw[0] * plane.image_hw[1]
    ranks = percentile_ranks(size, percentiles)
    search = RankSearch(sample.dtype, channels, [0, *ranks.tolist(), size - 1])
    values = search.run(read_windows)
    return tuple(_limits_of_values(size, percentiles, found) for found in values)


def is_bright_plane(plane: PlaneImage, percentiles: Sequence[float], window_px: int) -> bool:
    """`is_bright` of a whole plane, read window by window.

    Args:
        plane: read by its chosen channels; three equal ones are grey.
        percentiles: CELLSEG.INPUT.PERCENTILES.
        window_px: about how many pixels are held at a time.
    """
    sample = plane.read(slice(0, 1), slice(0, 1))
    channels = 1 if sample.ndim == 2 else sample.shape[-1]
    windows = (plane.read(*each) for each in windows_of(plane.image_hw, plane.chunk_hw, window_px))
    grey = all(map(is_grey, windows))
    searched = 1 if grey else channels

    def read_windows() -> Iterator[NDArray[Any]]:
        for rows, columns in windows_of(plane.image_hw, plane.chunk_hw, window_px):
            yield plane.read(rows, columns).reshape(-1, channels)[:, :searched]

    size = plane.image_hw[0] * plane.image_hw[1]
    percents = outer_percentiles(percentiles)
    search = RankSearch(sample.dtype, searched, percentile_ranks(size, percents).tolist())
    found = search.run(read_windows)
    return is_bright(np.stack([interpolate_ranks(size, percents, each) for each in found]), grey)


def _limits_of_values(
    size: int, percentiles: Sequence[float], found: Floats
) -> tuple[float, float]:
    """Of the least value, those at the ranks of the percentiles, and the greatest."""
    low, high = interpolate_ranks(size, percentiles, found[1:-1])
    return as_limits(low, high) if low < high else as_limits(found[0], found[-1])


def _extremes(read_windows: Windows, channels: int) -> Iterator[tuple[float, float]]:
    lows, highs = [], []
    for pixels in read_windows():
        lows.append(pixels.min(axis=0))
        highs.append(pixels.max(axis=0))
    for number in range(channels):
        low, high = min(one[number] for one in lows), max(one[number] for one in highs)
        yield as_limits(low, high)


class RankSearch:
    """Finds the values at given ranks by counting, digit by digit, from the most significant one.

    Each value has an unsigned key of the same order. The first pass counts the keys' first 16
    bits: where the counts, added up, pass a rank, there are the first 16 bits of the key at that
    rank. The next pass counts the next 16 bits of the keys that begin so, and so on.

    Args:
        dtype: of the pixels; integers or floats.
        channels: how many.
        ranks: which values, from 0, in ascending order of the values.

    Example:
        >>> pixels = np.float32([[3], [-1], [2], [-5]])
        >>> RankSearch(pixels.dtype, 1, [0, 2]).run(lambda: iter([pixels[:2], pixels[2:]]))
        array([[-5.,  2.]])
    """

    def __init__(self, dtype: np.dtype[Any], channels: int, ranks: Sequence[int]) -> None:
        self.dtype = dtype
        self.passes = max(1, dtype.itemsize * 8 // _DIGIT_BITS)
        self._left = np.tile(np.asarray(ranks, np.int64), (channels, 1))
        self._keys = np.zeros((channels, len(ranks)), np.uint64)

    def run(self, read_windows: Windows) -> Floats:
        """The values, [channels, ranks].

        Args:
            read_windows: gives all pixels, [pixels, channels] at a time; called once per pass.
        """
        for number in reversed(range(self.passes)):
            self._narrow(self._count(read_windows(), number * _DIGIT_BITS))
        return _values_of_keys(self._keys, self.dtype).astype(np.float64)

    def _count(self, windows: Iterator[NDArray[Any]], shift: int) -> list[dict[int, Any]]:
        """Per channel: the beginning of keys -> how many have each next digit."""
        counts = [
            {int(prefix): np.zeros(_DIGITS, np.int64) for prefix in np.unique(row)}
            for row in self._keys
        ]
        for pixels in windows:
            for channel, wanted in enumerate(counts):
                keys = _keys_of_values(pixels[:, channel])
                for prefix, found in wanted.items():
                    chosen = keys
                    if shift + _DIGIT_BITS < self.passes * _DIGIT_BITS:  # not the first digit
                        chosen = keys[keys >> (shift + _DIGIT_BITS) == prefix]
                    digits = chosen >> shift & (_DIGITS - 1)
                    found += np.bincount(digits.astype(np.intp), minlength=_DIGITS)
        return counts

    def _narrow(self, counts: list[dict[int, Any]]) -> None:
        """Add a digit to each key, and count the rank within those that begin like it."""
        for channel, wanted in enumerate(counts):
            for at, prefix in enumerate(self._keys[channel].tolist()):
                until = wanted[prefix].cumsum()
                digit = int(np.searchsorted(until, self._left[channel, at], side="right"))
                self._left[channel, at] -= until[digit - 1] if digit else 0
                self._keys[channel, at] = prefix << _DIGIT_BITS | digit


def _keys_of_values(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers of the values' own size (at least 16 bits), in the order of the values."""
    bits = values.dtype.itemsize * 8
    if bits < _DIGIT_BITS:
        values, bits = values.astype(f"{values.dtype.kind}2"), _DIGIT_BITS
    unsigned = np.dtype(f"u{bits // 8}").type
    top = unsigned(1 << (bits - 1))
    keys = np.ascontiguousarray(values).view(unsigned)
    if values.dtype.kind == "u":
        return keys
    if values.dtype.kind == "i":
        return keys ^ top
    # Floats: a sign, then the rest in ascending order; of negative ones the order is the other way.
    return np.where(keys & top, ~keys, keys | top)


def _values_of_keys(keys: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """What `_keys_of_values` made the keys of."""
    bits = max(dtype.itemsize * 8, _DIGIT_BITS)
    unsigned = np.dtype(f"u{bits // 8}").type
    top, whole = unsigned(1 << (bits - 1)), np.dtype(f"{dtype.kind}{bits // 8}")
    plain = keys.astype(unsigned)
    if dtype.kind == "u":
        return plain
    if dtype.kind == "i":
        return (plain ^ top).view(whole)
    return np.where(plain & top, plain & ~top, ~plain).view(whole)
