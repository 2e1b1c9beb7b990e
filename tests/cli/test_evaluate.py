"""tools/evaluate.py: as a command without torch, then formats, mismatches and outputs inside."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.records import ImageRecord
from cellseg.evaluation import DEFAULT_METRICS, METRICS, score
from cellseg.io import FORMATS, read_records
from cellseg.io.coco_results import write_coco_results
from commands import REPOSITORY, Command, run_program

TOOL = REPOSITORY / "tools" / "evaluate.py"


@pytest.fixture(scope="module")
def tool() -> Command:
    return Command("evaluate")


def true_labels() -> dict[str, np.ndarray]:
    labels = np.zeros((20, 30), np.uint16)
    labels[2:8, 2:10] = 3
    labels[10:18, 12:20] = 7
    return {"a": labels, "b": np.fliplr(labels).copy(), "empty": np.zeros((20, 30), np.uint16)}


def pred_labels() -> dict[str, np.ndarray]:
    pred = {name: np.roll(labels, 1, axis=1) for name, labels in true_labels().items()}
    pred["b"][pred["b"] == 7] = 0
    return pred


def write_folder(folder: Path, labels: dict[str, np.ndarray], ending: str = "") -> Path:
    folder.mkdir(parents=True)
    for name, each in labels.items():
        tifffile.imwrite(folder / f"{name}{ending}.tif", each)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two folders of label images, as the tool's arguments."""
    write_folder(tmp_path / "truth", true_labels())
    write_folder(tmp_path / "found", pred_labels(), "_labels")
    return ["--ground-truth", f"{tmp_path}/truth", "--predictions", f"{tmp_path}/found"]


def metrics_of(tool: Command, path: Path, *words: str) -> dict:
    assert tool.main([*words, "--json", str(path / "out.json")]) == 0
    return json.loads((path / "out.json").read_text())


def expected(metrics: tuple[str, ...] = DEFAULT_METRICS) -> dict[str, float]:
    return score(list(true_labels().values()), list(pred_labels().values()), metrics)


def test_as_a_command_without_torch(folders: list[str], tmp_path: Path) -> None:
    script = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print([m for m in ('torch', 'detectron2') if m in sys.modules])"
    )
    metrics = ("--metrics", "f1@0.50", "ap_coco_mask")
    done = run_program("-c", script, TOOL, *folders, *metrics, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "3 images"
    assert lines[1].split() == ["metric", "all"]
    assert lines[2].split() == ["f1@0.50", f"{expected(('f1@0.50',))['f1@0.50']:.4f}"]
    assert lines[-1] == "[]"


def test_all_metrics(tool: Command, folders: list[str], tmp_path: Path) -> None:
    found = metrics_of(tool, tmp_path, *folders, "--metrics", "all")
    assert list(found["metrics"]) == list(METRICS)
    names = tuple(name for name, metric in METRICS.items() if not metric.ranked)
    assert {name: found["metrics"][name] for name in names} == pytest.approx(expected(names))
    assert found["metrics"]["ap_coco_mask_large"] is None  # no such cell
    assert "per_class" not in found


def test_intervals_and_per_image(
    tool: Command, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ["--metrics", "recall@0.50", "ar_coco_mask", "--intervals"]
    found = metrics_of(tool, tmp_path, *folders, *metrics, "--per-image", f"{tmp_path}/x/rows.csv")
    low, high = found["intervals"]["recall@0.50"]
    assert low < found["metrics"]["recall@0.50"] < high
    assert list(found["intervals"]) == ["recall@0.50"]
    assert "95 % interval" in capsys.readouterr().out
    with (tmp_path / "x/rows.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["image", "recall@0.50", "ar_coco_mask"]
    assert [row[0] for row in rows[1:]] == ["a", "b", "empty"]
    assert [float(row[1]) for row in rows[1:]] == [1, 0.5, 1]
    assert rows[3][2] == ""


def scenes_of(labels: dict[str, np.ndarray]) -> dict[str, builders.Scene]:
    return {
        name: builders.scene_of_masks([each == v for v in np.unique(each) if v], each.shape)
        for name, each in labels.items()
    }


def results_file(path: Path, classes: dict[str, list[int]] | None = None) -> Path:
    records = [
        ImageRecord(
            name, CellInstances.from_label_image(each, classes=classes and classes.get(name))
        )
        for name, each in pred_labels().items()
    ]
    write_coco_results(records, path, ["glia", "neuron"] if classes else ["cell"])
    return path


def test_dataset_against_results(
    tool: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = builders.write_label_images(tmp_path / "set", "val", scenes_of(true_labels()))
    results = results_file(tmp_path / "coco_results.json")
    words = ["--ground-truth", str(root), "--format-ground-truth", "label_images", "--split", "val"]
    found = metrics_of(tool, tmp_path, *words, "--predictions", str(results))
    assert found["metrics"] == pytest.approx(expected())
    assert "1 of 3 images have no prediction" in capsys.readouterr().err


def test_two_datasets_of_different_formats(tool: Command, tmp_path: Path) -> None:
    truth = builders.write_instance_masks(tmp_path / "true", "val", scenes_of(true_labels()))
    found_root = builders.write_label_images(tmp_path / "found", "mine", scenes_of(pred_labels()))
    assert len(read_records("instance_masks", truth, "val")) == 3
    found = metrics_of(
        tool,
        tmp_path,
        *("--ground-truth", str(truth), "--format-ground-truth", "instance_masks"),
        *("--predictions", str(found_root), "--format-predictions", "label_images"),
        *("--split", "val", "--split-predictions", "mine"),
    )
    assert found["metrics"] == pytest.approx(expected())


def test_classes(tool: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = builders.write_label_images(tmp_path / "set", "val", scenes_of(true_labels()))
    for name, classes in (("a", ["neuron", "glia"]), ("b", ["glia", "glia"]), ("empty", [])):
        builders.write_classes(root, "val", name, classes)
    results = results_file(tmp_path / "r.json", {"a": [1, 1], "b": [0]})
    words = ["--ground-truth", str(root), "--format-ground-truth", "label_images", "--split", "val"]
    words += ["--predictions", str(results), "--metrics", "tp@0.50", "fp@0.50", "fn@0.50"]
    found = metrics_of(tool, tmp_path, *words)
    assert found["classes"] == ["glia", "neuron"]
    assert found["metrics"] == {"tp@0.50": 2, "fp@0.50": 1, "fn@0.50": 2}
    assert found["per_class"]["neuron"] == {"tp@0.50": 1, "fp@0.50": 1, "fn@0.50": 0}
    assert found["confusion"] == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert capsys.readouterr().out.splitlines()[1].split() == ["metric", "all", "glia", "neuron"]
    plain = write_folder(tmp_path / "plain", pred_labels())
    words[words.index(str(results))] = str(plain)
    found = metrics_of(tool, tmp_path, *words)
    assert found["metrics"] == {"tp@0.50": 3, "fp@0.50": 0, "fn@0.50": 1}
    assert "per_class" not in found


def test_regions_of_uncounted_cells(
    tool: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = builders.write_label_images(tmp_path / "set", "val", scenes_of(true_labels()))
    records = read_records("label_images", root, "val")
    is_crowd = np.arange(len(records[0].cells)) == 0
    records[0] = replace(records[0], cells=records[0].cells.replace(is_crowd=is_crowd))
    coco = FORMATS["coco_json"]
    assert coco.write is not None
    coco.write(records, tmp_path / "coco", "val", ("cell",), {})
    words = ["--ground-truth", f"{tmp_path}/coco", "--format-ground-truth", "coco_json"]
    words += ["--split", "val", "--predictions", str(root), "--format-predictions", "label_images"]
    found = metrics_of(tool, tmp_path, *words, "--metrics", "tp@0.50", "fp@0.50", "fn@0.50")
    assert found["metrics"] == {"tp@0.50": 3, "fp@0.50": 0, "fn@0.50": 0}
    assert "1 regions of uncounted cells: cells there are not false" in capsys.readouterr().err


def test_sides_that_do_not_match(
    tool: Command, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "found/b_labels.tif").unlink()
    assert tool.main(folders) == 2
    assert "b: no prediction" in capsys.readouterr().err
    assert tool.main([*folders, "--ignore-missing"]) == 0
    assert "1 of 3 images have no prediction" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "found/new_labels.tif", np.zeros((20, 30), np.uint16))
    tifffile.imwrite(tmp_path / "found/a_labels.tif", np.zeros((30, 20), np.uint16))
    assert tool.main([*folders, "--ignore-missing"]) == 2
    text = capsys.readouterr().err
    assert "new: no true cells known" in text
    assert "a: truth is 30 x 20 (width x height), prediction 20 x 30" in text
    assert "b: " not in text


@pytest.mark.parametrize("ending", ["_masks", "_cp_masks", "_labels"])
def test_endings_and_other_files_beside(tool: Command, tmp_path: Path, ending: str) -> None:
    truth = write_folder(tmp_path / "truth", true_labels(), ending)
    for name in true_labels():
        builders.write_png(truth / f"{name}.png", np.zeros((20, 30, 3), np.uint8))
    found = write_folder(tmp_path / "found", pred_labels())
    words = ["--ground-truth", str(truth), "--predictions", str(found)]
    assert metrics_of(tool, tmp_path, *words)["metrics"] == pytest.approx(expected())


def one_result(**changes: object) -> str:
    rle = {"size": [20, 30], "counts": [0, 600]}
    return json.dumps([{"image_id": "a", "score": 1, "segmentation": rle, **changes}])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "cannot be read"),
        ("{}", "expected a list"),
        ('[{"image_id": "a"}]', "result 0: expected image_id"),
        (one_result(segmentation=[[1, 2]]), "result 0: expected a segmentation by run lengths"),
        (one_result(segmentation={"size": [20], "counts": "0"}), r"size [height, width]"),
        (one_result(segmentation={"size": [20, 30], "counts": "abc!"}), "ends in the middle"),
        (one_result(score="high"), "score 'high', expected a number"),
        (one_result(score=True), "score True, expected a number"),
        (one_result(bbox=[1, 2]), "bbox [1, 2], expected [x, y, width, height]"),
    ],
)
def test_broken_results(
    tool: Command, folders: list[str], tmp_path: Path, content: str, text: str
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(content)
    found = tool.main([*folders, "--predictions", str(broken)])
    assert isinstance(found, str)
    assert text in found
    assert str(broken) in found


def test_other_errors(tool: Command, folders: list[str], tmp_path: Path) -> None:
    assert "did you mean" in tool.main([*folders, "--metrics", "f1@0.5", "ap_ccoo_mask"])
    missing = [*folders, "--predictions", str(tmp_path / "nowhere")]
    assert "nowhere: no such folder" in tool.main(missing)
    (tmp_path / "hollow").mkdir()
    assert "no label image" in tool.main([*folders, "--predictions", str(tmp_path / "hollow")])
    assert "--split" in tool.main([*folders, "--format-ground-truth", "label_images"])
    builders.write_png(tmp_path / "found/a_labels.png", np.zeros((20, 30), np.uint8))
    assert "more than one label image of a" in tool.main(folders)
    results = tmp_path / "classes.json"
    rle = {"size": [20, 30], "counts": "0"}
    one = {"image_id": "a", "category_id": 3, "score": 1, "segmentation": rle}
    results.write_text(json.dumps([one]))
    words = [*folders, "--predictions", str(results), "--classes", "x", "y"]
    assert "category_id 3, expected 1 to 2" in tool.main(words)


def two_classes(root: Path, categories: list[tuple[int, str]]) -> list[dict[str, object]]:
    """A COCO data set of one image with a cell of each category; perfect results for it."""
    masks = [builders.rectangle((40, 60), x, 5, x + 15, 20) for x in (5, 30)]
    results = [
        {"image_id": "1", "category_id": number, "score": 0.9, "segmentation": bitmap_to_rle(mask)}
        for mask, (number, _) in zip(masks, categories)
    ]
    builders.write_png(root / "val/images/1.png", np.zeros((40, 60), np.uint8))
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}],
        "annotations": [{**one, "id": k, "image_id": 1} for k, one in enumerate(results, 1)],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    (root / "val/annotations.json").write_text(json.dumps(truth))
    return results


@pytest.mark.parametrize(
    "categories", [[(1, "A"), (2, "B")], [(2, "A"), (1, "B")], [(3, "A"), (9, "B")]]
)
def test_perfect_results_whatever_the_category_ids(
    tool: Command, tmp_path: Path, categories: list[tuple[int, str]]
) -> None:
    """Results have the data set's own ids; 0.1 took the class from the number alone."""
    results = two_classes(tmp_path / "set", categories)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    words = ["--ground-truth", str(tmp_path / "set"), "--format-ground-truth", "coco_json"]
    words += ["--split", "val", "--predictions", str(path), "--metrics", "f1@0.50"]
    assert metrics_of(tool, tmp_path, *words)["metrics"] == {"f1@0.50": 1.0}


def test_results_of_older_versions(tool: Command, folders: list[str], tmp_path: Path) -> None:
    """`train` counted from 0 and `predict` from 1; 0.1 refused the first."""
    root = tmp_path / "set"
    results = two_classes(root, [(3, "A"), (9, "B")])
    path = tmp_path / "results.json"
    words = ["--ground-truth", str(root), "--format-ground-truth", "coco_json", "--split", "val"]
    words += ["--predictions", str(path), "--metrics", "f1@0.50"]
    for ids in ((0, 1), (1, 2), (3, 9)):
        counted = [{**one, "category_id": k} for one, k in zip(results, ids)]
        path.write_text(json.dumps(counted))
        assert metrics_of(tool, tmp_path, *words)["metrics"] == {"f1@0.50": 1.0}
    path.write_text(json.dumps([{**results[0], "category_id": 1}]))
    says = tool.main(words)
    assert "category ids 1 can mean different classes" in says
    assert "say with --category-ids how it counts: from-0 or from-1" in says
    for asked, found in ((["from-1"], 1), (["from-0"], 0), (["1", "2"], 1)):
        metrics = metrics_of(tool, tmp_path, *words, "tp@0.50", "--category-ids", *asked)["metrics"]
        assert metrics["tp@0.50"] == found


def test_images_in_folders_and_a_data_set_that_names_them_otherwise(
    tool: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prediction's id has the folders of its image; a data set's has them where names repeat."""
    labels = true_labels()["a"]
    write_folder(tmp_path / "truth", dict.fromkeys(("x", "day_1_y", "day_2_y"), labels))
    for folder, name in (("in", "x"), ("day_1", "y"), ("day_2", "y")):
        write_folder(tmp_path / "found" / folder, {name: labels}, "_labels")
    words = ["--ground-truth", f"{tmp_path}/truth", "--predictions", f"{tmp_path}/found"]
    assert metrics_of(tool, tmp_path, *words, "--metrics", "f1@0.50")["metrics"]["f1@0.50"] == 1.0
    write_folder(tmp_path / "found" / "day_3", {"y": labels}, "_labels")
    assert tool.main(words) == 2
    assert "day_3/y: no true cells known" in capsys.readouterr().err
