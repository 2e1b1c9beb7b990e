"""COCO's annotation files: every kind of segmentation, the writer, and damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, boxes_of, content_of, make_record, names_of
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.records import ImageRecord
from cellseg.datasets.dataset_dicts import record_to_dict
from cellseg.errors import DatasetError
from cellseg.io import read_records
from cellseg.io.coco_json import FORMAT
from pycocotools.coco import COCO

IMAGE_HW = (20, 30)
Json = dict[str, Any]


def annotation(number: int, segmentation: Any, **more: Any) -> Json:
    return {
        "id": number,
        "image_id": 1,
        "category_id": 7,
        "segmentation": segmentation,
        **more,
    }


def content(*annotations: Json) -> Json:
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": list(annotations),
    }


def square(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def uncompressed(mask: np.ndarray) -> Json:
    """Run lengths by counting pixel after pixel, column by column."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Any], Path]:
    """Write an annotation file with one image of 30 x 20 pixels; gives the root."""

    def write(tree: Any) -> Path:
        builders.write_png(tmp_path / "train" / "images" / "a.png", np.zeros(IMAGE_HW, np.uint8))
        text = tree if isinstance(tree, str) else json.dumps(tree)
        (tmp_path / "train" / "annotations.json").write_text(text)
        return tmp_path

    return write


def read_one(root: Path, **options: Any) -> ImageRecord:
    (record,) = read_records("coco_json", root, "train", **options)
    assert (record.image_id, record.image_hw) == ("a", IMAGE_HW)
    return record


def test_every_kind_of_segmentation_in_the_order_of_the_file(
    put: Callable[[Any], Path],
) -> None:
    masks = [
        builders.rectangle(IMAGE_HW, 2, 3, 7, 9),
        builders.with_hole(IMAGE_HW).masks[0],
        builders.two_pieces(IMAGE_HW).masks[0],
        builders.rectangle(IMAGE_HW, 0, 0, 30, 20),
        builders.rectangle(IMAGE_HW, 28, 18, 30, 20),
    ]
    root = put(
        content(
            annotation(5, uncompressed(masks[0]), bbox=[0, 0, 1, 1]),
            annotation(4, [square(2, 3, 7, 9)]),
            annotation(3, bitmap_to_rle(masks[1])),
            annotation(2, [square(2, 2, 4, 5), square(20, 12, 24, 15)], iscrowd=1),
            annotation(1, uncompressed(masks[3])),
            annotation(0, [square(28, 18, 40, 25)], bbox=None),
        )
    )
    record = read_one(root)
    expected = [masks[0], masks[0], masks[1], masks[2], masks[3], masks[4]]
    assert np.array_equal(bitmaps_of(record), expected)
    assert record.cells.is_crowd.tolist() == [False, False, False, True, False, False]
    assert boxes_of(record) == [
        (2, 3, 7, 9),
        (2, 3, 7, 9),
        (4, 4, 13, 13),
        (2, 2, 24, 15),
        (0, 0, 30, 20),
        (28, 18, 30, 20),
    ]


def test_run_lengths_with_zeros_between_become_the_usual_ones(put: Callable[[Any], Path]) -> None:
    record = read_one(put(content(annotation(1, {"size": [20, 30], "counts": [20, 3, 0, 2, 575]}))))
    mask = builders.rectangle(IMAGE_HW, 1, 0, 2, 5)
    assert record.cells.to_rles() == [bitmap_to_rle(mask)]
    assert boxes_of(record) == [(1, 0, 2, 5)]


def test_crowds_reach_detectron2(put: Callable[[Any], Path]) -> None:
    root = put(
        content(annotation(1, [square(2, 3, 7, 9)], iscrowd=1), annotation(2, [square(2, 3, 7, 9)]))
    )
    (record,) = read_records("coco_json", root, "train")
    entry = record_to_dict(record, ["cell"])
    assert [cell["iscrowd"] for cell in entry["annotations"]] == [1, 0]


def test_images_without_annotations_and_without_sizes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        builders.write_png(tmp_path / "s" / f"{name}.png", np.zeros(IMAGE_HW, np.uint8))
    tree = {
        "images": [{"id": 10, "file_name": "b.png"}, {"id": 2, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "x"}, {"id": 900, "name": "y"}, {"id": 5, "name": "z"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 900, "segmentation": [square(0, 0, 3, 3)]},
            {"image_id": 10, "category_id": 3, "segmentation": [square(0, 0, 3, 3)]},
        ],
    }
    (tmp_path / "s.json").write_text(json.dumps(tree))
    records = read_records("coco_json", tmp_path, "s.json", images="s", classes=["x", "y"])
    assert [record.image_id for record in records] == ["a", "b"]
    assert [record.image_hw for record in records] == [IMAGE_HW] * 2
    assert [names_of(record, ["x", "y"]) for record in records] == [[], ["y", "x"]]
    merged = read_records("coco_json", tmp_path, "s.json", images="s")
    assert merged[1].cells.classes.tolist() == [0, 0]
    assert FORMAT.find_classes is not None
    assert FORMAT.find_classes(tmp_path, "s.json", {}) == ("x", "y", "z")


def test_livecell_folders_and_annotations_by_id(tmp_path: Path) -> None:
    names = ["A172_Phase_1.tif", "BV2_Phase_1.tif"]
    for name in names:
        path = tmp_path / "images" / "train_val" / name.split("_")[0] / name
        builders.write_png(path, np.zeros(IMAGE_HW, np.uint8))
    tree = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cell", "supercategory": "cell"}],
        "annotations": {
            "17": {"id": 17, "image_id": 1, "category_id": 1, "segmentation": [square(1, 1, 4, 4)]}
        },
    }
    file = tmp_path / "annotations" / "LIVECell" / "train.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(tree))
    records = read_records("coco_json", tmp_path, "annotations/LIVECell/train.json")
    assert [record.image_path.parent.name for record in records] == ["A172", "BV2"]
    assert [len(record.cells) for record in records] == [0, 1]


def test_images_of_equal_names_in_two_folders(tmp_path: Path) -> None:
    for day in ("day_1", "day_2"):
        builders.write_png(
            tmp_path / "train" / "images" / day / "a.png", np.zeros(IMAGE_HW, np.uint8)
        )
    tree = content()
    tree["images"] = [{"id": k, "file_name": f"day_{k}/a.png"} for k in (1, 2)]
    file = tmp_path / "train" / "annotations.json"
    file.write_text(json.dumps(tree))
    records = read_records("coco_json", tmp_path, "train")
    assert [record.image_id for record in records] == ["day_1_a", "day_2_a"]
    tree["images"][1]["file_name"] = "a.png"
    file.write_text(json.dumps(tree))
    with pytest.raises(DatasetError, match=r"day_1.a\.png, .*day_2.a\.png; looked for in"):
        read_records("coco_json", tmp_path, "train")


def test_polygons_without_a_pixel_are_left_out_with_a_warning(
    put: Callable[[Any], Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = put(
        content(
            annotation(8, [[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]), annotation(9, [square(1, 1, 3, 3)])
        )
    )
    assert len(read_one(root).cells) == 1
    assert "annotation 8: polygons without a pixel" in caplog.text


def replaced(**parts: Any) -> Json:
    return {**content(annotation(1, [square(1, 1, 3, 3)])), **parts}


IMAGE = {"id": 1, "file_name": "a.png"}
SQUARE = [square(1, 1, 3, 3)]
DAMAGED: list[tuple[str, Any, str]] = [
    ("no JSON", '{"images": [', "cannot be read as JSON"),
    ("a list", [], "expected an object with images, annotations, categories"),
    ("no categories", {"images": [], "annotations": []}, "found images, annotations"),
    ("annotations are a number", replaced(annotations=3), "annotations is not a list"),
    ("no images", replaced(images=[]), "there are no images in it"),
    ("image id is a text", replaced(images=[{**IMAGE, "id": "1"}]), "no integer as id.*'1'"),
    ("image id is missing", replaced(images=[{"file_name": "a.png"}]), "no integer as id.*None"),
    ("image id twice", replaced(images=[IMAGE, IMAGE]), r"ids \[1\] occur several times"),
    (
        "image name twice",
        replaced(images=[IMAGE, {**IMAGE, "id": 2}]),
        "several of the images are this file",
    ),
    ("no file name", replaced(images=[{"id": 1}]), "id 1 has no file_name"),
    ("no such image", replaced(images=[{**IMAGE, "file_name": "b.png"}]), "no such image"),
    ("another size", replaced(images=[{**IMAGE, "width": 31, "height": 20}]), "says 31 x 20"),
    ("annotation id is a text", content(annotation("x", SQUARE)), "annotations: 1 have no integer"),
    (
        "annotation id twice",
        content(annotation(4, SQUARE), annotation(4, SQUARE)),
        r"annotations: ids \[4\] occur several times",
    ),
    ("unknown image", content(annotation(4, SQUARE, image_id=2)), "4: there is no image 2"),
    ("image id in a list", content(annotation(4, SQUARE, image_id=[1])), r"no image \[1\]"),
    ("unknown category", content(annotation(4, SQUARE, category_id=8)), "category_id 8 is not"),
    (
        "category id twice",
        replaced(categories=[{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]),
        r"categories: ids \[7\] occur",
    ),
    ("category without a name", replaced(categories=[{"id": 7}]), "the name None is no text"),
    ("no segmentation", content(annotation(4, [])), r"4: segmentation is \[\]"),
    ("a text", content(annotation(4, "abc")), "4: segmentation is abc"),
    ("two points", content(annotation(4, [[1, 1, 2, 2]])), "4: a polygon is a list"),
    ("odd numbers", content(annotation(4, [[1, 1, 2, 2, 3, 3, 4]])), "4: a polygon is a list"),
    ("no numbers", content(annotation(4, [[1, 1, 2, 2, 3, "x"]])), "not all numbers"),
    ("far away", content(annotation(4, [[1, 1, 2, 2, 3, 1e12]])), "far outside the image"),
    ("not finite", content(annotation(4, [[1, 1, 2, 2, 3, float("nan")]])), "not finite"),
    (
        "another size of run lengths",
        content(annotation(4, {"size": [30, 20], "counts": [600]})),
        r"4: run lengths of size \[30, 20\]; the image has \[20, 30\]",
    ),
    (
        "run lengths too short",
        content(annotation(4, {"size": [20, 30], "counts": [20, 3]})),
        "runs that add up to 23",
    ),
    (
        "no pixel",
        content(annotation(4, {"size": [20, 30], "counts": [600]})),
        "annotation 4: the mask is empty",
    ),
    ("no counts", content(annotation(4, {"size": [20, 30]})), "an RLE is"),
    ("broken text", content(annotation(4, {"size": [20, 30], "counts": "PQR"})), "RLE"),
    ("iscrowd is 2", content(annotation(4, SQUARE, iscrowd=2)), "iscrowd is 2"),
]


@pytest.mark.parametrize(
    ("tree", "says"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED]
)
def test_damaged_files(put: Callable[[Any], Path], tree: Any, says: str) -> None:
    root = put(tree)
    with pytest.raises(DatasetError, match=says) as caught:
        read_records("coco_json", root, "train")
    assert str(root) in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="train: no such folder"):
        read_records("coco_json", tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match=r"annotations\.json: No such file"):
        read_records("coco_json", tmp_path, "train")
    with pytest.raises(DatasetError, match=r"x\.json: No such file"):
        read_records("coco_json", tmp_path, "train/x.json")


def test_classes_have_to_be_declared(put: Callable[[Any], Path]) -> None:
    with pytest.raises(DatasetError, match="unknown class 'cell'; did you mean cells"):
        read_records("coco_json", put(content(annotation(1, SQUARE))), "train", classes=["cells"])


def scene_record(folder: Path) -> ImageRecord:
    """Overlaps, a hole, two pieces, a crowd and two classes, in a 16-bit image."""
    scene = builders.sixteen_bit(IMAGE_HW)
    path = builders.write_png(folder / "b.png", scene.image)
    masks = [
        *builders.overlapping(IMAGE_HW).masks,
        builders.with_hole(IMAGE_HW).masks[0],
        builders.two_pieces(IMAGE_HW).masks[0],
    ]
    flags = [False, True, False, False]
    return make_record("b", path, masks, classes=[1, 0, 1, 0], is_crowd=flags)


def test_written_and_read_again(tmp_path: Path) -> None:
    record = scene_record(tmp_path)
    empty = make_record("a", record.image_path, [], IMAGE_HW)
    assert FORMAT.write is not None
    FORMAT.write([empty, record], tmp_path, "new", ("x", "y"), {})
    back = read_records("coco_json", tmp_path, "new", classes=["x", "y"])
    assert [one.image_id for one in back] == ["a", "b"]
    assert content_of(back[0]) == content_of(empty)
    assert content_of(back[1]) == content_of(record)
    assert boxes_of(back[1]) == [(2, 2, 10, 10), (6, 6, 14, 14), (4, 4, 13, 13), (2, 2, 24, 15)]
    assert back[1].image_path == tmp_path / "new" / "images" / "b.png"
    assert back[1].image_path.read_bytes() == record.image_path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "new"]


def test_written_files_are_good_for_pycocotools(tmp_path: Path) -> None:
    record = scene_record(tmp_path)
    assert FORMAT.write is not None
    FORMAT.write([record], tmp_path, "new", ("x", "y"), {})
    coco = COCO(str(tmp_path / "new" / "annotations.json"))
    assert [coco.cats[k]["name"] for k in coco.getCatIds()] == ["x", "y"]
    found = coco.loadAnns(coco.getAnnIds())
    masks = bitmaps_of(record)
    assert np.array_equal([coco.annToMask(one) for one in found], masks)
    assert [one["area"] for one in found] == [64, 64, 72, 18]
    assert found[0]["bbox"] == [2, 2, 8, 8]
    assert [one["iscrowd"] for one in found] == [0, 1, 0, 0]
    assert [one["category_id"] for one in found] == [2, 1, 2, 1]


def test_nothing_half_written(tmp_path: Path) -> None:
    record = scene_record(tmp_path)
    assert FORMAT.write is not None
    with pytest.raises(DatasetError, match=r"a cell of class 1 \(from 0\); there are 1: x"):
        FORMAT.write([record], tmp_path, "new", ("x",), {})
    gone = make_record("c", tmp_path / "missing.png", [], IMAGE_HW)
    with pytest.raises(DatasetError, match=r"missing\.png: cannot be copied"):
        FORMAT.write([record, gone], tmp_path, "new", ("x", "y"), {})
    with pytest.raises(DatasetError, match="image ids that occur twice: b"):
        FORMAT.write([record, record], tmp_path, "new", ("x", "y"), {})
    for name in ("", "d/e", ".."):
        strange = make_record(name, record.image_path, [], IMAGE_HW)
        with pytest.raises(DatasetError, match="cannot be a file's name"):
            FORMAT.write([strange], tmp_path, "new", ("x",), {})
    with pytest.raises(DatasetError, match=r"without \.json"):
        FORMAT.write([record], tmp_path, "new.json", ("x", "y"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
    with pytest.raises(DatasetError, match="cannot be written"):
        FORMAT.write([record], tmp_path / "b.png", "new", ("x", "y"), {})
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "precious.txt").touch()
    with pytest.raises(DatasetError, match="is there already; nothing is written over"):
        FORMAT.write([record], tmp_path, "new", ("x", "y"), {})
    (tmp_path / "new" / "precious.txt").unlink()
    FORMAT.write([record], tmp_path, "new", ("x", "y"), {})
    assert (tmp_path / "new" / "annotations.json").is_file()
