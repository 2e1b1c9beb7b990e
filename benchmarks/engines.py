"""Time one training step and one inference on the embedded engine and on real Detectron2.

    python benchmarks/engines.py --real /path/to/detectron2

The two engines run in a process each and take turns, A B B A ..., within the same minutes, so that
whatever else slows the machine down slows both. Prints a Markdown table of medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

REPOSITORY = Path(__file__).resolve().parent.parent
BASE_CONFIG = REPOSITORY / "configs" / "base_mask_rcnn_R_50_FPN.yaml"
EMBEDDED = REPOSITORY / "cellseg" / "embedded"
WARM_UPS = 2
SAME_WORK_TOLERANCE = 0.02


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        step: "training" (forward, backward, optimizer) or "inference" (masks pasted).
        norm: of the backbone; with "GN" also of the pyramid, as in configs/.
        height: of each image, px.
        width: of each image, px.
        batch: images per step.
        cells: true cells per image; in inference the number of detections that get a mask.
        dtype: "float32", or "bfloat16" for autocast.
        device: "cpu" or "cuda".
        depth: of the ResNet.
    """

    step: str
    norm: str
    height: int
    width: int
    batch: int
    cells: int
    dtype: str
    device: str
    depth: int


# Below runs in the workers, on the one engine that PYTHONPATH gives them.


def serve(requests: Iterable[str], answers: IO[str]) -> None:
    """Answer until the requests end: a case prepares its step, an empty request runs it once."""
    step: Step | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if request or step is None:
                step = None  # frees the memory of the one before
                step = Step(Case(**request))
                answer: dict[str, Any] = {}
            else:
                answer = step.run()
        except Exception as error:  # the table says which case failed, and goes on
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


class Step:
    """A model with its optimizer and one batch, ready to be timed."""

    def __init__(self, case: Case) -> None:
        import torch
        from detectron2.modeling import build_model
        from detectron2.solver import build_optimizer

        torch.manual_seed(0)
        cfg = engine_config(case)
        self.case = case
        self.model = build_model(cfg).train(case.step == "training")
        self.optimizer = build_optimizer(cfg, self.model)
        self.inputs = make_batch(case)

    def run(self) -> dict[str, float]:
        """Seconds, and a figure that shows whether both engines did the same work."""
        import torch
        from detectron2.utils.events import EventStorage

        torch.manual_seed(1)  # the same anchors and proposals are sampled
        self._wait()
        start = time.perf_counter()
        with EventStorage(0):
            figure = self._train() if self.case.step == "training" else self._infer()
        self._wait()
        return {"seconds": time.perf_counter() - start, "figure": float(figure)}

    def _train(self) -> Any:
        with self._autocast():
            loss = sum(self.model(self.inputs).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _infer(self) -> int:
        import torch

        with torch.no_grad(), self._autocast():
            return sum(len(output["instances"]) for output in self.model(self.inputs))

    def _autocast(self) -> Any:
        import torch

        reduced = self.case.dtype != "float32"
        return torch.autocast(self.case.device, torch.bfloat16, enabled=reduced)

    def _wait(self) -> None:
        import torch

        if self.case.device == "cuda":
            torch.cuda.synchronize()


def engine_config(case: Case) -> Any:
    """configs/base_mask_rcnn_R_50_FPN.yaml without cellseg's own keys, and the case's."""
    import yaml
    from detectron2.config import CfgNode, get_cfg

    keys = yaml.safe_load(BASE_CONFIG.read_text("utf-8"))
    del keys["CELLSEG"]
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(keys))
    cfg.MODEL.DEVICE = case.device
    cfg.MODEL.RESNETS.NORM = case.norm
    cfg.MODEL.RESNETS.DEPTH = case.depth
    if case.depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    if case.norm != "GN":  # then weights are pretrained, and the usual stages frozen
        cfg.MODEL.FPN.NORM = ""
        cfg.MODEL.BACKBONE.FREEZE_AT = 2
    cfg.TEST.DETECTIONS_PER_IMAGE = case.cells
    cfg.SOLVER.BASE_LR = 1e-8  # all the arithmetic of an update, and yet every step the same
    return cfg


def make_batch(case: Case) -> list[dict[str, Any]]:
    """Random pixels with elliptic cells, 12 to 32 px across; the same on both engines."""
    import torch
    from detectron2.structures import BitMasks, Boxes, Instances

    size = case.height, case.width
    generator = torch.Generator().manual_seed(2)
    rows, columns = torch.arange(case.height)[:, None], torch.arange(case.width)
    batch = []
    for _ in range(case.batch):
        radius = 6 + 10 * torch.rand(case.cells, 2, generator=generator)
        centre = radius + torch.rand(case.cells, 2, generator=generator) * (
            torch.tensor(size) - 2 * radius
        )
        (row, column), (high, wide) = centre.T[:, :, None, None], radius.T[:, :, None, None]
        masks = ((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 <= 1
        boxes = torch.cat([centre - radius, centre + radius], 1)[:, [1, 0, 3, 2]]
        cells = Instances(size, gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
        cells.gt_classes = torch.zeros(case.cells, dtype=torch.int64)
        image = torch.rand(3, *size, generator=generator) * 255
        batch.append(
            {"image": image, "instances": cells, "height": case.height, "width": case.width}
        )
    return batch


# Below runs in the parent, which imports no engine.


class WorkerError(RuntimeError):
    """A worker ended, or runs on another engine than it should."""


class Worker:
    """A process with one engine, which computes only while it is asked to.

    Args:
        name: for messages.
        engine_folder: holds the package `detectron2`.
    """

    def __init__(self, name: str, engine_folder: Path) -> None:
        self.name = name
        path = os.pathsep.join(filter(None, [str(engine_folder), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
        )
        found = Path(self._read()["location"])
        if found.resolve() != (engine_folder / "detectron2").resolve():
            raise WorkerError(f"{name}: detectron2 came from {found}, not from {engine_folder}")

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerError(f"the worker of {self.name} ended with code {code}; see above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def workers(real: Path) -> Iterator[tuple[Worker, Worker]]:
    """One of real Detectron2, one of the embedded engine."""
    started: list[Worker] = []
    try:
        for name, folder in (("Detectron2", real), ("the embedded engine", EMBEDDED)):
            started.append(Worker(name, folder))
        yield started[0], started[1]
    finally:
        for worker in started:
            worker.close()


@dataclass
class Timings:
    """What one engine took for a case.

    Attributes:
        seconds: of the counted runs.
        figure: loss, or number of detections, of the last run.
        error: why there are none; empty if all went well.
    """

    seconds: list[float]
    figure: float = 0.0
    error: str = ""

    def add(self, answer: dict[str, Any], counted: bool) -> None:
        """Take in one answer of a worker."""
        if "error" in answer:
            self.error = self.error or answer["error"]
        elif counted:
            self.seconds.append(answer["seconds"])
            self.figure = answer["figure"]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.seconds) * 1e3

    @property
    def cell(self) -> str:
        """For the table: milliseconds, the error, or "-" where the other engine failed."""
        return self.error or (f"{self.median_ms:.1f}" if self.seconds else "-")


def compare(pair: Sequence[Worker], case: Case, repeats: int) -> list[Timings]:
    """Run one case on both engines, in turns; the order within a turn is swapped every time."""
    timings = [Timings([]) for _ in pair]
    for worker, timing in zip(pair, timings):
        timing.add(worker.ask(asdict(case)), counted=False)
    if any(timing.error for timing in timings):
        return timings
    for turn in range(WARM_UPS + repeats):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for index in order:
            timings[index].add(pair[index].ask({}), counted=turn >= WARM_UPS)
        if any(timing.error for timing in timings):
            return timings
    return timings


COLUMNS = ("step", "norm", "size", "batch", "dtype", "Detectron2 [ms]", "embedded [ms]", "ratio")


def table_line(cells: Iterable[Any]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def describe(case: Case, real: Timings, embedded: Timings) -> str:
    """The table's line for a case; a ratio above 1 says that the embedded engine is faster."""
    times = [timing.cell for timing in (real, embedded)]
    ratio = "-"
    if not real.error and not embedded.error:
        ratio = f"{real.median_ms / embedded.median_ms:.2f}"
        difference = abs(real.figure - embedded.figure)
        if not difference <= SAME_WORK_TOLERANCE * abs(real.figure):  # also where one is NaN
            ratio += f" (not the same work: {real.figure:.4g} against {embedded.figure:.4g})"
    size = f"{case.height}x{case.width}"
    return table_line((case.step, case.norm, size, case.batch, case.dtype, *times, ratio))


def describe_machine(device: str) -> str:
    """What the figures were measured on."""
    import torch

    processor = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    if device == "cuda":
        processor = torch.cuda.get_device_name()
    return f"{processor}; torch {torch.__version__}, Python {platform.python_version()}"


def image_size(text: str) -> tuple[int, int]:
    """ "520x704" to (520, 704)."""
    height, width = text.split("x")
    return int(height), int(width)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--real", type=Path, help="folder that holds real Detectron2's package detectron2")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    add("--steps", nargs="+", choices=["training", "inference"], default=["training", "inference"])
    add("--norms", nargs="+", choices=["GN", "FrozenBN"], default=["GN", "FrozenBN"])
    add("--sizes", nargs="+", type=image_size, default=[(256, 256), (520, 704)], metavar="HxW")
    add("--batches", nargs="+", type=int, default=[1, 2])
    add("--cells", type=int, default=60, help="per image")
    add("--repeats", type=int, default=7, help="counted runs per case and engine")
    add("--depth", type=int, default=50, help=argparse.SUPPRESS)
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.worker:
        if args.real is None:
            parser.error("--real is required: the folder of an installed or built Detectron2")
        if not (args.real / "detectron2" / "__init__.py").is_file():
            parser.error(f"--real {args.real}: no detectron2/__init__.py in it")
    return args


def work() -> None:
    """Be a worker: requests on stdin, answers on stdout; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import detectron2

    location = str(Path(str(detectron2.__file__)).parent)
    print(json.dumps({"location": location}), file=answers, flush=True)
    serve(sys.stdin, answers)


def main() -> None:
    """Compare the engines in every case that the command line asks for."""
    args = parse_args()
    if args.worker:
        work()
        return
    print(f"{describe_machine(args.device)}; medians of {args.repeats}\n")
    print(table_line(COLUMNS), table_line("---" for _ in COLUMNS), sep="\n", flush=True)
    axes = (args.steps, args.norms, args.sizes, args.batches, args.dtypes)
    with workers(args.real) as pair:
        for step, norm, (height, width), batch, dtype in itertools.product(*axes):
            size = (height, width, batch, args.cells)
            case = Case(step, norm, *size, dtype, args.device, args.depth)
            print(describe(case, *compare(pair, case, args.repeats)), flush=True)


if __name__ == "__main__":
    main()
