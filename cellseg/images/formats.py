"""Which files are images: the one table of formats, and what it says about a file's name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cellseg.arguments import checked
from cellseg.rules import PATH


@dataclass(frozen=True)
class ImageFormat:
    """One kind of image file.

    Attributes:
        name: for people.
        suffixes: endings of its files in lower case, the usual one first.
        reader: what opens it, a key of `cellseg.images.reading`.
        packages: what has to be installed to read it, as pip calls it; () where nothing has.
        is_folder: an image is a folder, and not a file.
        holds_labels: it keeps whole numbers as they are, so that label images may have it.
        pillow: what Pillow calls the format, where Pillow opens it.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    packages: tuple[str, ...] = ()
    is_folder: bool = False
    holds_labels: bool = False
    pillow: tuple[str, ...] = ()


IMAGE_FORMATS = (
    ImageFormat("PNG", (".png", ".apng"), "picture", holds_labels=True, pillow=("PNG",)),
    ImageFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), "picture", pillow=("JPEG",)),
    ImageFormat(
        "TIFF, OME-TIFF",
        (".tif", ".tiff", ".tf2", ".tf8", ".btf"),
        "tiff",
        holds_labels=True,
    ),
    ImageFormat("BMP", (".bmp", ".dib"), "picture", holds_labels=True, pillow=("BMP", "DIB")),
    ImageFormat("GIF", (".gif",), "picture", holds_labels=True, pillow=("GIF",)),
    ImageFormat("WebP", (".webp",), "picture", pillow=("WEBP",)),
    ImageFormat("Zeiss LSM", (".lsm",), "tiff"),
    ImageFormat("MetaMorph stack", (".stk",), "tiff"),
    ImageFormat("PerkinElmer QPTIFF", (".qptiff",), "tiff"),
    ImageFormat("Opera Flex", (".flex",), "tiff"),
    ImageFormat(
        "JPEG 2000",
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        "jpeg2000",
        pillow=("JPEG2000",),
    ),
    ImageFormat("NumPy array", (".npy",), "npy", holds_labels=True),
    ImageFormat("OME-Zarr", (".zarr",), "zarr", ("zarr",), is_folder=True),
    ImageFormat("Aperio slide", (".svs",), "tiff", ("tiffslide",)),
    ImageFormat("Hamamatsu slide", (".ndpi",), "tiff", ("tiffslide",)),
    ImageFormat("Leica slide", (".scn",), "tiff", ("tiffslide",)),
    ImageFormat("Ventana slide", (".bif",), "tiff", ("tiffslide",)),
    ImageFormat("Zeiss CZI", (".czi",), "czi", ("pylibCZIrw",)),
    ImageFormat("Nikon ND2", (".nd2",), "bioio", ("bioio", "bioio-nd2")),
    ImageFormat("Leica LIF", (".lif",), "bioio", ("bioio", "bioio-lif")),
    ImageFormat("DeltaVision", (".dv",), "bioio", ("bioio", "bioio-dv")),
    ImageFormat(
        "Olympus, Imaris, old Zeiss",
        (".oib", ".oif", ".vsi", ".ims", ".zvi"),
        "bioio",
        ("bioio", "bioio-bioformats"),
    ),
)

# Endings that belong to images that nothing here reads, and the way out.
_OTHER_PROGRAM = "; export it as OME-TIFF or OME-Zarr, for example with bioformats2raw or QuPath"
UNREADABLE_SUFFIXES = {
    **dict.fromkeys((".mrxs", ".vms", ".vmu"), f"OpenSlide alone reads this slide{_OTHER_PROGRAM}"),
    **dict.fromkeys((".xlef", ".lof", ".ndpis", ".isyntax"), f"no reader here{_OTHER_PROGRAM}"),
    **dict.fromkeys((".dcm", ".nrrd", ".mha"), "an image of radiology; convert it to TIFF"),
    **dict.fromkeys((".pgm", ".ppm", ".tga"), "rarely holds more than 8 bits; convert it to PNG"),
    **dict.fromkeys((".npz", ".mat", ".h5"), "a file of arrays; save the image as .npy or .tif"),
}
_PICKLE_ENDING = "_seg.npy"  # what Cellpose's window saves: a pickle with the masks, no image
_LEFT_BY_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin")
_PREFIXES = (".ome",)  # of compound endings, such as .ome.tif


IMAGE_SUFFIXES = tuple(suffix for one in IMAGE_FORMATS for suffix in one.suffixes)
_LABEL_FORMATS = [one for one in IMAGE_FORMATS if one.holds_labels]
LABEL_SUFFIXES = (
    *(one.suffixes[0] for one in _LABEL_FORMATS),
    *(suffix for one in _LABEL_FORMATS for suffix in one.suffixes[1:]),
)
"""Endings of label images, the usual ones first."""
_FORMAT_OF_SUFFIX = {suffix: one for one in IMAGE_FORMATS for suffix in one.suffixes}


def format_of_name(path: str | Path) -> ImageFormat | None:
    """The format that a file's ending stands for; None where it stands for none."""
    return _FORMAT_OF_SUFFIX.get(Path(path).suffix.lower())


def is_hidden(path: str | Path) -> bool:
    """Whether a file or folder is none of the user's, by its name.

    Example:
        >>> [is_hidden(name) for name in ("._a.png", ".DS_Store", "Thumbs.db", "a.png")]
        [True, True, True, False]
    """
    name = os.path.basename(path)
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


@checked(path=PATH)
def is_readable_name(path: str | Path) -> bool:
    """Whether a file (or the folder of an OME-Zarr image) is an image by its name.

    Example:
        >>> [is_readable_name(name) for name in ("a.ome.TIF", "a.txt", "a_seg.npy", ".a.png")]
        [True, False, False, False]
    """
    return not why_no_image(path)


@checked(path=PATH)
def why_unreadable(path: str | Path) -> str:
    """Why a file is not read as an image, by its name and what is installed; "" where it is."""
    reason, one = why_no_image(path), format_of_name(path)
    missing = missing_packages(one.packages) if one is not None and not reason else []
    return f"{one.name} needs {explain_packages(missing)}" if one and missing else reason


@checked(path=PATH)
def why_no_image(path: str | Path) -> str:
    """Why a file is no image by its name; "" where it is one, for which a package may be missing.

    Example:
        >>> why_no_image("notes.txt")
        'not an image: the ending .txt is not known'
    """
    name = Path(path).name
    suffix = Path(path).suffix.lower()
    if is_hidden(name):
        return "hidden: the name begins with a dot, or is that of a system's own file"
    if name.lower().endswith(_PICKLE_ENDING):
        return "not an image: masks as Cellpose saves them (a pickle)"
    if format_of_name(name) is not None:
        return ""
    if suffix in UNREADABLE_SUFFIXES:
        return UNREADABLE_SUFFIXES[suffix]
    return f"not an image: the ending {suffix} is not known" if suffix else "it has no ending"


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package in packages if find_spec(module_name(package)) is None]


def explain_packages(packages: Sequence[str]) -> str:
    """The packages, and the command that installs them."""
    return f"{' and '.join(packages)}: pip install {' '.join(packages)}"


def module_name(package: str) -> str:
    """How Python imports what pip installs under this name."""
    return package.replace("-", "_")


@checked(path=PATH)
def stem_of_image(path: str | Path) -> str:
    """The name of an image's file without its ending, compound ones included.

    Example:
        >>> [stem_of_image(name) for name in ("a.ome.tif", "b.c.png", "d.ome.zarr", "e")]
        ['a', 'b.c', 'd', 'e']
    """
    stem = Path(path).stem
    if stem.lower().endswith(_PREFIXES) and format_of_name(path) is not None:
        return stem.rpartition(".")[0] or stem
    return stem
