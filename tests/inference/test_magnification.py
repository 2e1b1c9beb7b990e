"""How large images are looked at: by the diameter of their cells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.errors import ConfigError
from cellseg.inference.first_windows import coarse_scales
from cellseg.inference.magnification import FirstLook, Look, Magnification
from cellseg.inference.model import CellModel, plane_of_array
from cellseg.inference.predictor import CellPredictor, resize_smoothly
from cellseg.io.tables import read_rows
from commands import Command
from detectron2.config import CfgNode
from scipy import ndimage

TEST = "CELLSEG.TEST."
KNOWN = (10.0, 26.0, 48.0)


@pytest.fixture
def cfg(cfg: CfgNode) -> CfgNode:
    """That of the small model, which knows cells of 10 to 48 px and looks at native pixels."""
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 0, "INPUT.MAX_SIZE_TEST", 4000])
    cfg.merge_from_list([TEST + "KNOWN_DIAMETERS", list(KNOWN)])
    return cfg


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def record_inputs(model: CellModel, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the network is given from here on."""
    seen: list[torch.Tensor] = []
    inference = model.predictor.model.inference

    def record(batch: list[dict[str, Any]], **options: Any) -> Any:
        seen.extend(one["image"] for one in batch)
        return inference(batch, **options)

    monkeypatch.setattr(model.predictor.model, "inference", record)
    return seen


@pytest.mark.parametrize(("diameter", "scale"), [(13, 2.0), (26, 1.0), (104, 0.25)])
def test_cells_become_as_large_as_the_median(diameter: float, scale: float) -> None:
    look = Magnification(diameter, KNOWN).fixed_look()
    assert look == Look(scale, diameter, is_told=True)
    assert look.note_in(PlaceInFile()).scale == scale


@pytest.mark.parametrize("diameter", ["", "auto"])
def test_nothing_is_fixed_without_a_number(diameter: str) -> None:
    look = Magnification(diameter, KNOWN).fixed_look()
    assert look == Look(None, None, is_told=False)
    assert look.note_in(PlaceInFile()) == PlaceInFile()


@pytest.mark.parametrize("diameter", [30, "auto"])
def test_a_diameter_needs_known_ones(diameter: float | str) -> None:
    with pytest.raises(ConfigError, match="KNOWN_DIAMETERS is empty; expected the lowest, median"):
        Magnification(diameter, ())
    with pytest.raises(ConfigError, match="KNOWN_DIAMETERS is empty"):
        load_config("quick_start.yaml", [TEST + "DIAMETER", diameter])


@pytest.mark.parametrize("diameter", [0, -3, "large", True])
def test_an_impossible_diameter_is_refused(diameter: float | str) -> None:
    with pytest.raises(ConfigError, match=r"TEST\.DIAMETER is .* 'auto', or a number above 0"):
        Magnification(diameter, KNOWN)


@pytest.mark.parametrize("known", [[10, 26], [48, 26, 10], [0, 26, 48], 26])
def test_impossible_known_diameters_are_refused(known: Any) -> None:
    with pytest.raises(ConfigError, match=r"KNOWN_DIAMETERS is .* three numbers above 0"):
        load_config("quick_start.yaml", [TEST + "KNOWN_DIAMETERS", known])


@pytest.mark.parametrize(("diameter", "scale"), [(13.0, 2.0), (52.0, 0.5)])
def test_the_network_sees_what_was_resized(
    cfg: CfgNode,
    image: np.ndarray,
    diameter: float,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = CellModel(CellPredictor(cfg))
    seen = record_inputs(model, monkeypatch)
    found = model.predict(image, diameter=diameter)
    assert found.image_hw == (60, 80)
    how = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
    model.predict(resized)
    given, expected = seen
    assert given.shape == expected.shape == (3, 60 * scale, 80 * scale)
    assert torch.equal(given, expected)


def test_whatever_the_config_says_of_every_image(
    cfg: CfgNode, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg.INPUT.MIN_SIZE_TEST = 30
    model = CellModel(CellPredictor(cfg))
    seen = record_inputs(model, monkeypatch)
    model.predict(image)
    model.predict(image, diameter=13)
    assert [tuple(one.shape) for one in seen] == [(3, 30, 40), (3, 120, 160)]


def test_the_median_changes_nothing(cfg: CfgNode, image: np.ndarray) -> None:
    model = CellModel(CellPredictor(cfg))
    plain, found = model.predict(image), model.predict(image, diameter=26)
    assert len(plain) > 0
    assert plain.equals(found)


def test_what_is_made_smaller_keeps_its_mean() -> None:
    """One bright pixel of sixteen; single pixels of it would be black or white."""
    pixels = np.zeros((40, 40, 3), np.float32)
    pixels[::4, ::4] = 160
    assert np.array_equal(resize_smoothly(pixels, 0.25), np.full((10, 10, 3), 10, np.float32))
    assert resize_smoothly(pixels, 0.001).shape == (1, 1, 3)


def test_tiles_are_looked_at_so_too(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.merge_from_list([TEST + "TILE", 256, TEST + "TILE_OVERLAP", 32])
    cfg.CELLSEG.TEST.DIAMETER = 104
    model = CellModel(CellPredictor(cfg))
    seen = record_inputs(model, monkeypatch)
    image = np.random.default_rng(0).integers(0, 255, (900, 1300, 3), dtype=np.uint8)
    with caplog.at_level(logging.INFO):
        model.predict(image)
    assert "image: cells of about 104 px; looked at 0.25 times the size" in caplog.text
    assert sum(one.shape[1] * one.shape[2] for one in seen) >= 900 * 1300 / 16
    assert max(max(one.shape[1:]) for one in seen) <= (256 + 2 * 512) / 4


def test_tiles_overlap_by_the_cells_of_the_image(cfg: CfgNode) -> None:
    """The largest cell that the model knows is four times as large in an image shrunk to 1/4."""
    model = CellModel(CellPredictor(cfg))
    plain, smaller, larger = (
        model._overlaps((5000, 5000), Look(scale)) for scale in (None, 0.25, 2.0)
    )
    assert smaller.cells == 4 * plain.cells
    assert smaller.context >= 4 * 64
    assert larger == plain


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int | str]:
    monkeypatch.setattr("cellseg.cli.predict.setup_logger", lambda name: None)
    return Command("predict").main


def test_the_command_tells_and_notes_it(
    main: Callable,
    checkpoint_options: list[str],
    image: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cv2.imwrite(str(tmp_path / "field.png"), image)
    out = tmp_path / "out"
    words = ["--config-file", "quick_start.yaml", str(tmp_path / "field.png"), "-o", str(out)]
    known = [TEST + "KNOWN_DIAMETERS", "[10, 26, 48]"]
    assert main([*words, *checkpoint_options, *known]) == 0
    assert "scale" not in read_rows(out / "summary.csv")[0]
    with caplog.at_level(logging.INFO):
        resumed = [*words, "--diameter", "52", "--resume"]
        assert main([*resumed, *checkpoint_options, *known]) == 0
    assert "field: cells of about 52 px; looked at 0.5 times the size" in caplog.text
    assert read_rows(out / "summary.csv")[0]["scale"] == 0.5


@pytest.mark.parametrize("word", ["0", "-4", "large", "inf"])
def test_the_command_refuses_other_words(
    main: Callable, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "-o", str(tmp_path / "out"), f"--diameter={word}"])
    assert "expected a number of pixels such as 30, or auto" in capsys.readouterr().err


def first_look(scale: float, diameters_px: list[float], score: float = 0.9) -> FirstLook:
    return FirstLook(scale, np.array(diameters_px), np.full(len(diameters_px), score))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        # As trained: little is found in what is a quarter as large, and that is known.
        ([first_look(1, [25, 30, 22]), first_look(0.25, [40])], Look(None, 25, True)),
        # Four times too large: most at a quarter; the rest at 1 is dirt.
        ([first_look(1, [12, 104]), first_look(0.25, [100, 104, 110])], Look(0.25, 104, True)),
        # In many pieces, which are smaller than the whole, and doubtful.
        ([first_look(1, [12] * 70, 0.6), first_look(0.25, [104, 104])], Look(0.25, 104, True)),
        # Clumps that are taken for cells at a coarse scale, with doubt: they cover more.
        ([first_look(1, [26] * 9), first_look(0.25, [104] * 4, 0.77)], Look(None, 26, True)),
        # Cells of no known size in any look.
        ([first_look(1, [4, 90]), first_look(0.25, [30])], Look(None, None, True)),
        ([first_look(1, []), first_look(0.25, [])], Look(None, None, True)),
        # Equally much: the image as it is.
        ([first_look(1, [44]), first_look(0.25, [44])], Look(None, 44, True)),
    ],
)
def test_the_scale_with_most_evidence_of_known_cells(
    first: list[FirstLook], expected: Look
) -> None:
    assert Magnification("auto", KNOWN).choose_look(first) == expected


def test_a_first_look_misses_no_diameter() -> None:
    """Where cells of one diameter only are known, every step is small."""
    assert coarse_scales(2.0, (999, 999), (20, 25, 30)) == [1.0, 0.5, 0.25, 0.125]
    for known in (KNOWN, (5, 10, 15), (3, 20, 90)):
        scales = [1.0, *coarse_scales(1.0, (9999, 9999), known)]
        reached = np.geomspace(known[0], known[2] / scales[-1], 200)
        assert all(any(known[0] <= d * s <= known[2] + 1e-6 for s in scales) for d in reached)


def disc_image(diameter_px: int, image_hw: tuple[int, int], step: int) -> np.ndarray:
    """Bright discs in rows, none cut by the border."""
    image = np.zeros((*image_hw, 3), np.uint8)
    for y in range(step, image_hw[0] - step // 2, step):
        for x in range(step, image_hw[1] - step // 2, step):
            cv2.circle(image, (x, y), diameter_px // 2, (200, 200, 200), -1)
    return image


def find_discs(pixels: np.ndarray, scale: float) -> CellInstances:
    """Stands in for a network that knows discs of 10 to 48 px, however large the image is."""
    labels, count = ndimage.label(pixels[..., 0] > 100)
    seen = 2 * np.sqrt(np.bincount(labels.ravel(), minlength=count + 1) / np.pi) * scale
    labels[~((seen >= 9) & (seen <= 50))[labels]] = 0
    numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    return CellInstances.from_label_image(numbers, scores=np.full(numbers.max(), 0.9))


@pytest.fixture
def disc_model(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> CellModel:
    """A model with `find_discs` as its network; `looks` has the scale of each of its looks."""
    cfg.CELLSEG.TEST.DIAMETER = "auto"
    predictor = CellPredictor(cfg)
    looks: list[float] = []

    def batch(images: Sequence[np.ndarray], scale: float | None = None) -> list[CellInstances]:
        looks.extend([scale or 1.0] * len(images))
        return [find_discs(image, scale or 1.0) for image in images]

    def window(pixels: np.ndarray, limits: Any, scale: float, **how: Any) -> CellInstances:
        looks.append(scale)
        return find_discs(pixels, scale)

    monkeypatch.setattr(predictor, "predict_batch", batch)
    monkeypatch.setattr(predictor, "detect_in_window", window)
    monkeypatch.setattr(predictor, "looks", looks, raising=False)
    return CellModel(predictor)


@pytest.mark.parametrize(
    ("diameter_px", "looks"),
    [(20, [1, 0.25, 0.0625]), (80, [1, 0.25, 0.0625, 26 / 80]), (300, [1, 0.25, 0.0625, 26 / 300])],
)
def test_an_image_is_looked_at_again_where_its_cells_are_too_large(
    disc_model: CellModel, diameter_px: int, looks: list[float]
) -> None:
    found = disc_model.predict(disc_image(diameter_px, (700, 900), step=diameter_px + 20))
    assert len(found) >= 2
    assert found.diameters_px == pytest.approx(np.full(len(found), diameter_px), rel=0.1)
    assert disc_model.predictor.looks == pytest.approx(looks, rel=0.1)  # type: ignore[attr-defined]


def test_each_image_of_a_batch_has_a_scale_of_its_own(disc_model: CellModel) -> None:
    large, small = (disc_image(diameter, (400, 400), 150) for diameter in (100, 20))
    found = disc_model.predict_images([large, small])
    assert [one.look.scale is None for one in found] == [False, True]
    assert [round(one.look.diameter_px or 0, -1) for one in found] == [100, 20]
    assert [len(one.cells) for one in found] == [4, 4]


def test_an_image_without_cells_is_looked_at_as_it_is(
    disc_model: CellModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert len(disc_model.predict(np.zeros((300, 300, 3), np.uint8))) == 0
    assert "image: no cells at a first look; looked at as it is" in caplog.text


def test_of_a_large_plane_a_few_windows_are_looked_at_first(
    disc_model: CellModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Cells of 104 px in the lower right only; nine windows are read, four looked at."""
    image = np.zeros((3200, 3200, 3), np.uint8)
    image[2000:, 2000:] = disc_image(104, (1200, 1200), 200)
    reads: list[tuple[int, int]] = []
    plane = plane_of_array(image)

    def read(rows: slice, columns: slice) -> np.ndarray:
        reads.append((rows.stop - rows.start, columns.stop - columns.start))
        return plane.read(rows, columns)

    looked = disc_model.look_at(replace(plane, read=read))
    assert looked.scale == pytest.approx(0.25, rel=0.1)
    assert disc_model.predictor.looks == [1.0] * 4 + [0.25] * 4 + [0.0625] * 4  # type: ignore[attr-defined]
    assert [hw for hw in reads if hw != (1, 1)] == [(1024, 1024)] * 9
    assert disc_model.is_tiled(plane)
    with (
        caplog.at_level(logging.INFO),
        disc_model.predict_plane(plane, "slide") as record,
    ):
        assert record.num_cells == 25
        assert record.place.scale == looked.scale
    assert f"slide: {looked.describe()}" in caplog.text


def test_too_large_when_enlarged_is_looked_at_in_tiles(
    disc_model: CellModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory holds the image as it is, and not the image in the scale of the second look."""
    monkeypatch.setattr(Magnification, "choose_look", lambda *_: Look(2.0, 13, True))
    monkeypatch.setattr(CellModel, "memory_at_hand", lambda _: 2 * 1500 * 800 * 1000)
    image = disc_image(20, (800, 1000), 50)
    assert not disc_model.is_tiled(plane_of_array(image))
    found = disc_model.predict(image)
    assert len(found) == len(find_discs(image, 2.0)) > 100
    assert disc_model.predictor.looks[-1] == 2.0  # type: ignore[attr-defined]
    assert disc_model.predictor.looks.count(2.0) > 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(("half_found", "scale"), [(True, 26 / 11), (False, None)])
def test_small_cells_are_looked_at_larger_if_that_shows_more(
    disc_model: CellModel, monkeypatch: pytest.MonkeyPatch, half_found: bool, scale: float | None
) -> None:
    """Discs of 11 px: a model that finds half of them as they are, and one that finds them all."""
    find = find_discs

    def find_few(pixels: np.ndarray, scale: float) -> CellInstances:
        cells = find(pixels, scale)
        return cells[::2] if half_found and scale <= 1 else cells

    monkeypatch.setitem(globals(), "find_discs", find_few)
    image = disc_image(11, (400, 500), 40)
    every = len(find(image, 1.0))
    (found,) = disc_model.predict_images([image])
    assert len(found.cells) == every > 60
    expected = None if scale is None else pytest.approx(scale, rel=0.1)
    assert found.look.scale == expected
    assert disc_model.look_at(plane_of_array(image)).scale == expected
