"""Read image files with their own values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import WHOLE, checked, several
from cellseg.config import KEYS
from cellseg.errors import ImageChoiceError, ImageReadError
from cellseg.images.arrays import NPY_MAGIC, open_npy
from cellseg.images.channels import select_image
from cellseg.images.czi import CZI_MAGIC, open_czi
from cellseg.images.formats import format_of_name
from cellseg.images.microscopes import ND2_MAGIC, open_microscope_file
from cellseg.images.normalisation import check_finite
from cellseg.images.ome_zarr import is_zarr_folder, open_ome_zarr
from cellseg.images.pictures import (
    JPEG2000_MAGICS,
    PICTURE_FORMATS,
    open_jpeg2000,
    open_picture,
    read_picture_hw,
)
from cellseg.images.stacks import (
    ImageStack,
    Scene,
    choose_scenes,
    names_of_scenes,
)
from cellseg.images.tiff import TIFF_MAGICS, open_tiff
from cellseg.rules import PATH
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

_PICTURE_FORMATS = {"picture": PICTURE_FORMATS, "jpeg2000": ("JPEG2000",)}
_MAGICS = {
    **dict.fromkeys(TIFF_MAGICS, "tiff"),
    **dict.fromkeys(JPEG2000_MAGICS, "jpeg2000"),
    NPY_MAGIC: "npy",
    CZI_MAGIC: "czi",
    ND2_MAGIC: "bioio",
}


@checked(path=PATH, channels=several(), page=WHOLE, projection=KEYS["INPUT.PROJECTION"].rule)
def read_image(
    path: str | Path,
    *,
    channels: Sequence[int | str] = (),
    page: int = -1,
    projection: str = "none",
    scene: int | str = "",
) -> NDArray[Any]:
    """Read an image file with its own values; docs/images.md lists the formats.

    Nothing is scaled or clipped: a 16-bit image stays uint16, a float image stays float. Colour
    palettes of PNG become RGB, the orientation that a JPEG carries is applied.

    Args:
        path: file; its content decides on the format, not its name.
        channels: see `select_image`, as are `page` and `projection`. Without any of them the file
            has one page, which is grey or RGB; alpha is dropped.
        page: a page of a stack.
        projection: "max" for the brightest value along Z, or "none".
        scene: number from 0 or name of a scene, series or position of a file that has several.

    Returns:
        [H, W] (one channel) or [H, W, C] in the file's own type; boolean becomes uint8 0/255.

    Raises:
        ImageReadError: missing, truncated, no image, not finite, implausibly large, in need of a
            package, or of more pages or channels than chosen.
    """
    with open_image(path, scene=scene) as stack:
        return check_pixels(select_image(stack, channels, page, projection))


@checked(path=PATH)
def read_image_hw(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of the array that `read_image` returns, from the file's header.

    Of a stack, those of each page; of several scenes of one size, those of each.

    Raises:
        ImageReadError: missing, no image, or several of different sizes.
    """
    with explaining_errors(path) as file:
        reader = _identify_format(file)
        if reader in _PICTURE_FORMATS:
            return read_picture_hw(file, _PICTURE_FORMATS[reader])
        with _opener_of(file, reader) as scenes:
            sizes = {scene.open_stack(None).image_hw for scene in scenes}
            return sizes.pop() if len(sizes) == 1 else _only_one(scenes).image_hw


@contextmanager
def open_image(
    path: str | Path, palette_mode: str = "RGB", scene: int | str = ""
) -> Iterator[ImageStack]:
    """The one image or stack of a file, or that of a scene; see `read_image`.

    Errors while the context is open name the file.
    """
    with explaining_errors(path) as file, open_scenes(file, palette_mode) as scenes:
        yield _only_one(scenes, scene)


def open_scenes(file: Path, palette_mode: str = "RGB") -> AbstractContextManager[Sequence[Scene]]:
    """All scenes of a file, to be read while the context is open.

    Args:
        file: the file, or the folder of an OME-Zarr image.
        palette_mode: "RGB" for the colours of a palette image, "P" for the indices.
    """
    return _opener_of(file, _identify_format(file), palette_mode)


def _only_one(scenes: Sequence[Scene], chosen: int | str = "") -> ImageStack:
    """The stack of the chosen scene; without a choice, of the only one."""
    names = names_of_scenes(scenes)
    if chosen != "":
        return scenes[choose_scenes(names, [chosen])[0]].open_stack(None)
    if len(scenes) != 1:
        named = [scene.name for scene in scenes[:10] if scene.name]
        shapes = [list(scene.shape) for scene in scenes[:10] if scene.shape]
        raise ImageChoiceError(
            f"expected one image or stack; found {len(scenes)}"
            + (f" ({', '.join(named)})" if named else "")
            + (f" of shapes {shapes}" if shapes else "")
            + f": choose a scene, by number from 0 to {len(scenes) - 1} or by name, with "
            "CELLSEG.INPUT.SCENE, or save the one of interest by itself (predict takes all of "
            "them, or those of --scene)"
        )
    return scenes[0].open_stack(None)


def _opener_of(
    file: Path, reader: str, palette_mode: str = "RGB"
) -> AbstractContextManager[Sequence[Scene]]:
    if reader == "picture":
        return open_picture(file, palette_mode)
    if reader == "tiff":
        return open_tiff(file, is_label=palette_mode == "P")
    if reader == "bioio":
        named = format_of_name(file)
        is_of_bioio = named is not None and named.reader == "bioio"
        packages = named.packages if named and is_of_bioio else ("bioio", "bioio-nd2")
        return open_microscope_file(file, packages)
    openers = {"jpeg2000": open_jpeg2000, "npy": open_npy}
    return {**openers, "czi": open_czi, "zarr": open_ome_zarr}[reader](file)


def _identify_format(file: Path) -> str:
    """The reader of a file, by its content, or else by its name; see `ImageFormat`."""
    if file.is_dir() and is_zarr_folder(file):
        return "zarr"
    with file.open("rb") as stream:
        first_bytes = stream.read(16)
    if not first_bytes:
        raise ImageReadError("the file is empty")
    named = format_of_name(file)
    if named is not None and named.reader == "bioio":  # a .vsi file begins as a TIFF file does
        return "bioio"
    reader = next((_MAGICS[magic] for magic in _MAGICS if first_bytes.startswith(magic)), None)
    if reader is not None:
        return reader
    return "czi" if named is not None and named.reader == "czi" else "picture"


@contextmanager
def explaining_errors(path: str | Path) -> Iterator[Path]:
    """Make one ImageReadError, which names the file, of whatever a decoder raises."""
    file = Path(path)
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ImageReadError("a pipe, a socket or a device, which is not waited for")
        yield file
    except ImageReadError as error:
        raise type(error)(f"{file}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageReadError(
            f"{file}: cannot be read as an image: damaged, or of a kind that is not known here "
            "(docs/images.md lists the kinds)"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageReadError(f"{file}: cannot be read as an image: {reason}") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        words = str(error).split()
        reason = " ".join(words if len(words) > 2 else [type(error).__name__, *words])
        raise ImageReadError(f"{file}: cannot be read as an image: {reason}") from error


def check_pixels(image: NDArray[Any]) -> NDArray[Any]:
    """The pixels in native byte order, contiguous, booleans as 0 and 255.

    Raises:
        ImageReadError: no numbers, or values that are not finite.
    """
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "iuf":
        raise ImageReadError(f"pixels of type {image.dtype}; expected integers or floats")
    check_finite(image)
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))
