"""Kind 2: nonsense that would end with exit status 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from harness import Trial
from stock import TRAIN

Prepare = Callable[[Path], None]

EVALUATE = ("evaluate", "--predictions", "predicted", "--ground-truth", "truth")
PREDICT = ("predict", "--model", "bundle", "-o", "out")
KERNEL = "backbone.bottom_up.stem.conv1.weight"
HIGH = 2**63 + 5


def labels(side: int = 32) -> np.ndarray[Any, Any]:
    found = np.zeros((side, side), np.uint16)
    found[3:9, 3:9], found[15:20, 15:22] = 1, 2
    return found


def write(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        cv2.imwrite(str(path), array)


def sides(**changed: np.ndarray[Any, Any]) -> Prepare:
    """`truth` and `predicted`, label images `a` and `b`; `predicted_a=...` is another one."""

    def prepare(folder: Path) -> None:
        for side in ("truth", "predicted"):
            for name in ("a", "b"):
                array = changed.get(f"{side}_{name}", labels())
                wide = array.dtype.itemsize > 2 or array.dtype.kind == "f"
                write(folder / side / f"{name}{'.tif' if wide else '.png'}", array)

    return prepare


def empty_sides(folder: Path) -> None:
    for side in ("truth", "predicted"):
        (folder / side).mkdir()


def classes_of_labels(text: str) -> Prepare:
    def prepare(folder: Path) -> None:
        place = folder / "data" / "train" / "classes"
        place.mkdir(exist_ok=True)
        for number in range(3):
            (place / f"cells_{number}.csv").write_text(text)

    return prepare


def renamed(folder: Path) -> None:
    sides()(folder)
    for name in ("a", "b"):
        (folder / "predicted" / f"{name}.png").rename(folder / "predicted" / f"z{name}.png")


def weights(content: str, suffix: str = "pth") -> Prepare:
    """A file of weights, by the Python that makes its content."""

    def prepare(folder: Path) -> None:
        import torch

        made = eval(content, {"torch": torch, "KERNEL": KERNEL, "np": np})
        if suffix == "safetensors":
            import safetensors.torch

            safetensors.torch.save_file(made, folder / "w.safetensors")
        else:
            torch.save(made, folder / "w.pth")

    return prepare


def weights_of(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The weights of the tiny run, changed."""
    import torch

    state = torch.load(folder / "run" / "model_final.pth", weights_only=True)["model"]
    change(state)
    torch.save({"model": state}, folder / "w.pth")


def drop_heads(state: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith("roi_heads")]:
        del state[name]


def spoil_last(state: dict[str, Any]) -> None:
    state[[*state][-1]][:] = float("nan")


def no_cells(split: str) -> Prepare:
    def prepare(folder: Path) -> None:
        for path in (folder / "data" / split / "labels").glob("*.png"):
            write(path, np.zeros((64, 64), np.uint16))

    return prepare


def same_images(folder: Path) -> None:
    """A second data set whose images are links to those of the first."""
    shutil.copytree(folder / "data" / "train", folder / "data" / "again")
    for path in (folder / "data" / "again" / "images").iterdir():
        path.unlink()
        path.symlink_to(folder / "data" / "train" / "images" / path.name)
    declared = folder / "data" / "cells.yaml"
    declared.write_text(declared.read_text().replace("[train, val]", "[train, val, again]"))


def high_labels(folder: Path) -> None:
    array = labels().astype(np.uint64)
    array[array == 2] = HIGH
    for side in ("truth", "predicted"):
        write(folder / side / "a.tif", array)


def results(entries: Any) -> Prepare:
    def prepare(folder: Path) -> None:
        sides()(folder)
        (folder / "results.json").write_text(json.dumps(entries))

    return prepare


def detection(**changed: Any) -> dict[str, Any]:
    from cellseg.cells.instances import CellInstances

    rle = CellInstances.from_label_image(labels()).to_rles()[0]
    return {"image_id": "a", "category_id": 1, "score": 0.9, "segmentation": rle, **changed}


def declared(text: str) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "data" / "cells.yaml"
        path.write_text(path.read_text() + text)

    return prepare


def pixels(array: np.ndarray[Any, Any], name: str = "x.tif") -> Prepare:
    return lambda folder: write(folder / name, array)


def cut(name: str, keep: float) -> Prepare:
    def prepare(folder: Path) -> None:
        write(folder / name, np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return prepare


def frames(*arrays: np.ndarray[Any, Any]) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / "film").mkdir()
        for number, array in enumerate(arrays):
            write(folder / "film" / f"f_{number}.png", array)

    return prepare


TRAIN_FROM = (*TRAIN, "MODEL.WEIGHTS", "w.pth")
START = "{{'model': {{KERNEL: {}}}}}"
WEIGHTS = [
    *(
        Trial(2, f"weights: {name}", TRAIN_FROM, needs=("data",), prepare=weights(content),
              says=("w.pth", said))
        for name, content, said in (
            ("no parameter matches", "{'model': {'foo.weight': torch.zeros(3)}}", "not one"),
            ("a bare state_dict of others", "{'foo.weight': torch.zeros(3)}", "not one"),
            ("of no parameter", "{'model': {}}", "not one"),
            ("another shape", START.format("torch.zeros(2, 2)"), "not one"),
            ("int64", START.format("torch.zeros(8, 3, 7, 7, dtype=torch.int64)"), "int64"),
            ("uint8", START.format("torch.zeros(8, 3, 7, 7, dtype=torch.uint8)"), "uint8"),
            ("bool", START.format("torch.zeros(8, 3, 7, 7, dtype=torch.bool)"), "bool"),
            ("complex", START.format("torch.zeros(8, 3, 7, 7, dtype=torch.complex64)"), "complex"),
            ("NaN", START.format("torch.full((8, 3, 7, 7), float('nan'))"), "NaN or infinite"),
            ("infinity", START.format("torch.full((8, 3, 7, 7), float('inf'))"), "infinite"),
            ("one NaN of a whole array", START.format(
                "torch.where(torch.arange(1176).view(8, 3, 7, 7) > 9, 0.0, float('nan'))"), "NaN"),
            ("sparse", START.format("torch.zeros(8, 3, 7, 7).to_sparse()"), "dense"),
            ("without numbers", START.format("torch.zeros(8, 3, 7, 7, device='meta')"), KERNEL),
            ("text", START.format("'abc'"), "no array"),
            ("NumPy's objects", START.format("[1, 2]"), "no array"),
            ("a list", "[1, 2]", "list"),
            ("an epoch and no weights", "{'epoch': 3, 'state_dict': {}}", "no array"),
        )
    ),
    Trial(2, "weights: safetensors of others", (*TRAIN, "MODEL.WEIGHTS", "w.safetensors"),
          needs=("data",), prepare=weights("{'foo': torch.zeros(3)}", "safetensors"),
          says=("w.safetensors", "not one")),
    Trial(2, "weights: safetensors of int64", (*TRAIN, "MODEL.WEIGHTS", "w.safetensors"),
          needs=("data",), prepare=weights(
              "{KERNEL: torch.zeros(8, 3, 7, 7, dtype=torch.int64)}", "safetensors"),
          says=("w.safetensors", "int64")),
    Trial(2, "weights: half of the model", TRAIN_FROM, needs=("data", "run"), status=(0,),
          prepare=lambda folder: weights_of(folder, drop_heads),
          says=(r"\d+ of the model's \d+ parameters", "roi_heads")),
    Trial(2, "weights: a NaN in the last one, evaluated", (*TRAIN_FROM, "--eval-only"),
          needs=("data", "run"), prepare=lambda folder: weights_of(folder, spoil_last),
          says=("w.pth", "NaN")),
    Trial(2, "weights: a NaN, predicted", ("predict", "images", "-o", "out", "--config-file",
          "run/config.yaml", "MODEL.WEIGHTS", "w.pth"), needs=("data", "run", "images"),
          prepare=lambda folder: weights_of(folder, spoil_last), says=("w.pth", "NaN")),
    Trial(2, "weights: a NaN, bundled", ("bundle", "run", "--name", "x"), needs=("data", "run"),
          prepare=lambda folder: (weights_of(folder, spoil_last),
                                  (folder / "w.pth").replace(folder / "run/model_final.pth"))[0],
          says=("model_final.pth", "NaN")),
    Trial(2, "weights: none, as asked for", (*TRAIN, "MODEL.WEIGHTS", ""), needs=("data",),
          status=(0,)),
]  # fmt: skip

SETS = [
    Trial(2, "train: no cell in any image", TRAIN, needs=("data",), prepare=no_cells("train"),
          says=("cells_train", "not one cell")),
    Trial(2, "find-lr: no cell in any image", ("find-lr", *TRAIN[1:], "--iterations", "3"),
          needs=("data",), prepare=no_cells("train"), says=("cells_train", "not one cell")),
    Trial(2, "train: the test set is the training set", (*TRAIN, "DATASETS.TEST",
          "('cells_train',)"), needs=("data",), status=(0,),
          says=("cells_train: 3 of its 3 images are trained on",)),
    Trial(2, "train: the test set holds the training images by links", (*TRAIN, "DATASETS.TEST",
          "('cells_again',)"), needs=("data",), status=(0,), prepare=same_images,
          says=("cells_again: 3 of its 3 images are trained on",)),
    Trial(2, "train: other images are tested", TRAIN, needs=("data",), status=(0,),
          never=("trained on as well",)),
    Trial(2, "train: a set without cells beside one with", (*TRAIN, "DATASETS.TRAIN",
          "('cells_train', 'cells_val')"), needs=("data",), status=(0,), prepare=no_cells("val"),
          says=("cells_val: not one cell", "trained on as well")),
    Trial(2, "train: a label image of another size", TRAIN, needs=("data",),
          prepare=lambda folder: write(folder / "data/train/labels/cells_1.png", labels(40)),
          says=("cells_1.png", "40 x 40")),
    Trial(2, "train: a label image is missing", TRAIN, needs=("data",),
          prepare=lambda folder: (folder / "data/train/labels/cells_1.png").unlink(),
          says=("cells_1.png",)),
    Trial(2, "train: labels of fractions", TRAIN, needs=("data",), prepare=lambda folder: (
              (folder / "data/train/labels/cells_1.png").unlink(),
              write(folder / "data/train/labels/cells_1.tif", np.full((64, 64), 0.5, np.float32)),
          )[1], says=("cells_1.tif", "whole numbers")),
    Trial(2, "train: negative labels", TRAIN, needs=("data",), prepare=lambda folder: (
              (folder / "data/train/labels/cells_1.png").unlink(),
              write(folder / "data/train/labels/cells_1.tif", np.full((64, 64), -3, np.int32)),
          )[1], says=("cells_1", "negative")),
]  # fmt: skip

CONVERT = ("convert", "--from", "label_images", "--input", "data", "--split", "train")
TO_COCO = ("--to", "coco_json", "--output", "out")
CLASSES = [
    *(
        Trial(2, f"convert: {name}", (*CONVERT, *more, *TO_COCO), needs=("data",), says=said)
        for name, more, said in (
            ("--classes a a", ("--classes", "a", "a"), ("'a' twice",)),
            ("--classes with an empty one", ("--classes", ""), ("empty name",)),
            ("an unknown option", ("--option", "foo=3"), ("foo", "unknown option")),
        )
    ),
    Trial(2, "convert: an unknown option of the output", (*CONVERT, *TO_COCO, "--output-option",
          "foo=3"), needs=("data",), says=("foo", "unknown option")),
    Trial(2, "evaluate: --classes a a", (*EVALUATE, "--classes", "a", "a"), prepare=sides(),
          says=("'a' twice",)),
    *(
        Trial(2, f"results: category {value!r}", ("evaluate", "--predictions", "results.json",
              "--ground-truth", "truth", "--classes", "a", "b"),
              prepare=lambda folder, value=value: results(  # type: ignore[misc]
                  [detection(), detection(category_id=value)])(folder),
              says=("result 1", "category_id"))
        for value in (1.5, -1, 99, "x", None, True)
    ),
    *(
        Trial(2, f"classes of labels: {name}", (*CONVERT, "--classes", "a", "b", *TO_COCO),
              needs=("data",), prepare=classes_of_labels(text),
              says=("cells_0.csv", said))
        for name, text, said in (
            ("a fraction", "label,class\n1.5,a\n2,b\n3,a\n4,a\n", "line 2.*whole number"),
            ("negative", "label,class\n-1,a\n2,b\n3,a\n4,a\n", "-1"),
            ("one twice", "label,class\n1,a\n1,b\n2,b\n3,a\n4,a\n", "several rows"),
            ("one missing", "label,class\n1,a\n", "no class for labels"),
            ("an unknown class", "label,class\n1,a\n2,zz\n3,a\n4,a\n", "unknown class 'zz'"),
        )
    ),
]  # fmt: skip

EVALUATIONS = [
    Trial(2, "evaluate: labels of uint64 above 2^63", EVALUATE, prepare=high_labels, status=(0,),
          says=("1 images", r"recall@0.50\s+1\.0", r"precision@0.50\s+1\.0")),
    Trial(2, "link: labels of uint64 above 2^63",
          code="import numpy as np\nfrom cellseg.cells.instances import CellInstances\n"
          f"labels = np.zeros((9, 9), np.uint64); labels[2:4, 2:4] = {HIGH}; labels[6, 6] = 7\n"
          "cells = CellInstances.from_label_image(labels)\n"
          "assert cells.areas_px.tolist() == [1, 4], cells.areas_px\n", status=(0,)),
    Trial(2, "evaluate: the truth with itself", ("evaluate", "--predictions", "truth",
          "--ground-truth", "truth"), prepare=sides(), status=(0,), says=("compared with itself",)),
    Trial(2, "evaluate: nothing in common", EVALUATE, prepare=renamed, status=(2,),
          says=("not of the same images", "za")),
    Trial(2, "evaluate: a size differs", EVALUATE, prepare=sides(predicted_a=labels(40)),
          status=(2,), says=("a: truth is 32 x 32", "40 x 40")),
    Trial(2, "evaluate: no cell on either side", EVALUATE, status=(0,), prepare=sides(**{
              f"{side}_{name}": np.zeros((32, 32), np.uint8)
              for side in ("truth", "predicted") for name in "ab"}),
          says=("not one true and not one predicted cell",)),
    Trial(2, "evaluate: no predicted cell", EVALUATE, status=(0,), prepare=sides(
              predicted_a=np.zeros((32, 32), np.uint8), predicted_b=np.zeros((32, 32), np.uint8)),
          says=("not one predicted cell",)),
    Trial(2, "evaluate: an empty results file", ("evaluate", "--predictions", "results.json",
          "--ground-truth", "truth"), prepare=results([]), status=(0, 2),
          says=("not one predicted cell",)),
    Trial(2, "evaluate: figures that are NaN", (*EVALUATE, "--metrics", "all", "--json", "f.json"),
          prepare=sides(**{f"{side}_{name}": np.zeros((32, 32), np.uint8)
                           for side in ("truth", "predicted") for name in "ab"}),
          status=(0,), holds=lambda folder: "NaN in it" if "NaN" in (
              folder / "f.json").read_text() else ""),
    Trial(2, "evaluate: empty folders", EVALUATE, prepare=empty_sides,
          says=("truth", "no label image")),
    *(
        Trial(2, f"evaluate: --metrics {name}", (*EVALUATE, "--metrics", name), prepare=sides(),
              says=(name,))
        for name in ("f1@5", "f1@nan", "f1@-0.5", "f1@0", "zz", "aji@0.5", "")
    ),
    *(
        Trial(2, f"results: {name}", ("evaluate", "--predictions", "results.json",
              "--ground-truth", "truth"), status=status, says=said,
              prepare=lambda folder, change=change: results(  # type: ignore[misc]
                  [detection(), detection(image_id="b"), detection(**change)])(folder))
        for name, change, status, said in (
            ("a mask twice", {}, (0,), ("1 of 3 results have the mask", "result 2")),
            ("of an image that does not exist", {"image_id": "zz"}, (2,), ("zz",)),
            ("a score that is NaN", {"score": float("nan")}, (1,), ("result 2", "score")),
            ("a score that is infinite", {"score": float("inf")}, (1,), ("result 2", "score")),
            ("a score that is text", {"score": "0.9"}, (1,), ("result 2", "score")),
            ("a box that is NaN", {"bbox": [float("nan")] * 4}, (1,), ("result 2", "bbox")),
        )
    ),
    Trial(2, "tune: an empty results file", ("tune", "run"), needs=("run", "data"),
          prepare=lambda folder: (folder / "run/inference/cells_val/coco_instances_results.json")
          .write_text("[]") and None, says=("no detection", "coco_instances_results.json")),
    Trial(2, "tune: --folds 0", ("tune", "run", "--folds", "0"), needs=("run", "data"),
          status=(1, 2), says=("folds",)),
    Trial(2, "tune: --seed -1", ("tune", "run", "--seed", "-1"), needs=("run", "data"),
          status=(1, 2), says=("seed",)),
]  # fmt: skip

RATES = ("find-lr", *TRAIN[1:], "--iterations", "6")
COMMAND_LINE = [
    *(
        Trial(2, f"find-lr: {' '.join(more)}", (*RATES, *more), needs=("data",), says=said,
              never=(r"BASE_LR: (inf|nan)",), status=status)
        for more, status, said in (
            (("--highest", "inf"), (1, 2), ("--highest",)),
            (("--highest", "nan"), (1, 2), ("--highest",)),
            (("--highest", "1e308"), (1, 2), ("--highest",)),
            (("--lowest", "-1"), (1, 2), ("--lowest",)),
            (("--lowest", "1e5", "--highest", "1e6"), (0, 1), ("--lowest|BASE_LR",)),
            (("--iterations", "1"), (1, 2), ("--iterations",)),
        )
    ),
    *(
        Trial(2, f"predict: {option} {value}", (*PREDICT, "images", option, value),
              needs=("bundle", "images"), status=(1, 2), says=(said,))
        for option, value, said in (
            ("--score-threshold", "5", "score threshold"),
            ("--score-threshold", "nan", "score threshold"),
            ("--score-threshold", "-0.1", "score threshold"),
            ("--mask-threshold", "-1", "mask threshold"),
            ("--mask-threshold", "nan", "mask threshold"),
            ("--batch", "0", "--batch"),
            ("--batch", "-2", "--batch"),
            ("--tile", "-5", "--tile"),
            ("--diameter", "0", "--diameter"),
            ("--diameter", "nan", "--diameter"),
            ("--at-pixel-size-um", "-1", "--at-pixel-size-um"),
            ("--at-pixel-size-um", "nan", "--at-pixel-size-um"),
            ("--neighbour-distance", "nan", "--neighbour-distance"),
            ("--neighbour-distance", "-1", "--neighbour-distance"),
            ("--pixel-size-um", "0", "--pixel-size-um"),
            ("--max-distance", "nan", "greatest step"),
            ("--max-gap", "-3", "gap"),
            ("--part", "0/0", "--part"),
            ("--save", "zz", "zz"),
            ("--workers", "0", "--workers"),
        )
    ),
    *(
        Trial(2, f"inspect: {option} {value}", ("inspect", "data/cells.yaml", "--output", "out",
              option, value), needs=("data",), status=(2,), says=(option,))
        for option, value in (("--tiny", "-5"), ("--pages", "-1"), ("--tiny", "1.5"))
    ),
    *(
        Trial(2, f"link: {' '.join(more)}", ("link", "film", "-o", "out", *more),
              prepare=frames(labels(), labels()), says=(said,))
        for more, said in (
            (("--max-distance", "nan"), "greatest step"),
            (("--max-distance", "0"), "greatest step"),
            (("--max-gap", "-1"), "gap"),
        )
    ),
    Trial(2, "link: no frames", ("link", "film", "-o", "out"), prepare=frames(),
          says=("film", "no label image")),
    Trial(2, "link: one frame", ("link", "film", "-o", "out"), prepare=frames(labels()),
          status=(2,), says=("No time-lapse",)),
    Trial(2, "link: frames of different sizes", ("link", "film", "-o", "out"),
          prepare=frames(labels(), labels(40)), says=("frame 1", "40")),
]  # fmt: skip

NAN = np.full((64, 64), np.nan, np.float32)
ONE_INFINITE = np.ones((64, 64), np.float32)
ONE_INFINITE[3, 3] = np.inf
IMAGES = [
    *(
        Trial(2, f"predict: {name}", (*PREDICT, file), needs=("bundle",), prepare=prepare,
              status=status, says=said)
        for name, file, prepare, status, said in (
            ("an image that is NaN", "x.tif", pixels(NAN), (1,), ("x.tif", "not finite")),
            ("one infinity", "x.tif", pixels(ONE_INFINITE), (1,), ("x.tif", "not finite")),
            ("complex numbers", "x.tif", pixels(np.ones((9, 9), np.complex64)), (1,), ("x.tif",)),
            ("one value everywhere", "x.png", pixels(np.full((64, 64), 7, np.uint8), "x.png"),
             (0,), ("x.*one value",)),
            ("a PNG cut off", "x.png", cut("x.png", 0.5), (1,), ("x.png", "truncated")),
            ("a JPEG cut off", "x.jpg", cut("x.jpg", 0.5), (1,), ("x.jpg", "truncated")),
            ("a TIFF cut off", "x.tif", cut("x.tif", 0.5), (1,), ("x.tif", "truncated")),
            ("an empty file", "x.png", lambda folder: (folder / "x.png").touch(), (1,), ("empty",)),
        )
    ),
    Trial(2, "predict: an empty folder", (*PREDICT, "none"), needs=("bundle",), status=(2,),
          prepare=lambda folder: (folder / "none").mkdir(), says=("none", "no image")),
    Trial(2, "predict: a pattern of nothing", (*PREDICT, "zz*.png"), needs=("bundle",), status=(2,),
          says=("zz", "no image")),
]  # fmt: skip

TRIALS = [*WEIGHTS, *SETS, *CLASSES, *EVALUATIONS, *COMMAND_LINE, *IMAGES]
