"""tools/train_net.py from the outside: train, evaluate, be killed, resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "tools/train_net.py", "--config-file", "configs/quick_start.yaml"]


def train(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def last_iteration(run: Path) -> int:
    state = torch.load(run / "model_final.pth", weights_only=True)
    return int(state["iteration"])


def test_trains_evaluates_and_leaves_pictures(tiny_training: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["CELLSEG.TEST.REPORT", "True", "CELLSEG.TEST.METRICS", "('aji', 'ap_coco_mask')"]
    augmented = ["TEST.AUG.ENABLED", "True", "CELLSEG.TEST.AUG_ROTATE90", "False"]
    more += augmented
    first = train(*tiny_training, *more, "MODEL.DEVICE", "cpu")
    lines = [line for line in first.stdout.splitlines() if line.strip()]
    assert "Engine: " in lines[0]
    assert "Device: cpu (" in lines[1]
    assert "FutureWarning" not in first.stderr
    assert last_iteration(run) == 3
    metrics = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    merged = {key: value for line in metrics for key, value in line.items()}
    tested = {"bbox/AP", "segm/AP", "cell_iou/ap_dsb@0.50", "cell_iou/pq@0.75"}
    tested |= {key.replace("/", "_TTA/") for key in tested}
    assert tested | {"loss_mask"} <= set(merged)
    assert merged["cell_iou/ap_coco_mask"] == pytest.approx(merged["segm/AP"] / 100, abs=1e-6)
    assert 0 <= merged["cell_iou/aji"] <= 1
    assert "<!doctype html>" in (run / "report.html").read_text("utf-8").lower()
    assert 0 <= merged["cell_iou/ap_dsb"] <= 1
    assert len(list((run / "inference/synthetic_val/pictures").glob("*.png"))) == 2

    weights = str(run / "model_final.pth")
    again = train("--eval-only", *tiny_training, *augmented, "MODEL.WEIGHTS", weights)
    assert "ap_dsb" in again.stdout
    figures = json.loads((run / "figures.json").read_text())
    for key in tested:  # the same weights on the same images
        assert figures[key] == pytest.approx(merged[key], nan_ok=True), key

    resumed = train("--resume", *tiny_training)
    assert "Nothing left to train" in resumed.stdout


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.05)


def test_a_killed_run_resumes_from_its_last_whole_checkpoint(
    tiny_training: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, *tiny_training, "SOLVER.MAX_ITER", "100000"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wait_for(run / "model_0000003.pth", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    checkpoint = run / (run / "last_checkpoint").read_text().strip()
    reached = int(torch.load(checkpoint, weights_only=True)["iteration"])
    assert reached >= 1
    # What a kill in the middle of a save leaves behind.
    (run / f"model_{reached + 2:07d}.pth.partial").write_bytes(b"half a checkpoint")

    done = train("--resume", *tiny_training, "SOLVER.MAX_ITER", str(reached + 3))
    assert re.search(rf"Resuming from \S+ at iteration {reached + 1} of {reached + 3}", done.stdout)
    assert last_iteration(run) == reached + 2
    assert not list(run.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHed"], "MaskRCNNConvUpsampleHead"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "3"], "set it to 1"),
        (["DATASETS.TRAIN", "('synthetic_trian',)"], "synthetic_train"),
        (["SOLVER.MAX_ITR", "3"], "SOLVER.MAX_ITER"),
    ],
    ids=["head", "classes", "dataset", "key"],
)
def test_a_wrong_setting_is_one_clear_error(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = train(*arguments, "OUTPUT_DIR", str(tmp_path / "run"), check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", [[], ["--eval-only"]])
def test_missing_weights_are_one_clear_error(mode: list[str], tiny_training: list[str]) -> None:
    done = train(*mode, *tiny_training, "MODEL.WEIGHTS", "nowhere.pth", check=False)
    assert done.returncode == 1
    assert "CheckpointError: nowhere.pth: no such checkpoint file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_named_and_missing_is_an_error(
    tiny_training: list[str], tmp_path: Path
) -> None:
    done = train(*tiny_training, "MODEL.DEVICE", "cuda", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ConfigError: MODEL.DEVICE is 'cuda', which is not there")
    assert not (tmp_path / "run").exists()
