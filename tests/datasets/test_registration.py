"""Declarations: what they may say, and what is registered with Detectron2."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cell_records import make_record
from cellseg.datasets import declarations as declarations_module
from cellseg.datasets import registration
from cellseg.datasets.dataset_dicts import record_to_dict
from cellseg.datasets.declarations import (
    builtin_declarations,
    read_declarations,
    read_declared_records,
)
from cellseg.datasets.registration import register_declarations
from cellseg.errors import DatasetError
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

SCENES = builders.all_scenes()


@pytest.fixture
def name() -> Iterator[str]:
    """A dataset name that nobody else has; what is registered by it is removed."""
    name = f"test{uuid.uuid4().hex}"
    yield name
    for registered in [n for n in DatasetCatalog.list() if n.startswith(name)]:
        DatasetCatalog.remove(registered)
        if registered in MetadataCatalog.list():
            MetadataCatalog.remove(registered)


def declare(folder: Path, name: str, **keys: Any) -> Path:
    """Write a declaration; a value of None leaves its key out."""
    content = {
        "format": "label_images",
        "root": "cells",
        "splits": "[train]",
        "classes": "[round, long]",
        **keys,
    }
    lines = [f"  {key}: {value}" for key, value in content.items() if value is not None]
    path = folder / f"{uuid.uuid4().hex}.yaml"
    path.write_text("\n".join([f"{name}:", *lines]))
    return path


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """A root of datasets with `cells/train`: touching cells of two classes, and an empty image."""
    root = tmp_path / "datasets"
    scenes = {"a": SCENES["touching"], "none": SCENES["no_cells"]}
    builders.write_label_images(root / "cells", "train", scenes)
    builders.write_classes(root / "cells", "train", "a", ["long", "round"])
    return root


def test_registered_dicts_and_metadata(tmp_path: Path, datasets: Path, name: str) -> None:
    path = declare(tmp_path, name)
    assert register_declarations([path], datasets) == [f"{name}_train"]
    first, empty = DatasetCatalog.get(f"{name}_train")
    assert first["file_name"] == str(datasets / "cells/train/images/a.png")
    assert (first["height"], first["width"], first["image_id"]) == (20, 30, "a")
    assert [cell["category_id"] for cell in first["annotations"]] == [1, 0]
    cell = first["annotations"][0]
    assert cell["bbox"] == [3, 4, 8, 10]
    assert cell["bbox_mode"] == BoxMode.XYXY_ABS
    assert cell["iscrowd"] == 0
    assert np.array_equal(coco_mask.decode(cell["segmentation"]), SCENES["touching"].masks[0])
    assert empty["annotations"] == []
    metadata = MetadataCatalog.get(f"{name}_train")
    assert metadata.thing_classes == ["round", "long"]
    assert metadata.evaluator_type == "cellseg"
    assert metadata.declaration == str(path)


def test_callers_cannot_spoil_what_was_read(tmp_path: Path, datasets: Path, name: str) -> None:
    register_declarations([declare(tmp_path, name)], datasets)
    entry = DatasetCatalog.get(f"{name}_train")[0]
    del entry["annotations"][0]["bbox"]
    entry["annotations"].clear()
    entry["file_name"] = "x"
    again = DatasetCatalog.get(f"{name}_train")[0]
    assert again["annotations"][0]["bbox"] == [3, 4, 8, 10]
    assert again["file_name"] != "x"


def test_files_are_read_when_asked_for_and_once(
    tmp_path: Path, datasets: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = declarations_module.read_records
    monkeypatch.setattr(
        declarations_module,
        "read_records",
        lambda *args, **options: calls.append(args) or original(*args, **options),
    )
    register_declarations([declare(tmp_path, name)], datasets)
    assert calls == []
    DatasetCatalog.get(f"{name}_train")
    DatasetCatalog.get(f"{name}_train")
    assert len(calls) == 1


def test_registering_again(tmp_path: Path, datasets: Path, name: str) -> None:
    path = declare(tmp_path, name)
    same_elsewhere = declare(tmp_path, name)
    for _ in range(2):
        register_declarations([path, same_elsewhere], datasets)
    changed = declare(tmp_path, name, classes="[round]")
    with pytest.raises(DatasetError, match="already declared differently") as caught:
        register_declarations([changed], datasets)
    assert str(changed) in str(caught.value)
    assert str(path) in str(caught.value)
    assert f"{name}_train" in str(caught.value)


def test_another_root_takes_effect(tmp_path: Path, datasets: Path, name: str) -> None:
    path = declare(tmp_path, name)
    register_declarations([path], tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="nowhere"):
        DatasetCatalog.get(f"{name}_train")
    register_declarations([path], datasets)
    assert len(DatasetCatalog.get(f"{name}_train")) == 2


def test_a_name_that_other_code_has_taken(tmp_path: Path, name: str) -> None:
    DatasetCatalog.register(f"{name}_train", lambda: [])
    with pytest.raises(DatasetError, match="already registered by other code"):
        register_declarations([declare(tmp_path, name)], tmp_path)


def test_root_from_the_environment_and_the_current_folder(
    tmp_path: Path, datasets: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = declare(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert registration.datasets_root() == Path("datasets")
    register_declarations([path])
    monkeypatch.chdir("/")  # the folder of the moment of registration counts
    assert len(DatasetCatalog.get(f"{name}_train")) == 2
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    assert registration.datasets_root() == datasets
    register_declarations([path])
    assert len(DatasetCatalog.get(f"{name}_train")) == 2


def test_errors_name_dataset_and_declaration(tmp_path: Path, name: str) -> None:
    path = declare(tmp_path, name)
    register_declarations([path], tmp_path)
    with pytest.raises(DatasetError) as caught:
        DatasetCatalog.get(f"{name}_train")
    for part in (f"{name}_train", str(path), str(tmp_path / "cells/train"), "DETECTRON2_DATASETS"):
        assert part in str(caught.value)


def test_splits_by_folder_and_options_and_defaults(tmp_path: Path) -> None:
    path = declare(tmp_path, "a", splits="{train: day_1, val: day_2}", images="raw", classes=None)
    train, val = read_declarations(path)
    assert (train.name, train.split, val.name, val.split) == ("a_train", "day_1", "a_val", "day_2")
    assert train.options == {"images": "raw"}
    assert train.classes == ("cell",)


def test_all_mistakes_of_a_declaration_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        """
typo: {format: label_images, root: x, splits: [a], clases: [b], colour: red}
types: {format: label_images, root: 3, splits: train, classes: cell}
twice: {format: label_images, root: x, splits: [a, a], classes: [b, b]}
missing: {format: instance_masks}
format: {format: label_image, root: x, splits: [a]}
number: 5
nothing: {root: x, splits: [a]}
list: {format: [a], root: x, splits: [a]}
drawn: {format: synthetic, splits: {a: {images: 0, seed: 1}}, image_hw: 128, touching: 2, root: x}
"""
    )
    with pytest.raises(DatasetError) as caught:
        read_declarations(path)
    text = str(caught.value)
    for part in (
        str(path),
        "typo.clases: unknown key; did you mean classes?",
        "typo.colour: unknown key; known are",
        "types.root: found 3, expected the name of a folder",
        "types.splits: found 'train', expected names and for each the name of a folder",
        "types.classes: found 'cell', expected a list of different names",
        "twice.splits: found ['a', 'a']",
        "twice.classes: found ['b', 'b']",
        "missing.root: missing, expected the name of a folder",
        "missing.splits: missing",
        "format.format: no dataset format 'label_image'; did you mean label_images?",
        "nothing.format: no dataset format '(none given)'; there are c",
        "list.format: no dataset format",
        "number: expected keys format, root, splits, classes; found 5",
        "drawn.splits: found",
        "{images: how many, seed: a number}",
        "drawn.image_hw: found 128, expected [height, width] in pixels",
        "drawn.touching: found 2, expected a share from 0 to 1",
        "drawn.root: unknown key",
        "datasets/README.md",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "expected the name of a dataset"),
        ("[1, 2]", "expected the name of a dataset"),
        ("a: {b: [", "cannot be read as YAML"),
        ("a: {format: x}\na: {format: y}", "a stands there twice"),
        (None, "No such file"),
    ],
)
def test_files_that_declare_nothing(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "odd.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=says) as caught:
        read_declarations(path)
    assert str(path) in str(caught.value)


def test_declarations_that_come_with_cellseg() -> None:
    paths = builtin_declarations()
    names = {declared.name for path in paths for declared in read_declarations(path)}
    assert names >= {
        f"{dataset}_{split}"
        for dataset in ("dsb2018", "dsb2018_fluo", "dsb2018_other")
        for split in ("train", "val", "devtest")
    }
    assert names >= {"synthetic_train", "synthetic_val"}


def test_real_dataset_through_the_catalog(real_datasets: Path) -> None:
    before = registration.datasets_root()
    register_declarations(builtin_declarations(), real_datasets)
    try:
        dicts = DatasetCatalog.get("dsb2018_other_devtest")
    finally:
        register_declarations(builtin_declarations(), before)
    assert len(dicts) == 11
    assert sum(len(entry["annotations"]) for entry in dicts) == 903
    assert all(os.path.isfile(entry["file_name"]) for entry in dicts)
    assert MetadataCatalog.get("dsb2018_other_devtest").thing_classes == ["nucleus"]


@pytest.fixture
def one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of datasets with `cells/all`: 40 images, `plate<k>_<n>` with n below 4."""
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    ids = [f"plate{plate}_{number}" for plate in range(10) for number in range(4)]
    root = tmp_path / "datasets"
    builders.write_label_images(root / "cells", "all", dict.fromkeys(ids, SCENES["touching"]))
    return root


SHARES = "{train: {from: all, share: 0.6}, val: {from: all, share: 0.4}}"


def ids_of(name: str) -> list[str]:
    return [entry["image_id"] for entry in DatasetCatalog.get(name)]


def test_splits_of_one_folder(tmp_path: Path, one_folder: Path, name: str) -> None:
    path = declare(
        tmp_path, name, splits=SHARES, classes=None, group_by=r"'^(plate\d+)'", split_seed="v1"
    )
    names = register_declarations([path], one_folder)
    assert names == [f"{name}_train", f"{name}_val"]
    train, val = (ids_of(one) for one in names)
    assert sorted([*train, *val]) == sorted(p.stem for p in one_folder.glob("cells/all/images/*"))
    plates = [{image_id.split("_")[0] for image_id in ids} for ids in (train, val)]
    assert plates[0].isdisjoint(plates[1])
    # As `sha256(["v1", "plate<k>"]) < 0.6 * 2 ** 256` gives them.
    assert plates[0] == {
        f"plate{k}"
        for k in range(10)
        if int(hashlib.sha256(f'["v1", "plate{k}"]'.encode()).hexdigest(), 16) < 0.6 * 2**256
    }
    assert MetadataCatalog.get(f"{name}_val").thing_classes == ["cell"]


def test_lists_of_ids_and_groups_in_files_below_root(
    tmp_path: Path, one_folder: Path, name: str
) -> None:
    (one_folder / "cells/val.txt").write_text("plate1_0\nplate1_1\n")
    (one_folder / "cells/plates.csv").write_text(
        "id,plate\n"
        + "".join(f"{p.stem},{p.stem[:6]}\n" for p in one_folder.glob("cells/all/images/*"))
    )
    path = declare(
        tmp_path,
        name,
        splits="{train: {from: all, ids: [plate2_0]}, val: {from: all, ids: val.txt}, all: all2}",
        classes=None,
        group_by="{csv: plates.csv, column: plate}",
    )
    register_declarations([path], one_folder)
    assert ids_of(f"{name}_train") == ["plate2_0"]
    assert ids_of(f"{name}_val") == ["plate1_0", "plate1_1"]
    with pytest.raises(DatasetError, match="all2: no such folder"):
        ids_of(f"{name}_all")
    (one_folder / "cells/val.txt").write_text("plate2_1\n")  # its sibling is in train
    register_declarations([path], tmp_path)
    register_declarations([path], one_folder)  # asks anew
    with pytest.raises(DatasetError) as caught:
        ids_of(f"{name}_train")
    assert f"{name}_train ({path}): " in str(caught.value)
    assert "group 'plate2' straddles" in str(caught.value)


def test_mistakes_in_splits_of_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        """
sum: {format: label_images, root: x, splits: {a: {from: y, share: 0.8}, b: {from: y, share: 0.3}}}
group: {format: label_images, root: x, splits: {a: {from: y, share: 1}}, group_by: 'plate'}
seed: {format: label_images, root: x, splits: [a], split_seed: 1.5, cache: maybe}
drawn: {format: synthetic, splits: {a: {images: 1, seed: 1}}, cache: true}
"""
    )
    with pytest.raises(DatasetError) as caught:
        read_declarations(path)
    for part in (
        "cannot be used (6)",
        "sum.splits: the shares add up to 1.1",
        "group.group_by: found 'plate', expected a regular expression with a group",
        "seed.split_seed: found 1.5, expected a text or a whole number",
        "seed.split_seed: is for splits such as {from: all, share: 0.8}; there are none",
        "seed.cache: found 'maybe', expected true or false",
        "drawn.cache: unknown key",
    ):
        assert part in str(caught.value)


def test_annotations_are_parsed_once(
    tmp_path: Path, one_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = declarations_module.read_records
    monkeypatch.setattr(
        declarations_module,
        "read_records",
        lambda *args, **options: calls.append(args) or original(*args, **options),
    )
    path = declare(tmp_path, name, splits=SHARES, classes=None)
    declarations = read_declarations(path)
    first = [read_declared_records(one, one_folder) for one in declarations]
    assert len(calls) == 1  # one folder, two splits
    assert [read_declared_records(one, one_folder) for one in declarations] == first
    assert len(calls) == 1
    without = declare(tmp_path, name, splits=SHARES, classes=None, cache="false")
    uncached = [read_declared_records(one, one_folder) for one in read_declarations(without)]
    assert uncached == first
    assert len(calls) == 3
    monkeypatch.setenv("CELLSEG_CACHE", "off")
    assert [read_declared_records(one, one_folder) for one in declarations] == first
    assert len(calls) == 5


def test_record_of_a_class_that_is_not_declared() -> None:
    record = make_record("a", Path("a.png"), np.ones((1, 1, 1), bool), classes=[1])
    with pytest.raises(DatasetError, match=r"a\.png: a cell of class 1 .*the dataset has 1: cell"):
        record_to_dict(record, ["cell"])


def test_coco_conversion_takes_ids_that_are_names(
    tmp_path: Path, datasets: Path, name: str
) -> None:
    """The COCO evaluator writes the dataset as COCO JSON and joins predictions by image id."""
    from detectron2.data.datasets.coco import convert_to_coco_json
    from pycocotools.coco import COCO

    register_declarations([declare(tmp_path, name)], datasets)
    path = tmp_path / "coco.json"
    convert_to_coco_json(f"{name}_train", str(path))
    coco = COCO(str(path))
    assert sorted(coco.getImgIds()) == ["a", "none"]
    cells = coco.loadAnns(coco.getAnnIds(imgIds=["a"]))
    assert [cell["area"] for cell in cells] == [30, 24]
    assert [cell["category_id"] for cell in cells] == [2, 1]
    assert [cell["bbox"] for cell in cells] == [[3, 4, 5, 6], [8, 4, 4, 6]]
