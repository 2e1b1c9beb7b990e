"""Images and annotation files whose names differ in writing only, and what lies beside."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cellseg.errors import DatasetError
from cellseg.io import read_records
from shared_cases import shared_case

NFC, NFD = (unicodedata.normalize(form, "größe") for form in ("NFC", "NFD"))
LABELS = np.uint8([[0, 1], [2, 2]])


def put(folder: Path, image: str, label: str) -> Path:
    builders.write_png(folder / "train/images" / image, LABELS)
    (folder / "train/labels").mkdir(exist_ok=True)
    suffix = Path(label).suffix
    if suffix == ".tif":
        tifffile.imwrite(folder / "train/labels" / label, LABELS)
    else:
        builders.write_png(folder / "train/labels" / label, LABELS)
    return folder


@pytest.mark.parametrize(("image", "label"), [(NFC, NFD), (NFD, NFC)])
def test_two_unicode_forms_are_one_name(tmp_path: Path, image: str, label: str) -> None:
    (record,) = read_records("label_images", put(tmp_path, f"{image}.png", f"{label}.png"), "train")
    assert record.cells.areas_px.tolist() == [1, 2]


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, f"{NFC}.png", f"{NFC}.png")
    put(tmp_path, f"{NFD}.png", f"{NFC}.png")
    with pytest.raises(DatasetError) as caught:
        read_records("label_images", tmp_path, "train")
    assert "gro\\u0308\\xdfe.png" in str(caught.value)
    assert "gr\\xf6\\xdfe.png" in str(caught.value)


@pytest.mark.parametrize("label", ["a.ome.tif", "a.png.tif"])
def test_annotations_named_after_the_whole_image(tmp_path: Path, label: str) -> None:
    (record,) = read_records("label_images", put(tmp_path, "a.png", label), "train")
    assert record.image_id == "a"


def test_what_lies_beside_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "A.png")
    (tmp_path / "train/labels/a.csv").touch()
    with pytest.raises(DatasetError, match=r"no label image labels/a\.png or \.tif; there is A"):
        read_records("label_images", tmp_path, "train")


def test_ome_names_of_a_user() -> None:
    (record,) = read_records("label_images", shared_case("ome_names"), "train")
    assert (record.image_id, len(record.cells)) == ("a", 4)
