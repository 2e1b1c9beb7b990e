"""CellModel: images of any size, tiles, and what happens when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from cellseg.cells.instances import CellInstances
from cellseg.inference import model as model_module
from cellseg.inference.magnification import Look
from cellseg.inference.model import CellModel, is_out_of_memory, plane_of_array
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.tile_grid import TileGrid
from detectron2.config import CfgNode
from scipy import ndimage

TEST = "CELLSEG.TEST."


def blobs(seed: int, image_hw: tuple[int, int], count: int) -> np.ndarray:
    """Bright rectangles of up to 20 px, most of them apart."""
    rng = np.random.default_rng(seed)
    image = np.zeros(image_hw, np.uint8)
    for _ in range(count):
        row, column = rng.integers(0, image_hw[0] - 4), rng.integers(0, image_hw[1] - 4)
        height, width = rng.integers(3, 20, 2)
        image[row : row + height, column : column + width] = rng.integers(100, 255)
    return image


def find_blobs(pixels: np.ndarray) -> CellInstances:
    """What stands in for the network: connected bright pixels; the score is their brightness."""
    labels, count = ndimage.label(pixels > 0)
    scores = ndimage.maximum(pixels, labels, range(1, count + 1)) / 256 if count else []
    return CellInstances.from_label_image(labels, scores=scores)


@pytest.fixture
def model(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> CellModel:
    """A model whose network is `find_blobs`, in the image's own pixels."""
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 0, TEST + "TILE_OVERLAP", 40])
    predictor = CellPredictor(cfg)

    def batch(images: Sequence[np.ndarray], scale: Any = None) -> list[CellInstances]:
        return [find_blobs(image) for image in images]

    monkeypatch.setattr(predictor, "predict_batch", batch)
    monkeypatch.setattr(
        predictor, "detect_in_window", lambda pixels, limits, scale, **how: find_blobs(pixels)
    )
    return CellModel(predictor)


def set_tile(model: CellModel, tile_px: int) -> None:
    model.predictor.cfg.merge_from_list([TEST + "TILE", tile_px])


@pytest.mark.parametrize("seed", range(3))
def test_tiles_find_the_same_cells_label_for_label(model: CellModel, seed: int) -> None:
    image = blobs(seed, (700, 900), 300)
    whole = model.predict(image)
    set_tile(model, 64)
    assert model.is_tiled(plane_of_array(image))
    tiled = model.predict(image)
    assert len(whole) > 100
    assert np.array_equal(tiled.to_label_image(), whole.to_label_image())
    assert np.allclose(tiled.scores, whole.scores)


def test_an_image_of_one_tile_is_looked_at_whole(model: CellModel) -> None:
    set_tile(model, 64)
    assert not model.is_tiled(plane_of_array(np.zeros((64, 64), np.uint8)))
    assert model.is_tiled(plane_of_array(np.zeros((64, 600), np.uint8)))


@pytest.mark.parametrize(
    ("image_hw", "is_tiled"), [((900, 1200), False), ((2048, 2048), False), ((2100, 2100), True)]
)
def test_large_images_are_tiled_by_themselves(
    model: CellModel, image_hw: tuple[int, int], is_tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "memory_of", lambda device: 64 * 10**9)
    assert model.is_tiled(plane_of_array(np.zeros(image_hw, np.uint8))) == is_tiled


def test_little_memory_makes_tiles_of_images_that_are_not_large(
    model: CellModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "memory_of", lambda device: 10**9)
    assert model.is_tiled(plane_of_array(np.zeros((1000, 1000), np.uint8)))


def test_what_the_network_sees_small_is_no_large_image(model: CellModel) -> None:
    """With MIN_SIZE_TEST an image of 6,000 px a side is one of 64 px to the network."""
    model.predictor._resize = CellPredictor(model.predictor.cfg)._resize
    model.predictor.cfg.INPUT.MIN_SIZE_TEST = 64
    resized = CellPredictor(model.predictor.cfg)
    assert resized.scale_of((6000, 6000)) == pytest.approx(64 / 6000)
    assert not CellModel(resized).is_tiled(plane_of_array(np.zeros((6000, 6000), np.uint8)))
    set_tile(CellModel(resized), 64)
    assert CellModel(resized).scale_in_tiles((6000, 6000), Look()) == (1, False)


def too_much(limit_px: int, find: Any) -> Any:
    """Runs out of memory on images of more than so many pixels."""

    def limited(pixels: np.ndarray, *rest: Any, **how: Any) -> CellInstances:
        if pixels.size > limit_px:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        found: CellInstances = find(pixels)
        return found

    return limited


def test_smaller_tiles_when_memory_runs_out(
    model: CellModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = blobs(1, (1200, 1400), 400)
    expected = model.predict(image).to_label_image()
    limited = too_much(500_000, find_blobs)
    monkeypatch.setattr(
        model.predictor, "predict_batch", lambda images, scale: list(map(limited, images))
    )
    monkeypatch.setattr(model.predictor, "detect_in_window", limited)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(model.predict(image).to_label_image(), expected)
    assert "out of memory, trying tiles of 1024 px" in caplog.text
    assert "trying tiles of 512 px" in caplog.text
    caplog.clear()
    assert np.array_equal(model.predict(image).to_label_image(), expected)
    assert "out of memory" not in caplog.text  # what fits is known by now
    assert not model.is_tiled(plane_of_array(image[:600, :600]))


def test_the_cpu_takes_over_from_a_gpu_that_is_too_small(
    model: CellModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = blobs(2, (400, 500), 50)
    expected = model.predict(image).to_label_image()
    model.predictor.cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(model_module, "memory_of", lambda device: 10**12)

    def find(pixels: np.ndarray, *rest: Any, **how: Any) -> CellInstances:
        if model.predictor.cfg.MODEL.DEVICE != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find_blobs(pixels)

    monkeypatch.setattr(
        model.predictor, "predict_batch", lambda images, scale: list(map(find, images))
    )
    monkeypatch.setattr(model.predictor, "detect_in_window", find)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(model.predict(image).to_label_image(), expected)
    assert "going on with the CPU" in caplog.text
    assert model.predictor.cfg.MODEL.DEVICE == "cpu"


def test_no_memory_at_all_is_an_error(model: CellModel, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = too_much(0, find_blobs)
    monkeypatch.setattr(
        model.predictor, "predict_batch", lambda images, scale: list(map(limited, images))
    )
    monkeypatch.setattr(model.predictor, "detect_in_window", limited)
    with pytest.raises(torch.OutOfMemoryError):
        model.predict(blobs(0, (300, 300), 20))


def test_other_errors_are_passed_on(model: CellModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(images: Sequence[np.ndarray], scale: Any) -> list[CellInstances]:
        raise RuntimeError("expected 3 channels")

    monkeypatch.setattr(model.predictor, "predict_batch", refuse)
    with pytest.raises(RuntimeError, match="expected 3 channels"):
        model.predict(blobs(0, (100, 100), 9))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_intensities_are_those_of_the_whole_image(cfg: CfgNode, tmp_path: Path) -> None:
    """A dim part of a 16-bit image is as dim in its tile as in the whole."""
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 0, TEST + "TILE", 64])
    predictor = CellPredictor(cfg)
    seen: list[np.ndarray] = []
    detect = predictor._detect

    def remember(batch: Any, *how: Any, **more: Any) -> list[CellInstances]:
        seen.extend(batch)
        return detect(batch, *how, **more)

    predictor._detect = remember  # type: ignore[method-assign]
    image = np.random.default_rng(0).integers(0, 60_000, (300, 620)).astype(np.uint16)
    image[:, :100] //= 50
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64))
    model = CellModel(predictor)
    with model.open_planes(tmp_path / "a.tif") as (plane,), model.predict_plane(plane, "a"):
        pass
    whole = predictor._input.prepare(image)
    context_px = model._overlaps((300, 620), Look()).context
    windows = [tile.window for tile in TileGrid((300, 620), 64, 128, context_px).tiles]
    assert len(seen) == len(windows) > 4
    assert all(
        np.array_equal(pixels, whole[window.rows, window.columns])
        for pixels, window in zip(seen, windows)
    )
