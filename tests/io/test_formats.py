"""From files on disk to records, and every way in which files can be wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cell_records import bitmaps_of, boxes_of, names_of
from cellseg.cells.records import ImageRecord
from cellseg.cells.synthetic import make_cells
from cellseg.errors import DatasetError
from cellseg.files import cache_root
from cellseg.io import FORMATS, read_records
from cellseg.io import synthetic as synthetic_format
from PIL import Image

SCENES = builders.all_scenes()


@pytest.fixture(scope="module")
def masks_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.write_instance_masks(tmp_path_factory.mktemp("masks"), "train", SCENES)


@pytest.fixture(scope="module")
def labels_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.write_label_images(tmp_path_factory.mktemp("labels"), "train", SCENES)


def test_instance_masks_of_all_scenes(masks_root: Path) -> None:
    records = read_records("instance_masks", masks_root, "train", classes=["nucleus"])
    assert [record.image_id for record in records] == sorted(SCENES)
    for record in records:
        scene = SCENES[record.image_id]
        assert record.image_path == (
            masks_root / "train" / record.image_id / "images" / f"{record.image_id}.png"
        )
        assert record.image_hw == scene.labels.shape
        # overlaps stay, holes stay, two pieces stay one cell
        assert np.array_equal(bitmaps_of(record), scene.masks)
        assert set(record.cells.classes.tolist()) <= {0}


def test_label_images_of_all_scenes(labels_root: Path) -> None:
    records = read_records("label_images", labels_root, "train")
    assert [record.image_id for record in records] == sorted(SCENES)
    for record in records:
        labels = SCENES[record.image_id].labels
        expected = [labels == label for label in range(1, labels.max() + 1)]
        assert record.image_hw == labels.shape
        assert np.array_equal(bitmaps_of(record), np.array(expected).reshape(-1, *labels.shape))
        assert set(record.cells.classes.tolist()) <= {0}


def test_boxes_by_hand(labels_root: Path) -> None:
    by_id = {r.image_id: r for r in read_records("label_images", labels_root, "train")}
    assert boxes_of(by_id["touching"]) == [(3, 4, 8, 10), (8, 4, 12, 10)]
    assert boxes_of(by_id["one_pixel"]) == [(7, 5, 8, 6)]
    assert boxes_of(by_id["no_cells"]) == []


def test_label_images_as_tiff_with_gaps_and_many_cells(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "all" / folder).mkdir(parents=True)
    labels = builders.labels_beyond_uint16()[:, ::2]  # only odd labels
    tifffile.imwrite(tmp_path / "all/labels/a.tif", labels)
    Image.fromarray(np.zeros(labels.shape, np.uint8)).save(tmp_path / "all/images/a.jpg")
    (record,) = read_records("label_images", tmp_path, "all")
    assert len(record.cells) == 33_000
    assert boxes_of(record)[1] == (1, 0, 2, 1)


def test_other_names_of_folders_and_files_that_do_not_matter(tmp_path: Path) -> None:
    builders.write_label_images(tmp_path, "s", {"a": SCENES["touching"]})
    (tmp_path / "s" / "images").rename(tmp_path / "s" / "raw")
    (tmp_path / "s" / "labels").rename(tmp_path / "s" / "truth")
    for junk in ("Thumbs.db", "._a.png", "notes.txt"):
        (tmp_path / "s" / "raw" / junk).write_text("junk")
    (record,) = read_records("label_images", tmp_path, "s", images="raw", labels="truth")
    assert len(record.cells) == 2


def test_images_are_not_decoded(tmp_path: Path) -> None:
    builders.write_instance_masks(tmp_path, "s", {"a": SCENES["touching"]})
    path = tmp_path / "s/a/images/a.png"
    path.write_bytes(path.read_bytes()[:50])  # header only
    (record,) = read_records("instance_masks", tmp_path, "s")
    assert record.image_hw == (20, 30)


def test_masks_with_other_values_and_channels(tmp_path: Path) -> None:
    scene = SCENES["touching"]
    builders.write_instance_masks(tmp_path, "s", {"a": scene})
    folder = tmp_path / "s/a/masks"
    first, second = scene.masks.astype(np.uint8)
    builders.write_png(folder / "000.png", first)
    rgba = np.dstack([second * 0, second * 7, second * 0, np.full_like(second, 255)])
    builders.write_png(folder / "001.png", rgba)
    (record,) = read_records("instance_masks", tmp_path, "s")
    assert np.array_equal(bitmaps_of(record), scene.masks)


def test_everything_wrong_with_instance_masks_in_one_message(tmp_path: Path) -> None:
    good = SCENES["touching"]
    names = ("broken_image", "broken_mask", "empty_mask", "good", "no_image", "no_masks")
    builders.write_instance_masks(
        tmp_path, "s", dict.fromkeys((*names, "two_images", "wrong_size"), good)
    )
    split = tmp_path / "s"
    (split / "broken_image/images/broken_image.png").write_bytes(b"nonsense")
    (split / "broken_mask/masks/001.png").write_bytes(b"")
    builders.write_png(split / "empty_mask/masks/000.png", np.zeros((20, 30), np.uint8))
    builders.write_png(split / "empty_mask/masks/001.png", np.zeros((20, 30), np.uint8))
    (split / "no_image/images/no_image.png").unlink()
    for path in (split / "no_masks/masks").iterdir():
        path.unlink()
    (split / "no_masks/masks").rmdir()
    builders.write_png(split / "two_images/images/b.png", good.image)
    builders.write_png(split / "wrong_size/masks/000.png", np.ones((30, 20), np.uint8))
    with pytest.raises(DatasetError) as caught:
        read_records("instance_masks", tmp_path, "s")
    text = str(caught.value)
    assert "problems (8)" in text
    for offender in (
        "broken_image/images/broken_image.png: cannot be read as an image",
        "broken_mask/masks/001.png: the file is empty",
        "empty_mask/masks/000.png: the mask is empty",
        "empty_mask/masks/001.png: the mask is empty",
        "no_image/images: expected one image; found none",
        "no_masks/masks: no such folder; an image without cells has an empty one",
        "two_images/images: expected one image; found b.png, two_images.png",
        "wrong_size/masks/000.png: the mask is 20 x 30 (width x height), the image 30 x 20",
    ):
        assert str(split / offender) in text
    assert str(split / "good") not in text


def test_everything_wrong_with_pairs_in_one_message(tmp_path: Path) -> None:
    good = SCENES["touching"]
    builders.write_label_images(tmp_path, "s", dict.fromkeys(("a", "b", "c"), good))
    split = tmp_path / "s"
    (split / "labels/a.png").unlink()
    (split / "images/b.png").unlink()
    tifffile.imwrite(split / "images/c.tif", good.image)
    tifffile.imwrite(split / "labels/c.tif", good.labels)
    with pytest.raises(DatasetError) as caught:
        read_records("label_images", tmp_path, "s")
    text = str(caught.value)
    assert "problems (4)" in text
    assert f"{split / 'images/a.png'}: no label image labels/a.png or .tif" in text
    assert f"{split / 'labels/b.png'}: no image images/b.*" in text
    assert f"{split / 'images/c.tif'}: same id as c.png" in text
    assert f"{split / 'labels/c.tif'}: same id as c.png" in text


def test_everything_wrong_with_label_images_in_one_message(tmp_path: Path) -> None:
    good = SCENES["touching"]
    builders.write_label_images(tmp_path, "s", dict.fromkeys(("a", "b", "c", "d", "e"), good))
    split = tmp_path / "s"
    builders.write_png(split / "labels/a.png", good.labels.T)
    colours = np.dstack([good.labels.astype(np.uint8)] * 3) + np.uint8([9, 8, 7])
    builders.write_png(split / "labels/b.png", colours)
    (split / "labels/c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (split / "images/d.png").write_bytes(b"nonsense")
    (split / "labels/e.png").unlink()
    tifffile.imwrite(split / "labels/e.tif", -good.labels.astype(np.int32))
    with pytest.raises(DatasetError) as caught:
        read_records("label_images", tmp_path, "s")
    text = str(caught.value)
    assert "problems (5)" in text
    assert "labels/a.png: the label image is 20 x 30 (width x height), the image 30 x 20" in text
    assert "labels/b.png: a picture of 3 colours, none of them black" in text
    assert "labels/c.png: cannot be read as an image" in text
    assert "images/d.png: cannot be read as an image" in text
    assert "labels/e.tif: a label image has no negative values" in text


@pytest.mark.parametrize("format_name", ["instance_masks", "label_images"])
def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/some/where")
    with pytest.raises(DatasetError) as caught:
        read_records(format_name, tmp_path / "absent", "train")
    text = str(caught.value)
    assert str(tmp_path / "absent" / "train") in text
    assert "does not exist either" in text
    assert "$DETECTRON2_DATASETS, which is /some/where" in text
    assert "datasets/README.md" in text
    monkeypatch.delenv("DETECTRON2_DATASETS")
    with pytest.raises(DatasetError, match="is not set") as caught:
        read_records(format_name, tmp_path, "train")
    assert "does not exist either" not in str(caught.value)


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(DatasetError, match="no folders in it; expected one per image"):
        read_records("instance_masks", tmp_path, "s")
    with pytest.raises(DatasetError, match=r"s/images: no such folder"):
        read_records("label_images", tmp_path, "s")
    for name in ("images", "labels"):
        (tmp_path / "s" / name).mkdir()
    with pytest.raises(DatasetError, match=r"s/images: no images in it"):
        read_records("label_images", tmp_path, "s")


def test_classes_of_instance_masks(tmp_path: Path) -> None:
    scene = SCENES["touching"]
    builders.write_instance_masks(tmp_path, "s", {"a": scene})
    masks = tmp_path / "s/a/masks"
    for name, number in (("round", 1), ("long", 0)):
        (masks / name).mkdir()
        (masks / f"00{number}.png").rename(masks / name / f"00{number}.png")
    (record,) = read_records("instance_masks", tmp_path, "s", classes=["round", "long"])
    assert names_of(record, ["round", "long"]) == ["round", "long"]
    assert np.array_equal(bitmaps_of(record), scene.masks[::-1])
    with pytest.raises(DatasetError, match="masks/long: masks of an unknown class"):
        read_records("instance_masks", tmp_path, "s", classes=["round"])
    builders.write_png(masks / "stray.png", scene.masks[0].astype(np.uint8))
    with pytest.raises(DatasetError, match=r"stray\.png: mask of no class; expected folders"):
        read_records("instance_masks", tmp_path, "s", classes=["round", "long"])


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    builders.write_label_images(
        tmp_path, "s", {"a": SCENES["touching"], "none": SCENES["no_cells"]}
    )
    builders.write_classes(tmp_path, "s", "a", ["round", "long"])
    return tmp_path


def test_classes_of_label_images(two_classes: Path) -> None:
    record, empty = read_records("label_images", two_classes, "s", classes=["long", "round"])
    assert names_of(record, ["long", "round"]) == ["round", "long"]
    assert len(empty.cells) == 0
    # with one class there is nothing to look up
    record, _ = read_records("label_images", two_classes, "s", classes=["any"])
    assert record.cells.classes.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"a\.csv: No such file"),
        ("label;class\n1;round", r"expected a first line `label,class`"),
        ("label,class\none,round\n", r"line 2: label 'one'; expected a whole number"),
        ("label,class\n1\n2,long\n", r"expected a first line `label,class`"),
        ("label,class\n1,round\n", r"no class for labels \[2\]"),
        ("label,class\n1,round\n2,long\n9,long\n", r"labels \[9\] are not in the label image"),
        ("label,class\n1,round\n2,lomg\n", r"unknown class 'lomg'; did you mean long\?"),
        ("label,class\n1,round\n2,xyz\n", r"unknown class 'xyz'; declared are long, round"),
        ("label,class\n1,round\n2,long\n2,round\n", "several rows"),
    ],
)
def test_class_files_that_do_not_fit(two_classes: Path, content: str | None, says: str) -> None:
    path = two_classes / "s/classes/a.csv"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(DatasetError, match=says) as caught:
        read_records("label_images", two_classes, "s", classes=["long", "round"])
    assert str(path) in str(caught.value)


def test_unknown_format() -> None:
    with pytest.raises(DatasetError, match="did you mean label_images"):
        read_records("label_image", "x", "y")
    with pytest.raises(DatasetError, match=", ".join(sorted(FORMATS))):
        read_records("parquet", "x", "y")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "synthetic"


SPLIT = {"images": 3, "seed": 7}


def test_synthetic_images_are_drawn_once_and_exact(cache: Path) -> None:
    records = read_records("synthetic", "", SPLIT, image_hw=[40, 60])
    assert [record.image_id for record in records] == [f"cells_{k:05d}" for k in range(3)]
    for number, record in enumerate(records):
        expected = make_cells(np.random.default_rng([7, number]), (40, 60))
        assert np.array_equal(np.asarray(Image.open(record.image_path)), expected.image)
        for label, mask in enumerate(bitmaps_of(record), 1):
            assert np.array_equal(mask, expected.labels == label)
    written = records[0].image_path.stat().st_mtime_ns
    assert read_records("synthetic", "", SPLIT, image_hw=[40, 60]) == records
    assert records[0].image_path.stat().st_mtime_ns == written
    assert len(list(cache.iterdir())) == 1  # no temporary folder stays
    read_records("synthetic", "", {"images": 3, "seed": 8}, image_hw=[40, 60])
    assert len(list(cache.iterdir())) == 2


@pytest.mark.usefixtures("cache")
def test_synthetic_options_and_classes_by_size() -> None:
    (record,) = read_records(
        "synthetic",
        "",
        {"images": 1, "seed": 0},
        classes=["tiny", "huge"],
        num_cells=30,
        touching=0,
        dtype="uint16",
    )
    assert record.image_hw == (128, 128)
    areas = {
        name: [
            mask.sum() for mask, k in zip(bitmaps_of(record), record.cells.classes) if k == number
        ]
        for number, name in enumerate(("tiny", "huge"))
    }
    assert np.median(areas["tiny"]) < np.median(areas["huge"])
    assert np.asarray(Image.open(record.image_path)).dtype == np.uint16
    with pytest.raises(DatasetError, match="one class, or two by size"):
        read_records("synthetic", "", SPLIT, classes=["a", "b", "c"])


def test_synthetic_asked_for_by_several_at_once(cache: Path) -> None:
    results: list[list[ImageRecord]] = []
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        results.append(read_records("synthetic", "", SPLIT))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
    assert len(list(cache.iterdir())) == 1


def test_synthetic_drawing_that_breaks_off_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_format, "make_cells", fail)
        with pytest.raises(DatasetError, match=r"No space left.*CELLSEG_CACHE"):
            read_records("synthetic", "", SPLIT)
    assert list(cache.iterdir()) == []
    assert len(read_records("synthetic", "", SPLIT)) == 3


def test_synthetic_cache_that_takes_no_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        read_records("synthetic", "", SPLIT)
    assert list(cache.iterdir()) == []


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CELLSEG_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "cellseg"


# Counts of the dataset's own description.
DSB2018 = {
    ("instance_masks", "", "train"): (60, 4532),
    ("instance_masks", "", "val"): (12, 590),
    ("instance_masks", "", "devtest"): (12, 875),
    ("label_images", "fluo", "train"): (321, 14_683),
    ("label_images", "fluo", "val"): (52, 2_046),
    ("label_images", "fluo", "devtest"): (53, 2_172),
    ("label_images", "other", "train"): (76, 3_190),
    ("label_images", "other", "val"): (15, 918),
    ("label_images", "other", "devtest"): (11, 903),
}


@pytest.mark.parametrize(("format_name", "part", "split"), DSB2018)
def test_counts_of_dsb2018(real_datasets: Path, format_name: str, part: str, split: str) -> None:
    records = read_records(format_name, real_datasets / "dsb2018" / part, split)
    cells = sum(len(record.cells) for record in records)
    assert (len(records), cells) == DSB2018[format_name, part, split]


def test_dsb2018_folders_equal_the_competitions_run_lengths(real_datasets: Path) -> None:
    """Kaggle's RLE: pairs of 1-based start and length, column-major, in order of mask names."""
    rows: dict[str, list[str]] = {}
    for line in (real_datasets / "dsb2018/rle/val_labels.csv").read_text().splitlines()[1:]:
        image_id, runs = line.split(",")
        rows.setdefault(image_id, []).append(runs)
    for record in read_records("instance_masks", real_datasets / "dsb2018", "val"):
        height, width = record.image_hw
        for mask, runs in zip(bitmaps_of(record), rows.pop(record.image_id), strict=True):
            expected = np.zeros(height * width, bool)
            numbers = [int(number) for number in runs.split()]
            for start, length in zip(numbers[::2], numbers[1::2]):
                expected[start - 1 : start - 1 + length] = True
            assert np.array_equal(mask.ravel(order="F"), expected)
    assert not rows
