"""Drawings, looked at pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.colormap import colormap, random_color, random_colors
from detectron2.utils.visualizer import (
    ColorMode,
    GenericMask,
    VisImage,
    Visualizer,
    _create_text_labels,
)

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def black(height: int = 100, width: int = 100) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def pixel(output: VisImage, row: int, column: int) -> tuple[int, ...]:
    return tuple(output.get_image()[row, column].tolist())


def square(x0: int, y0: int, x1: int, y1: int, hw: tuple[int, int] = (100, 100)) -> np.ndarray:
    mask = np.zeros(hw, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_nothing_drawn_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    assert np.array_equal(Visualizer(image).get_output().get_image(), image)


def test_a_tensor_is_taken_for_an_image():
    image = torch.randint(0, 256, (11, 7, 3), dtype=torch.uint8)
    assert np.array_equal(Visualizer(image).get_output().get_image(), image.numpy())


def test_values_beyond_the_range_are_clipped():
    image = np.full((10, 10, 3), 300.0)
    image[..., 1] = -5.0
    assert pixel(Visualizer(image).get_output(), 5, 5) == (255, 0, 255)


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_scale(scale):
    image = black(40, 60)
    image[:20] = 200
    drawn = Visualizer(image, scale=scale).get_output().get_image()
    assert drawn.shape == (40 * scale, 60 * scale, 3)
    assert drawn[: int(18 * scale)].min() == 200
    assert drawn[int(22 * scale) :].max() == 0


def test_saved_file_has_the_pixels(tmp_path):
    output = Visualizer(black(30, 50)).draw_box((10, 10, 40, 20), alpha=1.0, edge_color="r")
    output.save(str(tmp_path / "a.png"))
    read = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    assert read.shape == (30, 50, 3)
    assert np.abs(read.astype(int) - output.get_image()).max() <= 1


def test_box_is_an_outline():
    output = Visualizer(black()).draw_box((20, 30, 60, 70), alpha=1.0, edge_color="r")
    drawn = output.get_image()
    for row, column in ((30, 40), (70, 40), (50, 20), (50, 60)):
        around = drawn[row - 1 : row + 1, column - 1 : column + 1].reshape(-1, 3)
        assert around.max(axis=0).tolist() == list(RED)
    assert not drawn[35:65, 25:55].any()
    assert not drawn[:25].any()
    assert not drawn[:, 66:].any()


def test_transparent_box_lets_the_image_through():
    drawn = Visualizer(black()).draw_box((20, 20, 80, 80), alpha=0.4, edge_color="w").get_image()
    assert 95 <= drawn.max() <= 110


def test_line_and_circle():
    visualizer = Visualizer(black())
    visualizer.draw_line([10, 90], [50, 50], color="b", linewidth=4)
    visualizer.draw_line([10, 90], [90, 90], color="g")
    drawn = visualizer.draw_circle((50, 20), color=(1, 0, 0), radius=6).get_image()
    assert tuple(drawn[50, 50]) == BLUE
    assert drawn[88:92, 50, 1].max() > 100
    assert tuple(drawn[20, 50]) == RED
    assert tuple(drawn[20, 60]) == BLACK
    assert tuple(drawn[30, 50]) == BLACK


def test_polygon_is_filled_and_its_edge_opaque():
    corners = np.array([[20, 20], [80, 20], [80, 80], [20, 80]])
    drawn = Visualizer(black()).draw_polygon(corners, (1, 0, 0), edge_color="b", alpha=0.5)
    assert pixel(drawn, 50, 50) == pytest.approx((128, 0, 0), abs=2)
    assert drawn.get_image()[50, 18:23, 2].max() > 100
    assert pixel(drawn, 50, 10) == BLACK


def test_hardly_transparent_polygon_has_a_darker_edge():
    corners = np.array([[20, 20], [80, 20], [80, 80], [20, 80]])
    drawn = Visualizer(black(), font_size_scale=9).draw_polygon(corners, (1, 0, 0), alpha=1.0)
    row = drawn.get_image()[50, 10:30, 0].astype(int)
    assert pixel(drawn, 50, 50) == RED
    assert ((row > 30) & (row < 130)).any()


def test_text_is_bright_on_black():
    white = np.full((60, 120, 3), 255, np.uint8)
    drawn = Visualizer(white).draw_text("XXXX", (60, 20), font_size=12, color=(0, 0, 0.3))
    image = drawn.get_image()
    ground = (image.max(axis=2) < 90).nonzero()
    assert 18 <= ground[0].min() <= 22  # the top of the text is where it was put
    assert abs(ground[1].mean() - 60) < 4
    blue = (image[..., 2] > 150) & (image[..., 0] < 100)
    assert blue.sum() > 20


@pytest.mark.parametrize("with_hole", [False, True])
def test_binary_mask(with_hole):
    mask = square(20, 20, 80, 80).astype(np.uint8)
    if with_hole:
        mask[40:60, 40:60] = 0
    drawn = Visualizer(black()).draw_binary_mask(mask, color="red", alpha=0.5)
    assert pixel(drawn, 30, 30) == pytest.approx((128, 0, 0), abs=2)
    assert pixel(drawn, 10, 50) == BLACK
    expected = BLACK if with_hole else (128, 0, 0)
    assert pixel(drawn, 50, 50) == pytest.approx(expected, abs=2)


def test_small_parts_are_left_out_and_text_is_on_the_largest():
    mask = square(60, 60, 95, 95) | square(10, 10, 13, 13)
    visualizer = Visualizer(black())
    drawn = visualizer.draw_binary_mask(mask, color="red", area_threshold=50, text="X").get_image()
    assert not drawn[:40, :40].any()
    assert (drawn[60:95, 60:95, 1] > 100).any()  # letters, brighter than red
    drawn = Visualizer(black()).draw_binary_mask(mask, color="red", area_threshold=None)
    assert drawn.get_image()[10:13, 10:13, 0].any()


def test_empty_mask_draws_nothing():
    drawn = Visualizer(black()).draw_binary_mask(np.zeros((100, 100), bool), text="X").get_image()
    assert not drawn.any()
    soft = np.zeros((100, 100), np.float32)
    assert not Visualizer(black()).draw_soft_mask(soft, color="red", text="X").get_image().any()


def test_soft_mask_is_the_more_opaque_the_larger():
    soft = np.zeros((100, 100), np.float32)
    soft[:, 20:40], soft[:, 60:80] = 0.5, 1.0
    drawn = Visualizer(black()).draw_soft_mask(soft, color="lime", alpha=0.8)
    assert pixel(drawn, 50, 30) == pytest.approx((0, 102, 0), abs=3)
    assert pixel(drawn, 50, 70) == pytest.approx((0, 204, 0), abs=3)
    assert pixel(drawn, 50, 50) == BLACK


BOXES = np.array([[10.0, 10, 30, 30], [50, 50, 90, 90]])
BITMAPS = np.stack([square(10, 10, 30, 30), square(50, 50, 90, 90)])
POLYGONS = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in BOXES]
RLES = [mask_util.encode(np.asfortranarray(mask, np.uint8)) for mask in BITMAPS]


@pytest.mark.parametrize(
    "masks",
    [
        BITMAPS,
        list(BITMAPS),
        torch.from_numpy(BITMAPS),
        BitMasks(torch.from_numpy(BITMAPS)),
        POLYGONS,
        PolygonMasks(POLYGONS),
        RLES,
        [{"size": [100, 100], "counts": [1010] + [20, 80] * 19 + [20, 7070]}, RLES[1]],
        [GenericMask(mask, 100, 100) for mask in BITMAPS],
    ],
    ids=["array", "list", "tensor", "BitMasks", "polygons", "PolygonMasks", "RLE", "runs", "own"],
)
def test_masks_in_all_forms(masks):
    drawn = Visualizer(black()).overlay_instances(masks=masks, assigned_colors=["r", "b"])
    assert pixel(drawn, 20, 20) == pytest.approx((128, 0, 0), abs=2)
    assert pixel(drawn, 70, 70) == pytest.approx((0, 0, 128), abs=2)
    assert pixel(drawn, 20, 70) == BLACK


def test_small_instances_are_drawn_over_large_ones():
    masks = [square(40, 40, 60, 60), square(10, 10, 90, 90)]
    drawn = Visualizer(black()).overlay_instances(
        masks=masks, assigned_colors=["r", "b"], alpha=1.0
    )
    assert pixel(drawn, 50, 50) == RED
    assert pixel(drawn, 20, 20) == BLUE


@pytest.mark.embedded_only
def test_hole_of_an_instance_stays_open():
    mask = square(20, 20, 80, 80) & ~square(40, 40, 60, 60)
    drawn = Visualizer(black()).overlay_instances(masks=[mask], assigned_colors=["r"])
    assert pixel(drawn, 50, 50) == BLACK
    assert pixel(drawn, 30, 30) == pytest.approx((128, 0, 0), abs=2)


def test_boxes_with_labels():
    drawn = Visualizer(black(200, 200)).overlay_instances(
        boxes=Boxes(torch.tensor([[20.0, 20, 180, 180]])), labels=["cell"], assigned_colors=["lime"]
    )
    image = drawn.get_image()
    assert image[100, 17:23, 1].max() > 100
    assert not image[60:150, 60:150].any()
    assert (image[20:40, 20:60].min(axis=2) > 50).any()  # letters in the upper left corner


def test_label_of_a_small_object_is_beside_it():
    white = np.full((200, 200, 3), 255, np.uint8)
    for box, below in (([80, 80, 90, 90], True), ([80, 188, 90, 198], False)):
        image = Visualizer(white).overlay_instances(boxes=np.array([box]), labels=["a"]).get_image()
        rows = (image.max(axis=2) < 90).nonzero()[0]  # the dark ground of the label
        assert (rows.min() >= 86) == below or rows.min() >= 185


def test_label_of_a_mask_without_box_is_on_it():
    white = np.full((200, 200, 3), 255, np.uint8)
    mask = square(50, 50, 150, 150, (200, 200))
    image = Visualizer(white).overlay_instances(masks=[mask], labels=["a"]).get_image()
    rows, columns = (image.max(axis=2) < 90).nonzero()
    assert 80 < rows.mean() < 130
    assert 90 < columns.mean() < 110


def test_nothing_to_overlay():
    assert not Visualizer(black()).overlay_instances().get_image().any()
    empty = Visualizer(black()).overlay_instances(boxes=np.zeros((0, 4)), labels=[], masks=[])
    assert not empty.get_image().any()


def test_numbers_that_differ_are_an_error():
    with pytest.raises((ValueError, AssertionError)):
        Visualizer(black()).overlay_instances(boxes=BOXES, masks=BITMAPS[:1])
    with pytest.raises((ValueError, AssertionError)):
        Visualizer(black()).overlay_instances(boxes=BOXES, labels=["one"])


def predicted(**without: bool) -> Instances:
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.from_numpy(BOXES).float())
    instances.scores = torch.tensor([0.5, 0.876])
    instances.pred_classes = torch.tensor([1, 0])
    instances.pred_masks = torch.from_numpy(BITMAPS)
    for name in without:
        instances.remove(name)
    return instances


@pytest.fixture
def metadata():
    name = "__test_visualizer"
    yield MetadataCatalog.get(name).set(thing_classes=["a", "b"], thing_colors=[BLUE, (100, 0, 0)])
    MetadataCatalog.remove(name)


def texts(visualizer: Visualizer) -> set[str]:
    return {text.get_text() for text in visualizer.output.ax.texts}


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ([], {"b 50%", "a 88%"}),
        (["scores"], {"b", "a"}),
        (["pred_classes"], {"50%", "88%"}),
        (["scores", "pred_classes"], set()),
        (["pred_masks"], {"b 50%", "a 88%"}),
        (["pred_boxes"], {"b 50%", "a 88%"}),
    ],
)
def test_predictions_are_labelled_with_what_is_known(metadata, without, expected):
    visualizer = Visualizer(black(), metadata)
    drawn = visualizer.draw_instance_predictions(predicted(**dict.fromkeys(without, True)))
    assert texts(visualizer) == expected
    assert drawn.get_image().any()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (([1, 0], [0.95, 0.5], ["a", "b"]), ["b 95%", "a 50%"]),
        (([1], None, None, [True]), ["1|crowd"]),
        ((None, [0.5], ["a"]), ["50%"]),
        ((None, None, ["a"]), None),
        (([], [], ["a"], []), []),
    ],
)
def test_text_labels(arguments, expected):
    assert _create_text_labels(*arguments) == expected


def test_predictions_without_metadata_are_labelled_by_number():
    visualizer = Visualizer(black())
    visualizer.draw_instance_predictions(predicted())
    assert texts(visualizer) == {"1 50%", "0 88%"}


@pytest.mark.parametrize("jittering", [True, False])
def test_classes_have_their_colours_in_segmentation_mode(metadata, jittering):
    visualizer = Visualizer(black(), metadata, instance_mode=ColorMode.SEGMENTATION)
    drawn = visualizer.draw_instance_predictions(predicted(scores=True), jittering)
    first, second = pixel(drawn, 20, 20), pixel(drawn, 80, 80)
    if jittering:
        assert first[0] > 80
        assert second[2] > 200
    else:
        assert first == pytest.approx((80, 0, 0), abs=2)
        assert second == pytest.approx((0, 0, 204), abs=2)


def test_background_is_grey_in_black_and_white_mode():
    image = np.full((100, 100, 3), (90, 0, 0), np.uint8)
    visualizer = Visualizer(image, instance_mode=ColorMode.IMAGE_BW)
    drawn = visualizer.draw_instance_predictions(predicted(scores=True, pred_classes=True))
    assert pixel(drawn, 5, 5) == (30, 30, 30)
    inside = pixel(drawn, 20, 20)
    assert inside[0] >= 63 - 2  # 0.7 of the image's red shines through
    alone = Visualizer(image, instance_mode=ColorMode.IMAGE_BW)
    drawn = alone.draw_instance_predictions(
        Instances((100, 100), pred_masks=torch.zeros(0, 100, 100))
    )
    assert pixel(drawn, 20, 20) == (30, 30, 30)


def annotation(**more: object) -> dict:
    box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    return {**box, "segmentation": RLES[0], **more}


def test_annotations_of_a_dataset(metadata):
    visualizer = Visualizer(black(), metadata)
    drawn = visualizer.draw_dataset_dict({"annotations": [annotation(iscrowd=1)]})
    assert texts(visualizer) == {"b|crowd"}
    assert any(pixel(drawn, 20, 20))
    visualizer = Visualizer(black(), metadata, instance_mode=ColorMode.SEGMENTATION)
    boxes_only = annotation()
    del boxes_only["segmentation"]
    drawn = visualizer.draw_dataset_dict({"annotations": [boxes_only]})
    assert texts(visualizer) == {"b"}
    assert pixel(drawn, 20, 20) == BLACK
    assert any(drawn.get_image()[20, 8:13].any(axis=1))


def test_image_without_annotations():
    assert not Visualizer(black()).draw_dataset_dict({"annotations": []}).get_image().any()
    assert not Visualizer(black()).draw_dataset_dict({}).get_image().any()


@pytest.mark.embedded_only
def test_what_is_left_out_is_refused():
    for record in ({"sem_seg": 1}, {"annotations": [annotation(keypoints=[1, 2, 2])]}):
        with pytest.raises(ValueError, match="not part of the embedded engine"):
            Visualizer(black()).draw_dataset_dict(record)
    instances = Instances((100, 100), pred_keypoints=torch.zeros(0, 3, 3))
    with pytest.raises(ValueError, match="keypoints"):
        Visualizer(black()).draw_instance_predictions(instances)


def test_generic_mask_knows_area_box_and_holes():
    ring = square(10, 20, 40, 60) & ~square(20, 30, 25, 35)
    mask = GenericMask(ring, 100, 100)
    assert mask.area() == 30 * 40 - 25
    assert mask.has_holes
    assert mask.bbox() == pytest.approx([10, 20, 40, 60], abs=1)
    assert len(mask.polygons) == 2
    outer = max(mask.polygons, key=len).reshape(-1, 2)
    assert outer.min(axis=0).tolist() == [10.5, 20.5]
    assert outer.max(axis=0).tolist() == [39.5, 59.5]

    triangle = GenericMask([[0, 0, 50, 0, 0, 50]], 100, 100)
    assert not triangle.has_holes
    assert triangle.area() == pytest.approx(1250, rel=0.05)
    assert not GenericMask(np.zeros((100, 100), bool), 100, 100).polygons
    assert not GenericMask(square(5, 5, 30, 30), 100, 100).has_holes


@pytest.mark.embedded_only
def test_generic_mask_at_the_edges_and_what_it_refuses():
    assert GenericMask([], 7, 9).mask.shape == (7, 9)
    assert GenericMask(np.zeros((7, 9), bool), 7, 9).bbox().tolist() == [0, 0, 0, 0]
    assert GenericMask(square(0, 0, 100, 100), 100, 100).bbox().tolist() == [0, 0, 100, 100]
    with pytest.raises(ValueError, match=r"\(7, 9\)"):
        GenericMask(np.zeros((9, 7), bool), 7, 9)
    with pytest.raises(ValueError, match="str"):
        GenericMask("mask", 7, 9)


def test_colours_lie_in_range_and_differ():
    colors = colormap(rgb=True, maximum=1)
    assert colors.shape[1] == 3
    assert colors.dtype == np.float32
    assert 0 <= colors.min() < colors.max() <= 1
    assert len(np.unique(colors, axis=0)) >= 64
    assert np.allclose(colormap(maximum=255)[:, ::-1], colors * 255)
    several = random_colors(20, rgb=True, maximum=1)
    assert len(several) == 20
    for drawn in (*several, random_color(rgb=True, maximum=1)):
        assert any(np.allclose(drawn, color) for color in colors)
    with pytest.raises((ValueError, AssertionError)):
        colormap(maximum=100)
    with pytest.raises(ValueError):  # noqa: PT011
        random_colors(1000)
