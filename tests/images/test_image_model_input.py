"""What the model takes: the same in training, evaluation and prediction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import builders
import numpy as np
import pytest
import tifffile
from cellseg import images
from cellseg.errors import ConfigError, ImageReadError
from image_files import FLOAT, GREY_8, GREY_16, RGB_8, RGB_16


def test_model_input() -> None:
    assert np.array_equal(images.to_model_input(RGB_8, "RGB"), RGB_8)
    bgr = images.to_model_input(RGB_8, "BGR")
    assert np.array_equal(bgr, RGB_8[..., ::-1])
    assert bgr.dtype == np.uint8
    assert bgr.flags.c_contiguous
    grey = images.to_model_input(FLOAT)
    assert grey.dtype == np.float32
    assert all(np.array_equal(grey[..., k], FLOAT) for k in range(3))
    assert np.array_equal(images.to_model_input(FLOAT[..., None]), grey)


def test_model_input_of_other_channels_and_formats() -> None:
    with pytest.raises(ImageReadError, match=r"\[7, 11, 4\]"):
        images.to_model_input(np.zeros((7, 11, 4), np.uint8))
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT"):
        images.to_model_input(GREY_8, "YUV")


def test_read_model_input_follows_the_config(tmp_path: Path) -> None:
    path = builders.write_png(tmp_path / "a.png", RGB_16)
    own = SimpleNamespace(NORMALIZE="percentile", PERCENTILES=[5.0, 95.0])
    cfg = SimpleNamespace(INPUT=SimpleNamespace(FORMAT="BGR"), CELLSEG=SimpleNamespace(INPUT=own))
    expected = images.normalize_image(RGB_16, "percentile", (5, 95))[..., ::-1]
    assert np.array_equal(images.ImageInput.from_config(cfg).read_model_input(path), expected)
    assert np.array_equal(images.ImageInput.from_config(cfg).prepare(RGB_16), expected)


def test_two_channels_leave_the_third_black() -> None:
    two = RGB_16[..., :2]
    found = images.to_model_input(two, "RGB")
    assert np.array_equal(found[..., :2], two)
    assert not found[..., 2].any()
    assert np.array_equal(images.to_model_input(two, "BGR"), found[..., ::-1])


def make_cfg(**own: object) -> SimpleNamespace:
    defaults = {"NORMALIZE": "auto", "PERCENTILES": [1.0, 99.8]}
    return SimpleNamespace(
        INPUT=SimpleNamespace(FORMAT="BGR"),
        CELLSEG=SimpleNamespace(INPUT=SimpleNamespace(**{**defaults, **own})),
    )


@pytest.mark.parametrize(
    ("chosen", "order"), [([1], [1, 1, 1]), ([2, 0], [2, 0, None]), ([2, "a", 1], [2, 0, 1])]
)
def test_channels_page_and_range_of_a_stack(
    tmp_path: Path, chosen: list[int | str], order: list[int | None]
) -> None:
    stack = RGB_16.transpose(2, 0, 1)[None].repeat(2, 0)
    stack[1] //= 2
    metadata = {"axes": "TCYX", "Channel": {"Name": ["a", "b", "c"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata=metadata)
    cfg = make_cfg(CHANNELS=chosen, PAGE=1, NORMALIZE="range", RANGE=[0, 40000])
    found = images.ImageInput.from_config(cfg).read_model_input(tmp_path / "a.ome.tif")
    rgb = np.dstack([np.zeros((7, 11)) if k is None else stack[1, k] for k in order])
    expected = 255 * np.clip(rgb / 40000, 0, 1)
    assert np.allclose(found, expected[..., ::-1], rtol=1e-6)
    assert (found.dtype, found.shape) == (np.float32, (7, 11, 3))


def test_arrays_have_the_channels_that_were_chosen() -> None:
    for chosen, image in (([0, 1], RGB_16), ([], RGB_16[..., :2]), ([0, 1, 2], GREY_16)):
        with pytest.raises(ImageReadError, match="channels"):
            images.ImageInput.from_config(make_cfg(CHANNELS=chosen)).prepare(image)
    found = images.ImageInput.from_config(make_cfg(CHANNELS=[4, 5])).prepare(RGB_8[..., :2])
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("NORMALIZE", "median", "auto, none, minmax, percentile, range"),
        ("NORMALIZE", "range", r"CELLSEG\.INPUT\.RANGE is \[\]; expected \[low, high\]"),
        ("RANGE", [5, 1], r"RANGE is \[5, 1\].*low < high"),
        ("PERCENTILES", [1], r"PERCENTILES is \[1\].*0 <= low < high <= 100"),
        ("PERCENTILES", [-1, 50], "low < high"),
        ("PERCENTILES", ["a", "b"], "low < high"),
        ("CHANNELS", [0, 1, 2, 3], "up to three channel numbers"),
        ("CHANNELS", [-1], "up to three channel numbers"),
        ("CHANNELS", [0.5], "up to three channel numbers"),
        ("CHANNELS", [True], "up to three channel numbers"),
        ("CHANNELS", [""], "up to three channel numbers"),
        ("PAGE", -2, "PAGE is -2; expected a page number from 0, or -1"),
        ("PAGE", 1.0, "PAGE is 1.0"),
        ("PROJECTION", "mean", "none, max"),
    ],
)
def test_settings_that_cannot_be(key: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        images.ImageInput.from_config(make_cfg(**{key: value}))
