"""Kind 7: files, servers and patterns that ask for more than there is."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from harness import Trial
from PIL import Image
from stock import TINY, TRAIN

Prepare = Callable[[Path], None]

PREDICT = ("predict", "--model", "bundle", "-o", "out")
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
    'ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="{c}" SizeT="{t}" SizeX="64" '
    'SizeY="64" SizeZ="{z}" Type="uint8"><Channel ID="c"/><TiffData/></Pixels></Image></OME>'
)
SILENT_PORT = 47311
NO_MASK = {"image_id": "a", "category_id": 1, "score": 0.9}
EVALUATE = ("evaluate", "--predictions", "results.json", "--ground-truth", "truth")
TRAIN_DECLARED = (
    *("train", "--config-file", "quick_start.yaml", *TINY),
    *("CELLSEG.DATASETS.DECLARATIONS", "('cells.yaml',)", "OUTPUT_DIR", "out"),
    *("DATASETS.TRAIN", "('cells_train',)", "DATASETS.TEST", "()"),
)


def ome(z: int, c: int = 1, t: int = 1) -> Prepare:
    def prepare(folder: Path) -> None:
        described = OME.format(z=z, c=c, t=t)
        pixels = np.zeros((64, 64), np.uint8)
        tifffile.imwrite(folder / "x.ome.tif", pixels, description=described, metadata=None)

    return prepare


def tiff(tags: dict[str, int], **options: Any) -> Prepare:
    """A small TIFF whose header claims something else."""

    def prepare(folder: Path) -> None:
        path = folder / "x.tif"
        tifffile.imwrite(path, np.zeros((32, 32), np.uint8), metadata=None, **options)
        with tifffile.TiffFile(path, mode="r+b") as file:
            for name, value in tags.items():
                file.pages[0].tags[name].overwrite(value)  # type: ignore[union-attr]

    return prepare


def described(text: str) -> Prepare:
    def prepare(folder: Path) -> None:
        pixels = np.zeros((32, 32), np.uint8)
        tifffile.imwrite(folder / "x.tif", pixels, description=text, metadata=None)

    return prepare


def png(width: int, height: int, depth: int = 8, colour: int = 0) -> Prepare:
    """A PNG of a few bytes that claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    def prepare(folder: Path) -> None:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(999))))
        content = b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")
        (folder / "x.png").write_bytes(content)

    return prepare


def npy(shape: str, kind: str = "<f8") -> Prepare:
    def prepare(folder: Path) -> None:
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header = text + b" " * (117 - len(text) % 64) + b"\n"
        content = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(999)
        (folder / "x.npy").write_bytes(content)

    return prepare


def picture(*shape: int) -> Prepare:
    def prepare(folder: Path) -> None:
        Image.fromarray(np.zeros(shape, np.uint8)).save(folder / "x.png")

    return prepare


def results(text: str) -> Prepare:
    """Predictions, and a true label image `a`."""

    def prepare(folder: Path) -> None:
        (folder / "truth").mkdir()
        labels = np.zeros((32, 32), np.uint16)
        labels[3:9, 3:9] = 1
        Image.fromarray(labels).save(folder / "truth" / "a.png")
        (folder / "results.json").write_text(text)

    return prepare


def mask(size: list[int], counts: Any) -> str:
    return json.dumps([{**NO_MASK, "segmentation": {"size": size, "counts": counts}}])


def rois(count: int, each_bytes: int) -> Prepare:
    def prepare(folder: Path) -> None:
        place = folder / "set" / "train" / "rois"
        place.mkdir(parents=True)
        (folder / "set" / "train" / "images").mkdir()
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "set/train/images/a.png")
        with zipfile.ZipFile(place / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(count):
                archive.writestr(f"{number}.roi", bytes(each_bytes))

    return prepare


def packed_geojson(mebibytes: int) -> Prepare:
    def prepare(folder: Path) -> None:
        rois(0, 0)(folder)
        place = folder / "set" / "train" / "annotations"
        place.mkdir()
        with gzip.open(place / "a.geojson.gz", "wb", 6) as file:
            for _ in range(mebibytes):
                file.write(b" " * 2**20)

    return prepare


def synthetic(images: int, more: str = "") -> Prepare:
    def prepare(folder: Path) -> None:
        text = f"cells:\n  format: synthetic\n  splits: {{train: {{images: {images}, seed: 1}}}}\n"
        (folder / "cells.yaml").write_text(text + more)

    return prepare


def grouped(pattern: str) -> Prepare:
    def prepare(folder: Path) -> None:
        for kind in ("images", "labels"):
            (folder / "set" / "all" / kind).mkdir(parents=True)
            array = np.eye(32, dtype=np.uint8)
            Image.fromarray(array).save(folder / "set" / "all" / kind / f"{'a' * 60}!.png")
        (folder / "cells.yaml").write_text(
            "cells:\n  format: label_images\n  root: set\n  splits:\n"
            "    train: {from: all, share: 0.5}\n    val: {from: all, share: 0.5}\n"
            f"  group_by: '{pattern}'\n"
        )

    return prepare


def coco(segmentation: Any) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / "set" / "train" / "images").mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "set/train/images/a.png")
        one = {"id": 7, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 32}],
            "annotations": [{"bbox": [0, 0, 1, 1], "area": 1, **one}],
            "categories": [{"id": 1, "name": "cell"}],
        }
        (folder / "set" / "train" / "annotations.json").write_text(json.dumps(content))

    return prepare


def write(name: str, content: str | bytes) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return prepare


def packed_weights(folder: Path) -> None:
    """A checkpoint whose one entry unpacks to far more than it is."""
    with zipfile.ZipFile(folder / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("w/data/0", "w", force_zip64=True) as entry:
            for _ in range(700):
                entry.write(bytes(2**20))
        archive.writestr("w/data.pkl", b"\x80\x02}.")


def silent_server(folder: Path) -> None:
    """Takes connections and says nothing; it ends with this process."""
    try:
        server = socket.create_server(("127.0.0.1", SILENT_PORT), backlog=64)
    except OSError:  # it runs already, for another trial
        return
    _SERVERS.append(server)


_SERVERS: list[socket.socket] = []


def convert(format_name: str) -> tuple[str, ...]:
    source = ("convert", "--from", format_name, "--input", "set", "--split", "train")
    return (*source, "--to", "label_images", "--output", "out")


LARGE = "implausibl|truncated|more numbers than|stored|claims"


def image(name: str, prepare: Prepare, file: str = "x.tif", **more: Any) -> Trial:
    """An image that no program should try to read: it is named, and a reason given."""
    options = {"status": (1,), "says": (file, LARGE), **more}
    return Trial(7, name, (*PREDICT, file), prepare=prepare, needs=("bundle",), **options)


IMAGES = [
    image("OME-TIFF of two thousand million planes", ome(2_000_000_000), "x.ome.tif"),
    image("OME-TIFF of a million planes", ome(1_000_000), "x.ome.tif"),
    image("OME-TIFF of many channels and times", ome(10**4, 10**4, 10**4), "x.ome.tif"),
    image("OME-TIFF that claims ten thousand planes and has one", ome(10_000), "x.ome.tif"),
    image("TIFF that claims 10^5 x 10^5", tiff({"ImageWidth": 10**5, "ImageLength": 10**5})),
    image(
        "compressed TIFF that claims 10^5 x 10^5",
        tiff({"ImageWidth": 10**5, "ImageLength": 10**5}, compression="zlib"),
    ),
    image(
        "compressed TIFF of one strip that claims 18,000 x 18,000",
        tiff(
            {"ImageWidth": 18_000, "ImageLength": 18_000, "RowsPerStrip": 18_000},
            compression="zlib",
        ),
    ),
    image(
        "TIFF of 60,000 samples",
        tiff({"ImageWidth": 3000, "ImageLength": 3000, "SamplesPerPixel": 60_000}),
        says=("x.tif",),
    ),
    image("TIFF whose text claims planes", described('{"shape": [2000000000, 32, 32]}')),
    image("PNG of 10^5 x 10^5", png(10**5, 10**5), "x.png"),
    image("PNG of 18,000 x 18,000", png(18_000, 18_000), "x.png"),
    image("PNG of 18,000 x 18,000 in colour of 16 bits", png(18_000, 18_000, 16, 2), "x.png"),
    image("PNG of 2^31 x 1", png(2**31 - 1, 1), "x.png"),
    image("PNG cut off after its header", png(900, 900), "x.png", says=("x.png", "cannot be read")),
    image("array that claims 10^10 numbers", npy("(100000, 100000)"), "x.npy"),
    image("array of negative size", npy("(-5, 100)"), "x.npy", says=("x.npy",)),
    image("array of objects", npy("(5, 5)", "|O"), "x.npy", says=("x.npy", "objects")),
    image(
        "array whose header is one long bracket",
        write("x.npy", b"\x93NUMPY\x02\0" + struct.pack("<I", 200_000) + b"(" * 200_000),
        "x.npy",
        says=("x.npy", "header"),
        never=("allow_pickle", "sandbox"),
    ),
    image("image of 1 x 1", picture(1, 1), "x.png", status=(0,), says=()),
    image("image of 1 x 3,000", picture(1, 3000), "x.png", status=(0,), says=()),
    image("image of 3,000 x 1", picture(3000, 1), "x.png", status=(0,), says=()),
    image("ImageJ's text claims frames", described("ImageJ=1.53\nimages=2000000000\n"), says=(),
          status=(0, 1)),
]  # fmt: skip

RESULTS = [
    Trial(7, f"results: {name}", EVALUATE, prepare=results(text), status=status, says=says)
    for name, text, status, says in (
        ("mask of 10^5 x 10^5", mask([10**5] * 2, [0, 10**10]), (1, 2), ("100000",)),
        ("mask of 10^9 x 10^9", mask([10**9] * 2, [0, 10**18]), (1, 2), ("1000000000",)),
        ("mask of negative size", mask([-32, -32], "abc"), (1, 2), ("results.json|-32",)),
        ("run length beyond 64 bits", mask([32, 32], [0, 10**30]), (1,), ("64 bits",)),
        ("run lengths of fractions", mask([32, 32], [0.5, 1023.5]), (1,), ("result 0", "whole")),
        ("100,000 brackets", "[" * 100_000, (1,), ("results.json", "brackets")),
        ("100,000 objects", '{"a":' * 100_000, (1,), ("results.json", "brackets")),
        ("a number of 5,000 digits", f"[{'9' * 5000}]", (1,), ("results.json", "line 1")),
        ("a number of 1e999", "[1e999]", (1,), ("results.json",)),
        ("nothing", "", (1,), ("results.json", "line 1")),
    )
]

SETS = [
    Trial(7, "ROIs that unpack to 540 MiB", convert("imagej_rois"), prepare=rois(60, 9 << 20),
          says=("a.zip", "implausible", "60 files")),
    Trial(7, "a ROI of 20 MiB", convert("imagej_rois"), prepare=rois(1, 20 << 20),
          says=("a.zip", "0.roi")),
    Trial(7, "2,000 ROIs of nothing", convert("imagej_rois"), prepare=rois(2000, 0),
          says=("a.zip", "0.roi")),
    Trial(7, "GeoJSON that unpacks to 600 MiB", convert("geojson"), prepare=packed_geojson(600),
          says=("a.geojson.gz", "implausible")),
    Trial(7, "COCO: a mask of 10^5 x 10^5", convert("coco_json"),
          prepare=coco({"size": [10**5] * 2, "counts": [0, 10**10]}),
          says=("annotation 7", "100000")),
    Trial(7, "COCO: a coordinate of 1e308", convert("coco_json"),
          prepare=coco([[1e308, 3, 9, 3, 9, 9]]), says=("annotation 7", "far outside")),
    Trial(7, "COCO: a polygon of 400,000 points", convert("coco_json"),
          prepare=coco([[3, 3, *([9, 3, 9, 9] * 200_000)]]), status=(0,)),
    Trial(7, "COCO: 100,000 brackets", convert("coco_json"),
          prepare=lambda folder: (coco([])(folder),
                                  write("set/train/annotations.json", "[" * 100_000)(folder))[1],
          says=("annotations.json", "brackets")),
    Trial(7, "CVAT: 200,000 elements in one another", convert("cvat"),
          prepare=write("set/train/a.xml", "<a>" * 200_000), says=("a.xml", "XML")),
    Trial(7, "CVAT: entities of entities", convert("cvat"),
          prepare=write("set/train/a.xml", "<!DOCTYPE l [<!ENTITY a 'xxxxxxxxxx'>" + "".join(
              f"<!ENTITY {chr(98 + k)} '{f'&{chr(97 + k)};' * 20}'>" for k in range(9)
          ) + "]><annotations>&j;</annotations>"), says=("a.xml", "XML")),
]  # fmt: skip

SYNTHETIC = [
    Trial(7, f"synthetic: {name}", TRAIN_DECLARED, prepare=synthetic(images, more), says=says)
    for name, images, more, says in (
        ("10^8 images", 10**8, "", ("synthetic images", "100000")),
        ("10^12 images", 10**12, "", ("synthetic images", "100000")),
        ("images of 10^5 x 10^5", 2, "  image_hw: [100000, 100000]\n", ("memory",)),
        ("10^9 cells", 2, "  num_cells: 1000000000\n", ("num_cells|synthetic",)),
    )
]

PATTERNS = [
    *(
        Trial(7, f"group_by {pattern}", TRAIN_DECLARED, prepare=grouped(pattern), status=(1,),
              seconds=90, says=("group_by|finds no group",))
        for pattern in ("((a+)+)$", "(a|a)*$", "((a|aa)+)$", "((a*)*)b", "(.*.*.*.*.*.*.*.*x)$")
    ),
    *(
        Trial(7, f"--pattern {pattern}", (*PREDICT, f"{'a' * 40}!.png", "--pattern", pattern),
              needs=("bundle",), status=(1,), seconds=90, says=("pattern",),
              prepare=lambda folder: Image.fromarray(np.zeros((32, 32), np.uint8)).save(
                  folder / f"{'a' * 40}!.png"))
        for pattern in ("(?P<well>(a+)+)$", "(?P<site>(a|a)*)$", "(?P<plate>(x*)*)y")
    ),
]  # fmt: skip

SERVERS = [
    Trial(7, "weights that unpack to 700 MiB", (*TRAIN, "MODEL.WEIGHTS", "w.pth"), needs=("data",),
          prepare=packed_weights, says=("w.pth", "implausible")),
    Trial(7, "a bundle that unpacks to 700 MiB", ("predict", "x.png", "-o", "out", "--model",
          "w.zip"), prepare=lambda folder: (packed_weights(folder),
                                            (folder / "w.pth").rename(folder / "w.zip"),
                                            picture(9, 9)(folder))[2],
          says=("w.zip", "implausible")),
    Trial(7, "a scheduler that says nothing", (*PREDICT, "x.png", "--scheduler",
          "tcp://127.0.0.1:47311"), needs=("bundle",),
          prepare=lambda folder: (silent_server(folder), picture(32, 32)(folder))[1],
          says=("scheduler", "answers")),
    Trial(7, "weights from a server that says nothing",
          code="import os; os.environ['CELLSEG_TIMEOUT'] = '0.5'\n"
          "from pathlib import Path\nfrom cellseg.modeling.downloads import fetch_file\n"
          "fetch_file('http://127.0.0.1:47311/w.pth', Path('w.pth'), '0' * 64)",
          prepare=silent_server,
          says=("cannot be downloaded", "timed out")),
    Trial(7, "a limit that is no number", (*PREDICT, "x.png"), needs=("bundle",),
          code="import os; os.environ['CELLSEG_MAX_PLANES'] = 'many'\n"
          "from cellseg.limits import check_planes\ncheck_planes(3)",
          says=("CELLSEG_MAX_PLANES", "many")),
]  # fmt: skip

LARGE_BUT_TRUE = [
    Trial(7, "a window of a slide of 40,000 x 40,000",
          code="import numpy as np, tifffile\nfrom cellseg.images import open_planes\n"
          "blocks = (np.zeros((1024, 1024), np.uint8) for _ in range(1600))\n"
          "tifffile.imwrite('slide.tif', blocks, shape=(40000, 40000), dtype=np.uint8,"
          " tile=(1024, 1024), compression='zlib')\n"
          "with open_planes('slide.tif') as planes:\n"
          "    assert planes[0].image_hw == (40000, 40000)\n"
          "    assert planes[0].read(slice(100, 200), slice(39900, 40000)).shape == (100, 100)\n",
          status=(0,)),
    Trial(7, "a stack of 10,000 planes",
          code="import numpy as np, tifffile\nfrom cellseg.images import open_planes\n"
          "tifffile.imwrite('stack.tif', np.zeros((10000, 8, 8), np.uint8), ome=False,"
          " photometric='minisblack')\n"
          "with open_planes('stack.tif') as planes:\n"
          "    assert len(planes) == 10000 and planes[9999].read_whole().shape == (8, 8)\n",
          status=(0,)),
    Trial(7, "an OME-TIFF of 3,000 planes",
          code="import numpy as np, tifffile\nfrom cellseg.images import open_planes\n"
          "tifffile.imwrite('stack.ome.tif', np.zeros((3000, 16, 16), np.uint8),"
          " photometric='minisblack', metadata={'axes': 'ZYX'})\n"
          "with open_planes('stack.ome.tif') as planes:\n"
          "    assert len(planes) == 3000 and planes[2999].read_whole().shape == (16, 16)\n",
          status=(0,)),
    Trial(7, "one image of a list that is too large does not end the others",
          (*PREDICT, "x.png", "y.png"), needs=("bundle",),
          prepare=lambda folder: (png(10**5, 10**5)(folder),
                                  Image.fromarray(np.zeros((32, 32), np.uint8)).save(
                                      folder / "y.png"))[1],
          status=(1,), says=("x.png", "1 of 2 images done")),
]  # fmt: skip

TRIALS = [*IMAGES, *RESULTS, *SETS, *SYNTHETIC, *PATTERNS, *SERVERS, *LARGE_BUT_TRUE]
