# ruff: noqa: NPY002 (the engine draws from numpy's global generator)
"""Transforms on literal arrays, augmentations on seeded draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image, ImageOps


def ramp(height: int, width: int, dtype: Any = np.uint8) -> np.ndarray:
    """Every pixel another value."""
    return np.arange(height * width, dtype=dtype).reshape(height, width)


# ---- what an augmentation is ----------------------------------------------------------------


def test_several_parameters_are_filled_by_name() -> None:
    class Seen(T.Augmentation):
        def get_transform(self, sem_seg: np.ndarray, boxes: np.ndarray) -> T.Transform:
            self.seen = (sem_seg, boxes)
            return T.NoOpTransform()

    augmentation = Seen()
    labels, boxes = np.ones((2, 2), np.uint8), np.zeros((1, 4))
    augmentation(T.AugInput(ramp(2, 2), boxes=boxes, sem_seg=labels))
    assert augmentation.seen[0] is labels
    assert augmentation.seen[1] is boxes
    assert augmentation.input_args == ("sem_seg", "boxes")


def test_a_lone_parameter_is_the_image() -> None:
    class Flip(T.Augmentation):
        def get_transform(self, img: np.ndarray) -> T.Transform:
            return T.HFlipTransform(img.shape[1])

    given = T.AugInput(ramp(2, 3))
    transform = Flip()(given)
    assert given.image.tolist() == [[2, 1, 0], [5, 4, 3]]
    assert isinstance(transform, T.HFlipTransform)


def test_augmentations_that_cannot_be_called() -> None:
    class Unknown(T.Augmentation):
        def get_transform(self, image: np.ndarray, depth: np.ndarray) -> T.Transform:
            return T.NoOpTransform()

    class Anything(T.Augmentation):
        def get_transform(self, image: np.ndarray, **more: Any) -> T.Transform:
            return T.NoOpTransform()

    class Forgetful(T.Augmentation):
        def get_transform(self, image: np.ndarray) -> None:
            return None

    given = T.AugInput(ramp(2, 2))
    with pytest.raises(AttributeError, match="depth"):
        Unknown()(given)
    with pytest.raises(TypeError):
        Anything()(given)
    with pytest.raises(AssertionError):
        Forgetful()(given)
    with pytest.raises(NotImplementedError):
        T.Augmentation()(given)


def test_arguments_of_subclasses_become_attributes() -> None:
    class Own(T.Augmentation):
        def __init__(self, low: int, high: int = 5) -> None:
            self._init(locals())

    assert (Own(3).low, Own(3).high) == (3, 5)
    assert repr(Own(3)) == "Own(low=3)"
    assert repr(Own(3, high=7)) == "Own(low=3, high=7)"


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(T.RandomFlip()) == "RandomFlip()"
    assert repr(T.RandomFlip(prob=0.25)) == "RandomFlip(prob=0.25)"
    assert str(T.RandomCrop("relative", (0.5, 0.5))) == (
        "RandomCrop(crop_type='relative', crop_size=(0.5, 0.5))"
    )
    assert repr(T.Resize((300, 400))) == "Resize(shape=(300, 400))"
    many = T.RandomResize([(i, i) for i in range(100, 150)])
    assert repr(many) == "RandomResize(shape_list=...)"
    both = T.AugmentationList([T.RandomFlip(), T.HFlipTransform(3)])
    assert repr(both) == "AugmentationList[RandomFlip(), HFlipTransform(width=3)]"
    assert "RandomApply" in repr(T.RandomApply(T.RandomFlip()))


def test_an_input_is_transformed_as_a_whole() -> None:
    given = T.AugInput(ramp(2, 4), boxes=np.array([[0.0, 0, 1, 2]]), sem_seg=ramp(2, 4))
    done = given.apply_augmentations([T.HFlipTransform(4), T.CropTransform(2, 0, 2, 2)])
    assert given.image.tolist() == [[1, 0], [5, 4]]
    assert given.sem_seg.tolist() == [[1, 0], [5, 4]]
    assert given.boxes.tolist() == [[1, 0, 2, 2]]
    assert done.apply_coords(np.array([[0.5, 1.0]])).tolist() == [[1.5, 1.0]]


def test_inputs_are_checked() -> None:
    with pytest.raises(AssertionError):
        T.AugInput([[1, 2]])
    with pytest.raises(AssertionError):
        T.AugInput(np.zeros(3))


def test_later_augmentations_see_what_earlier_ones_made() -> None:
    image, done = T.apply_augmentations(
        [T.Resize((4, 8)), T.RandomCrop("relative", (0.5, 0.5))], ramp(9, 9)
    )
    assert image.shape == (2, 4)
    assert [type(each) for each in done] == [T.ResizeTransform, T.CropTransform]


def test_augmentations_on_an_image_or_an_input() -> None:
    image, _ = T.apply_augmentations([T.HFlipTransform(3)], ramp(1, 3))
    assert image.tolist() == [[2, 1, 0]]
    given = T.AugInput(ramp(1, 3))
    returned, _ = T.apply_transform_gens([T.HFlipTransform(3)], given)
    assert returned is given
    assert given.image.tolist() == [[2, 1, 0]]
    assert T.TransformGen is T.Augmentation
    assert T.StandardAugInput is T.AugInput


def test_lists_are_made_of_augmentations_and_transforms() -> None:
    with pytest.raises(AssertionError):
        T.AugmentationList([T.RandomFlip(), "flip"])


# ---- resizing -------------------------------------------------------------------------------


def test_8_bit_images_are_resized_by_pillow() -> None:
    # two pixels out of four: weights 3/4, 3/4, 1/4 over 7/4 (a triangle about the new centre)
    row = np.array([[0, 70, 140, 210]], dtype=np.uint8)
    assert T.ResizeTransform(1, 4, 1, 2).apply_image(row).tolist() == [[50, 160]]


def test_other_images_are_resized_by_torch() -> None:
    # two pixels out of four: between the nearest two, without a wider average
    row = np.array([[0, 70, 140, 210]], dtype=np.float32)
    resized = T.ResizeTransform(1, 4, 1, 2).apply_image(row)
    assert resized.tolist() == [[35, 175]]
    assert resized.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_nearest_repeats_pixels(dtype: Any, channels: tuple[int, ...]) -> None:
    image = np.arange(6 * int(np.prod(channels)), dtype=dtype).reshape(2, 3, *channels)
    resized = T.ResizeTransform(2, 3, 4, 6).apply_image(image, interp=Image.NEAREST)
    assert np.array_equal(resized, image.repeat(2, axis=0).repeat(2, axis=1))
    assert resized.dtype == dtype


def test_flipped_views_are_resized() -> None:
    image = ramp(2, 3, np.float32)[:, ::-1]
    resized = T.ResizeTransform(2, 3, 2, 3).apply_image(image)
    assert resized.tolist() == image.tolist()


def test_labels_are_not_mixed() -> None:
    labels = np.array([[3, 3, 9, 9]] * 4, dtype=np.uint8)
    resized = T.ResizeTransform(4, 4, 3, 7).apply_segmentation(labels)
    assert resized.shape == (3, 7)
    assert set(np.unique(resized)) == {3, 9}


def test_resized_coordinates_and_back() -> None:
    transform = T.ResizeTransform(10, 20, 5, 60)
    points = np.array([[20.0, 10.0], [1.0, 3.0]])
    assert transform.apply_coords(points.copy()).tolist() == [[60, 5], [3, 1.5]]
    back = transform.inverse()
    assert (back.h, back.w, back.new_h, back.new_w) == (5, 60, 10, 20)
    assert np.allclose(back.apply_coords(transform.apply_coords(points.copy())), points)


def test_resizing_an_image_of_another_size() -> None:
    with pytest.raises(AssertionError):
        T.ResizeTransform(4, 4, 2, 2).apply_image(ramp(4, 5))


@pytest.mark.parametrize(
    ("old_hw", "short", "longest", "new_hw"),
    [
        ((100, 200), 50, 1000, (50, 100)),
        ((200, 100), 50, 80, (80, 40)),
        ((2, 3), 1, 1000, (1, 2)),  # 1.5 rounds up
        ((30, 30), 45, 40, (40, 40)),
        ((480, 640), 800, 1333, (800, 1067)),
    ],
)
def test_shortest_edge(
    old_hw: tuple[int, int], short: int, longest: int, new_hw: tuple[int, int]
) -> None:
    assert T.ResizeShortestEdge.get_output_shape(*old_hw, short, longest) == new_hw
    transform = T.ResizeShortestEdge(short, longest).get_transform(np.zeros(old_hw, np.uint8))
    assert (transform.new_h, transform.new_w) == new_hw


def test_shortest_edge_is_drawn() -> None:
    image = np.zeros((10, 10), np.uint8)
    ranged = T.ResizeShortestEdge((4, 6), sample_style="range")
    assert {ranged.get_transform(image).new_h for _ in range(60)} == {4, 5, 6}
    chosen = T.ResizeShortestEdge([4, 6, 9], sample_style="choice")
    assert {chosen.get_transform(image).new_h for _ in range(60)} == {4, 6, 9}
    assert isinstance(T.ResizeShortestEdge(0).get_transform(image), T.NoOpTransform)


def test_shortest_edge_arguments_are_checked() -> None:
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge(4, sample_style="gauss")
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge((4, 5, 6), sample_style="range")


def test_resize_to_a_square_or_one_of_several() -> None:
    assert T.Resize(5).get_transform(ramp(2, 2)).apply_image(ramp(2, 2)).shape == (5, 5)
    several = T.RandomResize([(3, 4), (6, 5)])
    shapes = {several.get_transform(ramp(2, 2)).apply_image(ramp(2, 2)).shape for _ in range(40)}
    assert shapes == {(3, 4), (6, 5)}


def test_resize_to_fit_a_scaled_target() -> None:
    transform = T.ResizeScale(0.5, 0.5, 160, 60).get_transform(np.zeros((40, 60), np.uint8))
    assert (transform.new_h, transform.new_w) == (20, 30)  # 80 x 30 is the room, width decides


# ---- rotating, extent, colour ---------------------------------------------------------------


def test_a_quarter_turn() -> None:
    image = ramp(2, 3)
    transform = T.RotationTransform(2, 3, 90)
    assert np.array_equal(transform.apply_image(image), np.rot90(image))
    assert np.array_equal(transform.apply_segmentation(image), np.rot90(image))
    turned = transform.apply_coords(np.array([[1.0, 0.5], [0.0, 0.0]]))
    assert np.allclose(turned, [[0.5, 2.0], [0.0, 3.0]])  # (x, y) becomes (y, width - x)


def test_rotation_about_a_point_without_expanding() -> None:
    transform = T.RotationTransform(10, 10, 90, expand=False, center=(2.0, 3.0))
    moved = transform.apply_coords(np.array([[2.0, 3.0], [4.0, 3.0]]))
    assert np.allclose(moved, [[2, 3], [2, 1]])
    assert transform.apply_image(ramp(10, 10)).shape == (10, 10)
    with pytest.raises(NotImplementedError):
        transform.inverse()


def test_rotation_and_back() -> None:
    transform = T.RotationTransform(20, 30, 37.0)
    points = np.array([[3.0, 4.0], [29.0, 1.0]])
    back = transform.inverse().apply_coords(transform.apply_coords(points))
    assert np.abs(back - points).max() < 1.0  # the canvas is rounded to pixels
    assert transform.inverse().apply_image(transform.apply_image(ramp(20, 30))).shape == (20, 30)


def test_rotations_that_do_nothing() -> None:
    image = ramp(2, 3)
    whole_turn = T.RotationTransform(2, 3, 360)
    assert whole_turn.apply_image(image) is image
    assert whole_turn.apply_coords(np.array([[1, 2]])).tolist() == [[1, 2]]
    assert T.RotationTransform(2, 3, 10).apply_coords(np.zeros((0, 2))).shape == (0, 2)
    assert isinstance(T.RandomRotation(0).get_transform(image), T.NoOpTransform)
    with pytest.raises(AssertionError):
        T.RotationTransform(3, 3, 10).apply_image(image)


def test_angles_and_centres_are_drawn() -> None:
    image = ramp(10, 20)
    for _ in range(20):
        transform = T.RandomRotation([10, 20], center=[[0.2, 0.4], [0.3, 0.5]]).get_transform(image)
        assert 10 <= transform.angle <= 20
        assert 4 <= transform.center[0] <= 6
        assert 4 <= transform.center[1] <= 5
    chosen = T.RandomRotation([10, 90], sample_style="choice")
    assert {chosen.get_transform(image).angle for _ in range(40)} == {10, 90}
    fixed = T.RandomRotation(30, expand=False, center=[0.5, 0.25]).get_transform(image)
    assert fixed.center == (10, 2.5)
    with pytest.raises(AssertionError):
        T.RandomRotation(30, sample_style="gauss")


@pytest.mark.embedded_only
def test_centres_are_chosen() -> None:
    centres = [(0.1, 0.1), (0.5, 0.25)]
    chosen = T.RandomRotation([30], center=centres, sample_style="choice")
    found = {chosen.get_transform(ramp(10, 20)).center for _ in range(40)}
    assert found == {(2.0, 1.0), (10.0, 2.5)}


def test_extent_inside_is_a_crop() -> None:
    image = ramp(6, 8)
    transform = T.ExtentTransform((2, 1, 6, 5), (4, 4))
    assert np.array_equal(transform.apply_image(image), image[1:5, 2:6])
    assert np.array_equal(transform.apply_segmentation(image), image[1:5, 2:6])
    assert transform.apply_coords(np.array([[3.0, 1.5]])).tolist() == [[1.0, 0.5]]
    doubled = T.ExtentTransform((2, 1, 6, 5), (8, 4))
    assert doubled.apply_coords(np.array([[3.0, 1.5]])).tolist() == [[1.0, 1.0]]


def test_extent_outside_is_black() -> None:
    image = np.full((4, 4, 1), 9, np.uint8)
    moved = T.ExtentTransform((-2, 0, 2, 4), (4, 4)).apply_image(image)
    assert moved.shape == (4, 4, 1)
    assert moved[:, :, 0].tolist() == [[0, 0, 9, 9]] * 4


def test_random_extent() -> None:
    image = ramp(6, 8)
    still = T.RandomExtent((1, 1), (0, 0)).get_transform(image)
    assert np.array_equal(still.apply_image(image), image)
    for _ in range(20):
        x0, y0, x1, y1 = T.RandomExtent((0.5, 0.5), (1, 0)).get_transform(image).src_rect
        assert (x1 - x0, y0, y1) == (pytest.approx(4), 1.5, 4.5)
        assert -4 <= (x0 + x1) / 2 - 4 <= 4


def test_colour_transforms() -> None:
    image = ramp(2, 3)
    halved = T.ColorTransform(lambda pixels: pixels // 2)
    assert halved.apply_image(image).tolist() == [[0, 0, 1], [1, 2, 2]]
    assert halved.apply_segmentation(image) is image
    assert halved.apply_coords(np.array([[1, 2]])).tolist() == [[1, 2]]
    assert isinstance(halved.inverse(), T.NoOpTransform)
    inverted = T.PILColorTransform(ImageOps.invert).apply_image(image)
    assert np.array_equal(inverted, 255 - image)
    for kind in (T.ColorTransform, T.PILColorTransform):
        with pytest.raises(ValueError, match="callable"):
            kind(3)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (T.RandomBrightness, 0.0),
        (T.RandomContrast, 50.0),
        (T.RandomSaturation, 0.299 * 90 + 0.587 * 60),
    ],
)
def test_blending(kind: Any, other: float) -> None:
    image = np.array([[[90, 60, 0]]], dtype=np.uint8)
    for intensity in (0.0, 0.5, 1.0, 1.5):
        blended = kind(intensity, intensity).get_transform(image).apply_image(image)
        expected = np.clip(intensity * image + (1 - intensity) * other, 0, 255)
        assert np.abs(blended - expected).max() <= 1  # cut to whole numbers
        assert blended.dtype == np.uint8


def test_lighting_adds_one_colour_everywhere() -> None:
    image = np.full((2, 2, 3), 100.0)
    assert np.array_equal(T.RandomLighting(0).get_transform(image).apply_image(image), image)
    np.random.seed(0)
    added = T.RandomLighting(5).get_transform(image).apply_image(image) - image
    assert np.ptp(added.reshape(-1, 3), axis=0).max() == 0
    np.random.seed(0)
    draws = np.random.normal(scale=5, size=3) * (0.2175, 0.0188, 0.0045)
    red = np.dot((-0.5675, 0.7192, 0.4009), draws)
    assert added[0, 0, 0] == pytest.approx(red)


def test_colour_augmentations_need_colour() -> None:
    grey = np.zeros((2, 2, 1))
    for augmentation in (T.RandomSaturation(0.5, 1.5), T.RandomLighting(1)):
        with pytest.raises(AssertionError):
            augmentation.get_transform(grey)


# ---- flipping, cropping ---------------------------------------------------------------------


def test_flips() -> None:
    image = ramp(2, 3)
    flip = T.RandomFlip(prob=1.0).get_transform(image)
    assert np.array_equal(flip.apply_image(image), image[:, ::-1])
    assert flip.apply_coords(np.array([[1.0, 1.0]])).tolist() == [[2, 1]]
    upside_down = T.RandomFlip(prob=1.0, horizontal=False, vertical=True).get_transform(image)
    assert np.array_equal(upside_down.apply_image(image), image[::-1])
    assert isinstance(T.RandomFlip(prob=0.0).get_transform(image), T.NoOpTransform)
    for both in (True, False):
        with pytest.raises(ValueError, match=r"\w"):
            T.RandomFlip(horizontal=both, vertical=both)


def test_flips_follow_numpys_generator() -> None:
    image = ramp(2, 3)
    np.random.seed(3)
    flipped = [
        isinstance(T.RandomFlip(0.4).get_transform(image), T.HFlipTransform) for _ in range(30)
    ]
    np.random.seed(3)
    assert flipped == (np.random.uniform(size=30) < 0.4).tolist()


def test_apply_sometimes() -> None:
    given = T.AugInput(ramp(1, 2))
    assert isinstance(T.RandomApply(T.HFlipTransform(2), prob=0.0)(given), T.NoOpTransform)
    assert given.image.tolist() == [[0, 1]]
    assert isinstance(T.RandomApply(T.HFlipTransform(2), prob=1.0)(given), T.HFlipTransform)
    assert given.image.tolist() == [[1, 0]]
    inner = T.RandomApply(T.RandomFlip(1.0), prob=1.0)
    assert isinstance(inner.get_transform(given.image), T.HFlipTransform)
    never = T.RandomApply(T.RandomFlip(1.0), prob=0.0)
    assert isinstance(never.get_transform(given.image), T.NoOpTransform)
    for prob in (-0.1, 1.1):
        with pytest.raises(AssertionError):
            T.RandomApply(T.RandomFlip(), prob=prob)


@pytest.mark.parametrize(
    ("kind", "size", "rows", "columns"),
    [
        ("relative", (0.5, 0.25), {5}, {5}),
        ("absolute", (4, 100), {4}, {20}),
        ("absolute_range", (8, 12), {8, 9, 10}, {8, 9, 10, 11, 12}),
        ("relative_range", (0.8, 0.9), {8, 9, 10}, {18, 19, 20}),
    ],
)
def test_random_crops(
    kind: str, size: tuple[float, float], rows: set[int], columns: set[int]
) -> None:
    image = ramp(10, 20)
    crop = T.RandomCrop(kind, size)
    transforms = [crop.get_transform(image) for _ in range(150)]
    assert {each.h for each in transforms} == rows
    assert {each.w for each in transforms} == columns
    for each in transforms:
        assert 0 <= each.x0 <= 20 - each.w
        assert 0 <= each.y0 <= 10 - each.h
        cut = each.apply_image(image)
        assert np.array_equal(cut, image[each.y0 : each.y0 + each.h, each.x0 : each.x0 + each.w])
    assert {each.y0 for each in transforms if each.h == 5} <= set(range(6))


def test_random_crops_reach_all_places() -> None:
    crop = T.RandomCrop("absolute", (2, 2))
    places = [crop.get_transform(ramp(3, 4)) for _ in range(100)]
    assert {(each.x0, each.y0) for each in places} == {(x, y) for x in range(3) for y in range(2)}


def test_random_crop_arguments_are_checked() -> None:
    with pytest.raises(AssertionError):
        T.RandomCrop("fixed", (2, 2))
    with pytest.raises(AssertionError):
        T.RandomCrop("relative", (1.5, 1.0)).get_transform(ramp(4, 4))
    with pytest.raises(AssertionError):
        T.RandomCrop("absolute_range", (3, 2)).get_transform(ramp(4, 4))


def test_fixed_size_crop_pads_what_is_too_small() -> None:
    given = T.AugInput(ramp(2, 3), sem_seg=ramp(2, 3), boxes=np.array([[0.0, 0, 2, 2]]))
    T.FixedSizeCrop((3, 3))(given)
    assert given.image.tolist() == [[0, 1, 2], [3, 4, 5], [128, 128, 128]]
    assert given.sem_seg.tolist() == [[0, 1, 2], [3, 4, 5], [255, 255, 255]]
    assert given.boxes.tolist() == [[0, 0, 2, 2]]
    assert T.FixedSizeCrop((3, 2), pad=False).get_transform(ramp(2, 3)).apply_image(
        ramp(2, 3)
    ).shape == (2, 2)


def test_fixed_size_crop_lies_on_the_diagonal() -> None:
    image = ramp(12, 12)
    for _ in range(20):
        crop, pad = T.FixedSizeCrop((10, 8)).get_transform(image)
        assert crop.x0 in (2 * crop.y0 - 1, 2 * crop.y0, 2 * crop.y0 + 1)
        assert pad.apply_image(crop.apply_image(image)).shape == (10, 8)


def test_crops_without_a_ruling_class() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[:, 8:] = 1
    augmentation = T.RandomCrop_CategoryAreaConstraint("absolute", (6, 6), 0.8)
    np.random.seed(0)
    shares = []
    for _ in range(20):
        cut = augmentation.get_transform(labels, labels).apply_segmentation(labels)
        shares.append(max(np.bincount(cut.ravel(), minlength=2)) / cut.size)
    assert sum(share < 0.8 for share in shares) >= 18  # ten tries nearly always find one
    free = T.RandomCrop_CategoryAreaConstraint("absolute", (6, 6))
    assert isinstance(free.get_transform(labels, labels), T.CropTransform)


def test_crops_where_a_class_does_not_count() -> None:
    labels = np.full((8, 8), 255, np.uint8)
    labels[0, 0], labels[0, 1] = 1, 2
    augmentation = T.RandomCrop_CategoryAreaConstraint("relative", (1.0, 1.0), 0.6, 255)
    crop = augmentation.get_transform(labels, labels)
    assert (crop.w, crop.h) == (8, 8)


def test_crops_that_keep_boxes() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    boxes = np.array([[10, 10, 30, 30], [40, 20, 70, 50]], dtype=np.float32)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    kinds = set()
    for seed in range(30):
        np.random.seed(seed)
        transform = T.MinIoURandomCrop().get_transform(image, boxes)
        kinds.add(type(transform))
        if isinstance(transform, T.CropTransform):
            low = np.array((transform.x0, transform.y0))
            high = low + np.array((transform.w, transform.h))
            assert ((low <= centers) & (centers <= high)).all(axis=1).any()
            assert 0.45 <= transform.h / transform.w <= 2.2
            assert (low >= 0).all()
            assert (high <= (80, 60)).all()
    assert kinds == {T.CropTransform, T.NoOpTransform}


def test_crops_of_tiny_images_have_a_size() -> None:
    for seed in range(20):
        np.random.seed(seed)
        crop = T.MinIoURandomCrop().get_transform(np.zeros((2, 3, 3)), np.zeros((0, 4)))
        assert isinstance(crop, T.NoOpTransform) or (crop.w >= 1 and crop.h >= 1)


def test_crops_that_keep_boxes_without_boxes() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    assert isinstance(T.MinIoURandomCrop().get_transform(image, None), T.NoOpTransform)
    np.random.seed(1)
    anything = T.MinIoURandomCrop(min_ious=()).get_transform(image, np.zeros((0, 4)))
    assert isinstance(anything, (T.CropTransform, T.NoOpTransform))


def test_crops_that_keep_boxes_respect_the_least_iou() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    boxes = np.array([[0, 0, 40, 40]], dtype=np.float32)
    augmentation = T.MinIoURandomCrop()
    augmentation.sample_mode = (0.6,)
    np.random.seed(0)
    crops = [augmentation.get_transform(image, boxes) for _ in range(20)]
    assert min((crop.w + 1) * (crop.h + 1) for crop in crops) >= 0.6 * 40 * 40
    assert min(crop.w * crop.h for crop in crops) < 40 * 40


@pytest.mark.embedded_only
def test_crops_that_keep_boxes_give_up() -> None:
    transform = T.MinIoURandomCrop(mode_trials=0).get_transform(ramp(9, 9), np.zeros((1, 4)))
    assert isinstance(transform, T.NoOpTransform)


# ---- rotated boxes --------------------------------------------------------------------------


def test_rotated_boxes() -> None:
    box = np.array([[30.0, 20.0, 8.0, 4.0, 25.0]])
    assert T.HFlipTransform(100).apply_rotated_box(box.copy()).tolist() == [[70, 20, 8, 4, -25]]
    upright = np.array([[30.0, 20.0, 8.0, 4.0, 0.0], [30.0, 20.0, 8.0, 4.0, 90.0]])
    resized = T.ResizeTransform(50, 100, 150, 200).apply_rotated_box(upright)
    assert np.allclose(resized, [[60, 60, 16, 12, 0], [60, 60, 24, 8, 90]])
