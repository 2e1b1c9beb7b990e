"""What the workers of a cluster do: find the cells of files, or of one tile.

Everything here runs in a worker's process. A task holds no more than names and settings; the model
is loaded once per process, files are read and written where they lie, on disks that all machines
share.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.images import Limits, PlaneImage, find_plane
from cellseg.images.plates import PlatePosition
from cellseg.inference.cluster_worker import ModelRecipe, in_folder, load_model
from cellseg.inference.file_work import Outcome
from cellseg.inference.files import predict_files
from cellseg.inference.inputs import InputFile
from cellseg.inference.magnification import Found, Look
from cellseg.inference.model import CellModel
from cellseg.inference.result_folder import ResultFolder, describe_source
from cellseg.inference.saving import ResultWriter, Saving
from cellseg.inference.tile_grid import Tile
from numpy.typing import NDArray


@dataclass(frozen=True)
class FileOptions:
    """How files are gone through: `resume`, `batch_size`, `pixel_size_um` of `predict_files`."""

    resume: bool
    batch_size: int
    pixel_size_um: tuple[float, float] | None

    def predict(
        self,
        model: CellModel,
        files: Sequence[InputFile],
        results: ResultFolder,
        write: ResultWriter,
    ) -> Outcome:
        """`predict_files`, as a part of a larger task."""
        return predict_files(
            model,
            files,
            results,
            write,
            resume=self.resume,
            batch_size=self.batch_size,
            pixel_size_um=self.pixel_size_um,
            is_part=True,
        )


@dataclass(frozen=True)
class FilesTask:
    """Find the cells of image files that are looked at as a whole, and write the results.

    Attributes:
        model: which model.
        files: which images.
        folder, settings: of the `ResultFolder`.
        saving, places, overwrite, images: of the `ResultWriter`.
        options: how files are gone through.
    """

    model: ModelRecipe
    files: tuple[InputFile, ...]
    folder: Path
    settings: str
    saving: Saving
    places: Mapping[Path, PlatePosition]
    options: FileOptions
    overwrite: bool = False
    images: frozenset[str] = frozenset()

    def with_files(
        self, files: tuple[InputFile, ...], places: Mapping[Path, PlatePosition]
    ) -> FilesTask:
        """The same task for these files, of whose places only theirs are kept."""
        own = {file.path: places[file.path] for file in files if file.path in places}
        return replace(self, files=files, places=own)

    def run(self) -> tuple[Outcome, list[InputFile]]:
        """What became of the files, and those with planes that are looked at in tiles.

        Nothing is done for the latter: their tiles are tasks of their own.
        """
        with in_folder(self.model.current_folder):
            model = load_model(self.model)
            results = ResultFolder(self.folder, self.settings)
            large = [
                file
                for file in self.files
                if not (self.options.resume and results.is_done(file)) and _has_tiles(model, file)
            ]
            whole = [file for file in self.files if file not in large]
            write = ResultWriter(
                results,
                self.saving,
                places=self.places,
                overwrite=self.overwrite,
                images=self.images,
            )
            outcome = self.options.predict(model, whole, results, write)
            return outcome, large


def _has_tiles(model: CellModel, file: InputFile) -> bool:
    try:
        with model.open_planes(file.path) as planes:
            return any(map(model.is_tiled, planes))
    except Exception:  # `predict_files` will say it
        return False


@dataclass(frozen=True)
class RemotePlane:
    """A plane of a file, which each process that works on it opens for itself.

    Attributes:
        model: which model it is for, and so which channels and which level.
        path: of the file.
        place: which plane it is.
    """

    model: ModelRecipe
    path: Path
    place: PlaceInFile

    def __call__(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The pixels of a window."""
        with in_folder(self.model.current_folder):
            return self.open().read(rows, columns)

    def limits(self) -> Limits:
        """Which intensities become 0 and 255; the whole plane is read for it, piece by piece."""
        with in_folder(self.model.current_folder):
            return load_model(self.model).predictor.limits_of(self.open())

    def look(self) -> Look:
        """How large the plane is looked at."""
        with in_folder(self.model.current_folder):
            return load_model(self.model).look_at(self.open())

    def open(self) -> PlaneImage:
        """The plane; its file stays open until this thread opens another one."""
        key = (self.model.key, str(describe_source(self.path)))
        if getattr(_opened, "key", None) != key:
            if hasattr(_opened, "files"):
                _opened.files.close()
            _opened.key, _opened.files = None, ExitStack()
            planes = load_model(self.model).open_planes(self.path)
            _opened.planes = _opened.files.enter_context(planes)
            _opened.key = key
        return find_plane(_opened.planes, self.place.position, self.place.scene)


_opened = threading.local()


@dataclass(frozen=True)
class RemoteDetector:
    """What finds cells in a window, with the worker's model; see `TileWork.predict`.

    Attributes:
        model: which model.
        limits: of the whole plane.
        scale: what the sides of the window are multiplied by.
        is_smooth: see `CellPredictor.detect_in_window`.
    """

    model: ModelRecipe
    limits: Limits
    scale: float
    is_smooth: bool

    def __call__(self, pixels: NDArray[Any], tile: Tile) -> CellInstances:
        with in_folder(self.model.current_folder):
            predictor = load_model(self.model).predictor
        return predictor.detect_in_window(pixels, self.limits, self.scale, is_smooth=self.is_smooth)


def find_memory(recipe: ModelRecipe) -> int:
    """Bytes that this worker has for the network."""
    with in_folder(recipe.current_folder):
        return load_model(recipe).memory_at_hand()


def predict_images(recipe: ModelRecipe, images: Sequence[NDArray[Any]]) -> list[Found]:
    """The cells of images that were read elsewhere, all of one size."""
    with in_folder(recipe.current_folder):
        return load_model(recipe).predict_images(images)
