"""Parts, freezing and the stop in two processes on the CPU; no image, a model of one page."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg.engine.distributed import run_in_processes

# Run by both processes, and once in this one, alone, over the images of both.
WORKER = """
from pathlib import Path
import cellseg
import torch
from cellseg.engine.freezing import FreezeSchedule
from cellseg.engine.steps import CellStep
from cellseg.errors import TrainingError
from detectron2.engine import TrainerBase, create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.early, self.late = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, batch):
        pixels = torch.stack([entry["image"].flatten() for entry in batch])
        if pixels.isinf().any():
            raise FloatingPointError("the model found an infinity")
        return {"loss": (self.late(self.early(pixels)) - 1).square().mean()}


def batches(iterations, rank, size, spoiled=None):
    generator = torch.Generator().manual_seed(1)
    for number in range(iterations):
        images = torch.rand(4, 3, 1, 1, generator=generator)
        if number == spoiled:
            images[3] = torch.nan
        named = [{"image": im, "file_name": f"{number}_{k}.png"} for k, im in enumerate(images)]
        yield named[rank * 4 // size : (rank + 1) * 4 // size]


class Loop(TrainerBase):
    def __init__(self, data, schedule=None, **options):
        super().__init__()
        model = Chain()
        self.optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=0.1)
        self._trainer = CellStep(create_ddp_model(model, broadcast_buffers=False), data,
                                 self.optimizer, **options)
        self.register_hooks([FreezeSchedule(model, schedule)] if schedule else [])

    @property
    def model(self):
        return self._trainer.model

    @model.setter
    def model(self, value):
        self._trainer.model = value

    def run(self, iterations):
        with EventStorage() as self.storage:
            for self.iter in range(iterations):
                self.before_step()
                self._trainer.iter = self.iter
                self._trainer.run_step()
        module = getattr(self.model, "module", self.model)
        return torch.cat([p.detach().flatten() for p in module.parameters()])


def main(args):
    output = Path(args.output)
    me = comm.get_rank(), comm.get_world_size()
    found, exchanges = {}, []

    def count(state, bucket):
        exchanges.append(bucket.index())
        return allreduce_hook(state, bucket)

    loop = Loop(batches(3, *me), accumulate=2)
    loop.model.register_comm_hook(None, count)
    found["parts"] = loop.run(3)
    found["exchanges"] = len(exchanges)
    found["frozen"] = Loop(batches(4, *me), {"early": 2}).run(4)
    try:
        Loop(batches(2, *me, spoiled=1), output_dir=output).run(2)
    except TrainingError as error:
        found["error"] = str(error)
    try:  # nobody looks at the gradients then
        Loop(batches(1, *me, spoiled=0), precision=torch.float16).run(1)
    except TrainingError as error:
        found["error in float16"] = str(error)
    torch.save(found, output / f"{me[0]}_of_{me[1]}.pth")
    infinite = [{"image": torch.full((3, 1, 1), torch.inf if me[0] else 0.0)}]
    Loop(iter([infinite]), output_dir=output / "last").run(1)
"""


@pytest.mark.embedded_only
@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA each process wants a GPU")
def test_two_processes_do_what_one_does_with_the_images_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "steps_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker: Any = importlib.import_module("steps_worker")
    two = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    two.output = str(tmp_path)
    with pytest.raises(SystemExit, match="one of its processes did"):
        run_in_processes(worker.main, two)
    said = capfd.readouterr().err
    names = ["0_of_2", "1_of_2"]
    assert all((tmp_path / f"{name}.pth").is_file() for name in names), said
    first, second = (torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in names)

    assert torch.equal(first["parts"], second["parts"])
    alone = worker.Loop(worker.batches(3, 0, 1)).run(3)
    torch.testing.assert_close(first["parts"], alone)
    assert first["exchanges"] == 3  # once per iteration, and not once per part

    assert torch.equal(first["frozen"], second["frozen"])
    alone = worker.Loop(worker.batches(4, 0, 1), {"early": 2}).run(4)
    torch.testing.assert_close(first["frozen"], alone)

    # one process has the spoiled image, both stop, both say all, and both leave their part
    assert first["error"] == second["error"]
    for text in (
        "process 0: the gradient is not finite, the losses are",
        "process 1: not finite: loss",
        "1_0.png, 1_1.png",
        "1_2.png, 1_3.png",
    ):
        assert text in first["error"]
    assert "process 0: another process found" in first["error in float16"]
    folders = {path.name: path for path in (tmp_path / "non_finite").iterdir()}
    assert sorted(folders) == ["iteration_0000001_rank0", "iteration_0000001_rank1"]
    both = {"report.json", "batch.pth", "image_0.png", "image_1.png"}
    found = [{path.name for path in folders[name].iterdir()} for name in sorted(folders)]
    assert found == [both | {"model.pth"}, both]

    # what only one of them can know ends both
    assert "the model found an infinity" in said
    own = tmp_path / "last" / "non_finite" / "iteration_0000000_rank1"
    assert {"batch.pth", "model.pth"} <= {path.name for path in own.iterdir()}
