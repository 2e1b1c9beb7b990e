"""Prediction with many machines: files and tiles as tasks of a Dask cluster.

    with open_cluster("tcp://10.0.0.1:8786") as cluster:
        outcome = predict_on_cluster(model, files, results, write, cluster=cluster)

Images that are looked at as a whole are tasks by file: a worker reads it, finds its cells and
writes its results, with the code that does so on one machine. Of larger images each tile is a task,
and the cells are joined, measured and written here. A few tasks per worker are under way at a time;
what comes back is small. A task whose worker is gone runs again on another one: Dask sees to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.cells.spool import SpooledCells
from cellseg.images import PlaneImage, place_of
from cellseg.images.plates import PlatePosition
from cellseg.inference.cluster import Cluster, Over, WorkersDiedError
from cellseg.inference.cluster_tasks import (
    FileOptions,
    FilesTask,
    RemoteDetector,
    RemotePlane,
    find_memory,
    predict_images,
)
from cellseg.inference.cluster_worker import ModelRecipe, find_versions
from cellseg.inference.file_work import Outcome, remember_failure
from cellseg.inference.files import show_progress
from cellseg.inference.inputs import InputFile
from cellseg.inference.magnification import Found, Look
from cellseg.inference.model import CellModel
from cellseg.inference.result_folder import ResultFolder, describe_source, hash_text
from cellseg.inference.saving import ResultWriter
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.tiles import TileWork
from cellseg.interrupts import finishing, requested
from cellseg.modeling.weights import find_weights_file
from cellseg.plugins import locate_plugins
from numpy.typing import NDArray

IMAGES_IN_TILES_AT_ONCE = 2
"""While the results of one are written here, workers look at the tiles of the next."""

logger = logging.getLogger(__name__)


def predict_on_cluster(
    model: CellModel,
    files: Sequence[InputFile],
    results: ResultFolder,
    write: ResultWriter,
    *,
    cluster: Cluster,
    device: str = "",
    resume: bool = False,
    batch_size: int = 1,
    pixel_size_um: tuple[float, float] | None = None,
) -> Outcome:
    """`predict_files`, by the workers of a cluster; what is written is the same.

    Args:
        model: here it only plans; each worker loads its own. It is moved to the CPU.
        files, results, write, resume, batch_size, pixel_size_um: as in `predict_files`. Paths lead
            to the same files on all machines.
        cluster: of `open_cluster`.
        device: `MODEL.DEVICE` of workers; "" for a GPU where a worker has one, else the CPU.

    Returns:
        What was done and what failed.

    Raises:
        ClusterError: a worker cannot do any work, or the scheduler is gone. What is done is kept.
    """
    model.predictor.move_to_cpu()
    options = FileOptions(resume, batch_size, pixel_size_um)
    try:
        recipe = describe_model(model, device, 1 / cluster.most_on_one_machine)
        task = FilesTask(recipe, (), results.folder, results.settings, write.saving, {}, options)
        task = replace(task, overwrite=write.overwrite, images=write.images)
        with finishing(), show_progress(len(files)) as bar:
            job = _Job(cluster, results, bar)
            large = job.predict_whole(task, files, write.places)
            if large:
                job.predict_in_tiles(ClusterModel.of(model, recipe, cluster), large, write, options)
        return job.outcome
    except Over:
        if cluster.fatal is None:
            raise
        raise cluster.fatal from None


def describe_model(model: CellModel, device: str, memory_share: float) -> ModelRecipe:
    """What workers need to have the same model.

    Args:
        model: the model here.
        device: see `predict_on_cluster`.
        memory_share: of each worker; see `CellModel`.
    """
    cfg, thresholds = model.predictor.cfg.clone(), model.predictor.thresholds
    source = describe_source(find_weights_file(cfg.MODEL.WEIGHTS))
    about = (
        device,
        thresholds,
        tuple(model.scenes),
        model.at_pixel_size_um,
        model.spool_folder,
        memory_share,
        Path.cwd(),
        tuple(locate_plugins(cfg.CELLSEG.PLUGINS)),
        find_versions(),
    )
    return ModelRecipe(hash_text([cfg.dump(), str(source), str(about)]), cfg, *about)


@dataclass
class ClusterModel(CellModel):
    """Looks at planes in tiles, which workers do; here they are joined.

    Attributes:
        recipe: the model of workers.
        cluster: the workers.
        worker_memory: bytes that one of them has for the network.
        suspects: files that workers died of, perhaps.
        tiles_at_once: how many tiles are under way; None for as many as workers take.
    """

    recipe: ModelRecipe = field(kw_only=True)
    cluster: Cluster = field(kw_only=True)
    worker_memory: int = field(kw_only=True)
    suspects: set[Path] = field(default_factory=set, kw_only=True)
    tiles_at_once: int | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, model: CellModel, recipe: ModelRecipe, cluster: Cluster) -> ClusterModel:
        """The model, at work on a cluster."""
        return cls(
            *(model.predictor, model.scenes, model.at_pixel_size_um, model.spool_folder),
            recipe=recipe,
            cluster=cluster,
            worker_memory=cluster.call(find_memory, recipe),
        )

    def memory_at_hand(self) -> int:
        return self.worker_memory

    def predict_images(self, images: Sequence[NDArray[Any]]) -> list[Found]:
        """Those planes of a file with larger ones that are looked at as a whole."""
        found: list[Found] = self.cluster.call(partial(predict_images, self.recipe), images)
        return found

    def predict_plane(self, plane: PlaneImage, image_id: str) -> SpooledCells:
        try:
            return super().predict_plane(plane, image_id)
        except WorkersDiedError:
            self.suspects.add(plane.path)
            raise

    def look_at(self, plane: PlaneImage) -> Look:
        if not self.magnification.is_automatic:
            return super().look_at(plane)
        look: Look = self.cluster.call(RemotePlane.look, self._remote(plane))
        return look

    def _remote(self, plane: PlaneImage) -> RemotePlane:
        return RemotePlane(self.recipe, plane.path, place_of(plane))

    def _plan_work(self, plane: PlaneImage, grid: TileGrid, look: Look) -> TileWork:
        remote = self._remote(plane)
        limits = self.cluster.call(RemotePlane.limits, remote)
        scale, is_smooth = self.scale_in_tiles(plane.image_hw, look)
        detector = RemoteDetector(self.recipe, limits, scale, is_smooth)
        return TileWork(grid, self.predictor.thresholds, remote, detector)

    def _run_tiles(self, do: Callable[[Tile], Any], tiles: Iterable[Tile]) -> Iterator[Any]:
        for _, result in self.cluster.map(do, tiles, self.tiles_at_once):
            if isinstance(result, Exception):
                raise result
            yield result


@dataclass
class _Job:
    """The work on many files, and what became of it."""

    cluster: Cluster
    results: ResultFolder
    bar: Any
    outcome: Outcome = field(default_factory=Outcome)

    def predict_whole(
        self,
        task: FilesTask,
        files: Sequence[InputFile],
        places: Mapping[Path, PlatePosition],
        at_once: int | None = None,
    ) -> list[InputFile]:
        """Predict the files that are looked at as a whole; returns the others.

        Args:
            task: of no files yet.
            files: several of one task go through the network together.
            places: of all files.
            at_once: how many tasks are under way.
        """
        large: list[InputFile] = []
        suspects: list[InputFile] = []
        size = task.options.batch_size
        groups = (tuple(files[first : first + size]) for first in range(0, len(files), size))
        tasks = (task.with_files(group, places) for group in groups)
        for done, found in self.cluster.map(FilesTask.run, tasks, at_once):
            if not isinstance(found, Exception):
                self._count(found[0], len(done.files) - len(found[1]))
                large += found[1]
            elif at_once == 1:
                self._fail(done.files[0], found)
            else:
                suspects += done.files
            if requested():
                return []
        if suspects:  # one by one, so that only the one that workers die of fails
            options = replace(task.options, batch_size=1)
            large += self.predict_whole(replace(task, options=options), suspects, places, 1)
        return large

    def predict_in_tiles(
        self,
        model: ClusterModel,
        files: Sequence[InputFile],
        write: ResultWriter,
        options: FileOptions,
    ) -> None:
        """Predict files, tile by tile."""

        def predict(file: InputFile) -> tuple[InputFile, Outcome]:
            return file, options.predict(model, [file], self.results, write)

        with ThreadPoolExecutor(IMAGES_IN_TILES_AT_ONCE) as pool:
            suspects = []
            try:
                for future in as_completed([pool.submit(predict, file) for file in files]):
                    file, outcome = future.result()
                    if file.path in model.suspects:  # workers may have died of the other image
                        suspects.append(file)
                    else:
                        self._count(outcome, 1)
            except BaseException:
                self.cluster.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        model.tiles_at_once = 1  # so that no other tile of an image kills a worker of the next one
        for file in suspects:
            model.suspects.clear()
            outcome = predict(file)[1]
            if model.suspects:  # perhaps of a tile that was still under way from before
                outcome = predict(file)[1]
            self._count(outcome, 1)

    def _count(self, outcome: Outcome, num_files: int) -> None:
        self.outcome.add(outcome)
        for _, _, reason in outcome.failed:
            logger.error("%s", reason)
        self.bar.update(num_files)

    def _fail(self, file: InputFile, error: Exception) -> None:
        """Note that a task failed that was to note itself what fails."""
        try:
            state = self.results.start(file, resume=True)
        except OSError:
            state = None
        self._count(Outcome(failed=[remember_failure(file, state, "", error)]), 1)
        if state is not None:
            state.add({"complete": True})
