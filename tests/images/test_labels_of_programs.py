"""Label images as programs save them: floats, colours, WhiteIsZero, NumPy arrays."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import SeveralPlanesError, read_label_image
from PIL import Image
from shared_cases import shared_case

LABELS = np.zeros((9, 7), np.uint16)
LABELS[1:3, 1:4], LABELS[5:8, 2:6] = 3, 300


def areas_of(labels: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(labels[labels != 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_as_float(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(dtype))
    found = read_label_image(tmp_path / "a.tif")
    assert found.dtype == np.int64
    assert np.array_equal(found, LABELS)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.float32([[0, 0.37]]), "found float32 with 0.37.*threshold and label"),
        (np.float32([[0, 7.5]]), "found float32 with 7.5.*round them"),
        (np.float32([[0, 2**24 + 2]]), "labels up to 16777218 as float32"),
    ],
)
def test_floats_that_are_no_labels(tmp_path: Path, pixels: np.ndarray, says: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(ImageReadError, match=rf"a\.tif: .*{says}"):
        read_label_image(tmp_path / "a.tif")


def test_a_colour_is_a_cell_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = np.zeros((9, 7, 4), np.uint8)
    picture[..., 3] = 255
    picture[LABELS == 3] = (7, 0, 0, 255)
    picture[LABELS == 300] = (7, 2, 1, 255)
    for name in ("a.png", "b.png"):
        Image.fromarray(picture).save(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        for name in ("a.png", "b.png"):
            assert areas_of(read_label_image(tmp_path / name)) == {7: 6, 7 + 512 + 65536: 12}
    assert caplog.text.count("each colour is read as one cell") == 1


def test_grey_in_three_channels_keeps_its_numbers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([LABELS] * 3), photometric="rgb")
    assert np.array_equal(read_label_image(tmp_path / "a.tif"), LABELS)


def test_pictures_that_show_no_labels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    noise[0, 0] = 0
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(ImageReadError, match=r"photo\.png: a picture of 399 colours.*smoothed"):
        read_label_image(tmp_path / "photo.png")
    Image.fromarray(np.full((4, 4, 3), (255, 0, 9), np.uint8)).save(tmp_path / "white.png")
    with pytest.raises(ImageReadError, match="none of them black"):
        read_label_image(tmp_path / "white.png")


def test_white_is_zero_means_that_black_is_background(tmp_path: Path) -> None:
    mask = np.where(LABELS > 0, 0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="miniswhite")
    assert areas_of(read_label_image(tmp_path / "a.tif")) == {255: 18}


def test_white_is_zero_with_numbers_that_are_meant(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "passed_on.tif", LABELS, photometric="miniswhite")
    assert np.array_equal(read_label_image(tmp_path / "passed_on.tif"), LABELS)
    binary = np.where(LABELS > 0, 255, 0).astype(np.uint8)  # ImageJ with an inverting table
    description = "ImageJ=1.54f\nmin=0.0\nmax=255.0\n"
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(path, binary, photometric="miniswhite", description=description)
    assert np.array_equal(read_label_image(path), binary)


def test_arrays_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    assert np.array_equal(read_label_image(tmp_path / "a.npy"), LABELS)
    np.save(tmp_path / "stack.npy", np.stack([LABELS] * 5))
    with pytest.raises(SeveralPlanesError, match=r"one page; found shape \[5, 9, 7\]"):
        read_label_image(tmp_path / "stack.npy")


@pytest.mark.parametrize(
    ("case", "areas"),
    [
        ("white_is_zero", [253]),
        ("float_labels", [253] * 4),
        ("rgba_labels", [253] * 4),
    ],
)
def test_cases_of_users(case: str, areas: list[int]) -> None:
    (path,) = (shared_case(case) / "train" / "labels").iterdir()
    assert sorted(areas_of(read_label_image(path)).values()) == areas
