"""How intensities become 0 to 255."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from cellseg import images
from cellseg.errors import ConfigError, ImageReadError
from image_files import FLOAT, GREY_8, GREY_16


def test_normalize_by_hand() -> None:
    image = np.array([[1000, 1000], [3000, 5000]], np.uint16)
    expected = np.array([[0, 0], [127.5, 255]], np.float32)
    assert np.array_equal(images.normalize_image(image, "minmax"), expected)
    assert images.normalize_image(image, "minmax").dtype == np.float32
    as_is = images.normalize_image(image, "none")
    assert as_is.dtype == np.float32
    assert np.array_equal(as_is, image)


def test_normalize_percentiles_clip() -> None:
    ramp = np.arange(101, dtype=np.float64).reshape(1, 101) / 7 - 3
    found = images.normalize_image(ramp, "percentile", (10, 60))
    assert found[0, :11].tolist() == [0] * 11
    assert found[0, 60:].tolist() == [255] * 41
    assert found[0, 35] == pytest.approx(127.5)


def test_auto_leaves_8_bit_alone_and_nothing_else() -> None:
    assert images.normalize_image(GREY_8, "auto") is GREY_8
    for image in (GREY_16, FLOAT, GREY_16.astype(np.int64)):
        found = images.normalize_image(image, "auto")
        assert np.array_equal(found, images.normalize_image(image, "percentile", (1.0, 99.8)))
        assert (found.min(), found.max()) == (0, 255)
    scene = builders.sixteen_bit()
    found = images.normalize_image(scene.image)
    assert np.array_equal(found, np.where(scene.labels > 0, 255, 0))


def test_normalize_channels_separately_and_flat_ones() -> None:
    colour = np.zeros((2, 2, 3), np.uint16)
    colour[0, 0] = (10, 4000, 0)
    found = images.normalize_image(colour, "minmax")
    assert found[0, 0].tolist() == [255, 255, 0]
    assert not images.normalize_image(np.full((3, 3), 7.0), "percentile").any()


def test_one_small_cell_on_an_even_background_is_not_lost() -> None:
    image = np.zeros((100, 100), np.uint16)
    image[50, 50:53] = 900
    assert images.normalize_image(image, "auto").max() == 255


@pytest.mark.parametrize(
    ("mode", "limits"), [("median", (1, 99)), ("percentile", (60, 40)), ("percentile", (-1, 50))]
)
def test_normalize_what_it_does_not_know(mode: str, limits: tuple[float, float]) -> None:
    with pytest.raises(ConfigError):
        images.normalize_image(GREY_16, mode, limits)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_percentiles_are_numpys_to_the_last_bit(dtype: str) -> None:
    rng = np.random.default_rng(5)
    for size in (1, 2, 3, 10, 997, 4096):
        spread = 10.0 ** rng.uniform(0, 4)
        values = np.clip(rng.normal(0, spread, size), -120, 32000)
        if dtype.startswith("u"):
            values = np.abs(values)
        channel = values.astype(dtype) if dtype[1] != "1" else (values % 100).astype(dtype)
        percents = [0, 100, 1.0, 99.8, *rng.uniform(0, 100, 20)]
        expected = np.percentile(channel.astype(np.float64), percents)
        assert np.array_equal(images.channel_percentiles(channel, percents), expected)


@pytest.mark.parametrize("dtype", ["u2", "i2", "u1", "f4"])
def test_tables_give_what_the_formula_gives(dtype: str) -> None:
    rng = np.random.default_rng(6)
    image = rng.integers(0, 120, (40, 30, 2)).astype(dtype) - np.array(30, dtype)
    values = image.astype(np.float64)
    low, high = np.percentile(values, [5, 90], axis=(0, 1))
    expected = (255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.float32)
    found = images.normalize_image(image, "percentile", (5, 90))
    assert np.allclose(found, expected, rtol=1e-6, atol=0)
    assert found.shape == image.shape


def test_a_fixed_range_is_the_same_for_every_image() -> None:
    image = np.array([[0, 1000], [2048, 5000]], np.uint16)
    expected = np.float32([[0, 0], [255 * 1048 / 3095, 255]])
    for other in (image, image.astype(np.int32), image.astype(np.float32)):
        assert np.allclose(images.normalize_image(other, "range", (1, 99), (1000, 4095)), expected)
    bright = np.array([[0, 128, 255]], np.uint8)
    assert images.normalize_image(bright, "range", (1, 99), (0, 510)).tolist() == [[0, 64, 127.5]]
    flat = np.full((2, 2), 4000, np.uint16)  # not black, as it would be in "percentile"
    assert images.normalize_image(flat, "range", (1, 99), (0, 8000)).tolist() == [[127.5] * 2] * 2


def test_constant_and_saturated_channels() -> None:
    saturated = np.full((50, 50), 65535, np.uint16)
    saturated[:3, :4] = [0, 100, 200, 300]  # less than a percent is not at the limit
    found = images.normalize_image(saturated)
    assert found.max() == 255
    assert found[5:].min() == 255
    assert found[0, 0] == 0
    half = np.where(np.arange(100) < 50, 65535, 1000).astype(np.uint16).reshape(10, 10)
    assert set(images.normalize_image(half).ravel()) == {0.0, 255.0}
    for value in (0, 7, 65535):
        assert not images.normalize_image(np.full((4, 5, 3), value, np.uint16)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["auto", "none", "minmax", "percentile", "range"])
def test_values_that_are_not_finite_are_refused(bad: float, mode: str) -> None:
    image = FLOAT.copy()
    image[1, 2] = bad
    with pytest.raises(ImageReadError, match="1 of 77 values are not finite"):
        images.normalize_image(image, mode, (1, 99), (0, 1))


@pytest.mark.parametrize("value_range", [(), (5,), (5, 5), (9, 5), (0, np.nan), (0, 1, 2), "01"])
def test_ranges_that_do_not_ascend(value_range: object) -> None:
    with pytest.raises(ConfigError, match=r"CELLSEG\.INPUT\.RANGE .*low < high"):
        images.normalize_image(GREY_16, "range", (1, 99), value_range)
