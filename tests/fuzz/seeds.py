"""Whole files with the traits of real ones, and what reads them: what the fuzzer starts from."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "trials"))
import contextlib

import stock

HW = (64, 64)


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        name: of the target, unique.
        suffix: what the file's name ends in.
        seeds: whole files, as bytes.
        read: reads a file; errors of cellseg are right, all others are faults.
        beside: makes the files that one of this kind needs around it, and gives its path; by
            default the file is alone.
    """

    name: str
    suffix: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    beside: Callable[[Path], Path] | None = None


def list_targets(scratch: Path) -> list[Target]:
    """All of them.

    Args:
        scratch: an empty folder, in which whole data sets and a small model are made.
    """
    stock.make_stock(scratch)
    return [
        *_images(),
        *_written_formats(scratch),
        *_annotation_programs(),
        *_configs(scratch),
        *_weights(scratch),
        *_results(scratch),
    ]


def _images() -> Iterator[Target]:
    from cellseg.images import open_planes, read_image, read_image_hw, read_label_image

    def read(path: Path) -> None:
        for one in (read_image_hw, read_image, read_label_image):
            _ignore_errors(one, path)
        with open_planes(path, channels=(0,)) as planes:
            for plane in list(planes)[:3]:
                plane.read_whole()

    for suffix, seeds in (
        (".tif", tuple(_tiffs())),
        (".ome.tif", (_ome_tiff(),)),
        (".png", tuple(_pngs())),
        (".npy", tuple(_arrays())),
        *((f".{kind}", (_picture(kind),)) for kind in ("jpg", "gif", "webp", "bmp", "jp2")),
    ):
        yield Target(f"image{suffix}", suffix, seeds, read)


def _ignore_errors(work: Callable[[Path], object], path: Path) -> None:
    from cellseg.errors import CellsegError

    with contextlib.suppress(CellsegError):
        work(path)


def _tiff(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def _tiffs() -> Iterator[bytes]:
    image, labels = stock.draw_cells(1)
    yield _tiff(image)
    yield _tiff(labels, compression="zlib", photometric="minisblack")
    yield _tiff(labels, compression="lzw", predictor=True, rowsperstrip=7)
    yield _tiff(image, tile=(32, 32), photometric="miniswhite")
    yield _tiff(image.astype(np.float32), metadata={"axes": "YX", "unit": "um"})
    yield _tiff(np.stack([image] * 3), photometric="rgb", planarconfig="separate")
    stack = np.stack([image, image]).astype(np.uint16)
    yield _tiff(stack, imagej=True, metadata={"axes": "CYX", "Labels": ["a", "b"]})
    yield _tiff(np.stack([stack] * 2), imagej=True, metadata={"axes": "ZCYX"}, byteorder=">")
    palette = np.linspace(0, 65535, 768).reshape(3, 256).astype(np.uint16)
    yield _tiff(image, photometric="palette", colormap=palette)
    yield _tiff(image, bigtiff=True, compression="deflate")


def _ome_tiff() -> bytes:
    image, _ = stock.draw_cells(1)
    planes = np.stack([image] * 6).reshape(2, 3, *HW)
    pixels = {"axes": "TCYX", "PhysicalSizeX": 0.5, "Channel": {"Name": ["a", "b", "c"]}}
    return _tiff(planes, ome=True, metadata=pixels)


def _pngs() -> Iterator[bytes]:
    image, labels = stock.draw_cells(2)
    yield cv2.imencode(".png", image)[1].tobytes()
    yield cv2.imencode(".png", labels)[1].tobytes()
    yield cv2.imencode(".png", np.dstack([image] * 4))[1].tobytes()
    for mode in ("P", "1", "LA"):
        stream = io.BytesIO()
        Image.fromarray(image).convert(mode).save(stream, "png")
        yield stream.getvalue()


def _picture(kind: str) -> bytes:
    stream = io.BytesIO()
    name = {"jpg": "jpeg", "jp2": "jpeg2000"}.get(kind, kind)
    Image.fromarray(stock.draw_cells(3)[0]).save(stream, name)
    return stream.getvalue()


def _arrays() -> Iterator[bytes]:
    image, labels = stock.draw_cells(2)
    for array in (image, labels, image.astype(np.float64), np.asfortranarray(image)):
        stream = io.BytesIO()
        np.save(stream, array)
        yield stream.getvalue()


def _written_formats(scratch: Path) -> Iterator[Target]:
    """Each format that is written: every kind of file of a split of it."""
    from cellseg.io import FORMATS, read_records, write_predictions

    records = read_records("label_images", scratch / "data", "train")[:2]
    for name, format_ in sorted(FORMATS.items()):
        if format_.write is None:
            continue
        root = scratch / "formats" / name
        format_.write(records, root, "train", ("cell",), {})
        by_suffix: dict[str, Path] = {}
        for path in sorted(root.rglob("*")):
            if path.is_file() and "images" not in path.parts:
                by_suffix.setdefault(path.suffix, path)
        for suffix, path in by_suffix.items():
            yield _in_split(name, root, path.relative_to(root), suffix)
    folder = scratch / "formats" / "ome_zarr" / "train"
    write_predictions(records, folder, "ome_zarr")
    for path in sorted(folder.rglob("*.json"))[:1]:
        yield _in_split("ome_zarr", folder.parent, path.relative_to(folder.parent), ".json")


def _in_split(format_name: str, root: Path, file: Path, suffix: str) -> Target:
    from cellseg.io import read_records

    def beside(folder: Path) -> Path:
        if not (folder / "root").exists():
            shutil.copytree(root, folder / "root")
        return folder / "root" / file

    def read(path: Path) -> None:
        top = path.parents[len(file.parts) - 1]
        for record in read_records(format_name, top, "train"):
            len(record.cells)

    seeds = (root / file).read_bytes()
    return Target(f"{format_name}{suffix}", suffix, (seeds,), read, beside)


_SHAPE = {"label": "cell", "points": [[2, 2], [20, 3], [12, 20]], "shape_type": "polygon"}
_LABELME = {
    "version": "5.4.1", "flags": {}, "imagePath": "a.png", "imageData": None,
    "imageHeight": 64, "imageWidth": 64,
    "shapes": [_SHAPE, {**_SHAPE, "shape_type": "circle", "points": [[9, 9], [12, 12]]}],
}  # fmt: skip
_REGIONS = [
    {"shape_attributes": {"name": "polygon", "all_points_x": [2, 20, 9], "all_points_y": [2, 3, 9]},
     "region_attributes": {"type": "cell"}},
    {"shape_attributes": {"name": "ellipse", "cx": 30, "cy": 30, "rx": 5, "ry": 8, "theta": 0.3},
     "region_attributes": {}},
]  # fmt: skip
_VIA = {
    "a.png1234": {"filename": "a.png", "size": 1234, "regions": _REGIONS, "file_attributes": {}}
}
_CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="a.png" width="64" height="64">
<polygon label="cell" occluded="0" points="2,2;20,3;12,20" z_order="0"/>
<mask label="cell" rle="3, 5, 8, 9" left="1" top="2" width="5" height="5" z_order="0"/>
<ellipse label="cell" cx="20" cy="20" rx="5" ry="8" rotation="30"/>
</image></annotations>
"""
# Label Studio's packing: half of 64 x 64 x 4 values 0, half 255, each a run of 16 bits' length.
_BITS = f"{64 * 64 * 4:032b}{7:05b}" + "".join(f"{one:04b}" for one in (2, 3, 7, 15))
_BITS += "".join(f"111{64 * 64 * 2 - 1:016b}{value:08b}" for value in (0, 255))
_BRUSH = [int(_BITS[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(_BITS), 8)]
_STUDIO = [{
    "id": 1, "data": {"image": "/data/upload/1/0123abcd-a.png"},
    "annotations": [{"id": 1, "result": [
        {"type": "polygonlabels", "original_width": 64, "original_height": 64,
         "value": {"points": [[5, 5], [50, 5], [30, 50]], "polygonlabels": ["cell"]}},
        {"type": "brushlabels", "original_width": 64, "original_height": 64,
         "value": {"format": "rle", "rle": _BRUSH, "brushlabels": ["cell"]}},
        {"type": "ellipselabels", "original_width": 64, "original_height": 64,
         "value": {"x": 50, "y": 50, "radiusX": 9, "radiusY": 4, "rotation": 20,
                   "ellipselabels": ["cell"]}}]}],
}]  # fmt: skip


def _annotation_programs() -> Iterator[Target]:
    """Formats of programs, which are read only."""
    for name, place, text in (
        ("labelme", "train/annotations/a.json", json.dumps(_LABELME)),
        ("yolo_seg", "train/labels/a.txt", "0 0.1 0.1 0.5 0.1 0.3 0.6\n0 .5 .5 .9 .5 .7 .9\n"),
        ("via", "train/annotations.json", json.dumps(_VIA)),
        ("cvat", "train/annotations.xml", _CVAT),
        ("label_studio", "train/annotations.json", json.dumps(_STUDIO)),
    ):
        yield _program(name, Path(place), text.encode())
    seg = io.BytesIO()
    content = {"masks": stock.draw_cells(1)[1], "outlines": np.zeros(HW, np.uint16), "chan": [0, 0]}
    np.save(seg, np.array(content, dtype=object), allow_pickle=True)
    yield _program("cellpose", Path("train/a_seg.npy"), seg.getvalue())


def _program(format_name: str, file: Path, seed: bytes) -> Target:
    from cellseg.io import read_records

    def beside(folder: Path) -> Path:
        path = folder / file
        images = folder / "train" if format_name == "cellpose" else folder / "train" / "images"
        images.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(images / "a.png"), stock.draw_cells(1)[0])
        return path

    def read(path: Path) -> None:
        for record in read_records(format_name, path.parents[len(file.parts) - 1], "train"):
            len(record.cells)

    return Target(f"{format_name}{file.suffix}", file.suffix, (seed,), read, beside)


def _configs(scratch: Path) -> Iterator[Target]:
    from cellseg.config import read_config_tree
    from cellseg.datasets.declarations import read_declarations
    from cellseg.engine.setup import load_config
    from cellseg.models.card import read_card_additions

    short = (
        b"_BASE_: quick_start.yaml\nSOLVER: {MAX_ITER: 3, STEPS: [1, 2]}\nMODEL: {MASK_ON: true}\n"
    )
    whole = (scratch / "run" / "config.yaml").read_bytes()
    declaration = (scratch / "data" / "cells.yaml").read_bytes()
    card = b"description: cells of mice\nlicence: CC0\ndiameters_px: [8, 20, 40]\nmetrics: []\n"

    def load(path: Path) -> None:
        read_config_tree(path)
        load_config(path, plugins=())

    yield Target("config.yaml", ".yaml", (short, whole), load)
    yield Target("declaration.yaml", ".yaml", (declaration,), read_declarations)
    yield Target(
        "card.yaml",
        ".yaml",
        (card,),
        lambda path: read_card_additions(path.read_text("utf-8", "replace"), str(path)),
    )


def _weights(scratch: Path) -> Iterator[Target]:
    import torch
    from cellseg.modeling.weights import load_weights
    from cellseg.models import open_bundle, read_carried_config

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    stream = io.BytesIO()
    carried = torch.load(scratch / "run" / "model_final.pth", weights_only=True)["cellseg"]
    torch.save({"model": model.state_dict(), "cellseg": carried, "iteration": 3}, stream)
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    caffe = pickle.dumps({"blobs": arrays}, 2)
    zoo = pickle.dumps({"model": arrays, "__author__": "zoo"})

    def load(path: Path) -> None:
        read_carried_config(path)
        load_weights(model, path, partial=True)

    def load_bundle(path: Path) -> None:
        bundle = open_bundle(path)
        bundle.read_config()
        bundle.read_weights()

    yield Target("checkpoint.pth", ".pth", (stream.getvalue(),), load)
    yield Target("checkpoint.pkl", ".pkl", (caffe, zoo), load)
    yield Target("bundle.zip", ".zip", (_small_bundle(scratch),), load_bundle)


def _small_bundle(scratch: Path) -> bytes:
    """The bundle with its weights cut down to two, so that a change often meets the rest."""
    import hashlib

    import yaml
    from safetensors.torch import load_file, save

    folder = scratch / "bundle"
    few = dict(list(load_file(folder / "weights.safetensors").items())[:2])
    contents = {
        "config.yaml": (folder / "config.yaml").read_bytes(),
        "weights.safetensors": save(few),
    }
    card = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    card["sha256"] = {name: hashlib.sha256(one).hexdigest() for name, one in contents.items()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, one in {"model.yaml": yaml.safe_dump(card).encode(), **contents}.items():
            target.writestr(name, one)
    return stream.getvalue()


def _results(scratch: Path) -> Iterator[Target]:
    from cellseg.io.coco_results import read_coco_results
    from cellseg.report.results import read_history

    results = (scratch / "results" / "results.json").read_bytes()
    history = (scratch / "run" / "metrics.json").read_bytes()

    def beside(folder: Path) -> Path:
        return folder / "metrics.json"

    yield Target(
        "results.json", ".json", (results,), lambda path: read_coco_results(path, ("cell",))
    )
    yield Target(
        "metrics.json", ".json", (history,), lambda path: read_history(path.parent), beside
    )


def place_of(target: Target, folder: Path) -> Path:
    """Where a file of a target lies, with what it needs around it."""
    folder.mkdir(parents=True, exist_ok=True)
    if target.beside is not None:
        return target.beside(folder)
    return folder / f"{os.getpid()}{target.suffix}"
