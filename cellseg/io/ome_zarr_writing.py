"""OME-Zarr, written block by block; `cellseg.io.ome_zarr` says what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cellseg.cells.drawing import class_colour
from cellseg.cells.label_bands import label_blocks
from cellseg.cells.labels import label_dtype
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.images import PlaneImage
from cellseg.io.base import PredictionFile
from cellseg.io.checks import cells_with_labels
from cellseg.io.outlines import score_to_text
from numpy.typing import NDArray

LABELS = "cells"
CHUNK_PX = 512
VERSIONS = {"0.4": 2, "0.5": 3}  # of OME-Zarr to those of Zarr
_PROPERTIES = "properties of each label"  # stands for them until they are written

Json = dict[str, Any]


def load_zarr() -> ModuleType:
    """The package that reads and writes Zarr.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise DatasetError(
            "OME-Zarr is read and written by the package zarr, which is not installed: "
            "pip install 'zarr>=3', or pip install 'cellseg[zarr]'"
        ) from error
    return zarr


def check_installed(classes: tuple[str, ...]) -> str:
    """Fail before anything is read or written where `zarr` is missing."""
    load_zarr()
    return ""


def write_ome_zarr(
    record: ImageRecord,
    folder: Path,
    classes: tuple[str, ...],
    *,
    version: str = "0.4",
    image: PlaneImage | None = None,
) -> None:
    """Write the cells of one image, and the image, as an OME-Zarr.

    In memory are a few blocks of 512 x 512 pixels, a band of labels as high, and the cells that
    reach into it, whatever the size of the image.

    Args:
        record: an image and its cells; see `label_bands`.
        folder: an empty one, to be filled.
        classes: class names.
        version: of OME-Zarr, a key of `VERSIONS`.
        image: is read window by window, all its channels; None leaves it out.

    Raises:
        DatasetError: `zarr` is not installed, or a cell's class has no name.
        ImageReadError: the image cannot be read.
    """
    writer = _Writer(folder, version, record, image)
    if image is None:
        writer.write_group("", {})
    else:
        smallest = writer.write_image(image)
        content = writer.multiscales(image.path.stem, has_channels=True)
        content["omero"] = {"channels": _channels(smallest, image.channel_names)}
        writer.write_group("", content)
    writer.write_group("labels", {"labels": [LABELS]})
    writer.write_labels()
    content = writer.multiscales(LABELS)
    content["image-label"] = {"version": version, "properties": _PROPERTIES}
    if image is not None:
        content["image-label"]["source"] = {"image": "../../"}
    writer.write_group(f"labels/{LABELS}", content, _properties(record, classes))


def _properties(record: ImageRecord, classes: Sequence[str]) -> Iterator[Json]:
    for labels, cells in cells_with_labels(record, classes):
        for label, number, score in zip(labels, cells.classes.tolist(), cells.scores):
            value = float(score_to_text(score))
            yield {"label-value": label, "class": classes[number], "score": value}


class _Writer:
    """Arrays and metadata of one OME-Zarr.

    Args:
        folder: an empty one.
        version: of OME-Zarr.
        record: says the size of the image and of its pixels.
        image: says the size of its pixels where the record does not.
    """

    def __init__(
        self, folder: Path, version: str, record: ImageRecord, image: PlaneImage | None
    ) -> None:
        self.zarr, self.folder, self.version, self.record = load_zarr(), folder, version, record
        self.zarr_format = VERSIONS[version]
        self.size_um = record.place.pixel_size_um or (image.pixel_size_um if image else None)
        self.shapes_hw = _pyramid_shapes(record.image_hw)

    def write_group(self, path: str, content: Json, properties: Iterable[Json] = ()) -> None:
        """The metadata of a group, with the properties of labels one by one."""
        place = self.folder / path
        place.mkdir(parents=True, exist_ok=True)
        name = "zarr.json"
        if self.zarr_format == 2:
            (place / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
            name = ".zattrs"
        else:
            ome = {"ome": {"version": self.version, **content}} if content else {}
            content = {"zarr_format": 3, "node_type": "group", "attributes": ome}
        before, _, after = json.dumps(content).partition(json.dumps(_PROPERTIES))
        with (place / name).open("w", encoding="utf-8") as stream:
            stream.write(before)
            if after:
                stream.writelines(_list_of(properties))
            stream.write(after)

    def multiscales(self, name: str, *, has_channels: bool = False) -> Json:
        """Metadata of a pyramid: of an image, or of labels, which have no channels."""
        space: Json = {"type": "space"} | ({"unit": "micrometer"} if self.size_um else {})
        axes: list[Json] = [{"name": "y", **space}, {"name": "x", **space}]
        leading = [1.0] if has_channels else []
        if has_channels:
            axes.insert(0, {"name": "c", "type": "channel"})
        height_um, width_um = self.size_um or (1.0, 1.0)
        datasets = []
        for level in range(len(self.shapes_hw)):
            scale = [*leading, height_um * 2**level, width_um * 2**level]
            transformations = [{"type": "scale", "scale": scale}]
            datasets.append({"path": str(level), "coordinateTransformations": transformations})
        entry: Json = {"name": name, "axes": axes, "datasets": datasets}
        if self.zarr_format == 2:
            entry["version"] = self.version
        return {"multiscales": [entry]}

    def write_labels(self) -> None:
        """The label image and its pyramid, of which each level has every second pixel."""
        dtype = np.dtype(label_dtype(self.record.num_cells))
        path = f"labels/{LABELS}"
        array = self._make_array(f"{path}/0", self.shapes_hw[0], dtype)
        for row, column, block in label_blocks(self.record, (CHUNK_PX, CHUNK_PX)):
            array[row : row + block.shape[0], column : column + block.shape[1]] = block
        for level, hw in enumerate(self.shapes_hw[1:], 1):
            smaller = self._make_array(f"{path}/{level}", hw, dtype)
            for rows, columns in _blocks(hw):
                smaller[rows, columns] = array[_doubled(rows), _doubled(columns)][::2, ::2]
            array = smaller

    def write_image(self, image: PlaneImage) -> NDArray[Any]:
        """All channels and their pyramid, of which each level has the means of 2 x 2 pixels.

        Returns:
            The smallest level, [C, h, w].
        """
        array: Any = None
        for rows, columns in _blocks(self.shapes_hw[0]):
            block = image.read_channels(rows, columns)
            if array is None:
                shape = (len(block), *self.shapes_hw[0])
                array = self._make_array("0", shape, block.dtype)
            array[:, rows, columns] = block
        for level, hw in enumerate(self.shapes_hw[1:], 1):
            smaller = self._make_array(str(level), (len(block), *hw), block.dtype)
            for rows, columns in _blocks(hw):
                smaller[:, rows, columns] = _halve(array[:, _doubled(rows), _doubled(columns)])
            array = smaller
        return np.asarray(array[:])

    def _make_array(self, path: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        chunks = tuple(max(1, min(CHUNK_PX, length)) for length in shape[-2:])
        how: Json = {"chunk_key_encoding": {"name": "default", "separator": "/"}}
        if self.zarr_format == 2:
            from numcodecs import Blosc  # comes with zarr; the codec that every reader has

            how = {"chunk_key_encoding": {"name": "v2", "separator": "/"}, "compressors": Blosc()}
        else:
            how["dimension_names"] = ["c", "y", "x"][-len(shape) :]
        return self.zarr.create_array(
            str(self.folder / path),
            shape=shape,
            chunks=(1,) * (len(shape) - 2) + chunks,
            dtype=dtype,
            fill_value=0,
            zarr_format=self.zarr_format,
            **how,
        )


def _channels(pixels: NDArray[Any], names: Sequence[str]) -> list[Json]:
    """How viewers show each channel of an image [C, h, w]: name, colour, darkest and brightest."""
    limits: Any = np.iinfo if pixels.dtype.kind in "iu" else np.finfo
    is_rgb = len(pixels) == 3 and pixels.dtype == np.uint8
    shown = []
    for number, channel in enumerate(pixels):
        colour = class_colour(number) if len(pixels) > 1 else (255, 255, 255)
        if is_rgb:
            colour = (255 * (number == 0), 255 * (number == 1), 255 * (number == 2))
        low, high = (0, 255) if is_rgb else (float(channel.min()), float(channel.max()))
        lowest, highest = float(limits(pixels.dtype).min), float(limits(pixels.dtype).max)
        shown.append(
            {
                "label": names[number] if number < len(names) else f"channel {number + 1}",
                "color": "".join(f"{value:02X}" for value in colour),
                "window": {"min": lowest, "max": highest, "start": low, "end": high},
                "active": True,
            }
        )
    return shown


def _list_of(entries: Iterable[Json]) -> Iterator[str]:
    """A JSON list, entry by entry."""
    between = "["
    for entry in entries:
        yield between + json.dumps(entry)
        between = ", "
    yield "[]" if between == "[" else "]"


def _pyramid_shapes(image_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each level, halved until it is a single chunk.

    Example:
        >>> _pyramid_shapes((600, 1025))
        [(600, 1025), (300, 513), (150, 257)]
    """
    shapes = [image_hw]
    while max(shapes[-1]) > CHUNK_PX:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def _blocks(image_hw: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each chunk, row by row."""
    height, width = image_hw
    for row in range(0, height, CHUNK_PX):
        for column in range(0, width, CHUNK_PX):
            rows = slice(row, min(row + CHUNK_PX, height))
            yield rows, slice(column, min(column + CHUNK_PX, width))


def _doubled(span: slice) -> slice:
    """Where the pixels of a level lie in the level below."""
    return slice(2 * span.start, 2 * span.stop)


def _halve(block: NDArray[Any]) -> NDArray[Any]:
    """Means of 2 x 2 pixels, rounded for integers; the last row or column may count twice.

    Example:
        >>> _halve(np.array([[[1, 3, 8], [2, 2, 8]]], np.uint8)).tolist()
        [[[2, 8]]]
    """
    odd = [(0, 0), (0, block.shape[1] % 2), (0, block.shape[2] % 2)]
    even = np.pad(block, odd, mode="edge").astype(np.float64)
    mean = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    return (np.rint(mean) if block.dtype.kind in "iu" else mean).astype(block.dtype)


def write_prediction_folder(
    record: ImageRecord, paths: Sequence[Path], classes: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    """Write the results of one image; `options` has `image` and `version`."""
    version, image = options.get("version", "0.4"), options.get("image")
    write_ome_zarr(record, paths[0], classes, version=version, image=image)


PREDICTION = PredictionFile(
    ".ome.zarr", write_prediction_folder, is_folder=True, holds_image=True, check=check_installed
)
NEWER_PREDICTION = PredictionFile(
    ".ome.zarr",
    write_prediction_folder,
    is_folder=True,
    holds_image=True,
    options={"version": "0.5"},
    check=check_installed,
)
