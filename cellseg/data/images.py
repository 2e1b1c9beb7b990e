"""Read images as they are stored, and make of them what a model takes.

Training, evaluation and prediction all read through `read_model_input`, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import tifffile
from cellseg.errors import ConfigError, ImageReadError
from numpy.typing import NDArray
from PIL import Image, ImageOps

NORMALIZATION_MODES = ("auto", "percentile", "minmax", "none")
DEFAULT_PERCENTILES = (1.0, 99.8)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_ORIENTATION = 0x0112
_ASSOCIATED_OR_NOT_ALPHA = (1, 2)  # of TIFF's ExtraSamples

T = TypeVar("T")


def read_image(path: str | Path) -> NDArray[Any]:
    """Read a PNG, JPEG, TIFF or BMP file with its own values.

    Nothing is scaled or clipped: a 16-bit image stays uint16, a float image stays float. Alpha is
    dropped, colour palettes of PNG become RGB, the orientation that a JPEG carries is applied.

    Args:
        path: file; its content decides on the format, not its name.

    Returns:
        [H, W] (one channel) or [H, W, 3] (RGB) in the file's own type; boolean becomes uint8 0/255.

    Raises:
        ImageReadError: missing, truncated, no image, not finite, implausibly large, or of more
            pages or channels than one image has.
    """
    return _read(path, _tiff_pixels, _picture_pixels)


def read_label_image(path: str | Path) -> NDArray[Any]:
    """Read a PNG or TIFF file of labels: integers [H, W]; of a palette image, the indices.

    Raises:
        ImageReadError: as `read_image`, or the file has several channels or no integers.
    """
    labels = _read(path, _tiff_pixels, _picture_indices)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ImageReadError(
            f"{path}: a label image has one channel of integers; found shape "
            f"{list(labels.shape)}, {labels.dtype}"
        )
    return labels


def read_image_hw(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of the array that `read_image` returns, from the file's header.

    Raises:
        ImageReadError: missing, no image, or not a single one.
    """
    return _read(path, _tiff_hw, _picture_hw)


def _read(path: str | Path, from_tiff: Callable[[Path], T], from_picture: Callable[[Path], T]) -> T:
    """Choose by the file's first bytes; whatever a decoder raises becomes an ImageReadError."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise ImageReadError(f"{file}: {error.strerror or error}") from error
    if not magic:
        raise ImageReadError(f"{file}: the file is empty")
    try:
        return (from_tiff if magic in _TIFF_MAGICS else from_picture)(file)
    except ImageReadError as error:
        raise ImageReadError(f"{file}: {error}") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = str(error).replace(repr(str(file)), "the file") or type(error).__name__
        raise ImageReadError(f"{file}: cannot be read as an image: {reason}") from error


@contextmanager
def _open_tiff(path: Path) -> Iterator[tifffile.TiffPageSeries]:
    """The one image of a TIFF file, if it is one that we read."""
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            shapes = [list(series.shape) for series in tiff.series]
            raise ImageReadError(f"expected one image; found {len(shapes)} of shapes {shapes}")
        series = tiff.series[0]
        axes, shape = series.get_axes(squeeze=True), series.get_shape(squeeze=True)
        samples = dict(zip(axes, shape)).get("S", 1)
        if axes.replace("S", "") != "YX" or samples - _has_alpha(series) not in (1, 3):
            raise ImageReadError(
                "expected one page of one or three channels; found shape "
                f"{list(shape)}, axes {axes}: save the page or channel of interest by itself"
            )
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and series.size > 2 * limit * samples:
            raise ImageReadError(f"shape {list(shape)} is implausibly large")
        yield series


def _has_alpha(series: tifffile.TiffPageSeries) -> bool:
    extra = list(getattr(series.keyframe, "extrasamples", ()))
    return len(extra) == 1 and int(extra[0]) in _ASSOCIATED_OR_NOT_ALPHA


def _tiff_pixels(path: Path) -> NDArray[Any]:
    with _open_tiff(path) as series:
        size_bytes = path.stat().st_size
        page = series.keyframe
        ends = (at + length for at, length in zip(page.dataoffsets, page.databytecounts))
        if max(ends, default=0) > size_bytes:  # tifffile would fill up with zeros
            raise ImageReadError("the file is truncated")
        image = series.asarray(squeeze=True)
        axes = series.get_axes(squeeze=True)
        if "S" in axes:
            image = np.moveaxis(image, axes.index("S"), -1)
            image = image[..., :-1] if _has_alpha(series) else image
        return _finish(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)


def _tiff_hw(path: Path) -> tuple[int, int]:
    with _open_tiff(path) as series:
        shape = dict(zip(series.get_axes(squeeze=True), series.get_shape(squeeze=True)))
        return int(shape["Y"]), int(shape["X"])


def _picture_pixels(path: Path) -> NDArray[Any]:
    return _decode_picture(path, palette_mode="RGB")


def _picture_indices(path: Path) -> NDArray[Any]:
    return _decode_picture(path, palette_mode="P")


def _decode_picture(path: Path, palette_mode: str) -> NDArray[Any]:
    with Image.open(path) as picture:
        picture.load()
        if picture.format == "PNG" and _png_depth_and_colour(path)[0] == 16:
            is_grey = picture.mode.startswith("I")
            return _finish(
                np.asarray(picture).astype(np.uint16) if is_grey else _decode_deep_png(path)
            )
        if picture.format == "JPEG":
            return _finish(_pixels_of(ImageOps.exif_transpose(picture), palette_mode))
        return _finish(_pixels_of(picture, palette_mode))


def _png_depth_and_colour(path: Path) -> tuple[int, bool]:
    """Bits per channel, and whether there is more than grey, from the file's header."""
    with path.open("rb") as stream:
        depth, colour_type = stream.read(26)[24:]
    return depth, bool(colour_type & 2)


def _decode_deep_png(path: Path) -> NDArray[Any]:
    """16-bit RGB, RGBA or grey with alpha, of which Pillow would keep 8 bits."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ImageReadError("cannot be decoded")
    has_colour = _png_depth_and_colour(path)[1]
    return image[..., 2::-1] if has_colour else image[..., 0]  # OpenCV's order is BGRA


def _pixels_of(picture: Image.Image, palette_mode: str) -> NDArray[Any]:
    if picture.mode == "P":
        return np.asarray(picture if palette_mode == "P" else picture.convert(palette_mode))
    if picture.mode == "1":
        return np.asarray(picture.convert("L"))
    if picture.mode == "LA":
        return np.asarray(picture)[..., 0]
    if picture.mode in ("L", "RGB", "I", "F") or picture.mode.startswith("I;16"):
        return np.asarray(picture)
    return np.asarray(picture.convert("RGB"))  # RGBA (alpha is dropped, not blended), CMYK, ...


def _picture_hw(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        width, height = picture.size
        turned = picture.format == "JPEG" and picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5
        return (width, height) if turned else (height, width)


def _finish(image: NDArray[Any]) -> NDArray[Any]:
    """Check the values; native byte order, contiguous, no booleans."""
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "iuf":
        raise ImageReadError(f"pixels of type {image.dtype}; expected integers or floats")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = np.count_nonzero(~np.isfinite(image))
        raise ImageReadError(f"{bad} of {image.size} values are not finite (NaN or infinite)")
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def normalize_image(
    image: NDArray[Any], mode: str = "auto", limits: Sequence[float] = DEFAULT_PERCENTILES
) -> NDArray[Any]:
    """Bring intensities to the range 0 to 255 that the model's pixel mean and deviation are for.

    Args:
        image: [H, W] or [H, W, C] of any integer or float type.
        mode: "minmax" (darkest pixel 0, brightest 255), "percentile" (values at the two
            percentiles become 0 and 255, what lies beyond is clipped), "none" (values stay as they
            are, also beyond 255), or "auto": "none" for uint8, else "percentile". The first two
            work per channel.
        limits: the two percentiles.

    Returns:
        float32 of the same shape; uint8 stays uint8 where nothing is changed. A channel of one
        value becomes 0.

    Raises:
        ConfigError: unknown mode, or limits that do not ascend within 0 to 100.
    """
    if mode not in NORMALIZATION_MODES:
        raise ConfigError(f"normalize: {mode!r}; expected one of {', '.join(NORMALIZATION_MODES)}")
    if mode == "auto":
        mode = "none" if image.dtype == np.uint8 else "percentile"
    if mode == "none":
        return image if image.dtype == np.uint8 else image.astype(np.float32)
    low_percent, high_percent = (0.0, 100.0) if mode == "minmax" else limits
    if not 0 <= low_percent < high_percent <= 100:
        raise ConfigError(f"percentiles {list(limits)}; expected low < high within 0 to 100")
    values = image.astype(np.float64)
    low, high = np.percentile(values, [low_percent, high_percent], axis=(0, 1))
    # A few cells on an even background: both percentiles fall on the background.
    flat = high <= low
    low = np.where(flat, values.min(axis=(0, 1)), low)
    high = np.where(flat, values.max(axis=(0, 1)), high)
    scaled = (values - low) / np.where(high > low, high - low, 1)
    return (255 * np.clip(scaled, 0, 1)).astype(np.float32)


def to_model_input(image: NDArray[Any], image_format: str = "BGR") -> NDArray[Any]:
    """Three channels in the order a model was built for.

    Args:
        image: [H, W], [H, W, 1] or RGB [H, W, 3], values as `normalize_image` returns them.
        image_format: "BGR" or "RGB".

    Returns:
        Contiguous [H, W, 3]; uint8 stays uint8, all else becomes float32.

    Raises:
        ConfigError: another format.
        ImageReadError: another number of channels.
    """
    if image_format not in ("BGR", "RGB"):
        raise ConfigError(f"INPUT.FORMAT is {image_format!r}; expected 'BGR' or 'RGB'")
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[-1] not in (1, 3):
        raise ImageReadError(
            f"expected an image of one or three channels; found shape {list(image.shape)}"
        )
    rgb = np.broadcast_to(planes, (*planes.shape[:2], 3))
    ordered = rgb[..., ::-1] if image_format == "BGR" else rgb
    return np.ascontiguousarray(ordered, np.uint8 if image.dtype == np.uint8 else np.float32)


def prepare_model_input(image: NDArray[Any], cfg: Any) -> NDArray[Any]:
    """`normalize_image`, then `to_model_input`, as a config says.

    Args:
        image: as `read_image` returns it.
        cfg: config; INPUT.FORMAT, CELLSEG.INPUT.NORMALIZE and CELLSEG.INPUT.PERCENTILES are read.

    Returns:
        [H, W, 3], uint8 or float32.
    """
    own = cfg.CELLSEG.INPUT
    return to_model_input(normalize_image(image, own.NORMALIZE, own.PERCENTILES), cfg.INPUT.FORMAT)


def read_model_input(path: str | Path, cfg: Any) -> NDArray[Any]:
    """Read a file as the model takes it, [H, W, 3]; see `read_image` and `prepare_model_input`."""
    return prepare_model_input(read_image(path), cfg)
