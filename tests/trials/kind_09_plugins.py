"""Kind 9: which plug-in, which key, which argument of hundreds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness import Trial
from stock import TRAIN

CONFIG = '_BASE_: "quick_start.yaml"\nCELLSEG: {PLUGINS: [first.py, second.py, third.py]}\n'

# Name, the content of second.py, and what is said.
BROKEN = (
    (
        "raises",
        "1 / 0\n",
        r"plug-in 'second\.py' failed.*ZeroDivisionError.*second\.py, line 1",
    ),
    ("is no Python", "def (:\n", r"plug-in 'second\.py' failed.*SyntaxError"),
    ("misses a module", "import not_there_at_all\n", r"second\.py.*not_there_at_all"),
    ("ends the program", "import sys\nsys.exit(3)\n", r"plug-in 'second\.py' failed.*SystemExit"),
    (
        "has keys that fail",
        "def add_config(cfg):\n    cfg.NO.WHERE = 1\n",
        r"plug-in 'second\.py' failed while it added its keys.*line 2",
    ),
    ("has keys without arguments", "def add_config():\n    pass\n", r"plug-in 'second\.py' failed"),
)


def _write(second: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "mine.yaml").write_text(CONFIG, "utf-8")
        for name in ("first", "third"):
            (folder / f"{name}.py").write_text("", "utf-8")
        (folder / "second.py").write_text(second, "utf-8")

    return prepare


TRIALS = [
    *(
        Trial(
            9,
            f"a plug-in of three that {name}",
            ("train", "--config-file", "mine.yaml", "OUTPUT_DIR", "out"),
            prepare=_write(second),
            says=("PluginError", says),
        )
        for name, second, says in BROKEN
    ),
    Trial(
        9,
        "the one wrong key of fifty",
        (*TRAIN, *("SEED", "1") * 25, "SOLVER.MAX_ITR", "3", *("SEED", "2") * 25),
        needs=("data",),
        says=("SOLVER.MAX_ITR is no key.*did you mean SOLVER.MAX_ITER",),
    ),
    Trial(
        9,
        "the one wrong image of a hundred",
        code="import numpy as np\nfrom cellseg.evaluation import score\n"
        "lab = np.ones((4, 4), int)\nscore([lab] * 100, [lab] * 61 + [lab / 2] + [lab] * 38)",
        says=("image 61: a label image holds integers",),
    ),
    Trial(
        9,
        "the one wrong cell of a hundred",
        code="from cellseg import CellInstances\nimport numpy as np\n"
        "rles = CellInstances.from_label_image(np.arange(100).reshape(10, 10)).to_rles()\n"
        "rles[42] = {'size': [10, 10], 'counts': 5}\nCellInstances.from_rles(rles, (10, 10))",
        says=(r"\b42\b",),
    ),
]
