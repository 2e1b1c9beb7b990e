"""Kind 3: things overwritten without a word, by all commands but the training itself."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from harness import Trial
from stock import write_data

RESULTS = "results/results.json"
EVALUATE = ("evaluate", "--predictions", RESULTS, "--ground-truth", RESULTS)
LABELS = ("evaluate", "--predictions", "data/val/labels", "--ground-truth", "data/train/labels")
LABELS += ("--ignore-missing",)
SAVE = ("--save", "labels")
PREDICT = ("predict", "images", "--output", "out", "--save", "labels")
CONVERT = ("convert", "--from", "label_images", "--input", "data", "--split", "train")
INSPECT = ("inspect", "data/cells.yaml")
STATE = ("out/.cellseg/*", "out/.cellseg/*/*")


def put(*names: str, text: str = "mine, and not to be lost\n") -> Callable[[Path], None]:
    """Files with a text that somebody wrote."""

    def prepare(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")

    return prepare


def link(name: str, target: str, *others: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for other in others:
            other(folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)

    return prepare


def hard_link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: os.link(folder / target, folder / name)


def private(name: str, text: str = "{}") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o600)

    return prepare


def device(name: str, minor: int) -> Callable[[Path], None]:
    """A device like /dev/null (3) or /dev/full (7): the system's own are never tried."""
    return lambda folder: os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))


def has_mode(name: str, mode: int) -> Callable[[Path], str]:
    def holds(folder: Path) -> str:
        found = stat.S_IMODE((folder / name).stat().st_mode)
        return "" if found == mode else f"{name} has the mode {found:o}, not {mode:o}"

    return holds


def has_metrics(name: str) -> Callable[[Path], str]:
    def holds(folder: Path) -> str:
        try:
            found = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            return str(error)
        return "" if "metrics" in found else f"{name} holds no metrics"

    return holds


def is_not_there(*names: str) -> Callable[[Path], str]:
    def holds(folder: Path) -> str:
        return ", ".join(name for name in names if (folder / name).exists())

    return holds


def earlier_run(folder: Path) -> None:
    """A folder in which images and the results of an earlier prediction lie together."""
    results = ("a_labels.tif", "a_overlay.png", "summary.csv")
    shutil.copy(folder / "images/cells_0.png", folder / "a.png")
    (folder / "out/.cellseg/images").mkdir(parents=True)
    shutil.move(folder / "a.png", folder / "out/a.png")
    for name in results:
        shutil.copy(folder / "images/cells_1.png", folder / "out" / name)
    step = {"image": "a", "files": list(results[:2]), "summary": {}}
    (folder / "out/.cellseg/images/a.jsonl").write_text(json.dumps(step) + "\n", "utf-8")


def labels_among_images(folder: Path) -> None:
    """Labels drawn by hand beside an image, called as a result would be."""
    shutil.copy(folder / "data/val/labels/cells_0.png", folder / "images/cells_0_labels.tif")


def declare(name: str, split: str = "train") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        content = {"format": "label_images", "root": "data", "splits": {split: "train"}}
        both = {name: content, "other": content}
        (folder / "evil.yaml").write_text(json.dumps(both), "utf-8")

    return prepare


def data_in_root(folder: Path) -> None:
    """A data set whose split is the whole folder."""
    write_data(folder / "flat", {"train": 2})
    content = {"format": "label_images", "root": str(folder / "flat/train"), "splits": {"all": "."}}
    (folder / "flat.yaml").write_text(json.dumps({"flat": content}), "utf-8")


def frames(folder: Path) -> None:
    for number in range(2):
        name = f"data/train/labels/cells_{number}.png"
        (folder / "movie").mkdir(exist_ok=True)
        shutil.copy(folder / name, folder / f"movie/frame_{number:03d}.png")


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for step in steps:
            step(folder)

    return prepare


def refused(name: str, words: tuple[str, ...], **how: object) -> Trial:
    """A trial of something that is to be refused, with nothing changed."""
    return Trial(3, name, words, **{"status": (1,), **how})  # type: ignore[arg-type]


def allowed(name: str, words: tuple[str, ...], **how: object) -> Trial:
    return Trial(3, name, words, **{"status": (0,), **how})  # type: ignore[arg-type]


TAKEN = (r"is there, and is no file that this command wrote.*--overwrite",)
READ = (r"this command reads .*would be lost",)
NOT_OURS = (r"is there and was not written by an earlier prediction",)

OF_EVALUATE = [
    refused(
        "evaluate --json over the predictions",
        (*EVALUATE, "--json", RESULTS),
        needs=("results",),
        says=READ,
    ),
    refused(
        "evaluate --json over annotations",
        (*EVALUATE, "--json", "results/truth.json"),
        needs=("results",),
        says=TAKEN,
    ),
    refused(
        "evaluate --json over the predictions, --overwrite",
        (*EVALUATE, "--json", "results/results.json", "--overwrite"),
        needs=("results",),
        says=READ,
    ),
    refused(
        "evaluate --json over the predictions by a link",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=link("x.json", "results/results.json"),
        says=READ,
    ),
    refused(
        "evaluate --json over the predictions by a hard link",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=hard_link("x.json", RESULTS),
        says=READ,
    ),
    refused(
        "evaluate --json over the predictions by another path",
        (*EVALUATE, "--json", "results/../results/results.json"),
        needs=("results",),
        says=READ,
    ),
    refused(
        "evaluate --per-image over the predictions",
        (*EVALUATE, "--per-image", "results/results.json"),
        needs=("results",),
        says=READ,
    ),
    refused(
        "evaluate --json over a label image that it reads",
        (*LABELS, "--json", "data/train/labels/cells_0.png"),
        needs=("data",),
        says=TAKEN,
    ),
    refused(
        "evaluate --json and --per-image to one file",
        (*EVALUATE, "--json", "x", "--per-image", "x"),
        needs=("results",),
        says=("same file",),
    ),
    refused(
        "evaluate --json over results of another run",
        (*EVALUATE, "--json", "other.json"),
        needs=("results",),
        prepare=lambda folder: shutil.copy(folder / "results/results.json", folder / "other.json"),
        says=TAKEN,
    ),
    refused(
        "evaluate --per-image over somebody's table",
        (*EVALUATE, "--per-image", "mine.csv"),
        needs=("results",),
        prepare=put("mine.csv"),
        says=TAKEN,
    ),
    refused(
        "evaluate --per-image over the summary of predictions",
        (*EVALUATE, "--per-image", "summary.csv"),
        needs=("results",),
        prepare=put("summary.csv", text="image,file,num_cells\na,a.png,3\n"),
        says=TAKEN,
    ),
    refused(
        "evaluate --json over a config",
        (*EVALUATE, "--json", "mine.yaml"),
        needs=("results",),
        prepare=put("mine.yaml", text="SEED: 3\n"),
        says=TAKEN,
    ),
    allowed(
        "evaluate --json over an own file",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        changes=("x.json",),
        holds=has_metrics("x.json"),
        prepare=put("x.json", text='{\n "images": 2,\n "classes": [],\n "metrics": {}}'),
    ),
    allowed(
        "evaluate --json over an empty file",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=put("x.json", text=""),
        changes=("x.json",),
    ),
    allowed(
        "evaluate --json --overwrite",
        (*EVALUATE, "--json", "x.json", "--overwrite"),
        needs=("results",),
        prepare=put("x.json"),
        changes=("x.json",),
    ),
    allowed(
        "evaluate --json keeps the mode 600",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=private("x.json"),
        changes=("x.json",),
        holds=has_mode("x.json", 0o600),
    ),
    allowed(
        "evaluate --json keeps a link",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=link("x.json", "real.json", put("real.json", text="{}")),
        changes=("real.json",),
        holds=has_metrics("real.json"),
    ),
    allowed(
        "evaluate --json through a link that leads nowhere",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=link("x.json", "new/real.json"),
        holds=has_metrics("new/real.json"),
    ),
    refused(
        "evaluate --json to links in a circle",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        prepare=link("x.json", "x.json"),
        says=("links|symbolic",),
    ),
    allowed(
        "evaluate --json to a device",
        (*EVALUATE, "--json", "null"),
        needs=("results",),
        prepare=device("null", 3),
    ),
    allowed(
        "evaluate --per-image to a device",
        (*EVALUATE, "--per-image", "null"),
        needs=("results",),
        prepare=device("null", 3),
    ),
    refused(
        "evaluate --json to a full device",
        (*EVALUATE, "--json", "full"),
        needs=("results",),
        prepare=device("full", 7),
        says=("full: No space left",),
    ),
    refused(
        "evaluate --json to a pipe that nobody reads",
        (*EVALUATE, "--json", "pipe"),
        needs=("results",),
        prepare=lambda folder: os.mkfifo(folder / "pipe"),
        says=("pipe.*nobody reads",),
        seconds=20,
    ),
    Trial(
        3,
        "evaluate --json to a pipe that somebody reads",
        needs=("results",),
        status=(0,),
        shell=f"cat pipe > read & cellseg {' '.join(EVALUATE)} --json pipe; s=$?; wait; exit $s",
        prepare=lambda folder: os.mkfifo(folder / "pipe"),
        holds=has_metrics("read"),
        seconds=60,
    ),
    Trial(
        3,
        "evaluate --json to the output itself",
        needs=("results",),
        status=(0,),
        shell=f"ln -s /dev/stdout o; cellseg {' '.join(EVALUATE)} --json o | tee both",
        says=('"metrics"', "2 images"),
    ),
    Trial(
        3,
        "evaluate --json to the file that the output goes to",
        needs=("results",),
        status=(0,),
        shell=f"cellseg {' '.join(EVALUATE)} --json both > both; cat both",
        says=('"metrics"', "2 images"),
    ),
]

OF_RUNS = [
    refused(
        "report over config.yaml",
        ("report", "run", "--output", "run/config.yaml"),
        needs=("run", "data"),
        says=READ,
    ),
    refused(
        "report over config.yaml, --overwrite",
        ("report", "run", "--output", "run/config.yaml", "--overwrite"),
        needs=("run", "data"),
        says=READ,
    ),
    refused(
        "report over config.yaml by a link",
        ("report", "run", "--output", "page.html"),
        needs=("run", "data"),
        prepare=link("page.html", "run/config.yaml"),
        says=READ,
    ),
    refused(
        "report over the weights",
        ("report", "run", "--output", "run/model_final.pth"),
        needs=("run", "data"),
        says=TAKEN,
    ),
    refused(
        "report over the metrics",
        ("report", "run", "--output", "run/metrics.json"),
        needs=("run", "data"),
        says=TAKEN,
    ),
    refused(
        "report over a page of somebody's",
        ("report", "run", "--output", "page.html"),
        needs=("run", "data"),
        prepare=put("page.html", text="<html>mine</html>"),
        says=TAKEN,
    ),
    refused(
        "report over the predictions that are given",
        (
            "report",
            "run",
            "--predictions",
            "results/results.json",
            "--output",
            "results/results.json",
        ),
        needs=("run", "data", "results"),
        says=READ,
    ),
    refused(
        "report to a folder",
        ("report", "run", "--output", "run"),
        needs=("run", "data"),
        says=("is a folder",),
    ),
    refused(
        "tune over the run's config",
        ("tune", "run", "--output", "run/config.yaml"),
        needs=("run", "data"),
        says=READ,
    ),
    refused(
        "tune over the run's config, --overwrite",
        ("tune", "run", "--output", "run/config.yaml", "--overwrite"),
        needs=("run", "data"),
        says=READ,
    ),
    refused(
        "tune over a config of somebody's",
        ("tune", "run", "--output", "mine.yaml"),
        needs=("run", "data"),
        prepare=put("mine.yaml", text="SEED: 3\n"),
        says=TAKEN,
    ),
    refused(
        "tune over the predictions",
        (
            "tune",
            "results/results.json",
            "--config-file",
            "run/config.yaml",
            "--dataset",
            "cells_val",
            "--output",
            "results/results.json",
        ),
        needs=("run", "data", "results"),
        says=READ,
    ),
    refused(
        "export-model over the checkpoint",
        ("export-model", "--model", "run", "--output", "run/model_final.pth"),
        needs=("run", "data"),
        says=(f"{READ[0]}|{TAKEN[0]}",),
    ),
    refused(
        "export-model over somebody's file",
        ("export-model", "--model", "run", "--output", "notes.txt"),
        needs=("run",),
        prepare=put("notes.txt"),
        says=TAKEN,
    ),
    refused(
        "export-model beside a script of somebody's",
        ("export-model", "--model", "run", "--output", "m.onnx"),
        needs=("run",),
        prepare=put("cellseg_onnx.py", text="import mine\n# all my work: kept\n"),
        says=TAKEN,
    ),
    refused(
        "export-model over a zip",
        ("export-model", "--model", "run", "--to", "bioimageio", "--output", "x.zip"),
        needs=("run",),
        prepare=put("x.zip"),
        says=TAKEN,
    ),
    refused(
        "bundle over a folder",
        ("bundle", "run", "--name", "images"),
        needs=("run", "data", "images"),
        says=("is there already",),
    ),
    refused(
        "bundle --overwrite over a folder that is none",
        ("bundle", "run", "--name", "images", "--overwrite"),
        needs=("run", "data", "images"),
        says=("is no model bundle",),
    ),
    refused(
        "bundle --overwrite over a file that is none",
        ("bundle", "run", "--name", "x", "-o", "x.zip", "--overwrite"),
        needs=("run", "data"),
        prepare=put("x.zip"),
        says=("is no model bundle",),
    ),
    refused(
        "bundle --overwrite over the run that it is of",
        ("bundle", "run", "--name", "run", "--overwrite"),
        needs=("run", "data"),
        says=("is no model bundle",),
    ),
    refused(
        "preview over an image",
        ("preview", "--output", "images/cells_0.png"),
        needs=("images",),
        says=TAKEN,
    ),
    refused(
        "find-lr over somebody's table",
        ("find-lr", "--config-file", "run/config.yaml", "OUTPUT_DIR", "out"),
        needs=("run", "data"),
        prepare=put("out/learning_rate/rates.csv"),
        says=TAKEN,
    ),
]

OF_PREDICT = [
    refused(
        "predict over labels of somebody's",
        PREDICT,
        needs=("images",),
        prepare=put("out/cells_0_labels.tif"),
        says=("written by an earlier prediction", "1 of 2 images done"),
    ),
    *(
        refused(
            f"predict over {name} of somebody's",
            (*PREDICT, "--save", "coco"),
            needs=("images",),
            prepare=put(f"out/{name}"),
            says=NOT_OURS,
        )
        for name in (
            "coco_results.json",
            "coco_results.categories.json",
            "summary.csv",
            "failed.csv",
            "inputs.csv",
            "plates.csv",
        )
    ),
    refused(
        "predict over a submission of somebody's",
        (*PREDICT, "--save", "sartorius"),
        needs=("images",),
        prepare=put("out/submission.csv"),
        says=NOT_OURS,
    ),
    refused(
        "predict over a folder of masks of somebody's",
        (*PREDICT, "--save", "instance_masks"),
        needs=("images",),
        prepare=put("out/cells_0/masks/0001.png"),
        says=NOT_OURS,
    ),
    allowed(
        "predict --overwrite",
        (*PREDICT, "--overwrite"),
        needs=("images",),
        prepare=put("out/summary.csv", "out/cells_0_labels.tif"),
        changes=("out/summary.csv", "out/cells_0_labels.tif"),
    ),
    allowed(
        "predict takes no earlier result for an image",
        ("predict", "out/a.png", "out/a_labels.tif", "out/a_overlay.png", "-o", "out", *SAVE),
        needs=("images",),
        prepare=earlier_run,
        changes=("out/*", *STATE),
        says=("1 of 1 images done", "a result of an earlier prediction"),
    ),
    allowed(
        "predict takes no earlier result of another folder",
        ("predict", "out/*.*", "-o", "new", *SAVE),
        needs=("images",),
        prepare=earlier_run,
        says=("1 of 1 images done", "a result of an earlier prediction"),
    ),
    refused(
        "predict --overwrite over an image that is predicted",
        (
            "predict",
            "images/cells_0.png",
            "images/cells_0_labels.tif",
            "-o",
            "images",
            "--overwrite",
            *SAVE,
        ),
        needs=("images", "data"),
        prepare=labels_among_images,
        says=("is one of the images that are predicted",),
    ),
    Trial(
        3,
        "predict twice with a folder of masks for each image",
        needs=("images",),
        status=(0,),
        code="""
from cellseg.cli import main
words = ["predict", "images", "-o", "out", "--save", "instance_masks,sartorius"]
assert main(words) == 0
raise SystemExit(main(words))
""",
    ),
    allowed(
        "predict to a folder that a link leads to",
        PREDICT,
        needs=("images",),
        prepare=link("out", "real", put("real/notes.txt")),
        holds=lambda folder: "" if (folder / "real/cells_0_labels.tif").is_file() else "none",
    ),
]

OF_DATA = [
    refused(
        "convert into the folder that is read",
        (*CONVERT, "--to", "coco_json", "--output", "data/train", "--output-split", "new"),
        needs=("data",),
        says=("lies in .*which is read",),
    ),
    refused(
        "convert onto the folder that is read",
        (*CONVERT, "--to", "coco_json", "--output", "data"),
        needs=("data",),
        says=("lies in .*which is read",),
    ),
    refused(
        "convert over something",
        (*CONVERT, "--to", "coco_json", "--output", "new"),
        needs=("data",),
        prepare=put("new/train/notes.txt"),
        says=("is there already",),
    ),
    refused(
        "convert over a file",
        (*CONVERT, "--to", "coco_json", "--output", "new"),
        needs=("data",),
        prepare=put("new/train"),
        says=("is there already",),
    ),
    refused(
        "inspect into the data",
        (*INSPECT, "--output", "data/train"),
        needs=("data",),
        says=("belongs to the data",),
    ),
    refused(
        "inspect into the images",
        (*INSPECT, "--output", "data/train/images/report"),
        needs=("data",),
        says=("belongs to the data",),
    ),
    refused(
        "inspect into the data by a link",
        (*INSPECT, "--output", "here"),
        needs=("data",),
        prepare=link("here", "data/train/labels"),
        says=("belongs to the data",),
    ),
    refused(
        "inspect into data that are their own split",
        ("inspect", "flat.yaml", "--output", "flat/train/report"),
        prepare=data_in_root,
        says=("belongs to the data",),
    ),
    refused(
        "inspect --fix into the data",
        (*INSPECT, "--fix", "data/train/fixed"),
        needs=("data",),
        says=("belongs to the data",),
    ),
    refused(
        "inspect --fix over the data",
        (*INSPECT, "--fix", "data"),
        needs=("data",),
        says=("is there already",),
    ),
    *(
        refused(
            f"inspect over {name} of somebody's",
            (*INSPECT, "--output", "out"),
            needs=("data",),
            prepare=put(f"out/{name}"),
            says=TAKEN,
        )
        for name in (
            "images.csv",
            "cells.csv",
            "findings.csv",
            "plots.png",
            "contact_sheet_1.png",
            "suggested.yaml",
        )
    ),
    *(
        refused(
            f"inspect a data set called {name}",
            ("inspect", "evil.yaml", "--output", "out/in"),
            needs=("data",),
            prepare=declare(name),
            says=("no name for a data set",),
            holds=is_not_there("out/evil", "evil_train", "out/in"),
        )
        for name in ("../evil", "a/../../evil", "/evil", ".evil", "..\\evil", "")
    ),
    refused(
        "inspect a data set with a split called ../../evil",
        ("inspect", "evil.yaml", "--output", "out"),
        needs=("data",),
        prepare=declare("a", "/../../evil"),
        says=("no name for a data set",),
    ),
    refused(
        "link over tracks of somebody's",
        ("link", "movie", "--output", "out"),
        needs=("data",),
        prepare=both(frames, put("out/frame_tracks.tif")),
        says=("is there, and no earlier call has written it",),
    ),
    refused(
        "link over a table of somebody's",
        ("link", "movie", "--output", "out"),
        needs=("data",),
        prepare=both(frames, put("out/frame_tracks.csv")),
        says=("is there, and no earlier call has written it",),
    ),
    Trial(
        3,
        "link twice",
        needs=("data",),
        prepare=frames,
        status=(0,),
        code="""
from cellseg.cli import main
assert main(["link", "movie", "--output", "out"]) == 0
raise SystemExit(main(["link", "movie", "--output", "out"]))
""",
    ),
    Trial(
        3,
        "inspect twice",
        needs=("data",),
        status=(0,),
        code="""
from cellseg.cli import main
words = ["inspect", "data/cells.yaml", "--output", "out", "--suggest"]
first = main(words)  # 1 where the data have errors
raise SystemExit(abs(main(words) - first))
""",
    ),
    Trial(
        3,
        "preview twice",
        status=(0,),
        code="""
from cellseg.cli import main
assert main(["preview", "--output", "out.png"]) == 0
raise SystemExit(main(["preview", "--output", "out.png"]))
""",
    ),
]

TRIALS = [*OF_EVALUATE, *OF_RUNS, *OF_PREDICT, *OF_DATA]
