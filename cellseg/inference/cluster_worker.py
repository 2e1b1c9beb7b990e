"""What a worker of a cluster has: the model, loaded once per process, and a current folder."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cellseg  # before detectron2: it makes `import detectron2` work
import torch
from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import CellsegError, ClusterError
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling.device import describe_device
from cellseg.plugins import import_plugins
from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


class UnfitWorkerError(ClusterError):
    """A worker that can do none of the work, whichever image it gets."""


@dataclass(frozen=True)
class ModelRecipe:
    """All that a worker needs to have the same model as whoever sends it.

    Attributes:
        key: another one for another model.
        cfg: its config; `MODEL.WEIGHTS` is a file on a disk that workers share.
        device: as `MODEL.DEVICE`; "" for the GPU of the worker, where it has one.
        thresholds: what a detection needs to be a cell.
        scenes, at_pixel_size_um, spool_folder, memory_share: as in `CellModel`.
        current_folder: relative paths begin there.
        plugins: (name, folder) of each, see `locate_plugins`.
        versions: of the packages that results depend on.
    """

    key: str
    cfg: CfgNode
    device: str
    thresholds: DetectionThresholds
    scenes: tuple[int | str, ...]
    at_pixel_size_um: float | None
    spool_folder: Path | None
    memory_share: float
    current_folder: Path
    plugins: tuple[tuple[str, Path], ...]
    versions: tuple[tuple[str, str], ...]

    def build(self, worker_name: str, threads: int) -> CellModel:
        """Load the model.

        Args:
            worker_name: its number chooses among several GPUs.
            threads: how many the network may use on the CPU.

        Raises:
            ClusterError: this process has other versions of the packages.
            CellsegError: as `import_plugins` and `CellPredictor`.
        """
        if self.versions != find_versions():
            ours, theirs = _describe_versions(find_versions()), _describe_versions(self.versions)
            raise ClusterError(f"it has {ours}; expected {theirs}, as where the task comes from")
        for name, folder in self.plugins:
            import_plugins([name], base_dir=folder)
        torch.set_num_threads(threads)
        cfg = self.cfg.clone()
        cfg.MODEL.DEVICE = self.device or choose_device(worker_name, torch.cuda.device_count())
        predictor = CellPredictor(
            cfg, score_threshold=self.thresholds.score, mask_threshold=self.thresholds.mask
        )
        logger.info("Worker %s: %s", worker_name, describe_device(cfg.MODEL.DEVICE))
        return CellModel(
            predictor, self.scenes, self.at_pixel_size_um, self.spool_folder, self.memory_share
        )


def find_versions() -> tuple[tuple[str, str], ...]:
    """Versions of the packages that the cells of an image depend on."""
    return (("cellseg", cellseg.__version__), ("torch", torch.__version__))


def _describe_versions(versions: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions)


def choose_device(worker_name: str, num_gpus: int) -> str:
    """The device of a worker: its GPU, or the CPU where there is none.

    Of several GPUs, workers with a number at the end of their name get one each, in turn; others
    get the first. Where CUDA_VISIBLE_DEVICES is not in ascending order, as `dask-cuda` sets it for
    all workers but the first, its first device is meant for this process.

    Example:
        >>> [choose_device(f"gpu-{k}", num_gpus=2) for k in range(3)], choose_device("a", 0)
        (['cuda:0', 'cuda:1', 'cuda:0'], 'cpu')
    """
    if not num_gpus:
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    number = re.search(r"(?<![.:\d])\d+$", worker_name)  # not the port of an address
    if number is None or visible != sorted(visible):
        return "cuda:0"
    return f"cuda:{int(number[0]) % num_gpus}"


_models: dict[str, CellModel] = {}
_loading = threading.Lock()


def load_model(recipe: ModelRecipe) -> CellModel:
    """The model of a recipe, loaded the first time that this process needs it.

    Raises:
        UnfitWorkerError: it cannot be loaded here.
    """
    with _loading:
        if recipe.key not in _models:
            _models.clear()  # of an earlier client
            name, threads = _describe_worker()
            logging.getLogger("cellseg").setLevel(logging.INFO)  # whoever sends the work sees it
            try:
                _models[recipe.key] = recipe.build(name, threads)
            except CellsegError as error:
                raise UnfitWorkerError(f"worker {name}: {error}") from error
        return _models[recipe.key]


def _describe_worker() -> tuple[str, int]:
    """Name of the worker that this is, and how many cores are its own.

    Its nanny sets OMP_NUM_THREADS to 1, for workers that use their cores for as many tasks; here
    the network uses them all, for one task after the other.
    """
    from distributed import get_worker

    worker = get_worker()
    return str(worker.name), int(worker.state.nthreads)


class _CurrentFolder:
    """The current folder of a process, for tasks that run at one time, of several clients maybe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._folder = self._before = Path()

    @contextmanager
    def __call__(self, folder: Path) -> Iterator[None]:
        """Relative paths begin in `folder`; a task that needs another one waits."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users or self._folder == folder)
            if not self._users:
                self._folder, self._before = folder, Path.cwd()
                self._enter(folder)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if not self._users:
                    os.chdir(self._before)
                    self._changed.notify_all()

    @staticmethod
    def _enter(folder: Path) -> None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UnfitWorkerError(
                f"worker {_describe_worker()[0]}: the folder {folder} cannot be entered: "
                f"{error.strerror}; workers need the same disks as the machine that starts the task"
            ) from error


in_folder = _CurrentFolder()
