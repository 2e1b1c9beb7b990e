# ruff: noqa: NPY002 (augmentations draw from numpy's global generator)
"""Intensities: values by hand, dtypes and ranges, grey stays grey, labels untouched."""

from __future__ import annotations

import cellseg.training_data.augmentations as A
import numpy as np
import pytest
from cellseg.training_data.augmentations.intensity import (
    BlurTransform,
    GammaTransform,
    IntensityTransform,
    InvertTransform,
    LinearTransform,
    NoiseTransform,
)
from detectron2.data import transforms as T

TRANSFORMS = [
    GammaTransform(0.6),
    LinearTransform(1.7),
    LinearTransform(1.7, 90.0),
    InvertTransform(),
    BlurTransform(1.2),
    NoiseTransform(25.0, seed=3),
]
AUGMENTATIONS = [
    A.RandomGamma((0.5, 2.0)),
    A.RandomBrightness((0.5, 2.0)),
    A.RandomContrast((0.5, 2.0)),
    A.RandomBlur((0.5, 2.0)),
    A.RandomNoise((1.0, 20.0)),
    A.RandomInvert(),
]


def _name(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16])
@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (GammaTransform(2.0), [0, 64 * 64 / 255, 255]),
        (LinearTransform(0.5), [0, 32, 127.5]),
        (LinearTransform(4.0), [0, 255, 255]),  # 256 is clipped
        (LinearTransform(2.0, 100.0), [0, 28, 255]),  # -100 and 410 are clipped
        (InvertTransform(), [255, 191, 0]),
    ],
)
def test_values_by_hand(transform: T.Transform, expected: list[float], dtype: type) -> None:
    image = np.array([[0, 64, 255]], dtype)
    found = transform.apply_image(image)
    assert found.dtype == dtype
    wanted = np.array([expected]) if dtype == np.float32 else np.rint([expected])
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=_name)
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1), (9, 14, 3), (9, 14, 6)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.uint16])
def test_shape_dtype_range_and_argument_are_kept(
    transform: IntensityTransform, shape: tuple[int, ...], dtype: type
) -> None:
    image = np.random.default_rng(0).uniform(0, 255, shape).astype(dtype)
    before = image.copy()
    found = transform.apply_image(image)
    assert found.shape == shape
    assert found.dtype == dtype
    assert found.min() >= 0
    assert found.max() <= 255
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(transform.apply_image(image), found)  # deterministic


@pytest.mark.parametrize("transform", TRANSFORMS, ids=_name)
def test_labels_and_coordinates_are_not_touched(transform: IntensityTransform) -> None:
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    coords = np.array([[0.5, 2.5], [-3, 9]])
    boxes = np.array([[1.0, 2, 3, 4]])
    assert transform.apply_segmentation(labels) is labels
    np.testing.assert_array_equal(transform.apply_coords(coords.copy()), coords)
    np.testing.assert_array_equal(transform.apply_box(boxes), boxes)
    assert isinstance(transform.inverse(), T.NoOpTransform)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=_name)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_grey_image_of_three_channels_stays_grey(
    transform: IntensityTransform, dtype: type
) -> None:
    grey = np.random.default_rng(1).uniform(0, 255, (20, 30, 1)).astype(dtype)
    found = transform.apply_image(np.repeat(grey, 3, axis=2))
    assert (found == found[..., :1]).all()
    assert not (found == grey).all()


def test_noise_of_colour_channels_differs_and_has_the_deviation_asked_for() -> None:
    image = np.full((200, 300, 3), 128, np.float32) + np.arange(3, dtype=np.float32)
    noise = NoiseTransform(8.0, seed=1).apply_image(image) - image
    assert noise.std() == pytest.approx(8.0, rel=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_float_images_beyond_255_are_not_clipped_to_it() -> None:
    image = np.array([[-45.0, 0, 4050]], np.float32)
    np.testing.assert_allclose(InvertTransform().apply_image(image), [[4050, 4005, -45]])
    found = GammaTransform(2.0).apply_image(image)
    np.testing.assert_allclose(found, [[-45, 4095 * (45 / 4095) ** 2 - 45, 4050]], rtol=1e-4)
    assert LinearTransform(2.0).apply_image(image).max() == 4050


def test_blur_of_a_flat_image_changes_nothing_and_of_a_point_keeps_its_sum() -> None:
    flat = np.full((12, 12, 3), 77, np.uint8)
    np.testing.assert_array_equal(BlurTransform(1.5).apply_image(flat), flat)
    point = np.zeros((31, 31), np.float32)
    point[15, 15] = 200
    blurred = BlurTransform(1.5).apply_image(point)
    assert blurred.sum() == pytest.approx(200, rel=1e-4)
    # the peak of a Gaussian in two dimensions is 1 / (2 pi sigma^2)
    assert blurred[15, 15] == pytest.approx(200 / (2 * np.pi * 1.5**2), rel=0.01)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=_name)
def test_the_same_seed_gives_the_same_image(augmentation: T.Augmentation) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    found = []
    for seed in (5, 5, 6):
        np.random.seed(seed)
        given = T.AugInput(image, sem_seg=image[..., 0])
        augmentation(given)
        found.append(given.image)
        assert given.sem_seg is image[..., 0] or (given.sem_seg == image[..., 0]).all()
    np.testing.assert_array_equal(found[0], found[1])
    assert isinstance(augmentation, A.RandomInvert) or (found[0] != found[2]).any()


def test_factors_are_drawn_evenly_on_a_logarithmic_scale() -> None:
    np.random.seed(0)
    image = np.zeros((2, 2), np.uint8)
    drawn = [A.RandomGamma((0.25, 4.0)).get_transform(image).gamma for _ in range(2000)]
    assert min(drawn) >= 0.25
    assert max(drawn) <= 4
    assert np.mean(np.array(drawn) < 1) == pytest.approx(0.5, abs=0.05)
    assert np.mean(np.array(drawn) < 0.5) == pytest.approx(0.25, abs=0.05)


def test_contrast_keeps_the_mean() -> None:
    image = np.random.default_rng(0).uniform(100, 150, (40, 50, 3)).astype(np.float32)
    np.random.seed(1)
    found, _ = T.apply_augmentations([A.RandomContrast((1.5, 2.0))], image)
    assert found.mean() == pytest.approx(image.mean(), rel=1e-4)
    assert 1.5 <= found.std() / image.std() <= 2.0


def test_representation_names_the_arguments() -> None:
    assert repr(A.RandomGamma((0.5, 2.0), 0.3)) == "RandomGamma(gamma=(0.5, 2.0), prob=0.3)"
