"""What is dropped into napari, and what is saved from it, compared on disk and in the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cli import predict
from cellseg.cli._parser import CommandParser
from cellseg.inference.own_files import STATE_FOLDER
from cellseg.napari import reading
from cellseg.napari.layers import cells_to_layer, layer_to_cells, pixel_size_um
from cellseg.napari.reading import get_reader
from cellseg.napari.writing import write_labels
from cellseg.shipped import sample_images
from commands import REPOSITORY
from napari.components import ViewerModel
from napari.layers import Labels

LABELS = np.zeros((30, 40), int)
LABELS[2:6, 3:9] = 2
LABELS[6:9, 3:9] = 5
LABELS[20:25, 30:39] = 9
LABELS[22, 33] = 0  # a hole
CLASSES = ("long", "round")


def make_layer(labels: np.ndarray = LABELS) -> Labels:
    cells = CellInstances.from_label_image(labels, classes=[1, 0, 1], scores=[0.25, 0.5, 0.75])
    data, about, _ = cells_to_layer(
        cells, CLASSES, "cells of a", ids=np.array([2, 5, 9]), pixel_size_um=(0.5, 0.25)
    )
    return Labels(data, **about)


def save(layer: Labels, path: Path) -> list[str]:
    data, attributes, _ = layer.as_layer_data_tuple()
    return write_labels(str(path), data, attributes)


def open_path(path: Path) -> list[Any]:
    reader = get_reader(str(path))
    assert reader is not None
    return [Labels(data, **about) for data, about, _ in reader(str(path))]


@pytest.mark.parametrize("name", ["a_labels.tif", "a_rois.zip", "a.geojson", "a_coco.json"])
def test_a_layer_saved_and_opened_is_the_same(name: str, tmp_path: Path) -> None:
    if name.endswith(".zip"):
        pytest.importorskip("roifile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(LABELS.shape, np.uint8))  # says how large it is
    layer = make_layer()
    written = save(layer, tmp_path / name)
    assert all(Path(one).is_file() for one in written)
    (again,) = open_path(tmp_path / name)
    assert again.name == "cells of a"
    before, after = layer_to_cells(layer), layer_to_cells(again)
    assert after.cells.equals(before.cells)
    assert after.classes == CLASSES
    if name == "a_labels.tif":
        assert again.data.tolist() == LABELS.tolist()


def test_outlines_without_an_image_have_one_that_holds_them(tmp_path: Path) -> None:
    save(make_layer(), tmp_path / "a.geojson")
    (again,) = open_path(tmp_path / "a.geojson")
    assert again.data.shape == (25, 39)
    assert np.array_equal(again.data > 0, LABELS[:25, :39] > 0)


def test_no_cells_at_all(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((30, 40), np.uint8))
    for name in ("a_labels.tif", "a.geojson"):
        save(Labels(LABELS * 0, name="a"), tmp_path / name)
        (again,) = open_path(tmp_path / name)
        assert (again.data.shape, again.data.any()) == ((30, 40), False)


def test_what_cannot_be_saved_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)
    stack = Labels(np.stack([LABELS, LABELS]), name="two")
    assert save(stack, tmp_path / "a.zip") == []
    assert save(make_layer(), tmp_path / "a.bmp") == []
    assert "a.zip: holds the cells of one image; layer 'two' has 2 planes" in told[0]
    assert "expected .tif" in told[1]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b.geojson").write_text("{", "utf-8")
    reader = get_reader(str(tmp_path / "b.geojson"))
    assert reader is not None
    assert reader(str(tmp_path / "b.geojson")) == [(None,)]
    assert "b.geojson: no JSON" in told[2]


def test_a_stack_of_labels_saved_and_opened_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)
    about = make_layer().as_layer_data_tuple()[1]
    about |= {"scale": (1, 0.5, 0.25), "units": ("pixel", "um", "um")}
    about |= dict.fromkeys(("translate", "shear"), (0,) * 3) | {"rotate": np.eye(3)}
    kept = ("name", "features", "metadata", "scale", "units")
    about = {name: about[name] for name in kept}
    moved = np.stack([LABELS, np.roll(LABELS, 1, axis=1), LABELS * (LABELS == 5)])
    layer = Labels(moved[:, None], **about | {"scale": (1, 1, 0.5, 0.25), "units": None})
    assert len(save(layer, tmp_path / "film.tif")) == 2
    layer = Labels(moved, **about)
    assert len(save(layer, tmp_path / "film_labels.tif")) == 2
    (again,) = open_path(tmp_path / "film_labels.tif")
    assert again.name == "cells of film"
    assert np.array_equal(again.data, moved)
    assert pixel_size_um(again) == (0.5, 0.25)
    for plane in range(3):
        before = layer_to_cells(layer, plane=(plane,))
        after = layer_to_cells(again, plane=(plane,))
        assert after.cells.equals(before.cells)
        assert (after.ids.tolist(), after.classes) == (before.ids.tolist(), CLASSES)
    assert save(Labels(np.stack([moved, moved]), name="many"), tmp_path / "b.tif") == []
    assert "layer 'many' has 2 x 3 planes" in told[0]
    assert not (tmp_path / "b.tif").exists()


def test_files_of_others_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', "utf-8")
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "a.txt").write_text("a", "utf-8")
    (tmp_path / "folder").mkdir()
    for name in ("a.json", "a.zip", "a.txt", "folder"):
        assert get_reader(str(tmp_path / name)) is None


def test_a_folder_of_predict(tmp_path: Path, checkpoint_options: list[str]) -> None:
    words = [str(sample_images()[0]), "-o", str(tmp_path / "out"), "--save", "labels,geojson"]
    words += ["--config-file", str(REPOSITORY / "configs/quick_start.yaml"), *checkpoint_options]
    parser = CommandParser(description="", prog=None)
    predict.add_arguments(parser)
    assert predict.run(parser.parse(words)) == 0
    (layer,) = open_path(tmp_path / "out")
    labels = tifffile.imread(next((tmp_path / "out").glob("*_labels.tif")))
    assert layer.data.shape == labels.shape
    assert np.array_equal(layer.data > 0, labels > 0)


def test_of_a_large_folder_of_predict_the_rest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(reading, "_MOST_RESULTS", 1)
    monkeypatch.setattr(reading, "show_warning", said.append)
    (tmp_path / STATE_FOLDER).mkdir()
    for name in ("a", "b", "c"):
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", np.eye(4, dtype=np.uint8))
    assert [layer.name for layer in open_path(tmp_path)] == ["cells of a"]
    assert len(said) == 1
    assert "of 3 images the first 1 are opened" in said[0]


def test_channels_and_planes_of_an_ome_tiff(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 2, 20, 30), np.uint16)
    about = {
        "axes": "TCYX",
        "Channel": {"Name": ["DAPI", "actin"]},
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(tmp_path / "b.ome.tif", pixels, metadata=about)
    reader = get_reader(str(tmp_path / "b.ome.tif"))
    assert reader is not None
    viewer = ViewerModel()
    for data, arguments, _ in reader(str(tmp_path / "b.ome.tif")):
        viewer.add_image(data, **arguments)
    assert [layer.name for layer in viewer.layers] == ["b DAPI", "b actin"]
    for k, layer in enumerate(viewer.layers):
        assert np.array_equal(np.asarray(layer.data), pixels[:, k])
        assert pixel_size_um(layer) == (0.5, 0.25)
    assert not isinstance(viewer.layers[0].data, np.ndarray)  # read when it is looked at


def test_colour_and_grey(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    tifffile.imwrite(tmp_path / "c.ome.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "g.ome.tif", colour[..., 0])
    for name, expected in (("c", colour), ("g", colour[..., 0])):
        reader = get_reader(str(tmp_path / f"{name}.ome.tif"))
        assert reader is not None
        ((data, about, kind),) = reader(str(tmp_path / f"{name}.ome.tif"))
        assert kind == "image"
        assert np.array_equal(data, expected)
        assert about.get("rgb", False) == (name == "c")


def test_a_plane_too_large_for_the_memory_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("cellseg.napari.background.show_error", told.append)
    monkeypatch.setattr("cellseg.limits.available_memory", lambda: 800)
    monkeypatch.setattr("cellseg.limits._HARMLESS_BYTES", 0)
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((20, 30), np.uint8))
    reader = get_reader(str(tmp_path / "a.ome.tif"))
    assert reader is not None
    assert reader(str(tmp_path / "a.ome.tif")) == [(None,)]
    assert "a.ome.tif: a plane would take 600 bytes of memory" in told[0]


def test_a_stack_of_an_ome_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    pixels = np.random.default_rng(0).integers(0, 4000, (4, 2, 20, 30), np.uint16)
    group = zarr.open_group(tmp_path / "z.ome.zarr", mode="w", zarr_format=2)
    array = group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, chunks=(1, 1, 20, 30))
    array[:] = pixels
    axes = [{"name": name} for name in "zcyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    reader = get_reader(str(tmp_path / "z.ome.zarr"))
    assert reader is not None
    layers = reader(str(tmp_path / "z.ome.zarr"))
    assert [about["name"] for _, about, _ in layers] == ["z channel 0", "z channel 1"]
    for k, (data, _, _) in enumerate(layers):
        assert np.array_equal(np.asarray(data), pixels[:, k])


def test_napari_opens_and_saves_by_itself(make_napari_viewer, npe2pm, tmp_path: Path) -> None:
    with npe2pm.tmp_plugin(manifest=str(REPOSITORY / "cellseg/napari/napari.yaml")):
        viewer = make_napari_viewer()
        layer = viewer.add_layer(make_layer())
        written = viewer.layers.save(str(tmp_path / "a.geojson"), plugin="cellseg")
        assert [Path(one).name for one in written] == ["a.geojson"]
        viewer.open(tmp_path / "a.geojson", plugin=None)  # as what is dropped
        assert len(viewer.layers) == 2
        assert layer_to_cells(viewer.layers[-1]).cells.scores.tolist() == [0.25, 0.5, 0.75]
        assert layer in viewer.layers
