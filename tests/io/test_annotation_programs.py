"""labelme, YOLO, VIA, CVAT and Label Studio: small files as these programs write them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import find_format, read_records
from cellseg.io.conversion import SplitPlace, convert_split
from cellseg.io.label_studio import decode_brush
from PIL import Image
from shared_cases import shared_case

HW = (20, 30)
CLASSES = ("round", "long")
SQUARE = [[2, 3], [8, 3], [8, 7], [2, 7]]  # 24 px
TRIANGLE = [[10, 10], [14, 10], [10, 14]]


def write_image(path: Path) -> None:
    builders.write_png(path, np.zeros(HW, np.uint8))


def summary(record: ImageRecord) -> list[tuple[int, int]]:
    """Class and area of each cell."""
    return list(zip(record.cells.classes.tolist(), record.cells.areas_px.tolist()))


def labelme(*shapes: dict[str, Any], height: Any = 20) -> str:
    return json.dumps(
        {
            "version": "5.5.0",
            "flags": {},
            "shapes": [{"group_id": None, "flags": {}, **shape} for shape in shapes],
            "imagePath": "a.png",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": 30,
        }
    )


def shape(kind: str, points: Any, label: str = "round", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def test_labelme_beside_its_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "train/a.png")
    mask = np.uint8([[255, 0, 255], [255, 255, 255]])
    stream = io.BytesIO()
    Image.fromarray(mask).convert("1").save(stream, "PNG")
    png = base64.b64encode(stream.getvalue()).decode()
    text = labelme(
        shape("polygon", SQUARE),
        shape("mask", [[20, 5], [22, 6]], "long", mask=png),
        shape("polygon", TRIANGLE, "long", group_id=1),
        shape("polygon", [[24, 12], [26, 12], [26, 13], [24, 13]], "long", group_id=1),
        shape("circle", [[5, 14], [8, 14]]),
        shape("point", [[1, 1]]),
    )
    (tmp_path / "train/a.json").write_text(text)
    (record,) = read_records("labelme", tmp_path, "train", classes=CLASSES)
    assert summary(record)[:3] == [(0, 24), (1, 5), (1, 6 + 2)]
    assert summary(record)[3] == (0, 32)  # centres within 3 px of (5, 14)
    assert record.cells.offsets_rc[1].tolist() == [5, 20]
    assert "1 points are no cells and left out: shape 5 (round)" in caplog.text
    assert find_format("labelme").find_classes(tmp_path, "train", {}) == ("long", "round")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (labelme(shape("rectangle", [[1, 1], [5, 5]])), r"a box without .*shape 0 \(round\).*draw"),
        (
            labelme(shape("polygon", SQUARE), shape("line", SQUARE[:2])),
            "a line is no area",
        ),
        (labelme(shape("polygon", [[1, 1]])), "shape 0 .*three points or more; found 1"),
        (labelme(shape("polygon", SQUARE), height=21), "the image is 30 x 20 .*says 30 x 21"),
        ("{}", "expected labelme's object"),
        ("[", "cannot be read as JSON"),
    ],
)
def test_labelme_files_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    write_image(tmp_path / "train/a.png")
    (tmp_path / "train/a.json").write_text(text)
    with pytest.raises(DatasetError, match=rf"a\.json.*{says}|a\.png: .*{says}"):
        read_records("labelme", tmp_path, "train", classes=CLASSES)


def test_yolo_as_roboflow_lays_it_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"train/images/{name}.png")
    (tmp_path / "train/labels").mkdir()
    shares = " ".join(f"{x / 30:.6f} {y / 20:.6f}" for x, y in SQUARE)
    (tmp_path / "train/labels/a.txt").write_text(f"1 {shares}\n\n0 {shares}\n")
    (tmp_path / "data.yaml").write_text("nc: 2\nnames: ['round', 'long']\n")
    assert find_format("yolo_seg").find_classes(tmp_path, "train", {}) == CLASSES
    a, b = read_records("yolo_seg", tmp_path, "train", classes=CLASSES)
    assert summary(a) == [(1, 24), (0, 24)]
    assert summary(b) == []


def test_yolo_as_ultralytics_lays_it_out(tmp_path: Path) -> None:
    write_image(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")
    (record,) = read_records("yolo_seg", tmp_path, "train")
    assert len(record.cells) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5 0.2 0.2", "a box without an outline .*line 1"),
        ("0 0.5 0.5 0.2", "line 1: 3 coordinates; expected pairs"),
        ("0 1 2 300 4 5 6", "line 1: coordinates up to 300; expected shares"),
        ("cell 0.1 0.2 0.3 0.4 0.5 0.6", "line 1: expected class x y"),
        ("7 0.1 0.1 0.5 0.1 0.5 0.5", "unknown class 'class 7'"),
    ],
)
def test_yolo_lines_that_cannot_be_used(tmp_path: Path, line: str, says: str) -> None:
    write_image(tmp_path / "train/images/a.png")
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/a.txt").write_text(line)
    with pytest.raises(DatasetError, match=rf"a\.txt: .*{says}"):
        read_records("yolo_seg", tmp_path, "train", classes=CLASSES)


def via_region(name: str, label: str, **numbers: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **numbers}, "region_attributes": {"type": label}}


REGIONS = [
    via_region("polygon", "round", all_points_x=[2, 8, 8, 2], all_points_y=[3, 3, 7, 7]),
    via_region("circle", "long", cx=5, cy=14, r=3),
    via_region("ellipse", "long", cx=20, cy=10, rx=6, ry=2, theta=np.pi / 2),
    via_region("point", "round", cx=1, cy=1),
]


def via_image(regions: Any) -> dict[str, Any]:
    return {"filename": "a.png", "size": 999, "regions": regions, "file_attributes": {}}


@pytest.mark.parametrize(
    "content",
    [
        {"_via_settings": {}, "_via_img_metadata": {"a.png999": via_image(REGIONS)}},
        {"a.png999": via_image(REGIONS)},
        {"a.png999": via_image({str(k): region for k, region in enumerate(REGIONS)})},
    ],
    ids=["project of VIA 2", "export of VIA 2", "export of VIA 1"],
)
def test_via_json(tmp_path: Path, content: Any) -> None:
    write_image(tmp_path / "train/images/a.png")
    (tmp_path / "train/via_project.json").write_text(json.dumps(content))
    (record,) = read_records("via", tmp_path, "train", classes=CLASSES)
    assert summary(record)[:2] == [(0, 24), (1, 32)]
    height, width = record.cells.crops[2].shape
    assert (height, width) == (12, 4)  # turned by a quarter


def test_via_csv(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/a.png")
    write_image(tmp_path / "train/images/b.png")
    quoted = [
        json.dumps(REGIONS[0][key]).replace('"', '""')
        for key in ("shape_attributes", "region_attributes")
    ]
    (tmp_path / "train/via.csv").write_text(
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
        f'region_attributes\na.png,99,"{{}}",1,0,"{quoted[0]}","{quoted[1]}"\n'
        'b.png,99,"{}",0,0,"{}","{}"\n'
    )
    a, b = read_records("via", tmp_path, "train", classes=CLASSES)
    assert (summary(a), summary(b)) == ([(0, 24)], [])


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta/>
<image id="0" name="sub/a.png" width="30" height="20">
<polygon label="round" source="manual" occluded="0" points="2,3;8,3;8,7;2,7" z_order="0"/>
<mask label="long" rle="1, 2, 1, 2" left="20" top="5" width="3" height="2" z_order="0"/>
<ellipse label="long" cx="5" cy="14" rx="3" ry="3" z_order="0"/>
<points label="round" points="1,1" z_order="0"/>{more}
</image></annotations>"""


def test_cvat_xml(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/sub/a.png")
    (tmp_path / "train/annotations.xml").write_text(CVAT.format(more=""))
    (record,) = read_records("cvat", tmp_path, "train", classes=CLASSES)
    assert summary(record) == [(0, 24), (1, 4), (1, 32)]
    expected = [[False, True, True], [False, True, True]]
    assert record.cells.to_bitmaps()[1][5:7, 20:23].tolist() == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            CVAT.format(more='<box label="round" xtl="1" ytl="1"/>'),
            "box 5 of image 0",
        ),
        (CVAT.format(more='<polyline label="x" points="1,1;2,2"/>'), "a polyline is no area"),
        (CVAT.format(more="<polygon/>"), "polygon 5 of image 0: cannot be read: 'points'"),
        ("<annotations><track/></annotations>", "tracks of a video"),
        ("<voc/>", "found <voc>"),
        ("<voc", "cannot be read as XML"),
    ],
)
def test_cvat_files_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    write_image(tmp_path / "train/images/sub/a.png")
    (tmp_path / "train/annotations.xml").write_text(text)
    with pytest.raises(DatasetError, match=says):
        read_records("cvat", tmp_path, "train", classes=CLASSES)


def pack_brush(mask: np.ndarray) -> list[int]:
    """Label Studio's packing by its description, in blocks of single values and of runs."""
    values = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    bits = (
        f"{values.size:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    )
    place = 0
    while place < values.size:
        end = place
        while end < values.size and values[end] == values[place]:
            end += 1
        if end - place <= 8:
            bits += f"000{end - place - 1:03b}" + "".join(f"{v:08b}" for v in values[place:end])
        else:
            bits += f"111{end - place - 1:016b}{values[place]:08b}"
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def studio_task(*results: dict[str, Any], image: str = "/data/upload/1/0123abcd-a.png") -> Any:
    regions = [
        {"id": f"r{k}", "original_width": 30, "original_height": 20, **one}
        for k, one in enumerate(results)
    ]
    return {"id": 4, "data": {"image": image}, "annotations": [{"result": regions}]}


def test_label_studio_json(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/a.png")
    mask = np.zeros(HW, bool)
    mask[5, 6], mask[10:14, 3:9] = True, True
    points = [[x / 30 * 100, y / 20 * 100] for x, y in SQUARE]
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 15, "rotation": 0}
    task = studio_task(
        {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["round"]}},
        {
            "type": "brushlabels",
            "value": {"format": "rle", "rle": pack_brush(mask), "brushlabels": ["long"]},
        },
        {"type": "ellipselabels", "value": {**ellipse, "ellipselabels": ["long"]}},
    )
    (tmp_path / "train/project-1.json").write_text(json.dumps([task]))
    (record,) = read_records("label_studio", tmp_path, "train", classes=CLASSES)
    assert record.image_id == "a"
    assert summary(record) == [(0, 24), (1, 25), (1, 32)]
    assert np.array_equal(record.cells.to_bitmaps()[1], mask)


def test_label_studio_json_min(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/a.png")
    region = {
        "points": [[x / 30 * 100, y / 20 * 100] for x, y in SQUARE],
        "polygonlabels": ["long"],
        "original_width": 30,
        "original_height": 20,
    }
    content = [{"id": 4, "image": "/data/upload/1/0123abcd-a.png", "label": [region]}]
    (tmp_path / "train/min.json").write_text(json.dumps(content))
    (record,) = read_records("label_studio", tmp_path, "train", classes=CLASSES)
    assert summary(record) == [(1, 24)]


def test_label_studio_files_that_cannot_be_used(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/a.png")
    file = tmp_path / "train/p.json"
    box = {"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["round"]}}
    for task, says in (
        (studio_task(box), "a box without an outline .*task 4, region r0"),
        (studio_task({"type": "brushlabels", "value": {"rle": [0, 1]}}), "region r0: .*cut off"),
        (studio_task({"type": "polygonlabels", "value": {}}), "region r0: cannot be read"),
    ):
        file.write_text(json.dumps([task]))
        with pytest.raises(DatasetError, match=says):
            read_records("label_studio", tmp_path, "train", classes=CLASSES)
    with pytest.raises(DatasetError, match="a brush mask of 16 values; an image of 3 x 2"):
        decode_brush(bytes(pack_brush(np.ones((2, 2)))), (2, 3))


def test_files_of_one_project_are_chosen_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/sub/a.png")
    with pytest.raises(DatasetError, match=r"expected one file .*found none"):
        read_records("cvat", tmp_path, "train")
    for name in ("a.xml", "b.xml"):
        (tmp_path / "train" / name).write_text(CVAT.format(more=""))
    with pytest.raises(DatasetError, match=r"found a\.xml, b\.xml: name it with the option"):
        read_records("cvat", tmp_path, "train")
    (record,) = read_records("cvat", tmp_path, "train", annotations="b.xml")
    (again,) = read_records("cvat", tmp_path / "train", "a.xml")
    assert record.cells.equals(again.cells)


def test_conversion_keeps_every_cell(tmp_path: Path) -> None:
    write_image(tmp_path / "train/images/sub/a.png")
    (tmp_path / "train/annotations.xml").write_text(CVAT.format(more=""))
    target = SplitPlace("coco_json", tmp_path / "out", "train")
    made = convert_split(SplitPlace("cvat", tmp_path, "train"), target)
    assert (made.num_cells, made.classes, made.losses) == (3, ("long", "round"), ())


def test_points_of_qupath(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = read_records("geojson", shared_case("qupath_points"), "train")
    assert record.cells.areas_px.tolist() == [256]
    assert "points are no cells and left out: feature 2" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-9", "utf-16-odd", "gb2312"])
def test_cvat_in_an_encoding_that_is_none(tmp_path: Path, encoding: str) -> None:
    write_image(tmp_path / "train/images/a.png")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotations></annotations>'
    (tmp_path / "train/annotations.xml").write_text(text)
    with pytest.raises(DatasetError, match=r"annotations\.xml: cannot be read as XML"):
        read_records("cvat", tmp_path, "train")
