"""Dark cells on bright ground: CELLSEG.INPUT.INVERT."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cellseg.cells.synthetic import make_cells
from cellseg.images import ImageInput, PlaneImage

KINDS = ["auto", "none", "percentile", "minmax", "range"]


@pytest.fixture
def image() -> np.ndarray:
    """Bright cells on dark ground, 12 bits in 16."""
    return make_cells(3, (128, 160)).image.astype(np.uint16) * 16


def negative(image: np.ndarray) -> np.ndarray:
    return 4095 - image


def plane_of(image: np.ndarray) -> PlaneImage:
    def read(rows: slice, columns: slice) -> np.ndarray:
        return image[rows, columns]

    return PlaneImage(Path("a"), image.shape[:2], read, read, chunk_hw=(32, 32))


@pytest.mark.parametrize("kind", ["percentile", "minmax", "range"])
@pytest.mark.parametrize("invert", [True, "auto"])
def test_a_negative_becomes_what_the_image_is(
    image: np.ndarray, kind: str, invert: bool | str
) -> None:
    expected = ImageInput(normalize=kind, value_range=(0, 4095)).prepare(image)
    given = ImageInput(normalize=kind, value_range=(0, 4095), invert=invert)
    assert np.allclose(given.prepare(negative(image)), expected, atol=1e-3)
    stored_in_rgb = np.repeat(negative(image)[..., None], 3, axis=2)
    assert np.allclose(given.prepare(stored_in_rgb), expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["none", "auto"])
def test_8_bit_values_that_stay_as_they_are(kind: str) -> None:
    pixels = np.array([[0, 100, 255]], np.uint8)
    found = ImageInput(normalize=kind, invert=True).prepare(pixels)
    assert found[0, :, 0].tolist() == [255, 155, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_bright_cells_are_left_alone(image: np.ndarray, kind: str) -> None:
    plain = ImageInput(normalize=kind, value_range=(0, 4095))
    automatic = ImageInput(normalize=kind, value_range=(0, 4095), invert="auto")
    assert np.array_equal(automatic.prepare(image), plain.prepare(image))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_negative", [False, True])
@pytest.mark.parametrize("in_rgb", [False, True])
def test_windows_as_in_the_whole(
    image: np.ndarray, kind: str, is_negative: bool, in_rgb: bool
) -> None:
    image = negative(image) if is_negative else image
    image = np.repeat(image[..., None], 3, axis=2) if in_rgb else image
    given = ImageInput(normalize=kind, value_range=(0, 4095), invert="auto")
    limits = given.limits_of(plane_of(image), window_px=2000)
    window = given.prepare(image[20:60, 30:90], limits)
    assert np.array_equal(window, given.prepare(image)[20:60, 30:90])


@pytest.mark.parametrize("kind", KINDS)
def test_stained_tissue_is_made_bright(image: np.ndarray, kind: str) -> None:
    """Dark in all three colours, in each as much as the dye takes away."""
    tissue = np.stack([4095 - image, 4095 - image // 2, 4095 - image // 3], axis=2)
    automatic = ImageInput(normalize=kind, value_range=(0, 4095), invert="auto")
    always = ImageInput(normalize=kind, value_range=(0, 4095), invert=True)
    assert np.array_equal(automatic.prepare(tissue), always.prepare(tissue))
    limits = automatic.limits_of(plane_of(tissue), window_px=2000)
    window = automatic.prepare(tissue[20:60, 30:90], limits)
    assert np.array_equal(window, automatic.prepare(tissue)[20:60, 30:90])


def test_empty_images_are_left_alone() -> None:
    empty = np.full((20, 20), 4000, np.uint16)
    plain, automatic = ImageInput().prepare(empty), ImageInput(invert="auto")
    assert np.array_equal(automatic.prepare(empty), plain)
    limits = automatic.limits_of(plane_of(empty))
    assert np.array_equal(automatic.prepare(empty, limits), plain)


@pytest.mark.parametrize("kind", ["percentile", "minmax"])
def test_dyes_on_dark_ground_become_grey(image: np.ndarray, kind: str) -> None:
    """What compression leaves beside a dye counts for nothing."""
    automatic, plain = ImageInput(normalize=kind, invert="auto"), ImageInput(normalize=kind)
    grey = plain.prepare(image)
    left_over = np.random.default_rng(0).integers(0, 60, image.shape).astype(np.uint16)
    for beside in (0 * image, left_over):
        assert np.array_equal(automatic.prepare(np.stack([beside, beside, image], 2)), grey)
    other = np.roll(image, 20, axis=1)
    two_dyes = np.stack([other // 3, 0 * image, image], axis=2)
    expected = (grey[..., 0].astype(float) + plain.prepare(other // 3)[..., 0]) / 2
    assert np.allclose(automatic.prepare(two_dyes), expected[..., None], atol=1e-3)
    limits = automatic.limits_of(plane_of(two_dyes), window_px=2000)
    window = automatic.prepare(two_dyes[20:60, 30:90], limits)
    assert np.array_equal(window, automatic.prepare(two_dyes)[20:60, 30:90])
    chosen = ImageInput(normalize=kind, invert="auto", channels=(0, 1, 2))
    by_hand = ImageInput(normalize=kind, channels=(0, 1, 2))
    assert np.array_equal(chosen.prepare(two_dyes), by_hand.prepare(two_dyes))


def test_real_nuclei_and_their_negatives_are_told_apart(real_datasets: Path) -> None:
    files = sorted((real_datasets / "dsb2018/fluo/val/images").glob("*.png"))[::8]
    assert files
    automatic, plain = (
        ImageInput(normalize="percentile", invert="auto"),
        ImageInput("BGR", "percentile"),
    )
    for path in files:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        expected = plain.prepare(pixels)
        assert np.array_equal(automatic.prepare(pixels), expected), path
        assert np.allclose(automatic.prepare(255 - pixels), expected, atol=1e-3), path


def test_real_stained_tissue_is_made_bright(real_datasets: Path) -> None:
    files = [*(real_datasets / "tnbc/val/images").glob("*.png")]
    files += (real_datasets / "dsb2018/other/val/images").glob("*.png")
    assert files
    automatic = ImageInput(normalize="percentile", invert="auto")
    always = ImageInput(normalize="percentile", invert=True)
    for path in files:
        pixels = automatic.read(path)
        assert np.array_equal(automatic.prepare(pixels), always.prepare(pixels)), path
