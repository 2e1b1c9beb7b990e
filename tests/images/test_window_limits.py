"""Limits of intensities by window: those of the whole image, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.errors import ImageReadError
from cellseg.images import ImageInput, normalize_image, open_planes
from cellseg.images.window_limits import RankSearch
from numpy.typing import NDArray

HW = (61, 83)
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def make_image(dtype: str, channels: int = 1) -> NDArray[Any]:
    rng = np.random.default_rng(4)
    shape = HW if channels == 1 else (*HW, channels)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        image = rng.normal(0, 300, shape) * 10.0 ** rng.integers(-3, 2, shape)
        image[5, :7] = -0.0 if channels == 1 else 0.0
        return image.astype(kind)
    limits = np.iinfo(kind)
    image = rng.integers(limits.min // 2, limits.max // 2, shape, kind)
    image[:3] = limits.max
    image[3, :4] = limits.min
    return image


def open_plane(folder: Path, image: NDArray[Any], **options: Any) -> Any:
    tiled = {"compression": "zlib", "tile": (16, 32), **options}
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    tifffile.imwrite(folder / "a.tif", image, photometric=photometric, **tiled)
    return open_planes(folder / "a.tif")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["auto", "none", "minmax", "percentile", "range"])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_become_what_they_are_in_the_whole(
    tmp_path: Path, dtype: str, mode: str, channels: int
) -> None:
    image = make_image(dtype, channels)
    settings = ImageInput(normalize=mode, percentiles=(2.5, 97.3), value_range=(-20.0, 4000.0))
    whole = settings.prepare(image)
    expected = normalize_image(image, mode, (2.5, 97.3), (-20.0, 4000.0))
    assert np.array_equal(whole[..., ::-1][..., :1], expected.reshape(*HW, -1)[..., :1])
    with open_plane(tmp_path, image) as (plane,):
        for window_px in (1, 3000, 10**7):
            limits = settings.limits_of(plane, window_px=window_px)
            for rows, columns in ((slice(0, 9), slice(0, 83)), (slice(7, 61), slice(50, 60))):
                found = settings.prepare(plane.read(rows, columns), limits)
                assert found.dtype == whole.dtype
                assert found.tobytes() == np.ascontiguousarray(whole[rows, columns]).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("percentiles", [(0, 100), (1, 99.8), (33.3, 33.4), (49.99, 50)])
def test_percentiles_are_numpys(
    tmp_path: Path, dtype: str, percentiles: tuple[float, float]
) -> None:
    image = make_image(dtype)
    settings = ImageInput(normalize="percentile", percentiles=percentiles)
    low, high = np.percentile(image.astype(np.float64), percentiles)
    if low == high:
        low, high = float(image.min()), float(image.max())
    with open_plane(tmp_path, image) as (plane,):
        assert settings.limits_of(plane, window_px=700) == ((low, high),)


def test_a_small_cell_on_an_even_background(tmp_path: Path) -> None:
    for dtype in (np.uint16, np.float32, np.int32):
        image = np.full(HW, 7, dtype)
        image[30, 40] = 900
        with open_plane(tmp_path, image) as (plane,):
            assert ImageInput().limits_of(plane) == ((7.0, 900.0),)
        with open_plane(tmp_path, np.full(HW, 7, dtype)) as (plane,):
            limits = ImageInput().limits_of(plane)
            assert limits == ((7.0, 7.0),)
            assert not ImageInput().prepare(plane.read_whole(), limits).any()


@pytest.mark.parametrize("mode", ["auto", "minmax"])
def test_values_that_are_not_finite(tmp_path: Path, mode: str) -> None:
    image = make_image("f4")
    image[60, 82] = np.nan
    with (
        open_plane(tmp_path, image) as (plane,),
        pytest.raises(ImageReadError, match=r"a\.tif: 1 of \d+ values are not finite"),
    ):
        ImageInput(normalize=mode).limits_of(plane, window_px=500)


def test_8_bits_are_not_read_where_nothing_is_stretched(tmp_path: Path) -> None:
    with open_plane(tmp_path, make_image("u1")) as (plane,):
        assert ImageInput().limits_of(plane) == ()
        assert ImageInput(normalize="range", value_range=(3, 9)).limits_of(plane) == ((3.0, 9.0),)


def test_limits_of_other_channels() -> None:
    with pytest.raises(ImageReadError, match=r"limits are those of 2 channels; found .*\[61, 83\]"):
        ImageInput().prepare(make_image("u2"), ((0.0, 1.0), (0.0, 2.0)))


def test_chosen_channels_and_pages(tmp_path: Path) -> None:
    stack = make_image("u2", 3).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "CYX"})
    settings = ImageInput(channels=[2, 0], percentiles=(10, 90))
    with open_planes(tmp_path / "a.tif", channels=[2, 0]) as (plane,):
        expected = [tuple(np.percentile(stack[k], (10, 90))) for k in (2, 0)]
        assert settings.limits_of(plane, window_px=999) == tuple(expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ranks_in_many_pieces(dtype: str) -> None:
    rng = np.random.default_rng(8)
    values = make_image(dtype).ravel()
    ranks = [0, 1, 17, 2000, len(values) - 1]
    pieces = np.array_split(rng.permutation(values)[:, None], 7)
    found = RankSearch(values.dtype, 1, ranks).run(lambda: iter(pieces))
    assert np.array_equal(found, np.sort(values)[ranks].astype(np.float64)[None])
