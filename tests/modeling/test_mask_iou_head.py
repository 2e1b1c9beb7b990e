"""The predicted IoU of masks: hand-computed targets, what it learns, and what it does to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.errors import CheckpointError, ConfigError
from cellseg.inference.detections import detections_to_cells
from cellseg.modeling import CellMaskHead, MaskIoUHead, MaskRCNN, load_weights
from cellseg.modeling.mask_head import true_masks
from cellseg.modeling.mask_iou_head import MaskIoUBranch, true_mask_ious
from cellseg.modeling.mask_losses import bce
from cellseg.training_data.label_masks import LabelMasks
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor

CONFIG = Path(__file__).resolve().parent.parent.parent / "configs" / "quick_start.yaml"
SHAPE = ShapeSpec(channels=8, height=14, width=14)
LAYERS = {"conv_dim": 8, "num_conv": 2, "fc_dim": 16}


def small_head(kind: type = MaskIoUHead, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"num_classes": 2, "conv_dims": [8, 8], "mask_loss": bce, **options}
    if kind is MaskIoUHead:
        options = {"mask_iou_layers": LAYERS, **options}
    return kind(SHAPE, **options)


def constant_iou(head: MaskIoUHead, ious: list[float]) -> None:
    """Make the branch answer `ious`, one per class, whatever it sees."""
    with torch.no_grad():
        head.mask_iou.predictor.weight.zero_()
        head.mask_iou.predictor.bias.copy_(torch.tensor(ious))


SQUARE = [4.0, 4.0, 18.0, 18.0]
LEFT_HALF = [4.0, 4.0, 11.0, 18.0]


def square_masks(kind: str, count: int) -> Any:
    """`count` times the same cell of 14 x 14 px, from (4, 4) on."""
    bitmaps = torch.zeros(count, 32, 32, dtype=torch.bool)
    bitmaps[:, 4:18, 4:18] = True
    if kind == "polygons":
        return PolygonMasks([[np.array([4.0, 4, 18, 4, 18, 18, 4, 18])]] * count)
    if kind == "labels":
        return LabelMasks.from_label_image(bitmaps[0].long())[[0] * count]
    return BitMasks(bitmaps)


def proposals(boxes: list[list[float]], masks: Any = None, class_: int = 0) -> Instances:
    found = Instances((32, 32), proposal_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    found.gt_classes = torch.full((len(boxes),), class_, dtype=torch.int64)
    if masks is not None:
        found.gt_masks = masks
    return found


@pytest.mark.parametrize("kind", ["bitmaps", "labels", "polygons"])
def test_hand_computed_targets(kind: str) -> None:
    """A cell of 196 px in its own box, in a box of its left half, and in one twice as wide.

    In a raster of 28 x 28 the whole cell is 784 pixels in its own box, 1568 in that of its half
    (7 x 14 px) and 392 in the wide one (28 x 14 px). Rasters finer than the pixels lose the
    outermost corners of bitmaps: 3 pixels of 784.
    """
    boxes = [SQUARE, SQUARE, SQUARE, LEFT_HALF, LEFT_HALF, [4.0, 4.0, 32.0, 18.0]]
    one = proposals(boxes, square_masks(kind, len(boxes)))
    predicted = torch.zeros(len(boxes), 28, 28, dtype=torch.bool)
    predicted[0] = True
    predicted[1, :, :14] = True  # half of the cell
    predicted[3] = True  # all that the proposal shows of the cell, and that is half of it
    predicted[4, :14] = True
    predicted[5] = True  # the cell and as much beside it
    targets = true_masks(torch.zeros(len(boxes), 1, 28, 28), [one])
    ious, known = true_mask_ious(predicted, targets, [one])
    assert ious.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.5, 0.25, 0.5], abs=0.002)
    assert known.all()


def test_a_true_mask_without_pixels_is_not_known() -> None:
    masks = BitMasks(torch.zeros(1, 32, 32, dtype=torch.bool))
    one = proposals([SQUARE], masks)
    empty = torch.zeros(1, 28, 28, dtype=torch.bool)
    ious, known = true_mask_ious(empty, empty, [one])
    assert (ious.tolist(), known.tolist()) == ([0.0], [False])
    head = small_head(num_classes=1).train()
    with EventStorage() as storage:
        losses = head(torch.randn(1, 8, 14, 14), [one])
    assert losses["loss_mask_iou"].item() == 0.0
    assert storage.latest()["mask_iou/mean"][0] == 0.0


def test_targets_are_near_those_of_whole_images() -> None:
    """Discs against masks pasted into the image pixel by pixel, through proposals that cut them."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(200) + 0.5, torch.arange(200) + 0.5, indexing="ij")
    for _ in range(20):
        centre, radius = 80 + 40 * torch.rand(2, generator=generator), 25.0
        cell = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        corner = (centre - radius + 20 * (torch.rand(2, generator=generator) - 0.5)).round()
        box = torch.cat([corner, corner + 56])
        shift = 4 * torch.rand(2, generator=generator)
        guess = (x - centre[0] - shift[0]) ** 2 + (y - centre[1] - shift[1]) ** 2 < 22**2
        left, top = int(corner[0]), int(corner[1])
        in_box = guess[top : top + 56, left : left + 56]
        predicted = in_box[1::2, 1::2][None]  # 28 x 28 of 56 x 56 pixels
        pasted = torch.zeros_like(cell)
        pasted[top : top + 56, left : left + 56] = (
            predicted[0].repeat_interleave(2, 0).repeat_interleave(2, 1)
        )
        expected = float((pasted & cell).sum() / (pasted | cell).sum())
        one = proposals([box.tolist()], BitMasks(cell[None]))
        targets = true_masks(torch.zeros(1, 1, 28, 28), [one])
        ious, _ = true_mask_ious(predicted, targets, [one])
        assert ious.item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_loss_is_the_mean_squared_error(num_classes: int) -> None:
    """Masks start undecided: sigmoid(0 + bias), so a bias of 1 predicts every pixel."""
    head = small_head(num_classes=num_classes, mask_iou_weight=3.0).train()
    with torch.no_grad():
        head.predictor.bias.fill_(1.0)
    constant_iou(head, [0.25, 0.75][2 - num_classes :])
    both = [
        proposals([SQUARE, LEFT_HALF], square_masks("labels", 2), 0 if num_classes == 1 else 1),
        proposals([]),
        proposals([[4.0, 4.0, 32.0, 18.0]], square_masks("bitmaps", 1), 0),
    ]
    with EventStorage() as storage:
        losses = head(torch.randn(3, 8, 14, 14) / 100, both)
    # IoUs 1, 1/2 and 1/2; the answers are 3/4 for class 1 (or the only one) and 1/4 for class 0
    last = 0.75 if num_classes == 1 else 0.25
    errors = [0.75 - 1.0, 0.75 - 0.5, last - 0.5]
    expected = 3.0 * sum(error**2 for error in errors) / 3
    assert losses["loss_mask_iou"].item() == pytest.approx(expected, abs=0.002)
    assert losses.keys() == {"loss_mask", "loss_mask_iou"}
    figures = {name: value for name, (value, _) in storage.latest().items()}
    assert figures["mask_iou/mean"] == pytest.approx(2 / 3, abs=0.001)
    assert figures["mask_iou/mean_error"] == pytest.approx(0.25, abs=0.001)
    assert "mask_rcnn/accuracy" in figures


def test_gradient_reaches_features_and_branch_but_not_the_mask() -> None:
    head = small_head().train()
    features = torch.randn(2, 8, 14, 14, requires_grad=True)
    with EventStorage():
        losses = head(features, [proposals([SQUARE, LEFT_HALF], square_masks("labels", 2))])
    losses["loss_mask_iou"].backward()
    assert features.grad is not None
    assert features.grad.any()
    for name, parameter in head.named_parameters():
        assert (parameter.grad is not None) == name.startswith("mask_iou."), name


def test_no_foreground_gives_zero_losses_with_gradients() -> None:
    head = small_head().train()
    losses = head(torch.zeros(0, 8, 14, 14), [proposals([]), proposals([])])
    assert {name: loss.item() for name, loss in losses.items()} == {
        "loss_mask": 0.0,
        "loss_mask_iou": 0.0,
    }
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_half_precision() -> None:
    """Losses and scores are float32, and near those of full precision."""
    head, features = small_head().train(), torch.randn(2, 8, 14, 14)
    given = [proposals([SQUARE, LEFT_HALF], square_masks("labels", 2))]
    with EventStorage(), torch.no_grad():
        full = head(features, given)
        with torch.autocast("cpu", torch.bfloat16):
            half = head(features, given)
            found = head.eval()(features, [detections([0.9, 0.8], [0, 1])])[0]
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(full[name].item(), rel=0.03)
    assert found.scores.dtype == found.mask_ious.dtype == torch.float32


def detections(scores: list[float], classes: list[int]) -> Instances:
    found = Instances((32, 32), pred_boxes=Boxes(torch.tensor([SQUARE] * len(scores)).view(-1, 4)))
    found.scores, found.pred_classes = torch.tensor(scores), torch.tensor(classes).long()
    return found


def test_scores_are_multiplied_and_the_order_is_kept() -> None:
    head = small_head().eval()
    constant_iou(head, [0.5, 1.7])  # the second is limited to 1
    images = [detections([0.9, 0.8, 0.1], [0, 1, 0]), detections([], []), detections([0.4], [1])]
    before = images[0].scores
    features = torch.randn(4, 8, 14, 14)
    with torch.no_grad():
        found = head(features, images)
    assert [one.scores.tolist() for one in found] == [
        pytest.approx([0.45, 0.8, 0.05]),
        [],
        pytest.approx([0.4]),
    ]
    assert [one.mask_ious.tolist() for one in found] == [[0.5, 1.0, 0.5], [], [1.0]]
    assert before.tolist() == pytest.approx([0.9, 0.8, 0.1])  # the caller's own tensor
    expected = head.layers(features[:3]).sigmoid()[[0, 1, 2], [0, 1, 0]][:, None]
    torch.testing.assert_close(found[0].pred_masks, expected)
    cells = detections_to_cells(found[0], image_hw=(32, 32))
    assert cells.scores.tolist() == pytest.approx([0.8, 0.45, 0.05])
    assert cells.classes.tolist() == [1, 0, 0]


def test_equal_scores_keep_their_order() -> None:
    found = detections([0.3, 0.5, 0.3, 0.5], [0, 1, 2, 3])
    found.pred_masks = torch.ones(4, 1, 28, 28)
    assert detections_to_cells(found, image_hw=(32, 32)).classes.tolist() == [1, 3, 0, 2]


def test_one_estimate_for_all_classes_and_boxes_without_scores() -> None:
    head = small_head(num_classes=1).eval()
    constant_iou(head, [-0.2])
    (found,) = head(torch.randn(2, 8, 14, 14), [detections([0.9, 0.8], [0, 5])])
    assert found.scores.tolist() == [0.0, 0.0]
    constant_iou(head, [0.3])
    given = detections([0.9, 0.8], [0, 5])
    given.remove("scores")
    (found,) = head(torch.randn(2, 8, 14, 14), [given])
    assert not found.has("scores")
    assert found.mask_ious.tolist() == pytest.approx([0.3, 0.3])
    (nothing,) = head(torch.zeros(0, 8, 14, 14), [detections([], [])])
    assert nothing.mask_ious.shape == (0,)


def test_branch_sees_the_mask_pooled_to_the_features() -> None:
    torch.manual_seed(0)
    branch = MaskIoUBranch(ShapeSpec(channels=3, height=7, width=7), 2, **LAYERS)
    features, mask = torch.randn(1, 3, 7, 7), torch.zeros(1, 28, 28)
    mask[0, 3, 9] = 0.8  # of row 0, column 2 of the pooled mask
    same = torch.zeros(1, 7, 7)
    same[0, 0, 2] = 0.8
    torch.testing.assert_close(branch(features, mask), branch(features, same))
    assert not torch.allclose(branch(features, mask), branch(features, 0 * mask))
    with pytest.raises(ConfigError, match="POOLER_TYPE"):
        MaskIoUBranch(ShapeSpec(channels=3), 2, **LAYERS)


def test_gradients_of_the_branch() -> None:
    torch.manual_seed(0)
    shape = ShapeSpec(channels=2, height=4, width=4)
    branch = MaskIoUBranch(shape, 1, conv_dim=3, num_conv=2, fc_dim=4).double()
    features = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: branch(x, masks), features)


def test_branch_learns_good_from_bad_masks() -> None:
    """Features show a disc; masks are discs of other sizes about the same centre."""
    torch.manual_seed(0)
    branch = MaskIoUBranch(ShapeSpec(channels=1, height=14, width=14), 1, **LAYERS)
    optimizer = torch.optim.Adam(branch.parameters(), 3e-3)

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        areas = (3 + 10 * torch.rand(2, count, 1, 1)) ** 2
        at = torch.arange(28) - 13.5
        discs = (at[:, None] ** 2 + at**2 < areas).float()
        shared, union = (discs[0] * discs[1]).sum((1, 2)), discs.amax(0).sum((1, 2))
        features = torch.nn.functional.avg_pool2d(discs[0][:, None], 2)
        return features, discs[1], shared / union

    for _ in range(150):
        features, masks, ious = draw(32)
        optimizer.zero_grad()
        ((branch(features, masks)[:, 0] - ious) ** 2).mean().backward()
        optimizer.step()
    features, masks, ious = draw(200)
    found = branch(features, masks)[:, 0].detach()
    assert torch.corrcoef(torch.stack([found, ious]))[0, 1] > 0.9
    assert (found - ious).abs().mean() < 0.1


def config_of(tiny_model: list[str], *more: str) -> Any:
    opts = [*tiny_model, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    opts += ["MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead", "TEST.DETECTIONS_PER_IMAGE", "12"]
    return load_config(CONFIG, [*opts, *more])


def step(model: MaskRCNN) -> dict[str, Tensor]:
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[0, 20:40, 10:40] = 1
    boxes = torch.tensor([[10.0, 20.0, 40.0, 40.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1]), "masks": masks}
    losses: dict[str, Tensor] = model.train()([torch.rand(3, 64, 64)], [target])
    sum(losses.values()).backward()
    return losses


CASCADE = [
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
]


@pytest.mark.parametrize(
    "more", [[], ["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "True"], CASCADE], ids=str
)
def test_one_key_selects_it(
    tiny_model: list[str], more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    three_classes = ["MODEL.ROI_HEADS.NUM_CLASSES", "3"]
    no_data = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
    cfg = config_of(tiny_model, *three_classes, *no_data, *more)
    model = MaskRCNN(cfg)
    head = model.detector.roi_heads.mask_head
    assert type(head) is MaskIoUHead
    assert head.mask_iou.predictor.out_features == (1 if "CLS_AGNOSTIC_MASK" in str(more) else 3)
    losses = step(model)
    assert {"loss_mask", "loss_mask_iou"} <= losses.keys()
    assert head.mask_iou.predictor.weight.grad.any()
    monkeypatch.setattr(head.mask_iou, "forward", lambda x, masks: torch.rand(len(x), 3))
    image = {"image": 255 * torch.rand(3, 64, 64), "height": 64, "width": 64}
    with torch.no_grad():
        (raw,) = model.eval().detector.inference([image], do_postprocess=False)
    assert len(raw) == len(raw.mask_ious) == 12
    assert (raw.scores.diff() > 0).any()  # not sorted by the head
    scores = model([image["image"] / 255])[0]["scores"]
    assert len(scores) > 1
    assert (scores.diff() <= 0).all()


def test_test_time_augmentation(tiny_model: list[str]) -> None:
    """It runs, and matches masks and boxes by their order: scores are those of the classes."""
    opts = ["TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.MAX_SIZE", "128"]
    cfg = config_of(tiny_model, *opts)
    torch.manual_seed(0)
    model = MaskRCNN(cfg).eval()
    constant_iou(model.detector.roi_heads.mask_head, [0.25])
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        augmented = GeneralizedRCNNWithTTA(cfg, model.detector)
        found = augmented([{"image": image, "height": 64, "width": 64}])[0]["instances"]
    assert found.pred_masks.shape == (len(found), 64, 64)
    assert len(found) > 1
    assert (found.scores.diff() <= 0).all()
    assert found.scores[0] > 0.3  # near 1 / 2, which the branch would make near 1 / 8


def test_checkpoints_of_the_base_class_fit_but_for_the_branch(
    tiny_model: list[str], tmp_path: Path
) -> None:
    plain = MaskRCNN(config_of(tiny_model, "MODEL.ROI_MASK_HEAD.NAME", "CellMaskHead"))
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    model = MaskRCNN(config_of(tiny_model))
    with pytest.raises(CheckpointError, match=r"mask_iou\.convs\.0\.weight: not in the file"):
        load_weights(model, tmp_path / "plain.pth")
    load_weights(model, tmp_path / "plain.pth", partial=True)
    added = model.state_dict().keys() - plain.state_dict().keys()
    assert added
    assert all(name.startswith("roi_heads.mask_head.mask_iou.") for name in added)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_masks_are_those_of_the_base_class() -> None:
    base, head = small_head(CellMaskHead), small_head()
    head.load_state_dict(base.state_dict(), strict=False)
    x = torch.randn(3, 8, 14, 14)
    torch.testing.assert_close(head.layers(x), base.layers(x))


@pytest.mark.parametrize(
    ("key", "value"),
    [("LOSS_WEIGHT", "-1.0"), ("NUM_CONV", "0"), ("CONV_DIM", "0"), ("FC_DIM", "0")],
)
def test_wrong_values_are_config_errors(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"CELLSEG.MASK_IOU.{key} is {value}; expected"):
        load_config(CONFIG, [f"CELLSEG.MASK_IOU.{key}", value])
