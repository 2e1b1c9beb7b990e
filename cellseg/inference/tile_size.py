"""The size of tiles by the memory at hand."""

from __future__ import annotations

import os
from pathlib import Path

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
        available_bytes: see `available_memory`, or the memory of the device.
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


def available_memory() -> int:
    """Bytes of main memory that can be had without swapping, of the machine or the container.

    Linux says so in /proc/meminfo; elsewhere psutil does, and where it is not installed half of
    what is built in is taken. A limit of a container (cgroup 2) counts where it is lower.
    """
    free = _free_by_kernel(Path("/proc/meminfo")) or _free_by_psutil()
    free = free or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, _left_in_container(Path("/sys/fs/cgroup"), free))


def _free_by_kernel(path: Path) -> int:
    try:
        lines = path.read_text("ascii").splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _free_by_psutil() -> int:
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.virtual_memory().available)


def _left_in_container(folder: Path, default: int) -> int:
    try:
        limit = int((folder / "memory.max").read_text("ascii"))
        return max(limit - int((folder / "memory.current").read_text("ascii")), 0)
    except (OSError, ValueError):  # no such file, or "max"
        return default
