# ruff: noqa: NPY002 (augmentations draw from numpy's global generator)
"""Keys, their checks, and what is built from them, beside Detectron2's own augmentations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cellseg.training_data.augmentations as A
import cv2
import numpy as np
import pytest
from cellseg import add_cellseg_config
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.labels import label_image_to_rles
from cellseg.cells.synthetic import make_cells
from cellseg.cli import run_command
from cellseg.errors import ConfigError
from cellseg.training_data.augmentations import preview
from cellseg.training_data.augmentations.config import find_switches
from cellseg.training_data.label_transforms import apply_to_planes
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.data import transforms as T

REPOSITORY = Path(__file__).resolve().parents[3]
KEYS = (
    "COPY_PASTE", "ROTATE90", "SCALE", "ELASTIC", "GAMMA", "BRIGHTNESS", "CONTRAST", "BLUR",
    "NOISE", "INVERT",
)  # fmt: skip


def _config(**enabled: float) -> CfgNode:
    """A config with some augmentations enabled, and their PROB."""
    cfg = get_cfg()
    add_cellseg_config(cfg)
    for name, prob in enabled.items():
        cfg.CELLSEG.AUGMENTATION[name].ENABLED = True
        cfg.CELLSEG.AUGMENTATION[name].PROB = prob
    return cfg


def _image(dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    scene = make_cells(5, (70, 90))
    return np.repeat(scene.image[..., None], 3, axis=2).astype(dtype), scene.labels.astype(np.int32)


def test_all_are_off_by_default_and_then_nothing_changes() -> None:
    cfg = _config()
    assert tuple(cfg.CELLSEG.AUGMENTATION) == (*KEYS, "EXTRA")
    assert not any(own.ENABLED for own in find_switches(cfg.CELLSEG.AUGMENTATION).values())
    assert A.build_cell_augmentations(cfg) == []
    assert A.build_copy_paste(cfg, lambda classes: None) is None
    assert not A.needs_tight_boxes(cfg)
    own = detection_utils.build_augmentation(cfg, True)
    image, labels = _image()
    labels = labels.astype(np.uint8)  # the engine's resize takes no int32
    found = []
    for augmentations in (own, [*own, *A.build_cell_augmentations(cfg)]):
        np.random.seed(3)
        given = T.AugInput(image, sem_seg=labels)
        T.AugmentationList(augmentations)(given)
        found.append((given.image, given.sem_seg, np.random.random()))
    for first, second in zip(*found):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", KEYS[1:])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_prob_0_never_and_prob_1_always(name: str, dtype: type) -> None:
    image, labels = _image(dtype)
    for prob in (0.0, 1.0):
        (augmentation,) = A.build_cell_augmentations(_config(**{name: prob}))
        for seed in range(5):
            np.random.seed(seed)
            given = T.AugInput(image, sem_seg=labels)
            augmentation(given)
            same = given.image.shape == image.shape and (given.image == image).all()
            assert same == (prob == 0)
            assert given.image.dtype == dtype


@pytest.mark.parametrize("crop", [False, True])
def test_a_whole_chain_with_detectron2s_own_moves_everything_alike(crop: bool) -> None:
    """Planes in one go equal bitmaps one by one."""
    cfg = _config(**dict.fromkeys(KEYS[1:], 1.0))
    augmentations = [
        T.RandomFlip(),
        T.RandomFlip(horizontal=False, vertical=True),
        *([T.RandomCrop("relative", (0.7, 0.8))] if crop else []),
        *A.build_cell_augmentations(cfg),
    ]
    image, labels = _image()
    cells = LabelPlanes.from_label_image(labels)
    for seed in range(5):
        np.random.seed(seed)
        given = T.AugInput(image, boxes=cells.boxes_xyxy.astype(float), sem_seg=labels)
        transforms = T.AugmentationList(augmentations)(given)
        np.testing.assert_array_equal(given.sem_seg, transforms.apply_segmentation(labels))
        assert given.sem_seg.dtype == np.int32
        assert given.image.shape[:2] == given.sem_seg.shape
        assert given.boxes.shape == (len(cells), 4)
        for number, box in enumerate(given.boxes):
            bitmap = transforms.apply_segmentation((labels == number + 1).astype(np.uint8))
            np.testing.assert_array_equal(given.sem_seg == number + 1, bitmap == 1)
            if bitmap.any():
                x0, y0, x1, y1 = LabelPlanes.from_label_image(bitmap).boxes_xyxy[0]
                assert (box[:2] <= np.array([x0, y0]) + 2).all()
                assert (box[2:] >= np.array([x1, y1]) - 2).all()
        np.random.seed(seed)
        again = T.AugInput(image)
        T.AugmentationList(augmentations)(again)
        np.testing.assert_array_equal(again.image, given.image)


def test_planes_are_moved_in_one_call_per_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = _config(**dict.fromkeys(KEYS[1:], 1.0))
    image, labels = _image()
    cells = LabelPlanes.from_label_image(labels)
    np.random.seed(1)
    transforms = T.AugmentationList(A.build_cell_augmentations(cfg))(T.AugInput(image))
    expected = transforms.apply_segmentation(labels)
    calls = []
    for transform in transforms.transforms:
        own = transform.apply_segmentation
        monkeypatch.setattr(
            transform,
            "apply_segmentation",
            lambda plane, own=own: calls.append(plane.dtype) or own(plane),
        )
    moved = apply_to_planes(transforms, cells)
    np.testing.assert_array_equal(moved.planes[0], expected)
    assert len(calls) <= len(KEYS)
    assert set(calls) == {np.dtype(np.int32)}


def test_detectron2s_own_functions_take_the_transforms() -> None:
    cfg = _config(ROTATE90=1.0, ELASTIC=1.0, SCALE=1.0, NOISE=1.0)
    image, labels = _image()
    cells = LabelPlanes.from_label_image(labels)
    np.random.seed(0)
    given = T.AugInput(image)
    transforms = T.AugmentationList(A.build_cell_augmentations(cfg))(given)
    image_hw = given.image.shape[:2]
    annotations = [
        detection_utils.transform_instance_annotations(
            {
                "bbox": box.tolist(),
                "bbox_mode": 0,
                "category_id": 0,
                "segmentation": [[10.0, 10, 30, 10, 30, 30]],
            },
            transforms,
            image_hw,
        )
        for box in cells.boxes_xyxy
    ]
    instances = detection_utils.annotations_to_instances(annotations, image_hw)
    assert len(instances) == len(cells)
    assert A.needs_tight_boxes(cfg)


def test_empty_images_pass() -> None:
    cfg = _config(**dict.fromkeys(KEYS[1:], 1.0))
    image, labels = np.zeros((40, 50, 3), np.float32), np.zeros((40, 50), np.int32)
    for seed in range(3):
        np.random.seed(seed)
        given = T.AugInput(image, boxes=np.zeros((0, 4)), sem_seg=labels)
        T.AugmentationList(A.build_cell_augmentations(cfg))(given)
        assert np.isfinite(given.image).all()
        assert given.boxes.shape == (0, 4)
        assert not given.sem_seg.any()


def test_copy_paste_takes_its_keys() -> None:
    cfg = _config(COPY_PASTE=0.25)
    cfg.CELLSEG.AUGMENTATION.COPY_PASTE.NUM_CELLS = [2.0, 5]
    assert A.build_cell_augmentations(cfg) == []

    def get_other(classes: Any) -> None:
        return None

    paste = A.build_copy_paste(cfg, get_other)
    expected = A.CopyPaste(get_other, 0.25, (2, 5), True, 0.5, 1.0, 0.3, 8)
    assert vars(paste) == vars(expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("COPY_PASTE.PROB", 1.5),
        ("COPY_PASTE.NUM_CELLS", [1.5, 3]),
        ("COPY_PASTE.NUM_CELLS", [-1, 3]),
        ("COPY_PASTE.SHIFT", -0.1),
        ("COPY_PASTE.EDGE_SIGMA_PX", -1.0),
        ("COPY_PASTE.MIN_VISIBLE", 2.0),
        ("COPY_PASTE.MIN_AREA_PX", -3),
        ("SCALE.RANGE", [0.0, 1.0]),
        ("SCALE.RANGE", [1.5, 1.2]),
        ("SCALE.RANGE", [1.0]),
        ("ELASTIC.STRENGTH_PX", [-1, 2]),
        ("ELASTIC.STRENGTH_PX", [1, 4]),
        ("ELASTIC.SIGMA_PX", 0.0),
        ("GAMMA.RANGE", ["a", 2]),
        ("BRIGHTNESS.RANGE", [0.5, float("inf")]),
        ("CONTRAST.RANGE", [float("nan"), 1.0]),
        ("BLUR.SIGMA_PX", [0, 1]),
        ("NOISE.SIGMA", [-1, 1]),
        ("INVERT.PROB", float("nan")),
    ],
)
def test_impossible_values_are_refused(key: str, value: Any) -> None:
    cfg = _config()
    name, entry = key.split(".")
    cfg.CELLSEG.AUGMENTATION[name][entry] = value
    for build in (A.build_cell_augmentations, lambda cfg: A.build_copy_paste(cfg, lambda c: None)):
        with pytest.raises(ConfigError, match=f"CELLSEG.AUGMENTATION.{key} is") as caught:
            build(cfg)
        assert "expected" in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    cfg = _config(GAMMA=7.0)
    cfg.CELLSEG.AUGMENTATION.NOISE.SIGMA = []
    with pytest.raises(ConfigError, match=r"\(2\)") as caught:
        A.check_augmentation_config(cfg)
    assert "GAMMA.PROB is 7.0; expected 0 to 1" in str(caught.value)


def test_the_fragment_of_the_page_builds() -> None:
    text = (REPOSITORY / "docs" / "augmentation.md").read_text("utf-8")
    fragment = text.split("```yaml\n")[1].split("```")[0]
    cfg = _config()
    cfg.merge_from_other_cfg(CfgNode.load_cfg(fragment))
    assert len(A.build_cell_augmentations(cfg)) >= 3
    assert A.build_copy_paste(cfg, lambda classes: None) is not None


def test_preview_shows_every_augmentation(tmp_path: Path) -> None:
    assert run_command("preview", ["--output", str(tmp_path / "all.png"), "--seed", "1"]) == 0
    rgb = cv2.imread(str(tmp_path / "all.png"))
    assert rgb.shape[1] > 1000
    first = rgb[26:282, :256].astype(int)
    second = rgb[26:282, 262:518].astype(int)
    assert (first != second).any()


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (REPOSITORY / "docs" / "augmentation.md").read_text("utf-8")
    exec(compile(text.split("```python\n")[1].split("```")[0], "augmentation.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(")


@pytest.fixture
def training_set(tmp_path: Path) -> Iterator[CfgNode]:
    """A config for the preview: two images, one of which has no cells."""
    scene = make_cells(5, (70, 90))
    cv2.imwrite(str(tmp_path / "cells.png"), scene.image)
    cv2.imwrite(str(tmp_path / "none.png"), scene.image)
    cells = [
        {"segmentation": rle, "category_id": 0, "iscrowd": int(number == 0)}
        for number, rle in enumerate(label_image_to_rles(scene.labels)[1])
    ]
    entries = [
        {"file_name": str(tmp_path / "cells.png"), "annotations": cells},
        {"file_name": str(tmp_path / "none.png"), "annotations": []},
    ]
    DatasetCatalog.register("preview_train", lambda: entries)
    cfg = _config(COPY_PASTE=1.0, ELASTIC=1.0)
    cfg.DATASETS.TRAIN = ("preview_train",)
    yield cfg
    DatasetCatalog.remove("preview_train")


@pytest.mark.parametrize("image", [0, 1])
def test_preview_of_a_training_set(training_set: CfgNode, image: int) -> None:
    sheet = preview.draw_preview(training_set, image)
    panels = 1 + 2 + preview.NUM_TOGETHER  # as it is, two by themselves, all together
    assert sheet.shape == (2 * 282 + 6, 4 * 256 + 18, 3)
    last = sheet[288:, 262:518]  # the sixth
    assert panels == 6
    assert (last[26:] != 255).any()
    assert (sheet[288:, 524:] == 255).all()  # and no more


def test_preview_of_nothing_is_an_error(training_set: CfgNode) -> None:
    with pytest.raises(ConfigError, match="the training set has 2 images, no number 2"):
        preview.draw_preview(training_set, 2)
    for own in find_switches(training_set.CELLSEG.AUGMENTATION).values():
        own.ENABLED = False
    with pytest.raises(ConfigError, match="enables nothing"):
        preview.draw_preview(training_set)


def test_preview_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", str(tmp_path / "p.png"), "--config-file", "missing.yaml"]
    assert run_command("preview", words) == 1
    assert "missing.yaml" in capsys.readouterr().err
    assert not (tmp_path / "p.png").exists()
