"""What is dropped into the window: images as cellseg reads them, and cells as labels.

An image of several channels becomes a layer per channel, several planes (time, depth) become an
axis each, and are read when they are looked at. Cells become labels with class and score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import CellsegError, ImageChoiceError, ImageReadError
from cellseg.images import (
    PlaneImage,
    by_scene,
    find_plane,
    is_readable_name,
    open_planes,
    stem_of_image,
)
from cellseg.inference.own_files import STATE_FOLDER
from cellseg.io.label_stacks import read_label_stacks
from cellseg.io.single_files import (
    CellsOfFile,
    holds_cells,
    is_named_as_labels,
    read_single_file,
)
from cellseg.limits import LimitError, check_memory
from cellseg.napari.background import tell_error
from cellseg.napari.layers import LayerData, cells_to_layer, scale_arguments, stack_to_layer
from napari.utils.notifications import show_warning
from numpy.typing import NDArray

_ALL = slice(None)
_COLOURS = ("bop blue", "bop orange", "bop purple", "green", "magenta", "cyan")
_MOST_RESULTS = 50

Reader = Callable[[Any], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader of a path, as npe2 asks for it; None where it is none of ours."""
    first = Path(path if isinstance(path, str) else path[0])
    if (first / STATE_FOLDER).is_dir():
        return _telling(_read_results)
    if first.is_file() and holds_cells(first):
        return _telling(_read_cells)
    if is_readable_name(first):
        return _telling(read_image_layers)
    return None


def _telling(read: Callable[[Path], list[LayerData]]) -> Reader:
    """A reader of one or several paths, whose errors are told and not raised."""

    def read_paths(path: str | Sequence[str]) -> list[LayerData]:
        layers: list[LayerData] = []
        for one in [path] if isinstance(path, str) else path:
            try:
                layers += read(Path(one))
            except CellsegError as error:
                tell_error(error)
        return layers or [(None,)]  # type: ignore[list-item]  # npe2: there is nothing to add

    return read_paths


def _read_cells(path: Path) -> list[LayerData]:
    if is_named_as_labels(path) and (stacks := read_label_stacks(path)):
        return [stack_to_layer(stack) for stack in stacks]
    return [_to_layer(found) for found in read_single_file(path)]


def _to_layer(found: CellsOfFile) -> LayerData:
    return cells_to_layer(found.cells, found.classes, f"cells of {found.image_id}", ids=found.ids)


def _read_results(folder: Path) -> list[LayerData]:
    """The cells of a folder of `cellseg predict`, of each image once."""
    layers: dict[str, LayerData] = {}
    others: set[str] = set()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and STATE_FOLDER not in path.parts and holds_cells(path):
            for found in read_single_file(path):
                name = Path(found.image_id).name
                if len(layers) < _MOST_RESULTS:
                    layers.setdefault(name, _to_layer(found))
                elif name not in layers:
                    others.add(name)
    if others:
        show_warning(
            f"{folder}: of {len(layers) + len(others)} images the first {len(layers)} are opened; "
            "drop the files of the others into the window"
        )
    return list(layers.values())


def read_image_layers(path: Path) -> list[LayerData]:
    """The scenes and channels of an image file, as Image layers.

    Raises:
        ImageReadError: it cannot be read, or a package is missing.
    """
    with open_planes(path) as planes:
        of_each = [_layers_of_scene(path, of_scene) for of_scene in by_scene(planes)]
    return list(chain.from_iterable(of_each))


def _layers_of_scene(path: Path, planes: list[PlaneImage]) -> list[LayerData]:
    first = planes[0]
    name = f"{stem_of_image(path)} {first.scene}".strip()
    sample, is_colour = _sample(first)
    if is_colour:
        pixels = _stack(path, planes, sample, is_colour=True)
        about = {"name": name, "rgb": True, **scale_arguments(first.pixel_size_um, pixels.ndim - 3)}
        return [(pixels, about, "image")]
    pixels = _stack(path, planes, sample, is_colour=False)
    count, leading = len(sample), pixels.ndim - 3
    layers: list[LayerData] = []
    for k in range(count):
        about = {"name": name, **scale_arguments(first.pixel_size_um, leading)}
        if count > 1:
            named = first.channel_names[k] if k < len(first.channel_names) else ""
            about["name"] = f"{name} {named or f'channel {k}'}"
            about["colormap"] = _COLOURS[k % len(_COLOURS)]
            about["blending"] = "additive"
        layers.append((pixels[(_ALL,) * leading + (k,)], about, "image"))
    return layers


def _sample(plane: PlaneImage) -> tuple[NDArray[Any], bool]:
    """One pixel, [C, 1, 1] or of a colour image [1, 1, 3], and whether it is of such a one."""
    corner = slice(0, 1), slice(0, 1)
    try:
        pixels = plane.read(*corner)
    except ImageChoiceError:
        return plane.read_channels(*corner), False
    return (pixels, True) if pixels.ndim == 3 else (pixels[None], False)


def _stack(path: Path, planes: list[PlaneImage], sample: NDArray[Any], *, is_colour: bool) -> Any:
    """[..., C, H, W], or [..., H, W, 3]: in memory if it is one plane, else read when looked at.

    Raises:
        ImageReadError: a plane, of which a window shows all, would fill the memory.
    """
    first = planes[0]
    read = first.read if is_colour else first.read_channels
    try:
        check_memory(math.prod(first.image_hw) * sample.nbytes, f"{path}: a plane")
    except LimitError as error:
        raise ImageReadError(
            f"{error}; or open a part of it, or a coarser level, with the plug-in of another "
            "reader (napari-ome-zarr, napari-tiff). `cellseg predict` works through it in tiles"
        ) from error
    if len(planes) == 1:
        return read(_ALL, _ALL)
    import dask.array as da
    from dask import delayed

    channels = sample.shape[-1:] if is_colour else sample.shape[:1]
    shape = (*first.image_hw, *channels) if is_colour else (*channels, *first.image_hw)
    one = delayed(_read_plane, pure=True)
    lazy = [
        da.from_delayed(one(path, each.position, each.scene, is_colour), shape, sample.dtype)
        for each in planes
    ]
    lengths = first.lengths or (len(planes),)
    assert math.prod(lengths) == len(planes)
    return da.stack(lazy).reshape((*lengths, *shape))


def _read_plane(
    path: Path, position: tuple[tuple[str, int], ...], scene: str, is_colour: bool
) -> NDArray[Any]:
    with open_planes(path) as planes:
        plane = find_plane(planes, position, scene)
        return np.asarray((plane.read if is_colour else plane.read_channels)(_ALL, _ALL))
