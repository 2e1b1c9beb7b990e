"""Reading images, transforming annotations, making training targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from PIL import Image


def annotation(**more: Any) -> dict[str, Any]:
    return {"bbox": [2.0, 1.0, 6.0, 4.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, **more}


def to_rle(bitmap: np.ndarray) -> dict[str, Any]:
    return mask_util.encode(np.asfortranarray(bitmap.astype(np.uint8)))


def bitmap_of_box(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    bitmap = np.zeros((height, width), np.uint8)
    bitmap[box[1] : box[3], box[0] : box[2]] = 1
    return bitmap


# ---- images ---------------------------------------------------------------------------------


@pytest.fixture
def colours(tmp_path: Path) -> tuple[str, np.ndarray]:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    path = tmp_path / "colours.png"
    Image.fromarray(pixels).save(path)
    return str(path), pixels


def test_formats_of_images(colours: tuple[str, np.ndarray]) -> None:
    path, pixels = colours
    assert np.array_equal(utils.read_image(path), pixels)
    assert np.array_equal(utils.read_image(path, "RGB"), pixels)
    assert np.array_equal(utils.read_image(path, "BGR"), pixels[:, :, ::-1])
    grey = utils.read_image(path, "L")
    assert grey.shape == (2, 4, 1)
    assert np.abs(grey[:, :, 0] - pixels @ (0.299, 0.587, 0.114)).max() <= 1
    assert all(utils.read_image(path, name).dtype == np.uint8 for name in ("RGB", "BGR", "L"))


def test_yuv(colours: tuple[str, np.ndarray]) -> None:
    path, pixels = colours
    yuv = utils.read_image(path, "YUV-BT.601")
    scaled = pixels / 255
    luma = scaled @ (0.299, 0.587, 0.114)
    assert np.allclose(yuv[:, :, 0], luma)
    assert np.allclose(yuv[:, :, 1], 0.492 * (scaled[:, :, 2] - luma), atol=1e-3)
    assert np.allclose(yuv[:, :, 2], 0.877 * (scaled[:, :, 0] - luma), atol=1e-3)
    assert np.abs(utils.convert_image_to_rgb(yuv, "YUV-BT.601") - pixels).max() < 0.02


def test_grey_images_as_they_are(tmp_path: Path) -> None:
    pixels = np.array([[0, 4000], [65535, 1]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    assert np.array_equal(utils.read_image(str(tmp_path / "deep.png")), pixels)


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_back_to_rgb(colours: tuple[str, np.ndarray], image_format: str) -> None:
    path, pixels = colours
    read = utils.read_image(path, image_format)
    expected = np.repeat(read, 3, axis=2) if image_format == "L" else pixels
    assert np.array_equal(utils.convert_image_to_rgb(read, image_format), expected)
    tensor = torch.as_tensor(read.copy())
    assert np.array_equal(utils.convert_image_to_rgb(tensor, image_format), expected)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    upright = np.array([[0, 80, 160], [240, 40, 120]], dtype=np.uint8)
    stored = {  # what the EXIF standard says of the stored first row and column
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)
        assert np.array_equal(utils.read_image(str(path)), upright), orientation


@pytest.mark.parametrize("note", [b"nonsense", b"II*\x00"])
def test_a_broken_exif_note_counts_as_none(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "broken.png"
    Image.fromarray(np.full((3, 5), 7, np.uint8)).save(path, exif=b"Exif\x00\x00" + note)
    assert utils.read_image(str(path)).tolist() == [[7] * 5] * 3


def test_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        utils.read_image(str(tmp_path / "nowhere.png"))


def test_image_size_is_checked_or_filled_in() -> None:
    image = np.zeros((4, 6, 3))
    sample: dict[str, Any] = {}
    utils.check_image_size(sample, image)
    assert sample == {"width": 6, "height": 4}
    utils.check_image_size(sample, image)
    with pytest.raises(utils.SizeMismatchError, match=r"cells\.png"):
        utils.check_image_size({"width": 4, "height": 6, "file_name": "cells.png"}, image)
    assert issubclass(utils.SizeMismatchError, ValueError)


# ---- annotations ----------------------------------------------------------------------------


def test_boxes_and_polygons_are_transformed() -> None:
    given = annotation(
        segmentation=[[2.0, 1.0, 6.0, 1.0, 6.0, 4.0], [0.0, 0.0, 1.0, 0.0, 1.0, 1.0]]
    )
    done = utils.transform_instance_annotations(given, [T.HFlipTransform(10)], (8, 10))
    assert done is given
    assert done["bbox"].tolist() == [4, 1, 8, 4]
    assert done["bbox_mode"] == BoxMode.XYXY_ABS
    assert [polygon.tolist() for polygon in done["segmentation"]] == [
        [8, 1, 4, 1, 4, 4],
        [10, 0, 9, 0, 9, 1],
    ]


def test_boxes_are_cut_at_the_image() -> None:
    transform = T.CropTransform(3, 2, 2, 5)
    done = utils.transform_instance_annotations(annotation(), transform, (5, 2))
    assert done["bbox"].tolist() == [0, 0, 2, 2]
    assert "segmentation" not in done


def test_other_kinds_of_boxes() -> None:
    given = annotation(bbox=[2, 1, 4, 3], bbox_mode=BoxMode.XYWH_ABS)
    done = utils.transform_instance_annotations(given, T.TransformList([]), (8, 10))
    assert done["bbox"].tolist() == [2, 1, 6, 4]


def test_rle_becomes_a_bitmap() -> None:
    bitmap = bitmap_of_box(8, 10, (2, 1, 6, 4))
    given = annotation(segmentation=to_rle(bitmap))
    transforms = T.TransformList([T.HFlipTransform(10), T.CropTransform(3, 0, 4, 6)])
    done = utils.transform_instance_annotations(given, transforms, (6, 4))
    assert np.array_equal(done["segmentation"], bitmap[:, ::-1][:6, 3:7])
    assert done["segmentation"].dtype == np.uint8


def test_segmentations_that_cannot_be_transformed() -> None:
    small = annotation(segmentation=to_rle(np.ones((3, 3))))
    with pytest.raises(AssertionError):
        utils.transform_instance_annotations(small, T.TransformList([]), (8, 10))
    with pytest.raises(ValueError, match="RLE"):
        utils.transform_instance_annotations(
            annotation(segmentation=np.ones((8, 10))), T.TransformList([]), (8, 10)
        )


# ---- training targets -----------------------------------------------------------------------


def test_no_annotations() -> None:
    instances = utils.annotations_to_instances([], (8, 10))
    assert len(instances) == 0
    assert instances.image_size == (8, 10)
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64
    assert not instances.has("gt_masks")


def test_polygon_targets() -> None:
    polygons = [[2.0, 1.0, 6.0, 1.0, 6.0, 4.0]]
    given = [annotation(segmentation=polygons), annotation(segmentation=polygons, category_id=0)]
    instances = utils.annotations_to_instances(given, (8, 10))
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert instances.gt_classes.tolist() == [1, 0]
    assert instances.gt_boxes.tensor.tolist() == [[2, 1, 6, 4]] * 2
    assert instances.gt_masks.area().tolist() == [6, 6]


def test_bitmap_targets_of_all_kinds() -> None:
    bitmap = bitmap_of_box(8, 10, (2, 1, 6, 4))
    polygon = [np.array([2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0])]
    kinds = [polygon, to_rle(bitmap), bitmap, bitmap[:, ::-1][:, ::-1]]
    instances = utils.annotations_to_instances(
        [annotation(segmentation=each) for each in kinds], (8, 10), mask_format="bitmask"
    )
    assert isinstance(instances.gt_masks, BitMasks)
    assert instances.gt_masks.tensor.dtype == torch.bool
    assert np.array_equal(instances.gt_masks.tensor.numpy(), [bitmap.astype(bool)] * 4)


def test_targets_that_cannot_be_made() -> None:
    rle = annotation(segmentation=to_rle(np.ones((8, 10))))
    with pytest.raises(ValueError, match="polygon"):
        utils.annotations_to_instances([rle], (8, 10), mask_format="polygon")
    with pytest.raises(AssertionError):
        utils.annotations_to_instances([rle], (8, 10), mask_format="contour")
    with pytest.raises(ValueError, match="RLE"):
        utils.annotations_to_instances([annotation(segmentation="x")], (8, 10), "bitmask")
    deep = annotation(segmentation=np.ones((8, 10, 1)))
    with pytest.raises(AssertionError):
        utils.annotations_to_instances([deep], (8, 10), "bitmask")


@pytest.fixture
def partly_empty() -> Instances:
    """Box and mask; box only; mask only; a box without height."""
    instances = Instances((4, 4))
    boxes = [[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1], [0, 1, 3, 1]]
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[0, 0, 0] = masks[2, 1, 1] = True
    instances.gt_masks = BitMasks(masks)
    instances.gt_classes = torch.arange(4)
    return instances


def test_empty_instances_are_left_out(partly_empty: Instances) -> None:
    keep = utils.filter_empty_instances
    assert keep(partly_empty).gt_classes.tolist() == [0]
    assert keep(partly_empty, by_mask=False).gt_classes.tolist() == [0, 1]
    assert keep(partly_empty, by_box=False).gt_classes.tolist() == [0, 2]
    assert keep(partly_empty, by_mask=False, box_threshold=2).gt_classes.tolist() == []
    kept, flags = keep(partly_empty, return_mask=True)
    assert (kept.gt_classes.tolist(), flags.tolist()) == ([0], [True, False, False, False])
    with pytest.raises(AssertionError):
        keep(partly_empty, by_box=False, by_mask=False)


def test_without_masks_only_boxes_count(partly_empty: Instances) -> None:
    partly_empty.remove("gt_masks")
    assert utils.filter_empty_instances(partly_empty).gt_classes.tolist() == [0, 1]
    assert len(utils.filter_empty_instances(partly_empty, by_box=False)) == 4


# ---- cropping, metadata, augmentations from a config -----------------------------------------


def test_crops_contain_the_centre_of_an_instance() -> None:
    seen = set()
    for _ in range(300):
        crop = utils.gen_crop_transform_with_instance((4, 5), (10, 12), annotation())
        assert (crop.h, crop.w) == (4, 5)
        assert 0 <= crop.x0 <= 4 <= crop.x0 + 5 <= 12  # the centre is (4, 2.5)
        assert 0 <= crop.y0 <= 3  # rounded up
        assert 2.5 <= crop.y0 + 4 <= 10
        seen.add((crop.x0, crop.y0))
    assert seen == {(x, y) for x in range(5) for y in range(4)}


def test_crops_that_do_not_fit() -> None:
    with pytest.raises(AssertionError):
        utils.gen_crop_transform_with_instance((4, 5), (2, 3), annotation())
    with pytest.raises(AssertionError):
        utils.gen_crop_transform_with_instance((11, 5), (10, 12), annotation())


@pytest.fixture
def two_datasets() -> Iterator[tuple[str, str]]:
    names = ("utils_test_a", "utils_test_b")
    yield names
    for name in names:
        MetadataCatalog.pop(name, None)


def test_metadata_is_the_same_for_all(two_datasets: tuple[str, str]) -> None:
    first, second = map(MetadataCatalog.get, two_datasets)
    first.thing_classes = ["cell"]
    with pytest.raises(AttributeError):
        utils.check_metadata_consistency("thing_classes", two_datasets)
    second.thing_classes = ["cell"]
    utils.check_metadata_consistency("thing_classes", two_datasets)
    utils.check_metadata_consistency("thing_classes", [])
    first.stuff_classes, second.stuff_classes = ["sky"], ["sea"]
    with pytest.raises(ValueError, match="stuff_classes"):
        utils.check_metadata_consistency("stuff_classes", two_datasets)


def test_augmentations_from_a_config() -> None:
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (64, 80)
    cfg.INPUT.MAX_SIZE_TRAIN = 100
    cfg.INPUT.MIN_SIZE_TEST = 70
    cfg.INPUT.MAX_SIZE_TEST = 90
    resize, flip = utils.build_augmentation(cfg, is_train=True)
    assert (resize.short_edge_length, resize.max_size, resize.is_range) == ((64, 80), 100, False)
    assert (flip.horizontal, flip.vertical) == (True, False)
    (test_resize,) = utils.build_augmentation(cfg, is_train=False)
    assert set(test_resize.short_edge_length) == {70}
    assert test_resize.max_size == 90
    cfg.INPUT.RANDOM_FLIP = "vertical"
    assert utils.build_augmentation(cfg, True)[1].vertical
    cfg.INPUT.RANDOM_FLIP = "none"
    assert len(utils.build_transform_gen(cfg, True)) == 1


@pytest.mark.embedded_only
def test_keypoints_are_refused() -> None:
    keypoints = annotation(keypoints=[1, 2, 2])
    with pytest.raises(NotImplementedError, match="full Detectron2"):
        utils.transform_instance_annotations(keypoints, T.TransformList([]), (8, 10))
    with pytest.raises(NotImplementedError, match="full Detectron2"):
        utils.annotations_to_instances([keypoints], (8, 10))
    with pytest.raises(NotImplementedError, match="full Detectron2"):
        utils.create_keypoint_hflip_indices()
