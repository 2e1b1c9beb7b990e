"""Names of datasets and what is known about them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

NAMES = ("catalog_test_cells", "catalog_test_nuclei")


@pytest.fixture(autouse=True)
def _forget_names() -> Iterator[None]:
    yield
    for name in NAMES:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def test_a_dataset_is_loaded_each_time_it_is_asked_for() -> None:
    calls = []
    DatasetCatalog.register(NAMES[0], lambda: calls.append(1) or [{"image_id": len(calls)}])
    assert calls == []
    assert DatasetCatalog.get(NAMES[0]) == [{"image_id": 1}]
    assert DatasetCatalog.get(NAMES[0]) == [{"image_id": 2}]


def test_names_are_listed_and_can_be_forgotten() -> None:
    before = DatasetCatalog.list()
    for name in NAMES:
        DatasetCatalog.register(name, list)
    assert DatasetCatalog.list() == [*before, *NAMES]
    assert NAMES[0] in DatasetCatalog
    assert NAMES[1] in str(DatasetCatalog)
    DatasetCatalog.remove(NAMES[0])
    assert DatasetCatalog.pop(NAMES[1]) is list
    assert DatasetCatalog.list() == before
    with pytest.raises(KeyError):
        DatasetCatalog.remove(NAMES[0])


def test_a_name_is_taken_once() -> None:
    DatasetCatalog.register(NAMES[0], list)
    with pytest.raises(AssertionError, match="already registered"):
        DatasetCatalog.register(NAMES[0], list)


def test_only_functions_are_registered() -> None:
    with pytest.raises(AssertionError):
        DatasetCatalog.register(NAMES[0], [{"image_id": 1}])
    assert NAMES[0] not in DatasetCatalog


def test_an_unknown_dataset_is_answered_with_the_known_ones() -> None:
    DatasetCatalog.register(NAMES[0], list)
    with pytest.raises(KeyError, match=NAMES[0]):
        DatasetCatalog.get("catalog_test_cell")


@pytest.mark.embedded_only
def test_an_unknown_dataset_is_answered_with_the_nearest_first() -> None:
    DatasetCatalog.register(NAMES[0], list)
    DatasetCatalog.register(NAMES[1], list)
    with pytest.raises(KeyError, match=f"Did you mean '{NAMES[0]}'"):
        DatasetCatalog.get("catalog_test_cell")


def test_metadata_is_one_object_per_name() -> None:
    first = MetadataCatalog.get(NAMES[0])
    first.thing_classes = ["cell"]
    assert MetadataCatalog.get(NAMES[0]) is first
    assert first.name == NAMES[0]
    assert not hasattr(MetadataCatalog.get(NAMES[1]), "thing_classes")
    assert set(NAMES) <= set(MetadataCatalog.list())
    assert NAMES[0] in str(MetadataCatalog)
    MetadataCatalog.remove(NAMES[0])
    assert MetadataCatalog.get(NAMES[0]) is not first
    with pytest.raises(AssertionError):
        MetadataCatalog.get("")


def test_metadata_is_set_once() -> None:
    metadata = Metadata(name="cells")
    assert metadata.set(thing_classes=["cell"], evaluator_type="coco") is metadata
    metadata.thing_classes = ["cell"]
    with pytest.raises(AssertionError, match="thing_classes"):
        metadata.thing_classes = ["nucleus"]
    assert metadata.thing_classes == ["cell"]


def test_metadata_that_was_never_set() -> None:
    metadata = Metadata(name="cells")
    with pytest.raises(AttributeError, match="cells"):
        _ = metadata.thing_classes
    metadata.evaluator_type = "coco"
    with pytest.raises(AttributeError, match="evaluator_type"):
        _ = metadata.thing_classes
    assert metadata.get("thing_classes") is None
    assert metadata.get("thing_classes", []) == []
    assert metadata.get("evaluator_type", "none") == "coco"


def test_metadata_as_dict_is_a_copy() -> None:
    metadata = Metadata(name="cells").set(thing_classes=["cell"])
    values = metadata.as_dict()
    assert values == {"name": "cells", "thing_classes": ["cell"]}
    values["thing_classes"] = []
    assert metadata.thing_classes == ["cell"]


def test_metadata_survives_copying_and_pickling() -> None:
    metadata = Metadata(name="cells").set(thing_classes=["cell"])
    assert copy.deepcopy(metadata).as_dict() == metadata.as_dict()
    assert pickle.loads(pickle.dumps(metadata)).as_dict() == metadata.as_dict()


def test_old_names_of_metadata() -> None:
    metadata = Metadata(name="cells")
    metadata.class_names = ["cell"]
    assert metadata.thing_classes == ["cell"]
    assert metadata.class_names == ["cell"]
