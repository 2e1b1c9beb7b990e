"""Time prediction, with reading the image and writing the label image, against others.

    python benchmarks/inference.py --weights output/dsb2018_cpu_light/model_final.pth
    python benchmarks/inference.py --stardist-python PATH --cellpose-python PATH
    python benchmarks/inference.py --many 2000

All take turns within the same minutes on the same files: cellseg's CellModel; the same without
`prepare_for_prediction`; the same in bfloat16, where the processor has it; the engine's own
`DefaultPredictor`, whose bitmaps become a label image; and StarDist and Cellpose in a Python of
their own (see `inference_peers.py`). Prints a Markdown table of medians. Without weights cellseg's
model is untrained and finds things everywhere, which tells little.

`--many N` is another thing: a folder of N small images, five of them broken, predicted by
`cellseg predict` with a small untrained model; what memory it takes after 100, 1,000, ... images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cellseg  # noqa: F401  (finds the engine)
import numpy as np
import tifffile
import torch
from cellseg.cells.synthetic import make_cells
from cellseg.engine.setup import load_config
from cellseg.inference import predictor as predictor_module
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling.prediction_speed import computes_in_bfloat16
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from peers import environment_of_peer
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs/dsb2018/mask_rcnn_R_50_FPN_cpu_light.yaml"
PEERS = Path(__file__).with_name("inference_peers.py")
CASES = ("256x256:20", "520x704:110", "1024x1024:500", "1024x1024:2000")
NO_DATA = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu"]
BROKEN = 5

Way = Callable[[dict[str, str]], tuple[float, int]]  # files to seconds and cells


def build_predictor(weights: str, options: Sequence[str] = ()) -> CellPredictor:
    cfg = load_config(CONFIG, [*NO_DATA, "MODEL.WEIGHTS", weights, *options])
    return CellPredictor(cfg)


@contextmanager
def layers_as_they_are() -> Iterator[None]:
    original = predictor_module.prepare_for_prediction
    predictor_module.prepare_for_prediction = lambda *_: None
    try:
        yield
    finally:
        predictor_module.prepare_for_prediction = original


def way_of_cellseg(predictor: CellPredictor) -> Way:
    model = CellModel(predictor)

    def predict(files: dict[str, str]) -> tuple[float, int]:
        start = time.perf_counter()
        cells = model.predict(files["image"])
        write_labels(files["output"], cells.to_label_image())
        return time.perf_counter() - start, len(cells)

    return predict


def way_of_engine(predictor: CellPredictor) -> Way:
    """`DefaultPredictor`, given the same pixels; what reaches the threshold, best cells on top."""
    theirs = DefaultPredictor(predictor.cfg)

    def predict(files: dict[str, str]) -> tuple[float, int]:
        start = time.perf_counter()
        pixels = predictor._input.prepare(predictor.read_image(files["image"]))
        found = theirs(pixels)["instances"]
        found = found[found.scores >= predictor.thresholds.lowest_score]
        labels = np.zeros(pixels.shape[:2], np.uint16)
        for number in range(len(found), 0, -1):
            labels[found.pred_masks[number - 1].numpy()] = number
        write_labels(files["output"], labels)
        return time.perf_counter() - start, len(found)

    return predict


def write_labels(path: str, labels: Any) -> None:
    tifffile.imwrite(path, labels.astype(np.uint16))


def way_of_peer(python: str, name: str, threads: int) -> tuple[str, Way]:
    """A peer in a process of its own, which waits on a pipe while it is not its turn."""
    worker = subprocess.Popen(
        [python, str(PEERS), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment_of_peer(threads),
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    asks, answers = worker.stdin, worker.stdout

    def predict(files: dict[str, str]) -> tuple[float, int]:
        print(json.dumps(files), file=asks, flush=True)
        answer = json.loads(answers.readline())
        return answer["seconds"], answer["cells"]

    return json.loads(answers.readline())["name"], predict


def build_ways(args: argparse.Namespace, weights: str) -> dict[str, Way]:
    prepared = build_predictor(weights)
    with layers_as_they_are():
        plain = build_predictor(weights)
    ways = {"cellseg": way_of_cellseg(prepared)}
    if computes_in_bfloat16():
        rounded = build_predictor(weights, ["CELLSEG.TEST.PRECISION", "bfloat16"])
        ways["cellseg, bfloat16"] = way_of_cellseg(rounded)
    ways["cellseg, layers as they are"] = way_of_cellseg(plain)
    ways["DefaultPredictor"] = way_of_engine(plain)
    for name, python in (("stardist", args.stardist_python), ("cellpose", args.cellpose_python)):
        if python:
            peer, way = way_of_peer(python, name, args.threads)
            ways[peer] = way
    return ways


def write_case(folder: Path, case: str) -> dict[str, str]:
    """An image of so many synthetic cells and its true label image, as files."""
    size, _, cells = case.partition(":")
    height, width = map(int, size.split("x"))
    scene = make_cells(1, (height, width), num_cells=int(cells), touching=0.5)
    stem = folder / case.replace(":", "_")
    Image.fromarray(scene.image).save(f"{stem}.png")
    return files_of(Path(f"{stem}.png"), scene.labels, folder)


def files_of(image: Path, labels: Any, folder: Path) -> dict[str, str]:
    truth = folder / f"{image.stem}_true.tif"
    tifffile.imwrite(truth, labels)
    return {"image": str(image), "labels": str(truth), "output": str(folder / "output.tif")}


def compare(name: str, files: dict[str, str], ways: dict[str, Way], repeats: int) -> None:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cells = dict.fromkeys(ways, 0)
    for turn in range(repeats + 2):
        for way, predict in ways.items():
            taken, cells[way] = predict(files)
            if turn > 1:  # two runs warm up
                seconds[way].append(taken)
    first = statistics.median(seconds["cellseg"])
    for way, each in seconds.items():
        median = statistics.median(each)
        row = (name, way, cells[way], f"{median:.2f}", f"{1 / median:.2f}", f"{median / first:.2f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def print_table(args: argparse.Namespace, folder: Path) -> None:
    weights = args.weights or str(write_untrained(folder, CONFIG, NO_DATA))
    ways = build_ways(args, weights)
    cases = {case: write_case(folder, case) for case in args.cases}
    for image, labels in zip(args.images, args.true_labels):
        cases[image.name] = files_of(image, tifffile.imread(labels), folder)
    print(f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads\n")
    print("| image | what | cells | seconds | images per second | times cellseg's |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, files in cases.items():
        compare(name, files, ways, args.repeats)
    print(f"\nload {os.getloadavg()[0]:.1f}")


def write_untrained(folder: Path, config: Path, options: Sequence[str]) -> Path:
    torch.manual_seed(0)
    path = folder / "untrained.pth"
    torch.save({"model": build_model(load_config(config, [*options])).state_dict()}, path)
    return path


def watch_memory(count: int, folder: Path) -> None:
    """Predict a folder of many images, and print what memory the process takes on its way."""
    small = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    small += ["MODEL.FPN.OUT_CHANNELS", "32", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"]
    small += ["MODEL.ROI_MASK_HEAD.CONV_DIM", "32", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1"]
    small += ["MODEL.RPN.POST_NMS_TOPK_TEST", "50", "TEST.DETECTIONS_PER_IMAGE", "20"]
    options = [*NO_DATA, *small]
    options += ["MODEL.WEIGHTS", str(write_untrained(folder, CONFIG, options))]
    images, results = folder / "images", folder / "results"
    images.mkdir()
    for number in range(count):
        path = images / f"{number:05}.png"
        if number % (count // BROKEN) == count // BROKEN // 2:
            path.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
            continue
        pixels = make_cells(number, (64 + 8 * (number % 5), 64), num_cells=6).image
        Image.fromarray(pixels).save(path)
    command = [sys.executable, "-m", "cellseg", "predict", str(images), "-o", str(results)]
    command += ["--config-file", str(CONFIG), "--save", "labels", "--score-threshold", "0.3"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    print("| images | resident memory [MiB] |\n| --- | --- |")
    marks = [mark for mark in (100, 500, 1000, 2000, 5000, 10000) if mark < count]
    last = 0.0
    while process.poll() is None:
        last = resident_mib(process.pid) or last
        if marks and len(list(results.rglob("*.tif"))) >= marks[0]:
            print(f"| {marks.pop(0)} | {last:.0f} |", flush=True)
        time.sleep(0.1)
    done = len(list(results.rglob("*.tif")))
    print(f"| {done}, the last | {last:.0f} |")
    print(f"\nexit status {process.returncode}; failed.csv:\n{read_text(results / 'failed.csv')}")


def resident_mib(pid: int) -> float:
    for line in read_text(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="", help=f"of {CONFIG.name}")
    parser.add_argument("--cases", nargs="*", default=CASES, metavar="HxW:CELLS")
    parser.add_argument("--images", nargs="*", default=[], type=Path, help="further images")
    parser.add_argument("--true-labels", nargs="*", default=[], type=Path, help="of --images, TIFF")
    parser.add_argument("--stardist-python", default="", help="a Python that has StarDist")
    parser.add_argument("--cellpose-python", default="", help="a Python that has Cellpose 3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--many", type=int, default=0, metavar="N", help="watch memory instead")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        if args.many:
            watch_memory(args.many, Path(name))
        else:
            print_table(args, Path(name))


if __name__ == "__main__":
    main()
