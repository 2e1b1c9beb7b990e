"""ImageJ's ROIs: exact there and back, every kind of ROI, and everything that can be wrong."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, boxes_of, content_of, names_of
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import imagej_rois, read_records
from cellseg.io.roi_paths import path_to_rings, rings_to_path

roifile = pytest.importorskip("roifile", minversion="2026")

Same = Callable[[list[ImageRecord], list[ImageRecord]], None]
CLASSES = ("round", "long")
KIND, SUBTYPE, OPTIONS = roifile.ROI_TYPE, roifile.ROI_SUBTYPE, roifile.ROI_OPTIONS


def read(root: Path, *classes: str, **options: Any) -> list[ImageRecord]:
    return imagej_rois.FORMAT.read(root, "s", classes or ("cell",), options)


def roi(**values: Any) -> Any:
    """A rectangle of x 2 to 6 and y 3 to 5."""
    box = {"left": 2, "top": 3, "right": 6, "bottom": 5, "roitype": KIND.RECT}
    return roifile.ImagejRoi(**{**box, **values})


def polygon(points: Any, **values: Any) -> Any:
    made = roifile.ImagejRoi.frompoints(points, name="F")
    for key, value in values.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write one image of 20 x 30 pixels and its ROIs."""
    builders.write_png(tmp_path / "s/images/a.png", np.zeros((20, 30), np.uint8))
    (tmp_path / "s/rois").mkdir()

    def write_set(*rois: Any) -> Path:
        with zipfile.ZipFile(tmp_path / "s/rois/a.zip", "w") as archive:
            for number, one in enumerate(rois, 1):
                data = one if isinstance(one, bytes) else one.tobytes()
                archive.writestr(f"entry{number}.roi", data)
        return tmp_path

    return write_set


def bitmap(record: ImageRecord) -> Any:
    (mask,) = bitmaps_of(record)
    return mask


def test_scenes_there_and_back(
    tmp_path: Path, scene_records: list[ImageRecord], same: Same
) -> None:
    imagej_rois.FORMAT.write(scene_records, tmp_path, "s", ("cell",), {})
    same(read(tmp_path), scene_records)


def test_classes_and_other_folders_there_and_back(
    tmp_path: Path, two_class_records: list[ImageRecord], same: Same
) -> None:
    folders = {"images": "raw", "rois": "sets"}
    imagej_rois.FORMAT.write(two_class_records, tmp_path, "s", CLASSES, folders)
    same(read(tmp_path, *CLASSES, **folders), two_class_records)
    assert imagej_rois.FORMAT.find_classes(tmp_path, "s", folders) == ("long", "round")


def test_regions_of_uncounted_cells(tmp_path: Path, crowd_record: ImageRecord, same: Same) -> None:
    imagej_rois.FORMAT.write([crowd_record], tmp_path, "s", ("cell",), {})
    same(read(tmp_path), [crowd_record])


def test_what_is_written(tmp_path: Path, two_class_records: list[ImageRecord]) -> None:
    for split in ("s", "again"):
        imagej_rois.FORMAT.write(two_class_records, tmp_path, split, CLASSES, {})
    path = tmp_path / "s/rois/with_hole.zip"
    assert path.read_bytes() == (tmp_path / "again/rois/with_hole.zip").read_bytes()
    ring, pixel = roifile.roiread(path)
    assert (ring.name, ring.group, pixel.name, pixel.group) == ("round-0001", 1, "long-0002", 2)
    assert ring.composite
    assert sorted(len(one) for one in ring.coordinates(multi=True)) == [5, 5]
    assert pixel.roitype == KIND.TRACED
    assert (pixel.left, pixel.top, pixel.right, pixel.bottom) == (8, 8, 9, 9)
    assert sorted(pixel.coordinates().tolist()) == [[8, 8], [8, 9], [9, 8], [9, 9]]
    assert pixel.properties == {"qupath.object.classification": "long"}
    assert zipfile.ZipFile(tmp_path / "s/rois/no_cells.zip").namelist() == []


def test_more_cells_than_two_bytes_reach(tmp_path: Path) -> None:
    """Coordinates above 32,767 do not fit ImageJ's integers."""
    builders.write_png(tmp_path / "l/images/a.png", np.zeros((2, 40_000), np.uint8))
    labels = np.zeros((2, 40_000), np.uint8)
    labels[:, 5:7], labels[1, 32_766:39_999] = 1, 2
    builders.write_png(tmp_path / "l/labels/a.png", labels)
    records = read_records("label_images", tmp_path, "l")
    imagej_rois.FORMAT.write(records, tmp_path, "s", ("cell",), {})
    assert content_of(read(tmp_path)[0])[2:4] == content_of(records[0])[2:4]


SQUARE = [[2, 3], [6, 3], [6, 5], [2, 5]]


@pytest.mark.parametrize(
    "one",
    [
        roi(),
        roi(options=OPTIONS.SUB_PIXEL_RESOLUTION, xd=2.3, yd=3.4, widthd=3.9, heightd=1.9, left=0),
        polygon(SQUARE),
        polygon(SQUARE, roitype=KIND.POLYGON),
        polygon(SQUARE, roitype=KIND.TRACED),
        polygon(SQUARE, subtype=SUBTYPE.ROTATED_RECT),
        polygon(np.array(SQUARE) + 0.25),
        roi(shape_roi_size=13, multi_coordinates=rings_to_path([SQUARE])),
    ],
)
def test_kinds_of_areas(write: Callable[..., Path], one: Any) -> None:
    (record,) = read(write(one))
    expected = np.zeros((20, 30), bool)
    expected[3:5, 2:6] = True
    assert np.array_equal(bitmap(record), expected)


@pytest.mark.parametrize("box", [(3, 2, 18, 13), (0, 0, 7, 7), (5, 5, 6, 12), (20, 10, 40, 30)])
def test_ovals(write: Callable[..., Path], box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    root = write(roi(roitype=KIND.OVAL, left=x0, top=y0, right=x1, bottom=y1))
    rows, cols = np.mgrid[:20, :30] + 0.5
    across = (2 * cols - x0 - x1) / (x1 - x0)
    down = (2 * rows - y0 - y1) / (y1 - y0)
    assert np.array_equal(bitmap(read(root)[0]), across**2 + down**2 < 1)


def test_single_roi_file(write: Callable[..., Path]) -> None:
    root = write()
    (root / "s/rois/a.zip").unlink()
    (root / "s/rois/a.roi").write_bytes(roi().tobytes())
    assert boxes_of(read(root)[0])[0] == (2, 3, 6, 5)


def test_files_in_a_zip_that_do_not_matter(write: Callable[..., Path]) -> None:
    root = write(roi())
    with zipfile.ZipFile(root / "s/rois/a.zip", "a") as archive:
        for name in ("__MACOSX/._entry1.roi", ".DS_Store", "notes.txt"):
            archive.writestr(name, "junk")
    assert len(read(root)[0].cells) == 1


def test_curves_of_composites() -> None:
    """A quarter circle as one cubic; a parabola as one quadratic."""
    k = 0.5522847498
    path = [0, 0, 0, 1, 1, 0, 3, 1, k, k, 1, 0, 1, 4, 0, 0, 0, 2, 1, 2, 2, 0, 4]
    quarter, parabola = path_to_rings(path)
    assert np.allclose(np.hypot(*quarter[1:].T), 1, atol=3e-4)
    assert np.allclose(parabola[:, 1], parabola[:, 0] * (2 - parabola[:, 0]))
    ring = np.array([[3, 4], [5, 4], [5, 9]])
    assert rings_to_path([ring]).tolist() == [0, 3, 4, 1, 5, 4, 1, 5, 9, 4]
    assert [one.tolist() for one in path_to_rings(rings_to_path([ring, ring]))] == 2 * [
        ring.tolist()
    ]
    assert rings_to_path([]).size == 0
    for damaged in ([0, 1], [1, 2, 3], [7], [0, 1, 1, 2, 1, 1], [0.5, 1, 1], [np.nan, 1, 1]):
        with pytest.raises(DatasetError, match="damaged path of a composite"):
            path_to_rings(damaged)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"props": "class: long\n"}, "long"),
        ({"props": "a: b\nqupath.object.classification: long\nclass: round\n"}, "long"),
        ({"props": "class: long\n", "name": "round-1", "group": 1}, "long"),
        ({"name": "long"}, "long"),
        ({"name": "long-0012"}, "long"),
        ({"name": "long 3", "group": 1}, "long"),
        ({"name": "0003-0012", "group": 2}, "long"),
    ],
)
def test_where_classes_come_from(
    write: Callable[..., Path], values: dict[str, Any], expected: str
) -> None:
    root = write(roi(**values))
    assert names_of(read(root, *CLASSES)[0], CLASSES) == [expected]
    assert names_of(read(root)[0], ["cell"]) == ["cell"]


def test_the_longest_class_that_begins_the_name(write: Callable[..., Path]) -> None:
    root = write(roi(name="T cell-1"), roi(name="T-2"))
    (record,) = read(root, "T", "T cell")
    assert names_of(record, ["T", "T cell"]) == ["T cell", "T"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"props": "class: lomg"}, "unknown class 'lomg'; did you mean long?"),
        ({"name": "lomg-0001"}, "unknown class 'lomg'; did you mean long?"),
        ({"name": "longer-0001"}, "unknown class 'longer'; did you mean long?"),
        ({"name": "0003-0012", "group": 3}, "unknown class 'group 3'; declared are round, long"),
        ({"name": "0003-0012"}, "1 without a class (ROI 0003-0012); with several"),
    ],
)
def test_classes_that_do_not_fit(
    write: Callable[..., Path], values: dict[str, Any], says: str
) -> None:
    root = write(roi(**values))
    with pytest.raises(DatasetError) as caught:
        read(root, *CLASSES)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (polygon(SQUARE, roitype=KIND.POINT), "ROI F: a point is no area"),
        (polygon(SQUARE, roitype=KIND.POLYLINE), "a polyline is no area"),
        (polygon(SQUARE, roitype=KIND.FREELINE), "a freeline is no area"),
        (polygon(SQUARE, roitype=KIND.ANGLE), "a angle is no area"),
        (roi(roitype=KIND.LINE, name="L"), "ROI L: a line is no area"),
        (roi(subtype=SUBTYPE.TEXT), "ROI entry1: a text is no outline"),
        (roi(rounded_rect_arc_size=2), "a rounded rectangle"),
        (polygon(SQUARE, options=OPTIONS.SPLINE_FIT), "a spline fit"),
        (roi(left=40, right=50), "no pixel of the image (30 x 20, width x height)"),
        (roi(right=2), "no pixel of the image"),
        (b"Iout", "entry1.roi cannot be read as a ROI"),
        (b"JFIF" + bytes(100), "entry1.roi cannot be read as a ROI"),
        (polygon(SQUARE).tobytes()[:70], "entry1.roi cannot be read as a ROI"),
        (
            roi(shape_roi_size=2, multi_coordinates=np.zeros(2, np.float32)),
            "damaged path of a composite at number 0 of 2",
        ),
    ],
)
def test_rois_that_are_no_cells(write: Callable[..., Path], one: Any, says: str) -> None:
    root = write(one)
    with pytest.raises(DatasetError) as caught:
        read(root)
    assert says in str(caught.value)
    assert str(root / "s/rois/a.zip") in str(caught.value)


@pytest.mark.parametrize(
    ("places", "says"),
    [
        (
            [{"position": 1}, {"position": 3}],
            "ROIs on 2 slices .*ROI 1 on slice 1; ROI 2 on slice 3",
        ),
        (
            [{}, {"t_position": 2, "z_position": 1}, {"t_position": 3, "z_position": 1}],
            r"ROI 2 on \(channel, slice, frame\) 0, 1, 2; ROI 3 on .* 0, 1, 3\); the image has one",
        ),
    ],
)
def test_rois_on_several_slices(
    write: Callable[..., Path], places: list[dict[str, int]], says: str
) -> None:
    root = write(*(roi(name=str(number), **place) for number, place in enumerate(places, 1)))
    with pytest.raises(DatasetError, match=says):
        read(root)


def test_rois_on_one_slice_and_on_all(write: Callable[..., Path]) -> None:
    (record,) = read(write(roi(position=3), roi(position=3), roi()))
    assert len(record.cells) == 3


def test_all_problems_of_a_file_at_once(write: Callable[..., Path]) -> None:
    root = write(
        roi(name="one"), roi(roitype=KIND.LINE, name="two"), roi(left=40, right=50, name="three")
    )
    with pytest.raises(DatasetError, match=r"problems \(2\)(.|\n)*ROI two(.|\n)*ROI three"):
        read(root)


def test_damaged_zips(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(roi(), roi())
    path = root / "s/rois/a.zip"
    whole = path.read_bytes()
    for content, says in (
        (whole[: len(whole) // 2], "no whole zip file"),
        (b"", "no whole zip file"),
        (whole.replace(b"Iout", b"Jout", 1), "no whole zip file: Bad CRC-32"),
    ):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=says) as caught:
            read(root)
        assert str(path) in str(caught.value)
    path.write_bytes(whole)
    monkeypatch.setattr(imagej_rois, "MAX_ROI_BYTES", 10)
    with pytest.raises(DatasetError, match=r"entry1\.roi: \d+ bytes are no ROI"):
        read(root)


def test_images_without_a_file(write: Callable[..., Path]) -> None:
    root = write()
    assert len(read(root)[0].cells) == 0
    (root / "s/rois/a.zip").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: no ROIs rois/a\.zip or \.roi"):
        read(root)


def test_without_the_package(
    write: Callable[..., Path], scene_records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(roi())
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(DatasetError, match="pip install roifile"):
        read(root)
    with pytest.raises(DatasetError, match="pip install roifile"):
        imagej_rois.FORMAT.write(scene_records, root, "t", ("cell",), {})
    assert not (root / "t").exists()


def test_with_a_package_that_loses_classes(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(roi())
    monkeypatch.setattr(roifile, "__version__", "2025.12.12")
    with pytest.raises(DatasetError, match=r"roifile 2025\.12\.12 loses .* 'roifile>=2026'"):
        read(root)


def test_a_real_field_of_many_cells(tmp_path: Path, real_datasets: Path, same: Same) -> None:
    records = read_records("label_images", real_datasets / "dsb2018/dense", "devtest")
    imagej_rois.FORMAT.write(records, tmp_path, "s", ("cell",), {})
    same(read(tmp_path), records)
