"""The running engine computes what Detectron2 computes: from golden files, and live."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import cellseg
import pytest
from comparison import GOLDEN, differences, read_tree
from scenarios import SCENARIOS

MAKE_GOLDEN = Path(__file__).with_name("make_golden.py")
REAL = "CELLSEG_REAL_DETECTRON2"
LOSSES = {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
MODELS = ("mask_rcnn", "cascade_mask_rcnn", "mask_rcnn_group_norm")


@cache
def computed(name: str) -> dict[str, Any]:
    return SCENARIOS[name]()


@cache
def golden(name: str) -> dict[str, Any]:
    return read_tree(GOLDEN / f"{name}.json")


def report(found: list[str]) -> str:
    more = f"\n... and {len(found) - 15} more" if len(found) > 15 else ""
    return "\n".join(["", *found[:15]]) + more


@pytest.mark.parametrize("name", SCENARIOS)
def test_golden(name: str) -> None:
    found = differences(golden(name), computed(name))
    assert not found, report(found)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what the Detectron2 of `CELLSEG_REAL_DETECTRON2` computes now."""
    if cellseg.engine_info().name == "detectron2":
        pytest.skip("Detectron2 itself runs; the golden files are compared with it")
    if not os.environ.get(REAL):
        pytest.skip(f"no live comparison: set {REAL} to the folder that holds detectron2/")
    folder = tmp_path_factory.mktemp("live")
    path = os.pathsep.join(filter(None, [os.environ[REAL], os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(MAKE_GOLDEN), "--output", str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", SCENARIOS)
def test_live(name: str, live: Path) -> None:
    found = differences(read_tree(live / f"{name}.json"), computed(name))
    assert not found, report(found)


@pytest.mark.embedded_only
def test_golden_files_come_from_detectron2_only(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    done = subprocess.run(
        [sys.executable, str(MAKE_GOLDEN), "--output", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "installed Detectron2" in done.stderr
    assert not folder.exists()


def test_one_small_file_for_each_scenario() -> None:
    files = sorted(GOLDEN.iterdir())
    assert [path.name for path in files] == sorted(f"{name}.json" for name in SCENARIOS)
    assert sum(path.stat().st_size for path in files) < 1_000_000


@pytest.mark.parametrize("name", MODELS)
def test_models_find_something(name: str) -> None:
    """Agreement on nothing would be worth nothing."""
    figures = golden(name)
    losses = figures["losses"]
    assert {loss.partition("_stage")[0] for loss in losses} == LOSSES
    assert all(loss > 0 for loss in losses.values())
    assert all(g["norm"] > 0 for g in figures["gradients"].values() if g is not None)
    for image in figures["detections"]:
        assert len(image["scores"]) == 12
        assert min(image["scores"]) > 0.3
    assert {k for image in figures["detections"] for k in image["classes"]} == {0, 1}
    assert all(len(image["logits"]) == 30 for image in figures["proposals"])
    for image in figures["sampled proposals"]:
        assert {0, 1, 2} == set(image["classes"])  # 2 is the background
    for image in figures["sampled anchors"]:
        assert all(image.values())


def test_figures_tell_the_limits_apart() -> None:
    few, many = golden("coco_figures").values()
    for task in ("bbox", "segm"):
        assert 10 < few["figures"][task]["AP"] < many["figures"][task]["AP"] < 90


def test_images_are_changed_at_random() -> None:
    for variant in golden("random_order").values():
        samples = [sample for batch in variant for sample in batch]
        assert len({sample["file"] for sample in samples}) >= 5
        assert len({tuple(sample["shape"]) for sample in samples}) >= 5


def test_weights_move() -> None:
    movement = golden("five_steps")["movement"]
    frozen = [name for name, length in movement.items() if not length]
    assert all(".stem." in name or ".res2." in name for name in frozen)
    assert len(frozen) < len(movement) / 3
    assert len(golden("five_steps")["steps"]) == 5
