# ruff: noqa: NPY002 (the engine draws from numpy's global generator)
"""From names of datasets to batches."""

from __future__ import annotations

import itertools
import logging
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    ToIterableDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from detectron2.data.build import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    trivial_batch_collator,
)
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    set_default_dataset_from_list_serialize_method,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.structures import BoxMode
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import ConcatDataset, IterableDataset

NAMES = ("loader_test_a", "loader_test_b")


class Count(IterableDataset):
    """0, 1, ..., size - 1."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index


@pytest.fixture(autouse=True)
def _forget_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)  # for caplog
    yield
    for name in NAMES:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def image(image_id: int, *classes: int, **more: Any) -> dict[str, Any]:
    box = {"bbox": [0.0, 0.0, 4.0, 4.0], "bbox_mode": BoxMode.XYXY_ABS}
    annotations = [{**box, "category_id": each, "iscrowd": 0} for each in classes]
    return {"image_id": image_id, "height": 8, "width": 9, "annotations": annotations, **more}


def register(name: str, images: Any, **metadata: Any) -> None:
    DatasetCatalog.register(name, lambda: images)
    MetadataCatalog.get(name).set(**metadata)


def ids(images: Any) -> list[int]:
    return [each["image_id"] for each in images]


# ---- datasets that wrap datasets ------------------------------------------------------------


def test_a_list_is_stored_and_read_back() -> None:
    elements = [{"a": np.arange(3)}, None, "text", {"b": [1]}]
    dataset = DatasetFromList(elements)
    assert len(dataset) == 4
    assert dataset[0]["a"].tolist() == [0, 1, 2]
    assert [dataset[i] for i in (1, 2, 3, -1)] == [None, "text", {"b": [1]}, {"b": [1]}]
    dataset[3]["b"].append(2)
    assert dataset[3] == {"b": [1]}
    with pytest.raises(IndexError):
        dataset[4]


@pytest.mark.embedded_only
def test_an_empty_list_is_stored() -> None:
    assert len(DatasetFromList([])) == 0


def test_a_list_that_stays_a_list() -> None:
    elements = [[1], [2]]
    assert DatasetFromList(elements, serialize=False, copy=False)[0] is elements[0]
    copied = DatasetFromList(elements, serialize=False)[0]
    copied.append(5)
    assert elements == [[1], [2]]
    with pytest.raises(TypeError):
        DatasetFromList(elements, serialize="pickle")


def test_other_ways_of_storing_a_list() -> None:
    assert DatasetFromList([1, 2], serialize=torch.tensor)[1] == torch.tensor(2)
    with set_default_dataset_from_list_serialize_method(tuple):
        assert DatasetFromList([3, 4])._lst == (3, 4)
    assert DatasetFromList([3, 4])[1] == 4


def test_mapping() -> None:
    dataset = MapDataset(DatasetFromList([1, 2, 3]), lambda number: number * 10)
    assert len(dataset) == 3
    assert [dataset[i] for i in range(3)] == [10, 20, 30]
    assert pickle.loads(pickle.dumps(dataset))[2] == 30


def test_refused_elements_are_replaced() -> None:
    dataset = MapDataset([1, 2, 3, 4], lambda number: number if number % 2 else None)
    assert dataset[0] == 1
    assert {dataset[1] for _ in range(20)} <= {1, 3}
    assert dataset[3] in (1, 3)


def test_refusing_again_and_again_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    dataset = MapDataset(list(range(30)), lambda number: number if number == 29 else None)
    with caplog.at_level(logging.WARNING):
        assert dataset[0] == 29
    assert caplog.records


def test_refusing_everything() -> None:
    with pytest.raises(ValueError, match=r"\w"):
        MapDataset([1, 2], lambda number: None)[0]


def test_mapping_a_stream() -> None:
    dataset = MapDataset(Count(5), lambda number: number if number % 2 else None)
    assert isinstance(dataset, IterableDataset)
    assert [each for each in dataset] == [1, 3]  # noqa: C416 (a list would ask for the length)
    assert len(dataset) == 5


def test_an_indexed_dataset_as_a_stream() -> None:
    stream = ToIterableDataset(DatasetFromList([5, 6, 7]), InferenceSampler(3))
    assert list(stream) == [5, 6, 7]
    assert len(stream) == 3
    unsharded = ToIterableDataset(DatasetFromList([5, 6, 7]), InferenceSampler(3), False)
    assert list(unsharded) == [5, 6, 7]
    with pytest.raises(AssertionError):
        ToIterableDataset(Count(3), InferenceSampler(3))
    with pytest.raises(AssertionError):
        ToIterableDataset([1, 2], [0, 1])


def test_grouping_by_shape() -> None:
    shapes = [(3, 2), (2, 3), (2, 2), (5, 1), (1, 5)]
    images = [{"width": w, "height": h} for w, h in shapes]
    batches = list(AspectRatioGroupedDataset(images, 2))
    as_shapes = [[(each["width"], each["height"]) for each in batch] for batch in batches]
    assert as_shapes == [[(2, 3), (2, 2)], [(3, 2), (5, 1)]]


def test_an_interrupted_grouping_goes_on() -> None:
    grouped = AspectRatioGroupedDataset([{"width": 2, "height": 1, "n": n} for n in range(3)], 2)
    assert [each["n"] for each in next(iter(grouped))] == [0, 1]
    assert [[each["n"] for each in batch] for batch in grouped] == [[0, 1]]
    assert [[each["n"] for each in batch] for batch in grouped] == [[2, 0], [1, 2]]


# ---- loading dicts --------------------------------------------------------------------------


def test_images_without_usable_annotations() -> None:
    crowd = image(2, 0)
    crowd["annotations"][0]["iscrowd"] = 1
    images = [image(0), image(1, 0), crowd, image(3, 1, 0)]
    assert ids(filter_images_with_only_crowd_annotations(images)) == [1, 3]


def test_images_with_few_keypoints() -> None:
    visible, hidden = [1, 1, 2], [1, 1, 0]
    images = [image(0, 0), image(1, 0, 0), image(2, 0)]
    for each, points in zip(images[1]["annotations"], (visible + hidden, visible)):
        each["keypoints"] = points
    images[2]["annotations"][0]["keypoints"] = hidden
    assert ids(filter_images_with_few_keypoints(images, 2)) == [1]
    assert ids(filter_images_with_few_keypoints(images, 0)) == [0, 1, 2]


def test_datasets_behind_each_other() -> None:
    register(NAMES[0], [image(0, 0), image(1)], thing_classes=["cell"])
    register(NAMES[1], [image(2, 0)], thing_classes=["cell"])
    assert ids(get_detection_dataset_dicts(NAMES)) == [0, 2]
    assert ids(get_detection_dataset_dicts(NAMES, filter_empty=False)) == [0, 1, 2]
    assert ids(get_detection_dataset_dicts(NAMES[1])) == [2]
    with pytest.raises(AssertionError):
        get_detection_dataset_dicts(NAMES, min_keypoints=1)


def test_datasets_that_cannot_be_used() -> None:
    register(NAMES[0], [image(0)], thing_classes=["cell"])
    register(NAMES[1], [], thing_classes=["nucleus"])
    with pytest.raises(AssertionError, match=NAMES[0]):
        get_detection_dataset_dicts(NAMES[0])
    with pytest.raises(AssertionError, match=NAMES[1]):
        get_detection_dataset_dicts(NAMES[1])
    with pytest.raises(AssertionError):
        get_detection_dataset_dicts([])
    with pytest.raises(KeyError, match="loader_test_c"):
        get_detection_dataset_dicts("loader_test_c")


def test_datasets_with_different_classes() -> None:
    register(NAMES[0], [image(0, 0)], thing_classes=["cell"])
    register(NAMES[1], [image(1, 0)], thing_classes=["nucleus"])
    with pytest.raises(ValueError, match="thing_classes"):
        get_detection_dataset_dicts(NAMES)
    assert ids(get_detection_dataset_dicts(NAMES, check_consistency=False)) == [0, 1]


def test_datasets_without_classes_or_annotations() -> None:
    register(NAMES[0], [image(0, 5)])
    assert ids(get_detection_dataset_dicts(NAMES[0])) == [0]
    register(NAMES[1], [{"image_id": 1}])
    assert ids(get_detection_dataset_dicts(NAMES[1])) == [1]


def test_torch_datasets() -> None:
    register(NAMES[0], Numbers())
    register(NAMES[1], Numbers())
    assert isinstance(get_detection_dataset_dicts(NAMES[0]), Numbers)
    both = get_detection_dataset_dicts(NAMES)
    assert isinstance(both, ConcatDataset)
    assert [both[i] for i in range(6)] == [0, 1, 2] * 2


def test_histogram_of_classes(caplog: pytest.LogCaptureFixture) -> None:
    names = ["cell", "an exceedingly long name", "debris", "dust"]
    images = [image(0, 0, 0, 1), image(1, 3), image(2)]
    images[1]["annotations"].append({**image(3, 2)["annotations"][0], "iscrowd": 1})
    with caplog.at_level(logging.INFO):
        print_instances_class_histogram(images, names)
    text = caplog.text
    cells = [part.strip() for part in text.replace("\n", "|").split("|")]
    counts = {name: cells[cells.index(name) + 1] for name in ("cell", "debris", "dust", "total")}
    assert counts == {"cell": "2", "debris": "0", "dust": "1", "total": "4"}
    assert cells[cells.index("an exceedin..") + 1] == "1"


@pytest.mark.parametrize("wrong", [-1, 2])
def test_classes_that_do_not_exist(wrong: int) -> None:
    with pytest.raises(AssertionError, match=str(wrong)):
        print_instances_class_histogram([image(0, 0, wrong)], ["cell", "debris"])


# ---- batches --------------------------------------------------------------------------------


def flat(batches: Any) -> list[Any]:
    return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_do_not_depend_on_workers(workers: int, drop_last: bool) -> None:
    loader = build_batch_data_loader(
        DatasetFromList(list(range(11))),
        InferenceSampler(11),
        4,
        num_workers=workers,
        drop_last=drop_last,
    )
    expected = [[0, 1, 2, 3], [4, 5, 6, 7]] + ([] if drop_last else [[8, 9, 10]])
    assert list(loader) == expected
    assert len(loader) == len(expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_order_does_not_depend_on_workers(workers: int) -> None:
    order = list(itertools.islice(TrainingSampler(7, seed=1), 12))
    loader = build_detection_train_loader(
        DatasetFromList(list(range(7))),
        mapper=None,
        sampler=TrainingSampler(7, seed=1),
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=workers,
    )
    assert flat(itertools.islice(loader, 4)) == order


def test_sizes_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, sampler = DatasetFromList(list(range(12))), InferenceSampler(12)
    own = build_batch_data_loader(dataset, sampler, None, single_gpu_batch_size=5)
    assert [len(batch) for batch in own] == [5, 5]
    with pytest.raises(ValueError, match="single_gpu_batch_size"):
        build_batch_data_loader(dataset, sampler, 4, single_gpu_batch_size=2)
    with pytest.raises(AssertionError):
        build_batch_data_loader(dataset, sampler, 0)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 4)
    assert len(next(iter(build_batch_data_loader(dataset, sampler, 8)))) == 2
    with pytest.raises(AssertionError, match="6"):
        build_batch_data_loader(dataset, sampler, 6)


def test_batches_of_one_shape() -> None:
    shapes = [(2, 1), (1, 2), (2, 1), (1, 2)]
    images = [{"width": w, "height": h} for w, h in shapes]
    options = {"aspect_ratio_grouping": True}
    loader = build_batch_data_loader(images, TrainingSampler(4, shuffle=False), 2, **options)
    first, second = itertools.islice(loader, 2)
    assert [each["width"] for each in first] == [2, 2]
    assert [each["width"] for each in second] == [1, 1]
    counted = build_batch_data_loader(
        images, TrainingSampler(4, shuffle=False), 2, collate_fn=len, **options
    )
    assert list(itertools.islice(counted, 2)) == [2, 2]
    with pytest.raises(AssertionError):
        build_batch_data_loader(images, InferenceSampler(4), 2, drop_last=False, **options)


def test_batches_of_streams() -> None:
    assert list(build_batch_data_loader(Count(5), None, 2)) == [[0, 1], [2, 3]]
    with pytest.raises(AssertionError):
        build_batch_data_loader(Count(5), InferenceSampler(5), 2)
    with pytest.raises(AssertionError):
        build_detection_test_loader(Count(5), mapper=None, sampler=InferenceSampler(5))
    loader = build_detection_test_loader(Count(3), mapper=lambda number: number + 1)
    assert list(loader) == [[1], [2], [3]]


def test_batches_are_collated() -> None:
    sampler = InferenceSampler(4)
    loader = build_batch_data_loader(DatasetFromList([1, 2, 3, 4]), sampler, 2, collate_fn=sum)
    assert list(loader) == [3, 7]
    batch = [1, 2]
    assert trivial_batch_collator(batch) is batch


def random_number(_: Any) -> float:
    return float(np.random.uniform())


def test_workers_draw_different_numbers() -> None:
    loader = build_batch_data_loader(
        MapDataset(list(range(8)), random_number), InferenceSampler(8), 1, num_workers=2, seed=3
    )
    drawn = flat(loader)
    assert len(set(drawn)) == 8
    again = build_batch_data_loader(
        MapDataset(list(range(8)), random_number), InferenceSampler(8), 1, num_workers=2, seed=3
    )
    assert flat(again) == drawn


def test_testing_reads_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [image(i) for i in range(5)]
    loader = build_detection_test_loader(images, mapper=lambda each: each["image_id"], batch_size=2)
    assert list(loader) == [[0, 1], [2, 3], [4]]
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    assert flat(build_detection_test_loader(images, mapper=lambda each: each["image_id"])) == [3, 4]


# ---- loaders from a config ------------------------------------------------------------------


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """Six images of two classes, of which one has no annotations."""
    images = [image(i, i % 2) for i in range(5)] + [image(5)]
    for each in images:
        each["file_name"] = str(tmp_path / f"{each['image_id']}.png")
        Image.fromarray(np.full((8, 9, 3), each["image_id"], np.uint8)).save(each["file_name"])
    register(NAMES[0], images, thing_classes=["cell", "debris"])
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (NAMES[0],)
    cfg.DATASETS.TEST = (NAMES[0],)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.MIN_SIZE_TRAIN = (16,)
    cfg.INPUT.MIN_SIZE_TEST = 12
    cfg.SEED = 5
    return cfg


def read(loader: Any, count: int) -> list[int]:
    return ids(itertools.islice(flat(itertools.islice(loader, count)), count))


def test_training_from_a_config(cfg: CfgNode) -> None:
    loader = build_detection_train_loader(cfg)
    batch = next(iter(loader))
    assert len(batch) == 2
    assert batch[0]["image"].shape == (3, 16, 18)
    assert len(batch[0]["instances"]) == 1
    order = read(build_detection_train_loader(cfg), 10)
    assert order == list(itertools.islice(TrainingSampler(5, seed=5), 10))


def test_training_on_images_without_annotations(cfg: CfgNode) -> None:
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    order = read(build_detection_train_loader(cfg), 12)
    assert Counter(order) == dict.fromkeys(range(6), 2)


def test_testing_from_a_config(cfg: CfgNode) -> None:
    loader = build_detection_test_loader(cfg, NAMES[0])
    batches = list(loader)
    assert [ids(batch) for batch in batches] == [[i] for i in range(6)]
    assert batches[3][0]["image"].unique().tolist() == [3]
    assert "instances" not in batches[0][0]
    assert len(build_detection_test_loader(cfg, [NAMES[0]], mapper=len)) == 6


def test_own_mapper_dataset_and_sampler(cfg: CfgNode) -> None:
    sampler = TrainingSampler(3, shuffle=False)
    loader = build_detection_train_loader(
        cfg,
        mapper=lambda each: each,
        dataset=[image(i) for i in (7, 8, 9)],
        sampler=sampler,
        total_batch_size=1,
    )
    assert read(loader, 4) == [7, 8, 9, 7]


def test_streams_from_a_config(cfg: CfgNode) -> None:
    register(NAMES[1], Count(4))
    cfg.DATASETS.TRAIN = (NAMES[1],)
    loader = build_detection_train_loader(cfg, mapper=float, aspect_ratio_grouping=False)
    assert list(loader) == [[0, 1], [2, 3]]
    assert flat(build_detection_test_loader(cfg, NAMES[1], mapper=float)) == [0, 1, 2, 3]


def test_repeating_rare_classes(cfg: CfgNode) -> None:
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 1.6  # cells are in 3 of 5 images, debris in 2 of 5
    counts = Counter(read(build_detection_train_loader(cfg, mapper=dict), 1500))
    of_cell, of_debris = (1.6 / 0.6) ** 0.5, (1.6 / 0.4) ** 0.5
    debris, cells = (counts[1] + counts[3]) / 2, (counts[0] + counts[2] + counts[4]) / 3
    assert debris / cells == pytest.approx(of_debris / of_cell, rel=0.1)


def test_training_on_a_part(cfg: CfgNode) -> None:
    cfg.DATALOADER.SAMPLER_TRAIN = "RandomSubsetTrainingSampler"
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.4
    order = read(build_detection_train_loader(cfg), 8)
    assert sorted(Counter(order).values()) == [4, 4]


@pytest.mark.parametrize("balanced", [False, True])
def test_weighted_datasets(cfg: CfgNode, balanced: bool) -> None:
    register(NAMES[1], [image(9, 0)], thing_classes=["cell", "debris"])
    kind = "WeightedCategoryTrainingSampler" if balanced else "WeightedTrainingSampler"
    cfg.DATALOADER.SAMPLER_TRAIN = kind
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.8  # cells are in 3 of 5 images, debris in 2 of 5
    cfg.DATASETS.TRAIN = NAMES
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [(NAMES[1], 3.0)]
    loader = build_detection_train_loader(cfg, mapper=lambda each: each)
    counts = Counter(read(loader, 1600))
    of_cell, of_debris = ((0.8 / 0.6) ** 0.5, (0.8 / 0.4) ** 0.5) if balanced else (1, 1)
    assert counts[9] / counts[0] == pytest.approx(3 / of_cell, rel=0.1)
    assert counts[1] / counts[0] == pytest.approx(of_debris / of_cell, rel=0.1)
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [("loader_test_c", 3.0)]
    with pytest.raises(AssertionError, match="loader_test_c"):
        build_detection_train_loader(cfg)


def test_an_unknown_sampler(cfg: CfgNode) -> None:
    cfg.DATALOADER.SAMPLER_TRAIN = "LuckySampler"
    with pytest.raises(ValueError, match="LuckySampler"):
        build_detection_train_loader(cfg)


@pytest.mark.embedded_only
def test_precomputed_proposals_are_refused(cfg: CfgNode) -> None:
    with pytest.raises(NotImplementedError, match="full Detectron2"):
        get_detection_dataset_dicts(NAMES[0], proposal_files=["proposals.pkl"])
    cfg.MODEL.LOAD_PROPOSALS = True
    with pytest.raises(NotImplementedError, match="LOAD_PROPOSALS"):
        build_detection_train_loader(cfg)
    with pytest.raises(NotImplementedError, match="LOAD_PROPOSALS"):
        build_detection_test_loader(cfg, NAMES[0])
