r"""Train StarDist on folders of nuclei and predict with it, in a Python of its own.

    /path/to/python benchmarks/stardist_nuclei.py train MODEL --train FOLDERS... --val FOLDERS... \
        --cpu-minutes 90
    /path/to/python benchmarks/stardist_nuclei.py thresholds MODEL --val FOLDERS...
    /path/to/python benchmarks/stardist_nuclei.py predict MODEL IMAGES... --output DIR

Needs the packages stardist and tensorflow and nothing of cellseg. FOLDERS hold `images/ID.png` and
`labels/ID.png`, MODEL is a folder that is made. StarDist's own recipe for two dimensions: U-Net
with 32 rays on a grid of 2, patches of 256 pixels in batches of 4, Adam from 3e-4, images
normalised by their percentiles 1 and 99.8, flips, quarter turns, changes of intensity and noise,
thresholds fitted on the val images. Its schedule (the rate is halved when 40 of 400 epochs bring
nothing) is meant for a GPU; here the rate falls along a cosine over the processor time that is
given. The weights kept are those of the lowest loss on val.

A training that ends early (SIGTERM, which saves, or a crash) goes on when the same command is given
again; with fewer `--cpu-minutes` it comes to its end sooner. `state.json` has the processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LOWEST_SHARE = 0.01  # of the learning rate, at the end of the cosine
BEST, NOW = "weights_best.h5", "weights_now.h5"


def limit_threads(number: int) -> None:
    """For TensorFlow, before it is imported."""
    for key in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[key] = str(number)


def read_image(path: Path) -> Any:
    """Float32 [H, W], the mean of the colours, normalised as StarDist does."""
    from csbdeep.utils import normalize
    from imageio.v3 import imread

    pixels = imread(path)
    grey = pixels if pixels.ndim == 2 else pixels[..., :3].mean(axis=-1)
    return normalize(grey.astype(np.float32), 1, 99.8)


def read_folders(folders: Sequence[Path]) -> tuple[list[Any], list[Any]]:
    """The images of folders and their label images, holes filled, in the order of their names."""
    from imageio.v3 import imread
    from stardist import fill_label_holes

    paths = [path for folder in folders for path in sorted((folder / "images").iterdir())]
    labels = [imread(path.parent.parent / "labels" / path.name) for path in paths]
    return [read_image(path) for path in paths], [fill_label_holes(each) for each in labels]


def augment(image: Any, labels: Any, draw: np.random.Generator) -> tuple[Any, Any]:
    """A quarter turn, a flip, another contrast and brightness, noise, all drawn anew."""
    turns = draw.integers(4)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if draw.integers(2):
        image, labels = image[::-1], labels[::-1]
    image = image * draw.uniform(0.6, 2) + draw.uniform(-0.2, 0.2)
    noise = draw.normal(0, draw.uniform(0, 0.02), image.shape)
    return (image + noise).astype(np.float32), labels


def share_of_rate(progress: float) -> float:
    """The learning rate in shares of the first one, once this share of the time has passed.

    >>> share_of_rate(0.0), share_of_rate(0.5), share_of_rate(2.0)
    (1.0, 0.505, 0.01)
    """
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return LOWEST_SHARE + (1 - LOWEST_SHARE) * cosine


class State:
    """What a training has behind it: `state.json` in the folder of its model."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        known = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.steps: int = known.get("steps", 0)
        self.best_val_loss: float = known.get("best_val_loss", math.inf)
        self._cpu_seconds_before: float = known.get("cpu_seconds", 0.0)
        self._start = time.process_time()

    @property
    def cpu_seconds(self) -> float:
        """Of all starts of the training together, user and system."""
        return self._cpu_seconds_before + time.process_time() - self._start

    def save(self) -> None:
        figures = {name: getattr(self, name) for name in ("steps", "cpu_seconds", "best_val_loss")}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(figures))
        new.replace(self.path)


def save_weights(network: Any, path: Path) -> None:
    new = path.with_name(f"new_{path.name}")
    network.save_weights(str(new))
    new.replace(path)


def build_callback(folder: Path, state: State, cpu_seconds: float, first_rate: float) -> Any:
    """What sets the learning rate by processor time, keeps weights, and ends the training."""
    from keras.callbacks import Callback

    class ByProcessorTime(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            # StarDist draws its patches by it; another beginning for each start of the training
            np.random.seed(state.steps)  # noqa: NPY002
            signal.signal(signal.SIGTERM, self.stop)

        def stop(self, *_: Any) -> None:
            self.model.stop_training = True

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rate = first_rate * share_of_rate(state.cpu_seconds / cpu_seconds)
            self.model.optimizer.learning_rate.assign(rate)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            state.steps += 1
            if state.cpu_seconds >= cpu_seconds:
                self.stop()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            loss = logs["val_loss"]
            save_weights(self.model, folder / NOW)
            if loss < state.best_val_loss:
                state.best_val_loss = loss
                save_weights(self.model, folder / BEST)
            state.save()
            print(f"\n{state.steps} steps, {state.cpu_seconds:.0f} s, val loss {loss:.4f}")

    return ByProcessorTime()


def build_model(folder: Path) -> Any:
    from stardist.models import Config2D, StarDist2D

    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        train_tensorboard=False,
        train_reduce_lr=None,
        train_checkpoint=None,  # the callback keeps weights, beyond one start of the training
        train_checkpoint_last=None,
        train_checkpoint_epoch=None,
    )
    model = StarDist2D(config, name=folder.name, basedir=str(folder.parent))
    if (folder / NOW).is_file():
        model.load_weights(NOW)
    return model


def load_model(folder: Path) -> Any:
    from stardist.models import StarDist2D

    model = StarDist2D(None, name=folder.name, basedir=str(folder.parent))
    model.load_weights(BEST)
    return model


def train(args: argparse.Namespace) -> None:
    model = build_model(args.model)
    state = State(args.model)
    model.prepare_for_training()
    first_rate = model.config.train_learning_rate
    model.callbacks.append(build_callback(args.model, state, 60 * args.cpu_minutes, first_rate))
    images, labels = read_folders(args.train)
    val = read_folders(args.val)
    draw = np.random.default_rng(state.steps)
    print(f"{len(images)} images to train on, {len(val[0])} to choose on")
    model.train(
        images,
        labels,
        validation_data=val,
        augmenter=lambda image, labels: augment(image, labels, draw),
        seed=0,  # the same patches of the val images in each start of the training
        epochs=args.epochs,
        steps_per_epoch=args.steps_per_epoch,
    )
    if state.cpu_seconds >= 60 * args.cpu_minutes:
        fit_thresholds(args)


def fit_thresholds(args: argparse.Namespace) -> None:
    """The score and the NMS overlap that are best on val; `thresholds.json` in the model."""
    images, labels = read_folders(args.val)
    load_model(args.model).optimize_thresholds(images, labels)


def predict_files(model: Any, images: Sequence[Path], output: Path) -> Iterator[dict[str, Any]]:
    """Write the label image of each image as TIFF, and say how long it took."""
    import tifffile

    output.mkdir(parents=True, exist_ok=True)
    for path in images:
        start, cpu_start = time.perf_counter(), time.process_time()
        labels = model.predict_instances(read_image(path))[0]
        tifffile.imwrite(output / f"{path.stem}.tif", labels.astype(np.uint16))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        yield {"image": path.stem, "seconds": seconds, "cpu_seconds": cpu_seconds}


def predict(args: argparse.Namespace) -> None:
    model = load_model(args.model)
    images = [Path(line) for line in args.list.read_text().splitlines()] if args.list else []
    images += args.images
    list(predict_files(model, images[:1], args.output))  # warms up
    times = list(predict_files(model, images, args.output))
    (args.output / "times.json").write_text(json.dumps(times))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    fitting = commands.add_parser("thresholds")
    prediction = commands.add_parser("predict")
    for command, run in ((training, train), (fitting, fit_thresholds), (prediction, predict)):
        command.add_argument("model", type=Path, help="its folder")
        command.set_defaults(run=run)
    for command in (training, fitting):
        command.add_argument("--val", nargs="+", type=Path, required=True, metavar="FOLDER")
    training.add_argument("--train", nargs="+", type=Path, required=True, metavar="FOLDER")
    training.add_argument("--cpu-minutes", type=float, default=90)
    training.add_argument("--epochs", type=int, default=10_000, help="at most (default: no limit)")
    training.add_argument("--steps-per-epoch", type=int, default=100)
    prediction.add_argument("images", nargs="*", type=Path)
    prediction.add_argument("--list", type=Path, help="a text file with an image in each line")
    prediction.add_argument("--output", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    args.model = args.model.resolve()
    args.run(args)


if __name__ == "__main__":
    main()
