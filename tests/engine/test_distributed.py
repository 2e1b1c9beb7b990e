"""Two processes against one: gradients, figures, errors; started by --num-gpus and by torchrun."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TRAIN = ["tools/train_net.py", "--config-file", "configs/quick_start.yaml"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="compares processes on the CPU; with CUDA each wants a GPU"
)

# A model whose two images weigh the same in every loss, so that the mean over processes is the mean
# over the batch: all anchors and all proposals count, as many of them in one image as in the other,
# and only the true boxes themselves are good enough for a mask.
WORKER = """
import argparse, sys
import cellseg
import torch
from cellseg import load_config
from cellseg.engine.distributed import run_in_processes
from detectron2.engine import create_ddp_model
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage


def make_image(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[4.0, 6.0], [30.0, 10.0], [12.0, 40.0]]) + seed
    boxes = torch.cat([corners, corners + 16], dim=1)
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0:y1, x0 : x1 - 4] = True
    cells = Instances((64, 64), gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
    cells.gt_classes = torch.zeros(3, dtype=torch.int64)
    return {"image": torch.rand(3, 64, 64, generator=generator) * 255, "instances": cells}


def main(args):
    torch.manual_seed(3)
    model = build_model(load_config("configs/base_mask_rcnn_R_50_FPN.yaml", args.opts))
    model = create_ddp_model(model, broadcast_buffers=False)
    batch = [make_image(0), make_image(1)][comm.get_rank() :: comm.get_world_size()]
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    module = getattr(model, "module", model)
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    if comm.is_main_process():
        torch.save({"processes": comm.get_world_size(), "gradients": gradients}, args.output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("output")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    parser.set_defaults(num_machines=1, machine_rank=0, dist_url="auto")
    run_in_processes(main, parser.parse_args())
"""
EQUAL_WEIGHTS = {
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 100_000,
    "MODEL.RPN.POSITIVE_FRACTION": 1.0,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "[0.99]",
    "MODEL.DEVICE": "cpu",
}


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": module_path()}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def module_path() -> str:
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))


@pytest.mark.embedded_only
def test_one_image_in_each_of_two_processes_gives_the_gradients_of_a_batch_of_two(
    tiny_model: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    opts = [*tiny_model, *(str(word) for item in EQUAL_WEIGHTS.items() for word in item)]
    ways = {
        "one process": [str(script), str(tmp_path / "1.pth")],
        "launch": [str(script), "--num-gpus", "2", str(tmp_path / "2.pth")],
        "torchrun": [*TORCHRUN, str(script), str(tmp_path / "3.pth")],
    }
    found = {}
    for way, command in ways.items():
        done = python(*command, *opts)
        assert done.returncode == 0, done.stdout + done.stderr
        found[way] = torch.load(command[-1], weights_only=True)
    assert [result["processes"] for result in found.values()] == [1, 2, 2]

    expected = found["one process"]["gradients"]
    assert {name.partition(".")[0] for name in expected} == {
        "backbone",
        "proposal_generator",
        "roi_heads",
    }
    for way in ("launch", "torchrun"):
        gradients = found[way]["gradients"]
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            error = (gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
            # Sums in another order: 1e-4 without AVX-512, less with it. A wrong weight is 1e-1.
            assert error < 1e-3, (way, name)


def figures(output: str) -> list[str]:
    """The figures in a log, in the order of their tasks."""
    return re.findall(r"copypaste: ((?:[\d.,]|nan)+)$", output, flags=re.MULTILINE)


@pytest.mark.embedded_only
def test_two_processes_train_and_evaluate_to_the_figures_of_one(
    tiny_training: list[str], tmp_path: Path
) -> None:
    everything = ["CELLSEG.TEST.SCORE_THRESHOLD", "0.0", "MODEL.DEVICE", "cpu"]
    trained = python(*TRAIN, "--num-gpus", "2", *tiny_training, *everything)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "FutureWarning" not in trained.stderr

    weights = ["MODEL.WEIGHTS", str(tmp_path / "run" / "model_final.pth")]
    evaluate = [*TRAIN, "--eval-only", *tiny_training, *everything, *weights]
    alone = python(*evaluate)
    together = python(*TORCHRUN, *evaluate)
    assert together.returncode == 0, together.stdout + together.stderr
    assert len(figures(alone.stdout)) == 3  # boxes, masks, IoU
    assert figures(trained.stdout) == figures(alone.stdout)
    assert figures(together.stdout) == figures(alone.stdout)


@pytest.mark.parametrize("way", [["--num-gpus", "2"], []])
def test_an_error_in_the_processes_ends_the_run_with_its_text(
    way: list[str], tiny_training: list[str]
) -> None:
    start = time.monotonic()
    starter = [] if way else TORCHRUN
    done = python(
        *starter, *TRAIN, *way, *tiny_training, "MODEL.DEVICE", "cpu", "DATASETS.TRAIN", "('none',)"
    )
    assert done.returncode != 0
    assert "DatasetError" in done.stderr or "ConfigError" in done.stderr
    assert "none" in done.stderr
    if way:
        assert "The run ended because one of its processes did" in done.stderr
        assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 120


def test_torchrun_and_num_gpus_at_once_are_refused(tiny_training: list[str]) -> None:
    done = python(*TORCHRUN, *TRAIN, "--num-gpus", "2", *tiny_training)
    assert done.returncode != 0
    assert "torchrun has started 2 processes" in done.stderr
