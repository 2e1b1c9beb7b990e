"""Kind 4: what the system refuses, in words: outputs, inputs, streams, disks and names."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness import Trial
from kind_03_outputs import EVALUATE, INSPECT, PREDICT, both, device, frames, link, put

LATIN_1 = os.fsdecode(b"caf\xe9")
COMMANDS = (
    "bundle",
    "convert",
    "evaluate",
    "export-model",
    "find-lr",
    "info",
    "inspect",
    "link",
    "predict",
    "preview",
    "report",
    "train",
    "tune",
)
CONVERT = (
    "convert",
    "--from",
    "label_images",
    "--input",
    "data",
    "--split",
    "train",
    "--to",
    "coco_json",
)

# Each command with a file or a folder that it writes; "{}" is its name.
FILES = {
    "evaluate --json": ((*EVALUATE, "--json", "{}.json"), ("results",)),
    "evaluate --per-image": ((*EVALUATE, "--per-image", "{}.csv"), ("results",)),
    "report": (("report", "run", "--output", "{}.html"), ("run", "data")),
    "tune": (("tune", "run", "--output", "{}.yaml"), ("run", "data")),
    "export-model": (("export-model", "--model", "run", "--output", "{}.onnx"), ("run", "data")),
    "preview": (("preview", "--output", "{}.png"), ()),
    "bundle --zip": (("bundle", "run", "--name", "x", "-o", "{}.zip"), ("run", "data")),
}
FOLDERS = {
    "predict": (("predict", "images", "-o", "{}", "--save", "labels"), ("images",)),
    "convert": ((*CONVERT, "--output", "{}"), ("data",)),
    "inspect": ((*INSPECT, "--output", "{}"), ("data",)),
    "inspect --fix": ((*INSPECT, "--fix", "{}"), ("data",)),
    "link": (("link", "movie", "--output", "{}"), ("data",)),
    "bundle": (("bundle", "run", "--name", "x", "-o", "{}"), ("run", "data")),
    "find-lr": (
        ("find-lr", "--config-file", "run/config.yaml", "--iterations", "2", "OUTPUT_DIR", "{}"),
        ("run", "data"),
    ),
}
DOUBTS = ("inspect", "inspect --fix", "find-lr")  # may have found errors, or no rate
IN_WORDS = (r"^\w+Error: |ERROR",)


def words_of(command: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(word.replace("{}", name) for word in command)


def locked(name: str, mode: int = 0o555) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)

    return prepare


def tiny_disk(name: str, size: str) -> Callable[[Path], None]:
    """A disk with so much room; the harness takes it off again."""

    def prepare(folder: Path) -> None:
        (folder / name).mkdir()
        order = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder / name)]
        subprocess.run(order, check=True)

    return prepare


def full_disk(folder: Path) -> None:
    tiny_disk("disk", "16k")(folder)
    with (folder / "disk/full").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 4096)
        except OSError:
            pass


def rename_image(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "images/cells_0.png").rename(folder / "images" / name)


def special(name: str) -> Callable[[Path], None]:
    """A pipe, and a socket, that would be waited for."""

    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        os.mkfifo(folder / name)
        with socket.socket(socket.AF_UNIX) as one:
            here = os.getcwd()
            os.chdir(folder)
            one.bind("socket.png")
            os.chdir(here)

    return prepare


def with_frames(prepare: Callable[[Path], None]) -> Callable[[Path], None]:
    def whole(folder: Path) -> None:
        if (folder / "data").is_dir():
            frames(folder)
        prepare(folder)

    return whole


def no_folder(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).mkdir()


def no_cwd(folder: Path) -> None:
    (folder / "gone").mkdir()


OUTPUTS = [
    *(
        Trial(
            4,
            f"{name} where a folder is",
            words_of(words, "x"),
            needs=needs,
            prepare=no_folder(words_of(words, "x")[-1]),
            says=IN_WORDS,
        )
        for name, (words, needs) in FILES.items()
    ),
    *(
        Trial(
            4,
            f"{name} below a file",
            words_of(words, "x/y"),
            needs=needs,
            prepare=put("x"),
            says=IN_WORDS,
        )
        for name, (words, needs) in FILES.items()
    ),
    *(
        Trial(
            4,
            f"{name} in a folder that may not be written",
            words_of(words, "ro/y"),
            needs=needs,
            prepare=locked("ro"),
            says=IN_WORDS,
        )
        for name, (words, needs) in FILES.items()
    ),
    *(
        Trial(
            4,
            f"{name} on a full disk",
            words_of(words, "disk/y"),
            needs=needs,
            prepare=full_disk,
            says=("No space left",),
        )
        for name, (words, needs) in FILES.items()
    ),
    *(
        Trial(
            4,
            f"{name} to a name of 250 letters",
            words_of(words, "y" * 245),
            needs=needs,
            status=(0,),
            prepare=lambda folder: None,
        )
        for name, (words, needs) in FILES.items()
        if name not in ("evaluate --per-image",)
    ),
    *(
        Trial(
            4,
            f"{name} to a name of 300 letters",
            words_of(words, "y" * 300),
            needs=needs,
            says=("File name too long",),
        )
        for name, (words, needs) in FILES.items()
    ),
    *(
        Trial(4, f"{name} to a name in Latin-1", words_of(words, LATIN_1), needs=needs, status=(0,))
        for name, (words, needs) in FILES.items()
    ),
    *(
        Trial(
            4,
            f"{name} where a file is",
            words_of(words, "x"),
            needs=needs,
            prepare=with_frames(put("x")),
            says=IN_WORDS,
        )
        for name, (words, needs) in FOLDERS.items()
    ),
    *(
        Trial(
            4,
            f"{name} to a folder in one that may not be written",
            words_of(words, "ro/x"),
            needs=needs,
            prepare=with_frames(locked("ro")),
            says=IN_WORDS,
        )
        for name, (words, needs) in FOLDERS.items()
    ),
    *(
        Trial(
            4,
            f"{name} to a folder on a full disk",
            words_of(words, "disk/x"),
            needs=needs,
            prepare=with_frames(full_disk),
            says=("No space left",),
        )
        for name, (words, needs) in FOLDERS.items()
    ),
    *(
        Trial(
            4,
            f"{name} on a disk that becomes full",
            words_of(words, "disk/x"),
            needs=needs,
            prepare=with_frames(tiny_disk("disk", "12k")),
            says=("No space left",),
        )
        for name, (words, needs) in FOLDERS.items()
        if name not in ("link", "convert", "inspect --fix")
    ),
    *(
        Trial(
            4,
            f"{name} to a folder in Latin-1",
            words_of(words, LATIN_1),
            needs=needs,
            prepare=with_frames(lambda folder: None),
            status=(0, 1) if name in DOUBTS else (0,),
        )
        for name, (words, needs) in FOLDERS.items()
    ),
    *(
        Trial(
            4,
            f"{name} to a folder of 250 letters",
            words_of(words, "y" * 250),
            needs=needs,
            prepare=with_frames(lambda folder: None),
            status=(0, 1) if name in DOUBTS else (0,),
        )
        for name, (words, needs) in FOLDERS.items()
    ),
    Trial(
        4,
        "evaluate --json over a file that may not be written",
        (*EVALUATE, "--json", "x.json"),
        needs=("results",),
        says=("may not be written",),
        prepare=both(put("x.json", text="{}"), lambda f: (f / "x.json").chmod(0o444)),
    ),
    Trial(
        4,
        "predict to a device",
        ("predict", "images", "-o", "null"),
        needs=("images",),
        prepare=device("null", 3),
        says=IN_WORDS,
    ),
    Trial(
        4,
        "predict to a link that leads nowhere",
        ("predict", "images", "-o", "x"),
        needs=("images",),
        prepare=link("x", "nowhere"),
        says=IN_WORDS,
    ),
    Trial(
        4,
        "predict to links in a circle",
        ("predict", "images", "-o", "x"),
        needs=("images",),
        prepare=link("x", "x"),
        says=IN_WORDS,
    ),
    Trial(
        4,
        "predict with a limit of the size of files",
        needs=("images",),
        shell="(ulimit -f 1; cellseg predict images -o out 2>&1) | cat; exit ${PIPESTATUS[0]}",
        says=("File too large",),
    ),
]

INPUTS = [
    Trial(
        4,
        "predict a folder that may not be read, among others",
        ("predict", "images", "locked", "locked/a.png", "-o", "out", "--save", "labels"),
        needs=("images",),
        prepare=locked("locked", 0),
        says=("2 of 2 images done", "locked.*Permission denied"),
    ),
    Trial(
        4,
        "predict a folder that holds one that may not be read",
        PREDICT,
        needs=("images",),
        prepare=locked("images/locked", 0),
        status=(0, 1),
        says=("2 of 2 images done", "locked.*Permission denied"),
    ),
    Trial(
        4,
        "predict an image that may not be read",
        PREDICT,
        needs=("images",),
        prepare=lambda folder: (folder / "images/cells_0.png").chmod(0),
        says=("1 of 2 images done", "cells_0.*Permission denied"),
    ),
    Trial(
        4,
        "predict a pipe and a socket",
        ("predict", "images", "p.png", "socket.png", "-o", "out"),
        needs=("images",),
        prepare=special("p.png"),
        seconds=40,
        says=("2 of 2 images done", "neither a file nor a folder"),
    ),
    Trial(
        4,
        "predict a folder with a pipe in it",
        PREDICT,
        needs=("images",),
        seconds=40,
        prepare=special("images/p.png"),
        status=(0, 1),
        says=("2 of 2 images done", "p.png"),
    ),
    Trial(
        4,
        "inspect data with a pipe for an image",
        INSPECT,
        needs=("data",),
        seconds=40,
        prepare=lambda folder: os.mkfifo(folder / "data/train/images/p.png"),
        says=("p.png",),
    ),
    Trial(
        4,
        "inspect data with a pipe in place of a label image",
        INSPECT,
        needs=("data",),
        seconds=40,
        says=("cells_0",),
        prepare=both(
            lambda folder: (folder / "data/train/labels/cells_0.png").unlink(),
            lambda folder: os.mkfifo(folder / "data/train/labels/cells_0.png"),
        ),
    ),
    *(
        Trial(
            4,
            f"{name} a pipe",
            words,
            needs=needs,
            seconds=30,
            says=IN_WORDS,
            prepare=lambda folder: os.mkfifo(folder / "pipe"),
        )
        for name, words, needs in (
            ("evaluate", ("evaluate", "--predictions", "pipe", "--ground-truth", "pipe"), ()),
            ("report on", ("report", "pipe"), ()),
            ("tune with", ("tune", "pipe", "--config-file", "run/config.yaml"), ("run", "data")),
            (
                "predict with weights from",
                ("predict", "images", "-o", "o", "--model", "pipe"),
                ("images",),
            ),
            (
                "predict with a config from",
                (
                    "predict",
                    "images",
                    "-o",
                    "o",
                    "--config-file",
                    "run/config.yaml",
                    "MODEL.WEIGHTS",
                    "pipe",
                ),
                ("images", "run", "data"),
            ),
            ("link", ("link", "pipe", "--output", "o"), ()),
            (
                "convert",
                (
                    "convert",
                    "--from",
                    "coco_json",
                    "--input",
                    ".",
                    "--split",
                    "pipe",
                    "--to",
                    "label_images",
                    "--output",
                    "o",
                ),
                (),
            ),
            (
                "bundle with a card from",
                ("bundle", "run", "--name", "x", "--card", "pipe"),
                ("run", "data"),
            ),
        )
    ),
    Trial(
        4,
        "predict links that lead nowhere and in a circle",
        ("predict", "images", "images/a.png", "images/b.png", "-o", "out"),
        needs=("images",),
        prepare=both(link("images/a.png", "nothing.png"), link("images/b.png", "b.png")),
        says=("2 of 2 images done", "a.png.*which is not there"),
    ),
    Trial(
        4,
        "predict a name of 300 letters, among others",
        ("predict", "images", "x" * 300 + ".png", "-o", "out"),
        needs=("images",),
        says=("2 of 2 images done", "File name too long|no image found"),
    ),
    Trial(
        4,
        "predict an image whose name has 250 letters",
        PREDICT,
        needs=("images",),
        prepare=rename_image("x" * 246 + ".png"),
        says=("1 of 2 images done", "File name too long"),
    ),
    *(
        Trial(
            4,
            f"predict an image with a name in Latin-1, saved as {name}",
            (*PREDICT[:-1], name),
            needs=("images",),
            status=(0,),
            prepare=rename_image(f"{LATIN_1}.png"),
            says=("2 of 2 images done",),
        )
        for name in (
            "labels",
            "overlay",
            "coco",
            "rois",
            "geojson",
            "zarr",
            "csv-rle",
            "outlines",
            "table",
            "parquet",
            "sartorius",
            "instance_masks",
        )
    ),
    Trial(
        4,
        "predict a list in Latin-1",
        ("predict", "list.txt", "-o", "out"),
        status=(0,),
        needs=("images",),
        says=("1 of 1 images done",),
        prepare=both(
            rename_image(f"{LATIN_1}.png"),
            lambda folder: (folder / "list.txt").write_bytes(b"images/caf\xe9.png\n"),
        ),
    ),
    Trial(
        4,
        "inspect data with names in Latin-1",
        (*INSPECT, "--output", "out"),
        needs=("data",),
        status=(0, 1),
        says=(r"caf\\udce9|errors",),
        prepare=lambda folder: [
            path.rename(path.with_name(f"{LATIN_1}.png"))
            for path in folder.glob("data/train/*/cells_0.png")
        ],
    ),
    Trial(
        4,
        "convert data with names in Latin-1",
        (*CONVERT, "--output", "out"),
        needs=("data",),
        status=(0, 1),
        prepare=lambda folder: [
            path.rename(path.with_name(f"{LATIN_1}.png"))
            for path in folder.glob("data/train/*/cells_0.png")
        ],
    ),
]


def shell(name: str, line: str, **how: object) -> Trial:
    return Trial(4, name, shell=line, **how)  # type: ignore[arg-type]


LINE = " ".join(EVALUATE)
STREAMS = [
    *(
        shell(
            f"{command} --help | head",
            f"cellseg {command} --help | head -1; test ${{PIPESTATUS[0]}} -lt 142",
            status=(0,),
            says=(r"^\S",),
        )
        for command in COMMANDS
    ),
    shell(
        "help to a full device",
        "cellseg --help > full",
        prepare=device("full", 7),
        status=(0, 1),
        never=("Exception",),
    ),
    shell("evaluate with closed output", f"cellseg {LINE} >&-", needs=("results",), status=(0,)),
    shell(
        "evaluate with closed errors",
        f"cellseg {LINE} 2>&-",
        needs=("results",),
        status=(0,),
        says=("2 images",),
    ),
    shell(
        "evaluate with everything closed",
        f"cellseg {LINE} --json x.json <&- >&- 2>&-",
        needs=("results",),
        status=(0,),
        holds=lambda folder: "" if (folder / "x.json").read_text()[0] == "{" else "no JSON",
    ),
    shell(
        "predict with everything closed",
        "cellseg predict images -o out --save labels <&- >&- 2>&-",
        needs=("images",),
        status=(0,),
        holds=lambda folder: "" if (folder / "out/cells_0_labels.tif").is_file() else "nothing",
    ),
    shell("an error with closed errors", "cellseg report nothing 2>&-", status=(1,)),
    shell(
        "evaluate to a full device",
        f"cellseg {LINE} > full",
        needs=("results",),
        status=(1,),
        prepare=device("full", 7),
        says=("No space left",),
        never=("Exception",),
    ),
    shell(
        "evaluate with errors to a full device",
        "cellseg report nothing 2> full",
        status=(1,),
        prepare=device("full", 7),
    ),
    shell(
        "predict with its log to a full device",
        "cellseg predict images -o out --save labels > full",
        needs=("images",),
        status=(0, 1),
        prepare=device("full", 7),
        never=("Logging error", "Exception"),
        holds=lambda folder: "" if (folder / "out/cells_1_labels.tif").is_file() else "nothing",
    ),
    shell(
        "predict | head",
        "cellseg predict images -o out --save labels | head -1; "
        "test ${PIPESTATUS[0]} = 0 -o ${PIPESTATUS[0]} = 141 || true",
        needs=("images",),
        status=(0,),
        never=("Logging error", "Exception", "Traceback"),
        holds=lambda folder: "" if (folder / "out/cells_1_labels.tif").is_file() else "nothing",
    ),
    shell(
        "predict 2>&1 | true",
        "cellseg predict images -o out 2>&1 | true",
        needs=("images",),
        status=(0,),
    ),
    shell("info | true", "cellseg info --json | true", status=(0,), never=("Exception",)),
    shell(
        "inspect | head",
        f"cellseg {' '.join(INSPECT)} | head -1",
        needs=("data",),
        status=(0,),
        never=("Exception",),
    ),
    shell(
        "convert | true",
        f"cellseg {' '.join(CONVERT)} --output out | true",
        needs=("data",),
        status=(0,),
        never=("Exception",),
    ),
]

PLACES = [
    shell(
        "predict without a home",
        "unset HOME CELLSEG_CACHE; cellseg predict images -o out --save labels",
        needs=("images",),
        status=(0,),
    ),
    shell(
        "inspect with a cache that may not be written",
        f"CELLSEG_CACHE=ro/c cellseg {' '.join(INSPECT)}",
        needs=("data",),
        status=(0, 1),
        prepare=locked("ro"),
        says=("not cached|errors",),
    ),
    shell(
        "inspect with a file for a cache",
        f"CELLSEG_CACHE=x cellseg {' '.join(INSPECT)}",
        needs=("data",),
        status=(0, 1),
        prepare=put("x"),
        says=("errors",),
    ),
    shell(
        "inspect synthetic cells with a cache that may not be written",
        "CELLSEG_CACHE=ro/c cellseg inspect synthetic",
        prepare=locked("ro"),
        status=(1,),
        says=("CELLSEG_CACHE",),
    ),
    shell(
        "inspect synthetic cells with a full cache",
        "CELLSEG_CACHE=disk/c cellseg inspect synthetic",
        prepare=full_disk,
        status=(1,),
        says=("No space left", "CELLSEG_CACHE"),
    ),
    *(
        shell(
            f"{name} in a folder that is gone",
            f"cd gone; rmdir ../gone; cellseg {line} 2>&1",
            prepare=no_cwd,
            needs=("images", "data", "results"),
            status=(0, 1),
            changes=("gone",),
        )
        for name, line in (
            ("predict", "predict ../images -o ../out --save labels"),
            ("predict to a relative folder", "predict ../images -o out --save labels"),
            (
                "evaluate",
                "evaluate --predictions ../results/results.json --ground-truth "
                "../results/results.json --json x.json",
            ),
            ("inspect", "inspect ../data/cells.yaml"),
            ("info", "info"),
        )
    ),
]

TRIALS = [*OUTPUTS, *INPUTS, *STREAMS, *PLACES]
