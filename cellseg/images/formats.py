"""Which files are images: the one table of formats, and what it says about a file's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class ImageFormat:
    """One kind of image file.

    Attributes:
        name: for people.
        suffixes: endings of its files in lower case, the usual one first.
        reader: what opens it, a key of `cellseg.images.reading`.
        packages: what has to be installed to read it, as pip calls it; () where nothing has.
        is_folder: an image is a folder, and not a file.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    packages: tuple[str, ...] = ()
    is_folder: bool = False


IMAGE_FORMATS = (
    ImageFormat("PNG", (".png",), "picture"),
    ImageFormat("JPEG", (".jpg", ".jpeg"), "picture"),
    ImageFormat("TIFF, OME-TIFF", (".tif", ".tiff", ".tf8", ".btf"), "tiff"),
    ImageFormat("BMP", (".bmp",), "picture"),
    ImageFormat("GIF", (".gif",), "picture"),
    ImageFormat("WebP", (".webp",), "picture"),
    ImageFormat("Zeiss LSM", (".lsm",), "tiff"),
    ImageFormat("MetaMorph stack", (".stk",), "tiff"),
    ImageFormat("JPEG 2000", (".jp2", ".j2k"), "jpeg2000", ("imagecodecs",)),
    ImageFormat("NumPy array", (".npy",), "npy"),
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
_PREFIXES = (".ome",)  # of compound endings, such as .ome.tif


IMAGE_SUFFIXES = tuple(suffix for one in IMAGE_FORMATS for suffix in one.suffixes)
_FORMAT_OF_SUFFIX = {suffix: one for one in IMAGE_FORMATS for suffix in one.suffixes}


def format_of_name(path: str | Path) -> ImageFormat | None:
    """The format that a file's ending stands for; None where it stands for none."""
    return _FORMAT_OF_SUFFIX.get(Path(path).suffix.lower())


def is_readable_name(path: str | Path) -> bool:
    """Whether a file (or the folder of an OME-Zarr image) is an image by its name.

    Example:
        >>> [is_readable_name(name) for name in ("a.ome.TIF", "a.txt", "a_seg.npy", ".a.png")]
        [True, False, False, False]
    """
    name = Path(path).name
    is_hidden = name.startswith(".")
    return (
        format_of_name(name) is not None
        and not is_hidden
        and not name.lower().endswith(_PICKLE_ENDING)
    )


def why_unreadable(path: str | Path) -> str:
    """Why a file is not read as an image, by its name and what is installed; "" where it is.

    Example:
        >>> why_unreadable("notes.txt")
        'not an image: the ending .txt is not known'
    """
    name = Path(path).name
    suffix = Path(path).suffix.lower()
    if name.startswith("."):
        return "hidden: the name begins with a dot"
    if name.lower().endswith(_PICKLE_ENDING):
        return "not an image: masks as Cellpose saves them (a pickle)"
    one = format_of_name(name)
    if one is not None:
        missing = missing_packages(one.packages)
        return f"{one.name} needs {explain_packages(missing)}" if missing else ""
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
