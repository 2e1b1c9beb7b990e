"""OME-Zarr images (folders), through the optional package zarr: only the chunks that are needed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.formats import explain_packages, is_hidden
from cellseg.images.stacks import (
    ImageStack,
    Scene,
    as_chunk_hw,
    choose_level,
    guess_axes,
)
from cellseg.images.units import PixelSize, checked_pixel_size, scaled_pixel_size, um_per_unit
from numpy.typing import NDArray

_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_OLD_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which do not name them
_EXPECTED = "expected an OME-Zarr image (multiscales), a plate or an array"


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder holds a Zarr group or array, of format 2 or 3."""
    return any((path / mark).is_file() for mark in _MARKS)


@contextmanager
def open_ome_zarr(path: Path) -> Iterator[Sequence[Scene]]:
    """The images of an OME-Zarr folder (0.1 to 0.5): one, those of a series, or a plate's fields.

    Raises:
        ImageReadError: zarr is not installed, or there is no image.
    """
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        raise ImageReadError(f"OME-Zarr needs {explain_packages(['zarr'])}") from error
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        yield [Scene("", partial(_open_array, path, node))]
        return
    names = list(_image_paths(node))
    if not names:
        raise ImageReadError(f"{_EXPECTED}; found a group of {sorted(node.keys())[:10]}")
    yield [Scene(name, partial(_open_image, path, node, name)) for name in names]


def _ome_attributes(group: Any) -> Mapping[str, Any]:
    """The metadata of OME, which 0.5 keeps under a name of its own."""
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes)


def _image_paths(group: Any) -> Iterator[str]:
    """Where the images lie below the group; "" for the group itself."""
    described = _ome_attributes(group)
    if "multiscales" in described:
        yield ""
    elif "plate" in described:
        for well in described["plate"]["wells"]:
            fields = _ome_attributes(group[well["path"]])["well"]["images"]
            yield from (f"{well['path']}/{field['path']}" for field in fields)
    elif "bioformats2raw.layout" in described:
        series = _ome_attributes(group["OME"]).get("series") if "OME" in group else None
        numbered = sorted((name for name in group if name.isdigit()), key=int)
        yield from series or numbered


def _open_image(path: Path, group: Any, name: str, wished_um: float | None) -> ImageStack:
    image = group[name] if name else group
    described = _ome_attributes(image)
    scales = described["multiscales"][0]
    arrays = [image[one["path"]] for one in scales["datasets"]]
    axes = _axis_letters(scales, arrays[0].ndim)
    sizes_hw = [_image_hw(array, axes) for array in arrays]
    sizes_um = _pixel_sizes(scales, axes, sizes_hw)
    level = choose_level(sizes_um, wished_um)
    folder = path / name / scales["datasets"][level]["path"]
    channels = described.get("omero", {}).get("channels", [])
    return _stack_of(
        folder,
        arrays[level],
        axes,
        channel_names=tuple(str(channel.get("label", "")) for channel in channels),
        pixel_size_um=sizes_um[level],
        level=level,
        downsample=math.sqrt(math.prod(sizes_hw[0]) / math.prod(sizes_hw[level])),
    )


def _open_array(path: Path, array: Any, _: float | None) -> ImageStack:
    if array.ndim < 2:
        raise ImageReadError(f"expected an image; found shape {list(array.shape)}")
    return _stack_of(path, array, guess_axes(array.shape))


def _stack_of(folder: Path, array: Any, axes: str, **known: Any) -> ImageStack:
    if not _has_chunks(folder):
        raise ImageReadError(f"no pixel is stored: {folder} has no chunk")
    y, x = axes.index("Y"), axes.index("X")
    leading = min(y, x)

    def read_window(index: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        window = {y: rows, x: columns}
        rest = (window.get(at, slice(None)) for at in range(leading, len(axes)))
        return np.asarray(array[(*index, *rest)])

    image_hw = _image_hw(array, axes)
    return ImageStack(
        axes,
        tuple(map(int, array.shape)),
        read_window,
        leading=leading,
        chunk_hw=as_chunk_hw((array.chunks[y], array.chunks[x]), image_hw),
        **known,
    )


def _has_chunks(folder: Path) -> bool:
    """Whether anything lies in an array's folder beside its description.

    A chunk that is not there has the fill value, as the format wants it; all of them are not there
    where a copy was broken off, and not because an image is empty.
    """
    return any(entry.name not in _MARKS and not is_hidden(entry) for entry in folder.iterdir())


def _axis_letters(scales: Mapping[str, Any], count: int) -> str:
    names = [
        axis if isinstance(axis, str) else str(axis["name"])
        for axis in scales.get("axes", _OLD_AXES[-count:])
    ]
    letters = "".join(name.upper() if name.lower() in _OLD_AXES else "Q" for name in names)
    if len(letters) != count or not {"Y", "X"} <= set(letters):
        raise ImageReadError(f"expected axes y and x among {count}; found {names}")
    return letters


def _image_hw(array: Any, axes: str) -> tuple[int, int]:
    return int(array.shape[axes.index("Y")]), int(array.shape[axes.index("X")])


def _pixel_sizes(
    scales: Mapping[str, Any], axes: str, sizes_hw: Sequence[tuple[int, int]]
) -> list[PixelSize | None]:
    """Of each level; by the numbers of pixels where a level does not say."""
    common = _scale_of(scales, len(axes)) or [1.0] * len(axes)
    units = [_unit_of(scales, axes.index(axis)) for axis in "YX"]
    found: list[PixelSize | None] = []
    for dataset, image_hw in zip(scales["datasets"], sizes_hw):
        scale = _scale_of(dataset, len(axes))
        if scale is None:
            found.append(scaled_pixel_size(found[0], sizes_hw[0], image_hw) if found else None)
            continue
        places = [axes.index(axis) for axis in "YX"]
        sides = [scale[at] * common[at] * unit for at, unit in zip(places, units)]
        found.append(checked_pixel_size(*sides))
    return found


def _unit_of(scales: Mapping[str, Any], at: int) -> float:
    """Micrometres per unit of an axis; 0 where its unit is not said, or is none of length."""
    axes = scales.get("axes", ())
    described = axes[at] if at < len(axes) else None
    return (um_per_unit(described.get("unit")) or 0.0) if isinstance(described, Mapping) else 0.0


def _scale_of(described: Mapping[str, Any], count: int) -> list[float] | None:
    """The factors of the transformation called "scale"; None where there is none."""
    for transformation in described.get("coordinateTransformations", ()):
        scale = transformation.get("scale")  # other kinds have none
        if isinstance(scale, list) and len(scale) == count:
            return [float(factor) for factor in scale]
    return None
