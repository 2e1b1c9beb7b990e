"""CellDatasetMapper, beside Detectron2's own."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import builders
import cv2
import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from cellseg import add_cellseg_config, load_config
from cellseg.cells.synthetic import make_cells
from cellseg.datasets.dataset_dicts import record_to_dict
from cellseg.errors import ConfigError, DatasetError, ImageReadError
from cellseg.images import normalize_image
from cellseg.io import read_records
from cellseg.training_data.augmentations.config import find_switches
from cellseg.training_data.label_masks import LabelMasks
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

SCENES = builders.all_scenes()
CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Dataset entries by image id: all scenes, and one picture of cells in colour."""
    drawn = make_cells(4, (60, 90))
    colour = np.dstack([drawn.image, drawn.image // 2, 255 - drawn.image])
    masks = np.array([drawn.labels == k + 1 for k in range(len(drawn.classes))])
    scenes = {**SCENES, "colour": builders.Scene(colour, drawn.labels, masks)}
    root = builders.write_label_images(tmp_path_factory.mktemp("mapper"), "s", scenes)
    records = read_records("label_images", root, "s")
    return {record.image_id: record_to_dict(record, ["cell"]) for record in records}


def make_cfg(**overrides: Any) -> CfgNode:
    """A config with the keys that the mapper reads; overrides use __ for the dot."""
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.CELLSEG.INPUT.NORMALIZE = "none"
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN = (48, 70)
    cfg.INPUT.MIN_SIZE_TEST = 50
    pairs = [x for key, value in overrides.items() for x in (key.replace("__", "."), value)]
    cfg.merge_from_list(pairs)
    return cfg


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    assert ours["image"].dtype == theirs["image"].dtype
    assert torch.equal(ours["image"], theirs["image"])
    for key in ("file_name", "image_id", "height", "width"):
        assert ours[key] == theirs[key]
    if "instances" in theirs:
        a, b = ours["instances"], theirs["instances"]
        assert a.image_size == b.image_size
        assert set(a.get_fields()) == set(b.get_fields())
        assert torch.equal(a.gt_classes, b.gt_classes)
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        if b.has("gt_masks"):
            assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)


EIGHT_BIT = [*sorted(set(SCENES) - {"sixteen_bit"}), "colour"]


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("image_id", EIGHT_BIT)
def test_equals_detectron2_for_8_bit_images(
    entries: dict[str, dict[str, Any]], image_id: str, is_train: bool
) -> None:
    cfg = make_cfg(INPUT__FORMAT="RGB" if image_id == "colour" else "BGR")
    ours, theirs = CellDatasetMapper(cfg, is_train=is_train), DatasetMapper(cfg, is_train)
    for seed in range(2):
        np.random.seed(seed)  # noqa: NPY002  (what Detectron2's augmentations draw from)
        one = ours(entries[image_id])
        np.random.seed(seed)  # noqa: NPY002
        assert_same(one, theirs(entries[image_id]))
        assert ("instances" in one) == is_train


def test_equals_detectron2_with_crops(entries: dict[str, dict[str, Any]]) -> None:
    cfg = make_cfg(INPUT__CROP__ENABLED=True, INPUT__CROP__SIZE=[0.5, 0.6])
    ours, theirs = CellDatasetMapper(cfg, is_train=True), DatasetMapper(cfg, True)
    for seed in range(4):
        for image_id in ("colour", "many_cells", "on_border"):
            np.random.seed(seed)  # noqa: NPY002
            one = ours(entries[image_id])
            np.random.seed(seed)  # noqa: NPY002
            assert_same(one, theirs(entries[image_id]))


def test_auto_leaves_8_bit_as_none_does(entries: dict[str, dict[str, Any]]) -> None:
    found = [
        CellDatasetMapper(make_cfg(CELLSEG__INPUT__NORMALIZE=mode), is_train=False)(
            entries["colour"]
        )
        for mode in ("auto", "none")
    ]
    assert torch.equal(found[0]["image"], found[1]["image"])


def test_16_bit_is_normalised_and_not_clipped(entries: dict[str, dict[str, Any]]) -> None:
    mapper = CellDatasetMapper(True, augmentations=[])
    out = mapper(entries["sixteen_bit"])
    scene = SCENES["sixteen_bit"]
    expected = np.where(scene.labels > 0, 255.0, 0.0)
    assert out["image"].dtype == torch.float32
    assert out["image"].shape == (3, 20, 30)
    assert all(np.array_equal(plane, expected) for plane in out["image"].numpy())
    assert out["instances"].gt_masks.tensor.numpy().tolist() == scene.masks.tolist()


def test_percentiles_come_from_the_config(tmp_path: Path) -> None:
    image = np.arange(600, dtype=np.uint16).reshape(20, 30) * 50
    builders.write_png(tmp_path / "a.png", image)
    cfg = make_cfg(
        CELLSEG__INPUT__NORMALIZE="percentile",
        CELLSEG__INPUT__PERCENTILES=[10.0, 80.0],
        INPUT__MIN_SIZE_TEST=20,
    )
    out = CellDatasetMapper(cfg, is_train=False)({"file_name": str(tmp_path / "a.png")})
    expected = normalize_image(image, "percentile", (10, 80))
    assert np.allclose(out["image"][0].numpy(), expected, atol=1e-3)
    assert (out["height"], out["width"]) == (20, 30)


def test_the_entry_stays_as_it_was(entries: dict[str, dict[str, Any]]) -> None:
    before = copy.deepcopy(entries["touching"])
    for is_train in (True, False):
        CellDatasetMapper(make_cfg(), is_train=is_train)(entries["touching"])
    assert entries["touching"] == before


def test_images_without_cells_stay_in_training(entries: dict[str, dict[str, Any]]) -> None:
    for crop in (False, True):  # Detectron2's own mapper fails with crops here
        cfg = make_cfg(INPUT__CROP__ENABLED=crop)
        out = CellDatasetMapper(cfg, is_train=True)(entries["no_cells"])
        assert len(out["instances"]) == 0
        assert out["instances"].gt_boxes.tensor.shape == (0, 4)


def test_without_masks_and_without_crowds(entries: dict[str, dict[str, Any]]) -> None:
    entry = copy.deepcopy(entries["touching"])
    entry["annotations"][0]["iscrowd"] = 1
    mapper = CellDatasetMapper(True, augmentations=[], use_masks=False, recompute_boxes=True)
    instances = mapper(entry)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[8, 4, 12, 10]]
    assert not instances.has("gt_masks")


def test_boxes_are_tight_after_a_crop(entries: dict[str, dict[str, Any]]) -> None:
    # The cell of two pieces spans x 2..24; cropped to x >= 10 only x 20..24 is left of it.
    crop = T.CropTransform(10, 0, 20, 20)
    for recompute, x0 in ((True, 10), (False, 0)):
        mapper = CellDatasetMapper(True, augmentations=[crop], recompute_boxes=recompute)
        instances = mapper(entries["two_pieces"])["instances"]
        assert instances.gt_boxes.tensor[0, 0] == x0
        assert instances.gt_boxes.tensor[0, 2] == 14


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    mapper = CellDatasetMapper(False, augmentations=[])
    with pytest.raises(ImageReadError, match=r"a\.png"):
        mapper({"file_name": str(tmp_path / "a.png")})


def test_an_image_of_another_size_than_declared(entries: dict[str, dict[str, Any]]) -> None:
    entry = {**entries["touching"], "height": 21}
    with pytest.raises(Exception, match=r"touching\.png"):
        CellDatasetMapper(False, augmentations=[])(entry)


class Roll(T.Transform):
    """A user's transform that moves pixels, and knows bitmaps only."""

    def apply_image(self, img: Any) -> Any:
        return np.roll(img, 3, axis=1)

    def apply_coords(self, coords: Any) -> Any:
        return coords

    def apply_segmentation(self, segmentation: Any) -> Any:
        assert segmentation.dtype == np.uint8
        return np.roll(segmentation > 0, 3, axis=1).astype(np.uint8)


class Grow(Roll):
    """A user's transform after which cells overlap that did not before."""

    def apply_image(self, img: Any) -> Any:
        return img

    def apply_segmentation(self, segmentation: Any) -> Any:
        return cv2.dilate(np.ascontiguousarray(segmentation), np.ones((3, 3), np.uint8))


AUGMENTATIONS: list[Any] = [
    lambda: T.ResizeShortestEdge((30, 90), 200, "range"),
    lambda: T.Resize((37, 41)),
    lambda: T.ResizeScale(0.5, 2.0, 60, 50),
    lambda: T.RandomFlip(),
    lambda: T.RandomFlip(horizontal=False, vertical=True),
    lambda: T.RandomCrop("relative_range", (0.3, 0.4)),
    lambda: T.RandomRotation((-50, 50)),
    lambda: T.RandomRotation((-50, 50), expand=False),
    lambda: T.RandomRotation([0, 90, 180, 270], sample_style="choice"),
    lambda: T.RandomExtent((0.5, 1.4), (0.3, 0.3)),
    lambda: T.FixedSizeCrop((50, 60)),  # pads bitmaps with 255
    lambda: T.FixedSizeCrop((50, 60), seg_pad_value=0),
    lambda: T.RandomContrast(0.5, 1.5),
    lambda: Roll(),
    lambda: Grow(),
]


def random_annotation(rng: np.random.Generator, image_hw: tuple[int, int], k: int) -> Any:
    """A cell anywhere, also across the border; boxes and masks in every form there is."""
    (height, width), size = image_hw, int(rng.integers(1, 9))
    y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
    mask = np.zeros(image_hw, np.uint8)
    mask[max(0, y - size) : y + size, max(0, x - size) : x + size] = 1
    mask[y, x] = k % 3 > 0
    rows, cols = np.nonzero(mask) if mask.any() else (np.array([0]), np.array([0]))
    box: list[Any] = [int(v) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]
    mode = BoxMode.XYXY_ABS
    if k % 4 == 1:
        box = [each + 0.3 for each in box]
    if k % 5 == 2:
        box, mode = [*box[:2], box[2] - box[0] + 0.1, box[3] - box[1]], BoxMode.XYWH_ABS
    segmentation: Any = coco_mask.encode(np.asfortranarray(mask))
    if k % 7 == 3:
        segmentation = [[float(v) for v in (x - size, y - size, x + size, y, x, y + size)]]
    return {
        "bbox": box,
        "bbox_mode": mode,
        "category_id": int(rng.integers(0, 3)),
        "segmentation": segmentation,
        "iscrowd": int(k % 11 == 10),
    }


@pytest.mark.parametrize("seed", range(80))
def test_random_chains_equal_bitmaps_to_the_bit(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    image_hw = (int(rng.integers(10, 70)), int(rng.integers(10, 70)))
    count = int(rng.choice([0, 1, 3, 9, 300], p=[0.1, 0.1, 0.35, 0.4, 0.05]))
    builders.write_png(tmp_path / "a.png", rng.integers(0, 255, (*image_hw, 3), np.uint8))
    entry = {
        "file_name": str(tmp_path / "a.png"),
        "image_id": "a",
        "annotations": [random_annotation(rng, image_hw, k) for k in range(count)],
    }
    chosen = rng.integers(0, len(AUGMENTATIONS), rng.integers(0, 5))
    chain = [AUGMENTATIONS[number]() for number in chosen]
    recompute = bool(rng.random() < 0.4) and count > 0  # their mapper fails without cells
    if any(isinstance(each, (T.RandomCrop, T.FixedSizeCrop)) for each in chain):
        for cell in entry["annotations"]:  # fvcore crops polygons with shapely, which may lack
            if isinstance(cell["segmentation"], list):
                cell["segmentation"] = coco_mask.merge(
                    coco_mask.frPyObjects(cell["segmentation"], *image_hw)
                )
    ours = CellDatasetMapper(
        True, augmentations=chain, recompute_boxes=recompute, ignore_uncounted=False
    )
    theirs = DatasetMapper(
        True,
        augmentations=chain,
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        recompute_boxes=recompute,
    )
    outputs = []
    for mapper in (ours, theirs):
        np.random.seed(seed)  # noqa: NPY002
        outputs.append(mapper(entry))
    assert_same(*outputs)
    a, b = (output["instances"] for output in outputs)
    if b.has("gt_masks") and len(b):
        assert isinstance(a.gt_masks, LabelMasks)
        height, width = b.image_size
        which = torch.from_numpy(rng.integers(0, len(b), 20))
        centre = rng.random((20, 2)) * (width, height)
        half = rng.random((20, 2)) * rng.choice([4, 60], (20, 1))
        boxes = torch.from_numpy(np.concatenate([centre - half, centre + half], 1)).float()
        crops = [each.gt_masks[which].crop_and_resize(boxes, 28) for each in (a, b)]
        assert torch.equal(*crops)


def test_a_bad_annotation_is_an_error_with_the_file(entries: dict[str, dict[str, Any]]) -> None:
    for change, message in (
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"touching\.png.*cell 0.*\[9, 9\]"),
        ({"segmentation": np.zeros((20, 30))}, r"touching\.png.*ndarray"),
        ({"category_id": None}, None),
    ):
        entry = copy.deepcopy(entries["touching"])
        entry["annotations"][0].update(change)
        if message is None:
            del entry["annotations"][0]["category_id"]
            message = r"touching\.png.*category_id"
        with pytest.raises(DatasetError, match=message):
            CellDatasetMapper(True, augmentations=[])(entry)
    with pytest.raises(DatasetError, match="MASK_FORMAT"):
        CellDatasetMapper(True, augmentations=[], mask_format="polygon")(entries["touching"])
    with pytest.raises(ConfigError, match="MASK_FORMAT"):
        CellDatasetMapper(True, augmentations=[], mask_format="rle")


def test_polygons_stay_polygons_where_asked(entries: dict[str, dict[str, Any]]) -> None:
    entry = copy.deepcopy(entries["one_pixel"])
    entry["annotations"][0]["segmentation"] = [[2.0, 3.0, 9.0, 3.0, 9.0, 8.0]]
    chain = [T.HFlipTransform(30)]
    ours = CellDatasetMapper(True, augmentations=chain, mask_format="polygon")(entry)
    polygons = ours["instances"].gt_masks.polygons
    assert [p.tolist() for p in polygons[0]] == [[28.0, 3.0, 21.0, 3.0, 21.0, 8.0]]


def test_both_kinds_of_masks_train_alike(entries: dict[str, dict[str, Any]]) -> None:
    cfg = make_cfg(MODEL__RESNETS__DEPTH=18, MODEL__RESNETS__RES2_OUT_CHANNELS=64)
    cfg.merge_from_list(
        ["MODEL.RESNETS.OUT_FEATURES", ["res4"], "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]
    )
    torch.manual_seed(0)
    model = build_model(cfg)
    losses = []
    for kind in (CellDatasetMapper, DatasetMapper):
        np.random.seed(0)  # noqa: NPY002
        batch = [kind(cfg, is_train=True)(entries[name]) for name in ("colour", "overlapping")]
        torch.manual_seed(1)
        with EventStorage(0):
            losses.append({key: loss.item() for key, loss in model(batch).items()})
    assert losses[0] == losses[1]
    assert losses[0]["loss_mask"] > 0


def test_a_transform_may_say_that_it_moves_labels(entries: dict[str, dict[str, Any]]) -> None:
    class Turn(Roll):
        moves_labels = True
        calls = 0

        def apply_segmentation(self, segmentation: Any) -> Any:
            Turn.calls += 1
            return np.roll(segmentation, 3, axis=1)

    masks = CellDatasetMapper(True, augmentations=[Turn()])(entries["many_cells"])["instances"]
    assert Turn.calls == 1
    expected = np.roll(SCENES["many_cells"].masks, 3, axis=2)
    assert np.array_equal(masks.gt_masks.tensor.numpy(), expected)


def test_a_transform_that_changes_masks_is_named_once(
    entries: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    class Thicken(Grow):
        pass

    mapper = CellDatasetMapper(True, augmentations=[Thicken()])
    with caplog.at_level("WARNING"):
        for _ in range(2):
            mapper(entries["touching"])
    assert [record.getMessage().split()[0] for record in caplog.records] == ["Thicken"]


def augmented_synthetic(opts: list[str], index: int = 3) -> tuple[dict[str, Any], int]:
    """What the mapper of a config makes of an image of synthetic_train; and its true cells."""
    fixed = ["INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.RANDOM_FLIP", "none"]
    cfg = load_config(CONFIGS / "quick_start.yaml", [*fixed, "MODEL.DEVICE", "cpu", *opts])
    entry = DatasetCatalog.get("synthetic_train")[index]
    mapper = CellDatasetMapper(cfg, is_train=True)
    seed_all_rng(5)
    return mapper(entry), len(entry["annotations"])


def test_a_spawned_worker_needs_no_registered_datasets() -> None:
    """What it is given, pickled, holds the images that others are pasted from."""
    on = "CELLSEG.AUGMENTATION.COPY_PASTE."
    opts = ["INPUT.MIN_SIZE_TRAIN", "(128,)", on + "ENABLED", "True", on + "PROB", "1.0"]
    cfg = load_config(CONFIGS / "quick_start.yaml", ["MODEL.DEVICE", "cpu", *opts])
    mapper = CellDatasetMapper(cfg, is_train=True)
    entry = DatasetCatalog.get("synthetic_train")[3]
    content = pickle.dumps(mapper)
    seed_all_rng(5)
    expected = mapper(entry)
    load = DatasetCatalog.pop("synthetic_train")
    try:
        seed_all_rng(5)
        found = pickle.loads(content)(entry)
    finally:
        DatasetCatalog.register("synthetic_train", load)
    assert torch.equal(found["image"], expected["image"])


def test_copy_paste_by_config_adds_cells_of_other_training_images() -> None:
    on = "CELLSEG.AUGMENTATION.COPY_PASTE."
    opts = [on + "ENABLED", "True", on + "PROB", "1.0", on + "MIN_VISIBLE", "0.0"]
    opts += [on + "MIN_AREA_PX", "0", on + "NUM_CELLS", "(3, 6)"]
    plain, true_cells = augmented_synthetic([])
    pasted, _ = augmented_synthetic(opts)
    again, _ = augmented_synthetic(opts)
    assert len(plain["instances"]) == true_cells
    assert true_cells < len(pasted["instances"]) <= true_cells + 6
    assert torch.equal(pasted["image"], again["image"])
    changed = (pasted["image"] != plain["image"]).any(dim=0)
    new = pasted["instances"].gt_masks.tensor.any(dim=0)
    assert changed.any()
    assert (changed & new).sum() > 0.6 * changed.sum()  # the rest is their soft edges
    tight = pasted["instances"].gt_masks.get_bounding_boxes().tensor
    torch.testing.assert_close(pasted["instances"].gt_boxes.tensor, tight)


def test_all_augmentations_at_once_keep_boxes_and_masks_together() -> None:
    names = [name for name in get_augmentation_names() if name != "COPY_PASTE"]
    opts = [
        word
        for name in [*names, "COPY_PASTE"]
        for key, value in (("ENABLED", "True"), ("PROB", "1.0"))
        for word in (f"CELLSEG.AUGMENTATION.{name}.{key}", value)
    ]
    result, _ = augmented_synthetic(opts)
    instances = result["instances"]
    assert len(instances) > 0
    assert tuple(result["image"].shape[1:]) == instances.image_size
    tight = instances.gt_masks.get_bounding_boxes().tensor
    torch.testing.assert_close(instances.gt_boxes.tensor, tight)


def get_augmentation_names() -> list[str]:
    cfg = get_cfg()
    add_cellseg_config(cfg)
    return list(find_switches(cfg.CELLSEG.AUGMENTATION))


def test_copy_paste_wants_bitmaps() -> None:
    opts = ["CELLSEG.AUGMENTATION.COPY_PASTE.ENABLED", "True", "MODEL.MASK_ON", "False"]
    with pytest.raises(ConfigError, match=r"COPY_PASTE\.ENABLED needs masks"):
        load_config(CONFIGS / "quick_start.yaml", opts)
