"""`torch.jit.script` and `torch.jit.trace` of the parts of models that Detectron2 exports."""

from __future__ import annotations

import detectron2.export.torchscript  # noqa: F401  (Detectron2 prepares its classes in it)
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.structures import Boxes, ImageList
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


def random_boxes(count: int) -> Tensor:
    corners = torch.rand(count, 2) * 40
    return torch.cat((corners, corners + 1 + torch.rand(count, 2) * 40), dim=1)


class TestScript:
    def test_boxes(self) -> None:
        def compute(tensor: Tensor):  # type: ignore[no-untyped-def]
            boxes = Boxes(tensor)
            boxes.clip((8, 9))
            both = boxes.cat([boxes, boxes.clone()]).to(torch.device("cpu"))
            inside = both.inside_box((8, 9), 1)
            return both.tensor, both.area(), both.get_centers(), inside, both.nonempty(), len(both)

        tensor = random_boxes(5) - 3
        *scripted, count = torch.jit.script(compute)(tensor)
        *expected, _ = compute(tensor)
        assert count == 10
        for found, wanted in zip(scripted, expected):
            assert torch.equal(found, wanted)

    def test_image_list(self) -> None:
        def batch(images: list[Tensor]):  # type: ignore[no-untyped-def]
            made = ImageList.from_tensors(images, 4, 1.0)
            return made.tensor, made.image_sizes

        images = [torch.rand(3, 5, 7), torch.rand(3, 6, 4)]
        tensor, sizes = torch.jit.script(batch)(images)
        expected = ImageList.from_tensors(images, 4, 1.0)
        assert torch.equal(tensor, expected.tensor)
        assert sizes == [(5, 7), (6, 4)]

    def test_matcher(self) -> None:
        def match(quality: Tensor):  # type: ignore[no-untyped-def]
            matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
            return matcher(quality)

        scripted = torch.jit.script(match)
        for quality in (torch.rand(3, 6), torch.rand(0, 6)):
            for found, wanted in zip(scripted(quality), match(quality)):
                assert torch.equal(found, wanted)

    def test_anchors(self) -> None:
        generator = DefaultAnchorGenerator(
            sizes=[[8], [16]], aspect_ratios=[[0.5, 1.0]], strides=[4, 8], offset=0.5
        )
        maps = [torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 2, 2)]
        for found, wanted in zip(torch.jit.script(generator)(maps), generator(maps)):
            assert torch.equal(found.tensor, wanted.tensor)

    def test_pooler(self) -> None:
        pooler = ROIPooler((3, 3), [0.25, 0.125], 0, "ROIAlignV2", canonical_box_size=32)
        maps = [torch.rand(2, 3, 20, 20), torch.rand(2, 3, 10, 10)]
        boxes = [Boxes(random_boxes(6)), Boxes(random_boxes(3))]
        found = torch.jit.script(pooler)(maps, boxes)
        torch.testing.assert_close(found, pooler(maps, boxes))

    @pytest.mark.parametrize("depth", [18, 50])
    def test_resnet(self, depth: int) -> None:
        cfg = get_cfg()
        cfg.MODEL.RESNETS.DEPTH = depth
        if depth == 18:
            cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res4"]
        resnet = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
        images = torch.rand(1, 3, 32, 48)
        found, wanted = torch.jit.script(resnet)(images), resnet(images)
        assert list(found) == list(wanted) == ["res2", "res4"]
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name])

    def test_box_head(self) -> None:
        shape = ShapeSpec(channels=4, height=3, width=3)
        head = FastRCNNConvFCHead(shape, conv_dims=[6, 6], fc_dims=[8, 8], conv_norm="BN")
        x = torch.rand(5, 4, 3, 3)
        torch.testing.assert_close(torch.jit.script(head)(x), head(x))

    def test_output_shape_of_a_resize(self) -> None:
        scripted = torch.jit.script(ResizeShortestEdge.get_output_shape)
        assert scripted(10, 20, 30, 45) == ResizeShortestEdge.get_output_shape(10, 20, 30, 45)


class TestTrace:
    """Traced with some sizes, called with others: no size has become a constant."""

    def test_deltas(self) -> None:
        transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
        trace = torch.jit.trace(transform.apply_deltas, (torch.rand(3, 8), random_boxes(3)))
        deltas, boxes = torch.rand(7, 8), random_boxes(7)
        torch.testing.assert_close(trace(deltas, boxes), transform.apply_deltas(deltas, boxes))

    def test_pooler(self) -> None:
        pooler = ROIPooler((2, 2), [0.25, 0.125], 0, "ROIAlignV2", canonical_box_size=32)

        def pool(fine: Tensor, coarse: Tensor, first: Tensor, second: Tensor) -> Tensor:
            return pooler([fine, coarse], [Boxes(first), Boxes(second)])

        maps = torch.rand(2, 3, 20, 20), torch.rand(2, 3, 10, 10)
        trace = torch.jit.trace(pool, (*maps, random_boxes(6), random_boxes(5)))
        for counts in ((1, 9), (0, 4), (0, 0)):
            boxes = [random_boxes(count) for count in counts]
            torch.testing.assert_close(trace(*maps, *boxes), pool(*maps, *boxes))

    def test_proposals(self) -> None:
        def propose(boxes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
            (found,) = find_top_rpn_proposals(
                [boxes], [logits], [(64, 64)], 0.7, 20, 10, 0.0, False
            )
            return found.proposal_boxes.tensor, found.objectness_logits

        trace = torch.jit.trace(propose, (random_boxes(9)[None], torch.rand(1, 9)))
        for count in (5, 40):
            given = random_boxes(count)[None], torch.rand(1, count)
            for found, wanted in zip(trace(*given), propose(*given)):
                assert torch.equal(found, wanted)

    def test_image_list(self) -> None:
        def batch(image: Tensor, other: Tensor) -> Tensor:
            return ImageList.from_tensors([image, other], 4).tensor

        trace = torch.jit.trace(batch, (torch.rand(3, 5, 5), torch.rand(3, 3, 4)))
        given = torch.rand(3, 9, 4), torch.rand(3, 6, 7)
        assert torch.equal(trace(*given), batch(*given))
