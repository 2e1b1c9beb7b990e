"""OME-Zarr: what other readers see in it, what is read of it, and everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, contents_of, make_record
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import DatasetError
from cellseg.images import PlaneImage, open_planes
from cellseg.io import ome_zarr_writing, read_records, write_predictions
from cellseg.io.predictions import check_saved, write_image_prediction
from numpy.typing import NDArray

zarr = pytest.importorskip("zarr", minversion="3")
VERSIONS = {"0.4": "zarr", "0.5": "zarr-0.5"}
CLASSES = ("round", "long")


class Windows:
    """An image [C, H, W] that notes the windows it is read in."""

    def __init__(self, pixels: NDArray[Any], names: Sequence[str] = ()) -> None:
        self.pixels, self.read_px = pixels, []

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            block = pixels[:, rows, columns]
            self.read_px.append(block[0].size)
            return block

        hw = (pixels.shape[1], pixels.shape[2])
        self.plane = PlaneImage(
            Path("raw/a.lif"), hw, read, read, channel_names=tuple(names), pixel_size_um=(0.5, 0.25)
        )


def large_scene() -> tuple[ImageRecord, NDArray[Any], Windows]:
    """700 x 1,100 pixels: three levels of chunks, the last of each cut off."""
    labels = np.zeros((700, 1100), np.uint16)
    for number, (row, column) in enumerate(np.ndindex(27, 43), 1):
        labels[25 * row + 5 : 25 * row + 20, 25 * column + 5 : 25 * column + 23] = number
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (2, 700, 1100)).astype(np.uint16) + labels
    how = {"classes": np.arange(27 * 43) % 2, "scores": rng.random(27 * 43).astype(np.float32)}
    record = ImageRecord("p/a", CellInstances.from_label_image(labels, **how))
    return record, labels, Windows(image, ("DAPI", "GFP"))


@pytest.mark.parametrize("version", VERSIONS)
def test_image_and_labels_by_the_reader_of_ome_zarr(tmp_path: Path, version: str) -> None:
    """Its reader is what napari-ome-zarr hands to napari."""
    ome_zarr = pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    assert ome_zarr
    record, labels, image = large_scene()
    name = VERSIONS[version]
    (path,) = write_image_prediction(record, tmp_path, name, CLASSES, image=image.plane)
    assert path == tmp_path / "p/a.ome.zarr"
    raw, _, cells = Reader(parse_url(str(path)))()
    assert [level.shape for level in raw.data] == [(2, 700, 1100), (2, 350, 550), (2, 175, 275)]
    assert [level.shape for level in cells.data] == [(700, 1100), (350, 550), (175, 275)]
    assert np.array_equal(np.asarray(raw.data[0]), image.pixels)
    means = image.pixels.reshape(2, 350, 2, 550, 2).mean(axis=(2, 4))
    assert np.abs(np.asarray(raw.data[1]) - means).max() <= 0.5
    for level, step in enumerate((1, 2, 4)):
        assert cells.data[level].dtype == np.uint16
        assert np.array_equal(np.asarray(cells.data[level]), labels[::step, ::step])
    assert raw.metadata["channel_names"] == ["DAPI", "GFP"]
    scales = [one[0]["scale"] for one in raw.metadata["coordinateTransformations"]]
    assert scales == [[1, 0.5, 0.25], [1, 1, 0.5], [1, 2, 1]]
    assert [axis.get("unit") for axis in cells.metadata["axes"]] == ["micrometer"] * 2
    described = cells.metadata["properties"][2]
    assert described["class"] == "long"
    assert np.float32(described["score"]) == record.cells.scores[1]
    assert len(cells.metadata["properties"]) == 27 * 43
    assert max(image.read_px) == 512 * 512  # window by window
    assert sum(image.read_px) == 700 * 1100  # each pixel once


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_by_the_specification(tmp_path: Path, version: str) -> None:
    models = pytest.importorskip("ome_zarr_models")
    record, _, image = large_scene()
    rgb = Windows(np.repeat(image.pixels[:1] % 200, 3, axis=0).astype(np.uint8))
    for number, plane in enumerate((image.plane, rgb.plane)):
        (path,) = write_image_prediction(
            record, tmp_path / str(number), VERSIONS[version], CLASSES, image=plane
        )
        for place, kind in (("", "Image"), ("labels/cells", "ImageLabel")):
            found = models.open_ome_zarr(zarr.open_group(str(path / place), mode="r"))
            assert type(found).__name__ == kind
            assert found.ome_zarr_version == version
        assert zarr.open_group(str(path)).metadata.zarr_format == {"0.4": 2, "0.5": 3}[version]
        source = read_attributes(path / "labels/cells", version)["image-label"]["source"]
        assert (path / "labels/cells" / source["image"]).resolve() == path.resolve()
    channels = read_attributes(path, version)["omero"]["channels"]
    assert [one["color"] for one in channels] == ["FF0000", "00FF00", "0000FF"]


def read_attributes(place: Path, version: str) -> Any:
    if version == "0.4":
        return json.loads((place / ".zattrs").read_text())
    return json.loads((place / "zarr.json").read_text())["attributes"]["ome"]


def test_chunks_and_their_names(tmp_path: Path) -> None:
    """What has no cell is no file; numbers of chunks are joined by / as version 0.4 asks."""
    mask = builders.rectangle((1200, 600), 550, 600, 560, 640)
    (path,) = write_image_prediction(make_record("a", None, [mask]), tmp_path, "zarr")
    level = path / "labels/cells/0"
    files = sorted(str(one.relative_to(level)) for one in level.rglob("*") if one.is_file())
    assert files == [".zarray", ".zattrs", "1/1"]
    array = json.loads((level / ".zarray").read_text())
    assert (array["chunks"], array["dimension_separator"]) == ([512, 512], "/")


@pytest.mark.parametrize("name", VERSIONS.values())
def test_cells_alone_and_without_pixel_sizes(tmp_path: Path, name: str) -> None:
    record = make_record("a", None, [builders.rectangle((20, 30), 3, 4, 9, 9)], scores=[0.5])
    (path,) = write_image_prediction(record, tmp_path / "s", name)
    (back,) = read_records("ome_zarr", tmp_path, "s")
    assert (back.image_id, back.image_path) == ("a", path)
    assert contents_of([back]) == contents_of([record])
    version = next(key for key, value in VERSIONS.items() if value == name)
    content = read_attributes(path / "labels/cells", version)
    axes = content["multiscales"][0]["axes"]
    assert axes == [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    assert "source" not in content["image-label"]


def test_size_of_pixels_from_the_record_before_that_of_the_image(tmp_path: Path) -> None:
    record, _, image = large_scene()
    record = replace(record, place=PlaceInFile((), "", (3.0, 4.0)))
    (path,) = write_image_prediction(record, tmp_path, "zarr", CLASSES, image=image.plane)
    first = read_attributes(path, "0.4")["multiscales"][0]["datasets"][0]
    assert first["coordinateTransformations"][0]["scale"] == [1, 3, 4]


@pytest.mark.parametrize("version", VERSIONS)
def test_there_and_back(tmp_path: Path, two_class_records: list[ImageRecord], version: str) -> None:
    flat = [one for one in two_class_records if one.image_id != "overlapping"]
    for record in flat:
        write_image_prediction(record, tmp_path / "s", VERSIONS[version], CLASSES)
    back = read_records("ome_zarr", tmp_path, "s", classes=CLASSES)
    assert contents_of(back) == contents_of(flat)


@pytest.mark.parametrize("name", VERSIONS.values())
def test_its_own_image_is_what_the_cells_are_of(tmp_path: Path, name: str) -> None:
    record, labels, image = large_scene()
    record = replace(record, image_id="a")
    write_image_prediction(record, tmp_path / "s", name, CLASSES, image=image.plane)
    (back,) = read_records("ome_zarr", tmp_path, "s", classes=CLASSES)
    assert np.array_equal(back.cells.to_label_image(), labels)
    with open_planes(back.image_path) as (plane,):
        assert plane.image_hw == back.image_hw
        assert plane.pixel_size_um == (0.5, 0.25)
        assert plane.channel_names == ("DAPI", "GFP")
        whole = slice(None)
        assert np.array_equal(plane.read_channels(whole, whole), image.pixels)


def test_overlaps_and_more_than_16_bits(tmp_path: Path) -> None:
    scene = builders.overlapping()
    record = make_record("a", None, scene.masks, scores=[0.3, 0.6])
    write_predictions([record], tmp_path / "s", "ome_zarr")
    (back,) = read_records("ome_zarr", tmp_path, "s")
    first, second = scene.masks
    assert np.array_equal(bitmaps_of(back), [first & ~second, second])
    cells = CellInstances.from_label_image(builders.labels_beyond_uint16())
    (path,) = write_image_prediction(ImageRecord("b", cells), tmp_path, "zarr")
    array = zarr.open_array(str(path / "labels/cells/0"))
    assert array.dtype == np.uint32
    assert np.array_equal(array[:], builders.labels_beyond_uint16())


def test_classes_in_the_files_and_labels_of_another_name(tmp_path: Path) -> None:
    record = make_record("a", None, builders.touching().masks, classes=[1, 0])
    (path,) = write_image_prediction(record, tmp_path / "s", "zarr", CLASSES)
    (path / "labels/cells").rename(path / "labels/nuclei")
    options = {"labels": "nuclei"}
    (back,) = read_records("ome_zarr", tmp_path, "s", classes=CLASSES, **options)
    assert back.cells.classes.tolist() == [1, 0]
    from cellseg.io import FORMATS

    assert FORMATS["ome_zarr"].find_classes(tmp_path, "s", options) == ("long", "round")
    with pytest.raises(DatasetError, match="no labels there; the image has nuclei"):
        read_records("ome_zarr", tmp_path, "s")


def set_attributes(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def spoil(labels: Path) -> None:
        content = json.loads((labels / ".zattrs").read_text())
        change(content)
        (labels / ".zattrs").write_text(json.dumps(content))

    return spoil


def put_array(array: NDArray[Any]) -> Callable[[Path], None]:
    def replace_level(labels: Path) -> None:
        shutil.rmtree(labels / "0")
        zarr.save_array(str(labels / "0"), array, zarr_format=2)

    return replace_level


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda labels: shutil.rmtree(labels.parent), "no labels there; the image has none"),
        (lambda labels: (labels / ".zattrs").write_text("{"), "no metadata of OME-Zarr"),
        (lambda labels: (labels / "zarr.json").write_text("{}"), "no metadata of OME-Zarr"),
        (set_attributes(lambda one: one.pop("multiscales")), "the labels cannot be read: KeyError"),
        (lambda labels: (labels / "0/.zarray").write_text("{"), "the labels cannot be read"),
        (lambda labels: (labels / "0/0/0").write_bytes(b"x"), "the labels cannot be read"),
        (put_array(np.zeros((2, 20, 30), np.uint8)), r"labels of shape \[2, 20, 30\]; expected"),
        (put_array(np.zeros(20, np.uint8)), r"labels of shape \[20\]; expected"),
        (put_array(np.zeros((20, 30))), "a label image holds integers; found dtype float64"),
        (
            set_attributes(lambda one: one["image-label"].update(properties=[{"class": "round"}])),
            "image-label without label-value",
        ),
        (
            set_attributes(lambda one: one["image-label"]["properties"][0].update(score="high")),
            "the score is 'high', expected a number",
        ),
        (
            set_attributes(
                lambda one: one["image-label"]["properties"][0].update({"class": "lomg"})
            ),
            "unknown class 'lomg'; did you mean long?",
        ),
        (
            set_attributes(lambda one: one["image-label"].pop("properties")),
            r"2 without a class \(label 1, label 2\)",
        ),
    ],
)
def test_damaged_folders(tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    record = make_record("a", None, builders.touching().masks, classes=[1, 0])
    (path,) = write_image_prediction(record, tmp_path / "s", "zarr", CLASSES)
    spoil(path / "labels/cells")
    with pytest.raises(DatasetError, match=says) as caught:
        read_records("ome_zarr", tmp_path, "s", classes=CLASSES)
    assert str(path) in str(caught.value)


def test_labels_with_axes_of_length_one(tmp_path: Path) -> None:
    """As other programs write them: t, c, z, y, x."""
    record = make_record("a", None, builders.touching().masks)
    (path,) = write_image_prediction(record, tmp_path / "s", "zarr")
    put_array(builders.touching().labels[None, None, None])(path / "labels/cells")
    (back,) = read_records("ome_zarr", tmp_path, "s")
    assert np.array_equal(bitmaps_of(back), builders.touching().masks)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/a.zarr").write_text("a file")
    with pytest.raises(DatasetError, match=r"no OME-Zarr in it, expected folders \.ome\.zarr or"):
        read_records("ome_zarr", tmp_path, "s")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    for call in (
        lambda: ome_zarr_writing.load_zarr(),
        lambda: check_saved("zarr", ("cell",)),
        lambda: read_records("ome_zarr", tmp_path, "s"),
        lambda: write_predictions([], tmp_path / "new", "ome_zarr"),
    ):
        with pytest.raises(DatasetError, match=r"pip install 'cellseg\[zarr\]'"):
            call()
    assert not list(tmp_path.iterdir())
