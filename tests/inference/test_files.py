"""Lists of files: finding them, naming results, going on after a failure."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.errors import ImageReadError
from cellseg.inference.files import find_images, output_stems, predict_files


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_finds_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(
        *(Path(n) for n in ("a/2.png", "a/1.TIF", "a/notes.txt", "a/deep/3.jpg", "b[1].png", "x"))
    )
    assert find_images(["a"]) == ([Path("a/1.TIF"), Path("a/2.png")], [])
    assert find_images(["a/**/*.*g"]) == ([Path("a/2.png"), Path("a/deep/3.jpg")], [])
    assert find_images(["b[1].png", "x"]) == ([Path("b[1].png"), Path("x")], [])
    assert find_images(["a/2.png", "a", "./a/2.png"])[0] == [Path("a/2.png"), Path("a/1.TIF")]


def test_says_which_inputs_gave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(Path("a/1.png"), Path("empty/notes.txt"))
    assert find_images(["gone.png", "a", "empty", "*.gif"]) == (
        [Path("a/1.png")],
        ["gone.png", "empty", "*.gif"],
    )
    assert find_images([]) == ([], [])


def test_results_beside_the_images_are_no_input(tmp_path: Path) -> None:
    names = ["a.png", "a_overlay.png", "a_labels.tif", "b_overlay.png", "c_labels.tif"]
    touch(*(tmp_path / name for name in names))
    found, _ = find_images([str(tmp_path)])
    assert [path.name for path in found] == ["a.png", "b_overlay.png", "c_labels.tif"]


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        (["a/1.png", "a/2.png"], ["1", "2"]),
        (["a/1.png", "b/1.png", "b/1.tif"], ["1", "1_2", "1_3"]),
        (["1.png", "1.tif", "1_2.png"], ["1", "1_3", "1_2"]),
        (["1_2.png", "1.png", "1.tif", "1_2.tif"], ["1_2", "1", "1_3", "1_2_2"]),
        ([], []),
    ],
)
def test_every_file_has_a_stem_of_its_own(paths: list[str], stems: list[str]) -> None:
    assert output_stems([Path(path) for path in paths]) == stems


def one_square(image: np.ndarray) -> CellInstances:
    """A cell of 4x6 px at row 2, column 3, and class 1."""
    mask = np.zeros((1, *image.shape[:2]), dtype=bool)
    mask[0, 2:6, 3:9] = True
    return CellInstances.from_bitmaps(mask, scores=[0.75], classes=[1])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two good images and one that cannot be read, between them."""
    paths = [tmp_path / "in" / name for name in ("first.png", "broken.png", "last.tif")]
    paths[0].parent.mkdir()
    cv2.imwrite(str(paths[0]), np.full((20, 30, 3), 90, np.uint8))
    paths[1].write_bytes(b"not a picture")
    tifffile.imwrite(paths[2], np.full((25, 15), 4000, np.uint16))
    return paths


def test_writes_results_and_goes_on_after_a_failure(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "deep" / "out"
    with caplog.at_level(logging.ERROR):
        problems = predict_files(
            one_square,
            images,
            out,
            classes=["a", "b"],
            formats=["geojson", "sartorius_table"],
        )
    assert len(problems) == 1
    assert str(images[1]) in problems[0]
    assert problems[0] in caplog.text
    assert {path.name for path in out.iterdir()} == {
        "first_overlay.png",
        "first_labels.tif",
        "last_overlay.png",
        "last_labels.tif",
        "coco_results.json",
        "coco_results.categories.json",
        "annotations",
        "submission.csv",
    }
    assert sorted(path.name for path in (out / "annotations").iterdir()) == [
        "first.geojson",
        "last.geojson",
    ]
    labels = tifffile.imread(out / "first_labels.tif")
    assert labels.dtype == np.uint16
    assert labels.shape == (20, 30)
    assert (labels == 1).sum() == 24
    assert labels[2, 3] == labels[5, 8] == 1
    assert cv2.imread(str(out / "last_overlay.png")).shape[2] == 3
    results = json.loads((out / "coco_results.json").read_text())
    assert [result["image_id"] for result in results] == ["first", "last"]
    assert results[0]["bbox"] == [3, 2, 6, 4]
    assert results[0]["category_id"] == 2
    assert results[0]["score"] == 0.75


def test_an_error_of_the_model_names_the_file(images: list[Path], tmp_path: Path) -> None:
    def refuse(image: np.ndarray) -> CellInstances:
        raise ImageReadError("two channels")

    problems = predict_files(refuse, images[:1], tmp_path / "out")
    assert problems == [f"{images[0]}: two channels"]
    assert json.loads((tmp_path / "out" / "coco_results.json").read_text()) == []


def test_equal_stems_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder, side in (("a", 20), ("b", 24)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "x.png"), np.zeros((side, side), np.uint8))
    images = [tmp_path / "a/x.png", tmp_path / "b/x.png"]
    predict_files(one_square, images, tmp_path / "out", classes=["a", "b"])
    assert tifffile.imread(tmp_path / "out/x_labels.tif").shape == (20, 20)
    assert tifffile.imread(tmp_path / "out/x_2_labels.tif").shape == (24, 24)
    results = json.loads((tmp_path / "out/coco_results.json").read_text())
    assert [result["image_id"] for result in results] == ["x", "x_2"]
