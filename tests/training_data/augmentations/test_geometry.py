# ruff: noqa: NPY002 (augmentations draw from numpy's global generator)
"""Image, planes, bitmaps, coordinates and boxes move together."""

from __future__ import annotations

import cellseg.training_data.augmentations as A
import numpy as np
import pytest
from builders import all_scenes
from cellseg.cells.synthetic import make_cells
from cellseg.errors import InputValueError
from cellseg.training_data.augmentations.elastic import MAX_SLOPE, draw_shift
from detectron2.data import transforms as T
from numpy.typing import NDArray

AUGMENTATIONS = [
    A.RandomRotate90(1.0),
    A.RandomScaleCrop((1.2, 2.0)),
    A.RandomScaleCrop((0.4, 0.9)),
    A.RandomElastic((2.0, 2.0), 8.0),
]


def _name(value: object) -> str:
    scale = getattr(value, "scale", "")
    return f"{type(value).__name__}{scale}"


def _box_of(mask: NDArray[np.bool_]) -> list[int]:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=_name)
@pytest.mark.parametrize("scene", all_scenes().values(), ids=all_scenes().keys())
@pytest.mark.parametrize("seed", range(3))
def test_planes_and_bitmaps_move_alike_and_boxes_hold_the_masks(
    augmentation: A.RandomElastic, scene: object, seed: int
) -> None:
    np.random.seed(seed)
    transform = augmentation.get_transform(scene.image)
    labels = transform.apply_segmentation(scene.labels.astype(np.int32))
    assert labels.dtype == np.int32
    assert labels.shape == transform.apply_image(scene.image).shape
    stack = transform.apply_segmentation(scene.masks.transpose(1, 2, 0).astype(np.uint8))
    # half a pixel: a label that is scaled is rounded to whole pixels, a box is not
    slack = 0.5 if isinstance(augmentation, A.RandomScaleCrop) else 0.0
    for number, mask in enumerate(scene.masks):
        bitmap = transform.apply_segmentation(mask.astype(np.uint8))
        np.testing.assert_array_equal(bitmap, stack[..., number])
        np.testing.assert_array_equal(bitmap, transform.apply_segmentation(mask))
        shown = transform.apply_segmentation((scene.labels == number + 1).astype(np.uint8))
        np.testing.assert_array_equal(labels == number + 1, shown == 1)
        box = transform.apply_box(np.array([_box_of(mask)], np.float64))
        assert box.shape == (1, 4)
        if bitmap.any():
            x0, y0, x1, y1 = _box_of(bitmap > 0)
            assert (box[0, :2] <= np.array([x0, y0]) + slack).all()
            assert (box[0, 2:] >= np.array([x1, y1]) - slack).all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=_name)
@pytest.mark.parametrize("shape", [(30, 41), (30, 41, 1), (30, 41, 3), (30, 41, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_and_labels_move_to_the_same_place(
    augmentation: A.RandomElastic, shape: tuple[int, ...], dtype: type
) -> None:
    """A smooth image that tells its labels: a band of 10 levels per label."""
    np.random.seed(4)
    ramp = np.linspace(5, 250, shape[1]) * np.ones((shape[0], 1))
    image = np.broadcast_to(ramp.reshape(30, 41, *[1] * (len(shape) - 2)), shape).astype(dtype)
    transform = augmentation.get_transform(image)
    found = transform.apply_image(image)
    assert found.dtype == dtype
    assert found.shape[2:] == shape[2:]
    columns = transform.apply_segmentation(np.tile(np.arange(41, dtype=np.int32), (30, 1)))
    told = np.linspace(5, 250, 41)[columns]
    first = found.reshape(*found.shape[:2], -1)[..., 0].astype(float)
    assert np.abs(first - told).max() <= 245 / 40 * 0.6 + 1  # half a pixel, and rounding


@pytest.mark.parametrize(
    ("turns", "labels", "point"),
    [
        (1, [[3, 6], [2, 5], [1, 4]], [0.5, 2.5]),
        (2, [[6, 5, 4], [3, 2, 1]], [2.5, 1.5]),
        (3, [[4, 1], [5, 2], [6, 3]], [1.5, 0.5]),
        (0, [[1, 2, 3], [4, 5, 6]], [0.5, 0.5]),
        (-1, [[4, 1], [5, 2], [6, 3]], [1.5, 0.5]),
    ],
)
def test_turns_by_hand(turns: int, labels: list[list[int]], point: list[float]) -> None:
    before = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    transform = A.Rotate90Transform((2, 3), turns)
    np.testing.assert_array_equal(transform.apply_segmentation(before), labels)
    np.testing.assert_array_equal(transform.apply_coords(np.array([[0.5, 0.5]])), [point])
    back = transform.inverse()
    np.testing.assert_array_equal(back.apply_image(transform.apply_image(before)), before)
    coords = np.array([[0.2, 1.7], [-4, 9]])
    np.testing.assert_allclose(back.apply_coords(transform.apply_coords(coords)), coords)


def test_turns_are_equally_frequent_at_three_quarters() -> None:
    np.random.seed(0)
    augmentation, image = A.RandomRotate90(), np.zeros((3, 4), np.uint8)
    drawn = [getattr(augmentation.get_transform(image), "turns", 0) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, 0.25, atol=0.03)


def test_scale_by_hand() -> None:
    labels = np.array([[1, 2], [3, 4]], np.int32)
    doubled = A.ScaleCropTransform((2, 2), (4, 4), (1, 1), (2, 2))
    np.testing.assert_array_equal(doubled.apply_segmentation(labels), labels)
    corner = A.ScaleCropTransform((2, 2), (4, 4), (0, 2), (2, 2))
    np.testing.assert_array_equal(corner.apply_segmentation(labels), [[2, 2], [2, 2]])
    np.testing.assert_array_equal(corner.apply_coords(np.array([[1.5, 0.5]])), [[1, 1]])
    np.testing.assert_array_equal(corner.apply_box(np.array([[1.0, 0, 2, 1]])), [[0, 0, 2, 2]])
    image = np.array([[10, 20, 30, 50]], np.float32).repeat(2, axis=0)
    half = A.ScaleCropTransform((2, 4), (1, 2), (0, 0), (1, 2))
    np.testing.assert_allclose(half.apply_image(image), [[15, 40]])  # means of 2 x 2 pixels


def test_what_grows_keeps_its_size_and_what_shrinks_does_not() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    assert T.apply_augmentations([A.RandomScaleCrop((1.5, 1.5))], image)[0].shape == (40, 60, 3)
    assert T.apply_augmentations([A.RandomScaleCrop((0.5, 0.5))], image)[0].shape == (20, 30, 3)
    tiny = T.apply_augmentations([A.RandomScaleCrop((0.1, 0.1))], np.zeros((2, 3), np.uint8))
    assert tiny[0].shape == (1, 1)


def test_scale_one_and_shift_zero_change_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (23, 31, 3)).astype(np.uint8)
    for transform in (
        A.ScaleCropTransform((23, 31), (23, 31), (0, 0), (23, 31)),
        A.ElasticTransform(np.zeros((23, 31, 2), np.float32)),
    ):
        np.testing.assert_array_equal(transform.apply_image(image), image)
        np.testing.assert_array_equal(transform.apply_segmentation(image[..., 0]), image[..., 0])
        boxes = np.array([[2.0, 3, 9, 11]])
        np.testing.assert_array_equal(transform.apply_box(boxes), boxes)


def test_elastic_by_hand() -> None:
    """Every pixel is taken from the one to the right; the last column from itself."""
    shift = np.zeros((3, 4, 2), np.float32)
    shift[..., 0] = 1
    transform = A.ElasticTransform(shift)
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    expected = [[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]]
    np.testing.assert_array_equal(transform.apply_segmentation(labels), expected)
    np.testing.assert_array_equal(transform.apply_image(labels.astype(np.float32)), expected)
    np.testing.assert_allclose(transform.apply_coords(np.array([[2.5, 1.5]])), [[1.5, 1.5]])
    boxes = np.array([[1.0, 0, 3, 2], [3, 0, 4, 3], [0, 0, 1, 3]])
    moved = transform.apply_box(boxes)
    np.testing.assert_allclose(moved[:2], [[0, 0, 2, 2], [2, 0, 4, 3]])  # the border is stretched
    np.testing.assert_allclose(moved[2], [-0.5, 1.5, -0.5, 1.5])  # moved out: a point
    assert transform.apply_box(np.zeros((0, 4))).shape == (0, 4)
    assert transform.apply_coords(np.zeros((0, 2))).shape == (0, 2)


def _determinants(shift: NDArray[np.float32]) -> NDArray[np.float64]:
    along_x = np.diff(shift.astype(float), axis=1)[:-1]
    along_y = np.diff(shift.astype(float), axis=0)[:, :-1]
    return (1 + along_x[..., 0]) * (1 + along_y[..., 1]) - along_x[..., 1] * along_y[..., 0]


@pytest.mark.parametrize(
    ("strength_px", "sigma_px"),
    [(3.0, 16.0), (4.0, 16.0), (40.0, 16.0), (3.0, 1.0)],
    ids=["default", "highest", "far too strong", "too rough"],
)
def test_elastic_does_not_fold(strength_px: float, sigma_px: float) -> None:
    for seed in range(5):
        np.random.seed(seed)
        shift = draw_shift((200, 260), strength_px, sigma_px)
        assert _determinants(shift).min() > 0
        slopes = [np.abs(np.diff(shift, axis=axis)).max(axis=(0, 1)) for axis in (0, 1)]
        assert np.max(slopes) <= MAX_SLOPE + 1e-4


def test_elastic_has_the_strength_and_smoothness_asked_for() -> None:
    np.random.seed(0)
    shift = draw_shift((500, 700), 2.0, 10.0)
    assert shift.shape == (500, 700, 2)
    assert shift.dtype == np.float32
    assert shift.std(axis=(0, 1)) == pytest.approx([2, 2], rel=0.15)
    # noise that was smoothed by sigma is correlated as exp(-(distance / (2 sigma))^2)
    one, other = shift[:, :-20, 0].ravel(), shift[:, 20:, 0].ravel()
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(np.exp(-1), abs=0.1)


def test_elastic_moves_points_to_where_pixels_are_taken_from_them() -> None:
    np.random.seed(1)
    shift = draw_shift((120, 150), 3.0, 14.0)
    transform = A.ElasticTransform(shift)
    rows, cols = np.mgrid[20:100, 20:130]
    new = np.stack([cols.ravel(), rows.ravel()], axis=1) + 0.5
    old = new + shift[rows.ravel(), cols.ravel()]
    np.testing.assert_allclose(transform.apply_coords(old), new, atol=0.01)


def test_cells_survive_the_default_elastic_deformation_in_one_piece() -> None:
    scene = make_cells(3, (160, 200), num_cells=30)
    np.random.seed(2)
    transform = A.RandomElastic((3.0, 3.0), 16.0).get_transform(scene.image)
    moved = transform.apply_segmentation(scene.labels.astype(np.int32))
    before, after = (
        np.bincount(labels.ravel(), minlength=31)[1:31] for labels in (scene.labels, moved)
    )
    inner = np.setdiff1d(
        np.arange(1, 31), np.r_[scene.labels[:12].ravel(), scene.labels[-12:].ravel(),
                                scene.labels[:, :12].ravel(), scene.labels[:, -12:].ravel()]
    )  # fmt: skip
    inner = inner[before[inner - 1] > 0]
    assert inner.size >= 5
    ratio = after[inner - 1] / before[inner - 1]
    assert ratio.min() > 0.4
    assert ratio.max() < 2.5


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=_name)
def test_an_array_of_another_size_is_refused(augmentation: A.RandomElastic) -> None:
    transform = augmentation.get_transform(np.zeros((8, 9), np.uint8))
    for apply in (transform.apply_image, transform.apply_segmentation):
        with pytest.raises(InputValueError, match=r"\(8, 9\).*\[9, 8\]"):
            apply(np.zeros((9, 8), np.uint8))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=_name)
def test_the_same_seed_moves_alike(augmentation: A.RandomElastic) -> None:
    labels = make_cells(1, (50, 70)).labels.astype(np.int32)
    found = []
    for _ in range(2):
        np.random.seed(11)
        transform = augmentation.get_transform(labels)
        found.append(transform.apply_segmentation(labels))
        np.testing.assert_array_equal(transform.apply_segmentation(labels), found[-1])
    np.testing.assert_array_equal(*found)
