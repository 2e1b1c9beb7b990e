"""One image to its cells."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.errors import CheckpointError, ConfigError, ImageReadError, InputTypeError
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling import MaskRCNN
from detectron2.config import CfgNode
from PIL import Image


@pytest.fixture
def image() -> np.ndarray:
    """RGB uint8 [40, 50, 3]; half the size that the network sees."""
    noise = np.random.default_rng(0).integers(0, 80, (40, 50, 3), dtype=np.uint8)
    cv2.circle(noise, (20, 18), 9, (250, 120, 180), -1)
    return noise


def test_same_cells_as_the_engine_itself(cfg: CfgNode, image: np.ndarray) -> None:
    """Its own resizing, channel order and pasting, against the engine's call on a tensor."""
    cfg = cfg.clone()
    cfg.CELLSEG.TEST.MAX_COVERED = 1.0  # the engine knows of no pieces
    predictor = CellPredictor(cfg)
    cells = predictor(image)
    pixels = np.asarray(Image.fromarray(image[..., ::-1]).resize((80, 64), Image.BILINEAR))
    tensor = torch.as_tensor(pixels.transpose(2, 0, 1).copy())
    with torch.no_grad():
        (output,) = predictor.model([{"image": tensor, "height": 40, "width": 50}])
    theirs = output["instances"]
    assert len(cells) == len(theirs) > 0
    assert np.array_equal(cells.to_bitmaps(), theirs.pred_masks.numpy())
    assert np.array_equal(cells.boxes_xyxy, theirs.pred_boxes.tensor.numpy())
    assert np.array_equal(cells.scores, theirs.scores.numpy())
    assert np.array_equal(cells.classes, theirs.pred_classes.numpy())


def test_files_give_the_same_as_arrays(cfg: CfgNode, image: np.ndarray, tmp_path: Path) -> None:
    predictor = CellPredictor(cfg)
    expected = predictor(image)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    found = predictor.predict_file(tmp_path / "a.png")
    assert np.array_equal(found.to_bitmaps(), expected.to_bitmaps())
    assert found.image_hw == (40, 50)


def test_intensity_range_does_not_matter_for_16_bit(cfg: CfgNode, tmp_path: Path) -> None:
    """A dim 16-bit image and the same one ten times brighter look the same to the model."""
    grey = np.random.default_rng(1).integers(100, 400, (40, 50), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "dim.tif", grey)
    tifffile.imwrite(tmp_path / "bright.tif", grey * 10)
    predictor = CellPredictor(cfg)
    dim, bright = (predictor.predict_file(tmp_path / f"{n}.tif") for n in ("dim", "bright"))
    assert len(dim) > 0
    assert np.allclose(dim.scores, bright.scores, atol=1e-5)


def test_thresholds(cfg: CfgNode, image: np.ndarray) -> None:
    everything = CellPredictor(cfg)(image)
    assert (np.diff(everything.scores) <= 0).all()
    middle = float(np.median(everything.scores))
    some = CellPredictor(cfg, score_threshold=middle)(image)
    assert np.array_equal(some.scores, everything.scores[everything.scores >= middle])
    assert 0 < len(some) < len(everything)
    none = CellPredictor(cfg, score_threshold=1.0)(image)
    assert len(none) == 0
    assert none.image_hw == (40, 50)
    strict = CellPredictor(cfg, mask_threshold=1.0)(image)
    assert sum(strict.areas_px) == 0 < sum(everything.areas_px)


def test_all_steps_of_selection(cfg: CfgNode, image: np.ndarray) -> None:
    """What comes out is `select_cells` of all detections, whose order is documented there."""
    node = cfg.CELLSEG.TEST
    node.MAX_COVERED = 1.0
    everything = CellPredictor(cfg)(image)
    node.MAX_COVERED = 0.5
    node.MIN_AREA, node.MAX_AREA, node.BORDER = 20, [1200], "drop"
    node.LARGEST_COMPONENT, node.FILL_HOLES, node.EXCLUSIVE = True, [True], True
    predictor = CellPredictor(cfg)
    found = predictor(image)
    assert found.equals(select_cells(everything, predictor.thresholds))
    assert 0 < len(found) < len(everything)
    assert found.to_bitmaps().sum(axis=0).max() == 1
    edge = np.ones(found.image_hw, bool)
    edge[1:-1, 1:-1] = False
    assert not found.to_bitmaps()[:, edge].any()


def test_the_limit_of_detections_is_told_of_once(
    cfg: CfgNode, image: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    predictor = CellPredictor(cfg)
    with caplog.at_level("WARNING", "cellseg.inference.limits"):
        assert len(predictor(image)) <= 5
        predictor(image)
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "has 5 detections, as many as TEST.DETECTIONS_PER_IMAGE" in record.message


@pytest.mark.parametrize("views", [False, True])
def test_a_limit_that_costs_no_cell_is_not_told_of(
    cfg: CfgNode, image: np.ndarray, caplog: pytest.LogCaptureFixture, views: bool
) -> None:
    """As many detections as may be, but the last of them is none that could become a cell."""
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    cfg.TEST.AUG.ENABLED, cfg.TEST.AUG.MIN_SIZES = views, (64,)
    scores = CellPredictor(cfg)(image).scores
    caplog.clear()
    above = (float(scores[-1]) + float(scores[0])) / 2
    with caplog.at_level("WARNING", "cellseg.inference.limits"):
        assert 0 < len(CellPredictor(cfg, score_threshold=above)(image)) < 5
    assert not caplog.records


def test_thresholds_come_from_the_config_and_it_is_left_alone(cfg: CfgNode) -> None:
    cfg.CELLSEG.TEST.SCORE_THRESHOLD = 0.01
    cfg.CELLSEG.TEST.MASK_THRESHOLD = 0.4
    cfg.freeze()
    before = cfg.dump()
    predictor = CellPredictor(cfg)
    assert (predictor.thresholds.score, predictor.thresholds.mask) == (0.01, 0.4)
    assert predictor.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.01
    assert cfg.dump() == before
    assert not predictor.model.training


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("MODEL.WEIGHTS", "", ConfigError, "MODEL.WEIGHTS is empty"),
        ("MODEL.WEIGHTS", "nowhere/model.pth", CheckpointError, "nowhere/model.pth: no such"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 4, CheckpointError, "do not fit"),
        ("MODEL.MASK_ON", False, ConfigError, "MODEL.MASK_ON is False"),
        ("CELLSEG.TEST.MASK_THRESHOLD", 0.0, ConfigError, "mask threshold is 0.0"),
        ("CELLSEG.TEST.SCORE_THRESHOLD", 1.5, ConfigError, "score threshold is 1.5"),
    ],
)
def test_refuses(
    cfg: CfgNode, key: str, value: object, error: type[Exception], message: str
) -> None:
    cfg.merge_from_list([key, value])
    with pytest.raises(error, match=message):
        CellPredictor(cfg)


def test_unreadable_files(cfg: CfgNode, tmp_path: Path) -> None:
    predictor = CellPredictor(cfg)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(ImageReadError, match=name):
            predictor.predict_file(tmp_path / name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_refused(cfg: CfgNode) -> None:
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(ConfigError, match=r"MODEL\.DEVICE is 'cuda', which is not there"):
        CellPredictor(cfg)


def test_a_score_threshold_of_detectron2_is_one_for_predict_and_evaluation(
    cfg: CfgNode, image: np.ndarray
) -> None:
    scores = np.sort(CellPredictor(cfg)(image).scores)
    middle = float(scores[len(scores) // 2])
    assert middle > 0.05
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = middle
    assert DetectionThresholds.from_config(cfg).lowest_score == pytest.approx(middle)
    found = CellPredictor(cfg)(image).scores
    assert 0 < len(found) < len(scores)
    assert found.min() >= np.float32(middle)
    # what the caller asks for by name wins
    assert len(CellPredictor(cfg, score_threshold=0.0)(image)) == len(scores)


def test_a_predictor_can_be_pickled(cfg: CfgNode, image: np.ndarray) -> None:
    predictor = CellPredictor(cfg)
    again = pickle.loads(pickle.dumps(predictor))
    expected, found = predictor(image), again(image)
    assert len(expected) > 0
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.to_bitmaps(), expected.to_bitmaps())
    pickle.loads(pickle.dumps(MaskRCNN(cfg)))


def test_tensors_lists_and_paths_are_images(
    cfg: CfgNode, image: np.ndarray, tmp_path: Path
) -> None:
    predictor = CellPredictor(cfg)
    expected = predictor(image).scores
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for given in (tensor, Image.fromarray(image), path, str(path)):
        assert np.array_equal(predictor(given).scores, expected)
    with pytest.raises(InputTypeError, match="a list of 2 images"):
        predictor([image, image])
