"""Fine-tunes a model on few images in processes of their own, with what can be seen meanwhile.

For windows and notebooks that are not to wait: `start`, then `progress` as often as one likes. It
is `cellseg train` that runs, first with `--eval-only`, so that what the model could do before is
known; the same data, config and figures are had from the command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import yaml
from cellseg.arguments import checked
from cellseg.config import ConfigTree, put_below, read_config_tree
from cellseg.config.runs import METRICS_FILE, find_run_weights
from cellseg.datasets.declarations import Declaration, read_declarations
from cellseg.engine.fine_tuning_progress import (
    METRIC,
    Progress,
    State,
    compare_in_words,
    read_curves,
    read_metric,
)
from cellseg.engine.fine_tuning_settings import (
    choose_settings,
    drop_lists_of_other_classes,
    median_diameter,
    value_in,
)
from cellseg.engine.hooks.run_record import FIGURES_FILE
from cellseg.engine.run_folder import check_new
from cellseg.errors import CellsegError, DatasetError
from cellseg.files import write_whole
from cellseg.modeling.device import default_device
from cellseg.models import find_model
from cellseg.names import printable, suggest_name
from cellseg.plugins import import_installed
from cellseg.rules import PATH, number

_ERROR = re.compile(r"\w+Error: ")
_PATIENCE_S = 20.0
"""For a training that was asked to end: it ends behind its step, with a checkpoint."""


class FineTuning:
    """Trains a model on declared images, beside the process that asks for it.

    The images are split already: one set is learned from, the other one, which may be missing,
    says how good the model is before and after; of the checkpoints in between the best is kept. A
    model that knows another number of classes is not measured before: it learns them anew.
    Cells of a size that the model does not know are brought to one that it does.

    Args:
        model: what to start from: a bundle, by name or path, the folder of a run, a checkpoint.
        declaration: the YAML file of the data sets (datasets/README.md).
        train: name of the set to learn from.
        test: name of the set to measure on; "" for none.
        output_dir: a folder for the new model; one with a training in it is refused.
        minutes: of training; measuring and the start of the program come on top of it.
        opts: KEY VALUE pairs, alternating, that win over everything else.

    Raises:
        ConfigError: there is no such model, or the data sets cannot be used.
        TrainingError: the folder holds a training.

    Example:
        >>> job = FineTuning("nuclei", "mine/cells.yaml", "cells_train", "cells_val", "new")
        ... # doctest: +SKIP
        >>> job.start()  # doctest: +SKIP
        >>> while not (seen := job.progress()).has_ended:  # doctest: +SKIP
        ...     time.sleep(1)
    """

    @checked(model=PATH, declaration=PATH, output_dir=PATH, minutes=number(above=0))
    def __init__(
        self,
        model: str | Path,
        declaration: str | Path,
        train: str,
        test: str,
        output_dir: str | Path,
        *,
        minutes: float = 2.0,
        opts: tuple[Any, ...] = (),
    ) -> None:
        self.output_dir = Path(output_dir)
        self.minutes = float(minutes)
        check_new(self.output_dir)
        self._test = test
        self._opts = [str(word) for word in opts]
        self._configs = self._write_configs(model, Path(declaration), train)
        self._state: State = "new"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._training_since = 0.0
        self._before: float | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        if self._state != "new":
            raise RuntimeError("a fine-tuning is started once")
        if self._test and self._knows_classes:
            self._state = "measuring"
            self._run("--eval-only", "OUTPUT_DIR", str(self._measured))
        else:
            self._train()

    def progress(self) -> Progress:
        """What there is to see now; to be called now and then, as it starts what comes next."""
        if self._process is not None and self._process.poll() is not None:
            self._go_on(self._process.returncode)
        losses, metrics = read_curves(self.output_dir / METRICS_FILE)
        share = 1.0 if self._state == "done" else 0.0
        if self._state == "training" and losses:
            share = min((time.monotonic() - self._training_since) / (60 * self.minutes), 1.0)
        seen = Progress(self._state, share, losses, metrics, self._before)
        if self._state == "failed":
            return replace(seen, message=self._last_words())
        if not seen.has_ended:
            return seen
        after = max((value for _, value in metrics), default=None)
        words = compare_in_words(self._before, after) if self._state == "done" else ""
        return replace(seen, after=after, message=words, model=self._model())

    def stop(self) -> None:
        """End it and wait until it has ended; what was learned until now is kept."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _kill(process)
        self._close()
        self._state = "stopped"

    @property
    def log_file(self) -> Path:
        """What `cellseg train` says."""
        return self.output_dir / "fine_tuning.log"

    @property
    def _measured(self) -> Path:
        return self.output_dir / "before"

    def _write_configs(self, model: str | Path, data: Path, train: str) -> list[str]:
        """The configs of the training: the model's own, what few images need, and the choices."""
        files, declared = find_model(model), find_declared(data, train)
        if self._test:
            find_declared(data, self._test)
        start, tree = self._write_start(files.config)
        sizes = median_diameter(declared)
        device = default_device()
        settings = choose_settings(tree, sizes, self.minutes, device)
        classes = len(declared.classes)
        self._knows_classes = classes == value_in(tree, "MODEL.ROI_HEADS.NUM_CLASSES", 80)
        put_below(settings, drop_lists_of_other_classes(tree, classes))
        weights = Path(files.weights)
        put_below(
            settings,
            {
                "MODEL": {
                    "WEIGHTS": str(weights.resolve()) if weights.exists() else files.weights,
                    "DEVICE": device,
                    "ROI_HEADS": {"NUM_CLASSES": classes},
                },
                "DATASETS": {"TRAIN": [train], "TEST": [self._test] if self._test else []},
                "CELLSEG": {
                    "DATASETS": {"DECLARATIONS": [str(data.resolve())]},
                    "TRAIN": {"BEST_METRIC": METRIC if self._test else ""},
                },
            },
        )
        own = self.output_dir / "fine_tuning.yaml"
        _write_yaml(own, settings)
        return [start, "parts/few_images.yaml", str(own)]

    def _write_start(self, config: Path | ConfigTree) -> tuple[str, dict[str, Any]]:
        """Name and content of a file with the model's own config."""
        if isinstance(config, Path):
            return str(config), read_config_tree(config).tree
        # As a file it could bring code that its weights may not bring.
        plugins = config.tree.get("CELLSEG", {}).get("PLUGINS") or []
        import_installed(plugins, config.place)
        start = self.output_dir / "start.yaml"
        _write_yaml(start, config.tree)
        return str(start), config.tree

    def _run(self, *words: str) -> None:
        if self._log is None:
            self._log = self.log_file.open("ab")
        command = [
            sys.executable,
            "-m",
            "cellseg",
            "train",
            "--config-file",
            *self._configs,
            *words,
        ]
        self._process = subprocess.Popen(
            [*command, *self._opts],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal of a window is not meant for it
        )

    def _train(self) -> None:
        self._state = "training"
        self._training_since = time.monotonic()
        self._run("OUTPUT_DIR", str(self.output_dir))

    def _go_on(self, status: int) -> None:
        """What follows a process that has ended."""
        self._process = None
        if status != 0:
            self._state = "failed"
        elif self._state == "measuring":
            self._before = read_metric(self._measured / FIGURES_FILE)
            self._train()
            return
        else:
            self._state = "done"
        self._close()

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _model(self) -> Path | None:
        try:
            find_run_weights(self.output_dir)
        except CellsegError:
            return None
        return self.output_dir

    def _last_words(self) -> str:
        """The error that the log ends with."""
        text = self.log_file.read_text("utf-8", errors="replace").strip()
        lines = text.splitlines()
        errors = [number for number, line in enumerate(lines) if _ERROR.match(line)]
        said = lines[errors[-1] :] if errors else lines[-1:]
        words = "\n".join(map(printable, said)) or "the training has ended without a word"
        return f"{words}\n({self.log_file})"


def find_declared(path: Path, name: str) -> Declaration:
    """The data set of a name that a file declares.

    Raises:
        DatasetError: the file cannot be used, or declares no such set.
    """
    declared = {one.name: one for one in read_declarations(path)}
    if name not in declared:
        hint = suggest_name(name, list(declared), "declared are:")
        raise DatasetError(f"{path}: declares no data set {name!r}; {hint}")
    return declared[name]


def _write_yaml(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as partial:
        partial.write_text(yaml.safe_dump(tree), "utf-8")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those of its loaders."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
