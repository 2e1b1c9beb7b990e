"""The size of tiles by the memory at hand."""

from __future__ import annotations

_STEP_PX = 256  # sizes that are chosen are multiples, as those of chunks are
_SMALLEST_PX, _LARGEST_PX = 256, 4096


def choose_tile(
    image_hw: tuple[int, int], available_bytes: int, bytes_per_pixel: float, margin_px: int = 128
) -> int:
    """The largest size of tiles that memory allows: few seams, and little is read twice.

    The model: what is needed grows with the pixels of a window, `bytes_per_pixel` for each, input,
    activations and masks together; half the available memory is used. The image that fits as a
    whole is one tile.

    Args:
        image_hw: (height, width) of the image, pixels.
        available_bytes: see `cellseg.limits.available_memory`, or the memory of the device.
        bytes_per_pixel: of a window, to be measured with the network in question.
        margin_px: `TileGrid.margin_px`, pixels.

    Returns:
        `tile_px`: the longer side of an image that fits; else a multiple of 256 from 256 to 4,096.

    Example:
        8 GB at 4 kB per pixel: half of it holds 1,000,000 pixels, a window of 1,000 x 1,000.

        >>> choose_tile((20_000, 20_000), 8_000_000_000, 4_000)
        512
        >>> choose_tile((700, 900), 8_000_000_000, 4_000)
        900
    """
    pixels = available_bytes / 2 / bytes_per_pixel
    if image_hw[0] * image_hw[1] <= pixels:
        return max(*image_hw, 1)
    side = int(pixels**0.5) - 2 * margin_px
    return min(max(side // _STEP_PX * _STEP_PX, _SMALLEST_PX), _LARGEST_PX)
