"""Forty kinds of bad input in one folder: each is one line that names it, and the rest is done."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from cellseg import load_config
from commands import REPOSITORY, Command
from detectron2.modeling import build_model

CONFIG = REPOSITORY / "configs" / "quick_start.yaml"
GREY = (np.arange(64 * 80).reshape(64, 80) % 251).astype(np.uint8)


def encoded(ending: str, image: np.ndarray = GREY) -> bytes:
    return cv2.imencode(ending, image)[1].tobytes()


def tiff(folder: Path, image: np.ndarray, **options: object) -> bytes:
    path = folder / "scratch.tif"
    tifffile.imwrite(path, image, **options)
    content = path.read_bytes()
    path.unlink()
    return content


def npy(folder: Path, array: np.ndarray) -> bytes:
    path = folder / "scratch.npy"
    np.save(path, array, allow_pickle=True)
    content = path.read_bytes()
    path.unlink()
    return content


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def with_bytes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def looping_tiff(folder: Path) -> bytes:
    """Its only page is followed by itself."""
    content = tiff(folder, GREY)
    (first,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[first : first + 2])
    return with_bytes(content, first + 2 + 12 * entries, struct.pack("<I", first))


def bad_files(folder: Path) -> dict[str, bytes]:
    """Content by name."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 80)).astype(np.uint8)
    holes = GREY.astype(np.float32)
    holes[3, 4], inf = np.nan, GREY.astype(np.float32)
    inf[0, 0] = np.inf
    packed = tiff(folder, noise, compression="zlib")
    huge = tiff(folder, np.zeros((2000, 2000), np.uint8), compression="zlib")
    return {
        "empty.png": b"",
        "empty.tif": b"",
        "text.png": b"hello, this is no image",
        "html.tif": b"<html><body>404 not found</body></html>",
        "zip.png": b"PK\x03\x04" + bytes(200),
        "pdf.jpg": b"%PDF-1.7\n" + bytes(200),
        "cut.png": encoded(".png", noise)[:300],
        "cut.jpg": encoded(".jpg", noise)[:200],
        "cut.bmp": encoded(".bmp")[:200],
        "cut.webp": encoded(".webp", noise)[:100],
        "cut.tif": tiff(folder, GREY)[:2000],
        "cut_packed.tif": packed[:3000],
        "cut_header.tif": packed[:6],
        "no_header.gif": b"GIF89a",
        "bit_rot.tif": with_bytes(packed, 1000, bytes(500)),
        "bit_rot.png": with_bytes(encoded(".png", noise), 500, bytes(500)),
        "loop.tif": looping_tiff(folder),
        "nan.tif": tiff(folder, holes),
        "inf.tif": tiff(folder, inf),
        "complex.tif": tiff(folder, GREY.astype(np.complex64)),
        "two_channels.tif": tiff(folder, np.stack([GREY] * 2), metadata={"axes": "CYX"}, ome=True),
        "five_channels.tif": tiff(folder, np.stack([GREY] * 5), metadata={"axes": "CYX"}, ome=True),
        "claims_much.png": png_that_claims(200_000, 200_000),
        "claims_nothing.png": png_that_claims(0, 5),
        "claims_much.tif": huge.replace(struct.pack("<I", 2000), struct.pack("<I", 2_000_000_000)),
        "line.npy": npy(folder, np.zeros(7)),
        "empty.npy": npy(folder, np.zeros((0, 5))),
        "words.npy": npy(folder, np.array([["a", "b"]])),
        "objects.npy": npy(folder, np.array([[{}, None]], dtype=object)),
        "cut.npy": npy(folder, GREY)[:500],
        "nan.npy": npy(folder, holes),
        "complex.npy": npy(folder, GREY.astype(np.complex128)),
        "fake.czi": b"ZISRAWFILE" + bytes(300),
        "fake.nd2": b"\xda\xce\xbe\x0a" + bytes(300),
        "fake.lif": b"\x70\0\0\0" + bytes(300),
        "fake.lsm": b"II*\0" + bytes(300),
        "fake.svs": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        "fake.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "fake.stk": bytes(300),
        "fake.dv": bytes(1200),
    }


def make_folder(folder: Path) -> tuple[set[str], set[str]]:
    """Fill it; the names of what is bad and of what is not."""
    folder.mkdir()
    bad = bad_files(folder)
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "nothing.zarr").mkdir()
    (folder / "broken.zarr").mkdir()
    (folder / "broken.zarr" / ".zattrs").write_text("{ no json")
    good = {
        "good.png": encoded(".png"),
        "black.png": encoded(".png", np.zeros_like(GREY)),
        "one_row.png": encoded(".png", GREY[:1]),
        "narrow.tif": tiff(folder, np.resize(GREY, (2, 700))),
        "negative.tif": tiff(folder, GREY.astype(np.int16) - 100),
        "large_values.npy": npy(folder, GREY.astype(np.uint64) + np.uint64(2**63)),
        "truths.npy": npy(folder, GREY > 100),
        f"{'long' * 60}.png": encoded(".png"),
    }
    for name, content in good.items():
        (folder / name).write_bytes(content)
    (folder / "gone.tif").symlink_to("nowhere.tif")
    return {*bad, "nothing.zarr", "broken.zarr"}, set(good)


@pytest.mark.slow
def test_each_is_one_line_and_the_rest_is_done(
    tiny_model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Callable
) -> None:
    monkeypatch.setattr("cellseg.cli.predict.setup_logger", lambda name: None)
    bad, good = make_folder(tmp_path / "in")
    assert len(bad) >= 40
    weights = tmp_path / "model_final.pth"
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, tiny_model))
    torch.save({"model": model.state_dict()}, weights)
    out = tmp_path / "out"
    options = ["MODEL.WEIGHTS", str(weights), "CELLSEG.TEST.SCORE_THRESHOLD", "0.0"]
    words = [str(tmp_path / "in"), "-o", str(out), "--config-file", str(CONFIG)]
    status = Command("predict").main([*words, *tiny_model, *options])
    assert status == 1
    with (out / "failed.csv").open(newline="") as stream:
        failed = {Path(row["file"]).name: row["reason"] for row in csv.DictReader(stream)}
    assert set(failed) == bad
    for name, reason in failed.items():
        assert name in reason
        assert "\n" not in reason
        assert "Traceback" not in reason
        assert len(reason) < 600, reason
    results = json.loads((out / "coco_results.json").read_text())
    assert {"good", "narrow"} <= {result["image_id"] for result in results}
    assert {Path(name).stem for name in good} == {
        path.name.removesuffix("_labels.tif") for path in out.glob("*_labels.tif")
    }
