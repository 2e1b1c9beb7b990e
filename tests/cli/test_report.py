"""tools/report.py: once as a command, its errors, and a report of real images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.synthetic import make_cells
from commands import REPOSITORY, Command, run_program
from detectron2.data import DatasetCatalog

TOOL = REPOSITORY / "tools" / "report.py"
CONFIG = REPOSITORY / "configs" / "quick_start.yaml"
RESULTS = "inference/synthetic_val/coco_instances_results.json"


@pytest.fixture(scope="module")
def tool() -> Command:
    return Command("report")


def detections(dataset_name: str) -> list[dict]:
    """The true cells of a dataset as detections."""
    return [
        {"image_id": image["image_id"], "category_id": annotation["category_id"], "score": 0.9,
         "segmentation": annotation["segmentation"]}
        for image in DatasetCatalog.get(dataset_name)
        for annotation in image["annotations"]
    ]  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of the quick start with perfect predictions."""
    folder = tmp_path / "my run"
    folder.mkdir()
    cfg = load_config(CONFIG)
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    path = folder / RESULTS
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(detections("synthetic_val")), "utf-8")
    return folder


def test_as_a_command(run_dir: Path) -> None:
    done = run_program(str(TOOL), str(run_dir), "--max-images", "3")
    assert done.returncode == 0, done.stderr
    assert f"{run_dir / 'report.html'}: " in done.stdout
    assert " MB, written in " in done.stdout
    text = (run_dir / "report.html").read_text("utf-8")
    assert "Segmentation report: my run" in text
    assert "were found (100%)" in text
    assert text.count("<article") == 3
    assert not [path for path in run_dir.iterdir() if "partial" in path.name]


def test_predictions_of_another_model(tool: Command, run_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other=model.json"
    other.write_text("[]", "utf-8")
    output = tmp_path / "other.html"
    for given in (str(other), f"synthetic_val={other}"):
        arguments = [str(run_dir), "--predictions", given, "--output", str(output)]
        assert tool.main([*arguments, "--max-images", "0"]) == 0
        assert ", 0 were found (0%)" in output.read_text("utf-8")
        output.unlink()


def test_run_without_predictions_says_so(tool: Command, run_dir: Path) -> None:
    (run_dir / RESULTS).unlink()
    assert tool.main([str(run_dir)]) == 0
    assert "There are no predictions" in (run_dir / "report.html").read_text("utf-8")


def test_errors_are_one_clear_line(tool: Command, run_dir: Path, tmp_path: Path) -> None:
    assert "is no folder" in tool.main([str(tmp_path / "none")])
    several = ["--opts", "DATASETS.TEST", "('synthetic_val','synthetic_train')"]
    found = tool.main([str(run_dir), "--predictions", "a.json", *several])
    assert "expected DATASET=FILE" in found
    assert "a.json: no such file" in tool.main([str(run_dir), "--predictions", "a.json"])
    (run_dir / RESULTS).write_text('[{"image_id": "stranger"}]', "utf-8")
    assert "category_id" in tool.main([str(run_dir)])
    assert not (run_dir / "report.html").exists()


def test_bad_usage(tool: Command, run_dir: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        tool.main([str(run_dir), "--max-images", "-1"])
    assert raised.value.code == 2


def test_real_images(
    tool: Command, real_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up predictions on real images: every part is there, and the file is no giant."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(real_datasets))
    (tmp_path / "config.yaml").write_text(
        load_config(CONFIG, ["DATASETS.TEST", "('dsb2018_fluo_devtest',)",
                             "MODEL.ROI_HEADS.NUM_CLASSES", "1"]).dump()
    )  # fmt: skip
    images = DatasetCatalog.get("dsb2018_fluo_devtest")
    entries = []
    for seed, image in enumerate(images):
        hw = (image["height"], image["width"])
        cells = CellInstances.from_label_image(make_cells(seed, hw).labels)
        entries += [
            {"image_id": image["image_id"], "category_id": 0, "score": 0.7, "segmentation": rle}
            for rle in cells.to_rles()
        ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries), "utf-8")
    assert tool.main([str(tmp_path), "--predictions", str(path), "--max-images", "5"]) == 0
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 5
    assert f"in {len(images)} images" in text
    assert len(text) < 3e6
