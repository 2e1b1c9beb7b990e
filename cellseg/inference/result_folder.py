"""A folder of predictions: what is in it already, what failed, and the files of all images.

    <folder>/<name>_labels.tif, ...           the results of one image, as they were asked for
    <folder>/coco_results.json, summary.csv   of all images together, made anew at each end
    <folder>/failed.csv                       images that could not be predicted; absent if none
    <folder>/inputs.csv                       which image file each image and its files are of
    <folder>/.cellseg/images/<name>.jsonl     what was done for an image file, a line per step;
                                              of a failure the traceback
    <folder>/.cellseg/cells/<image id>.jsonl  its cells, from which files of all images are made

A line is written when its step is complete, so that after an interruption, or a second job in the
same folder, it is known what there is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellseg.files import marked_partials, remove_partials, write_whole
from cellseg.inference.inputs import InputFile, name_files
from cellseg.inference.own_files import IMAGES_FOLDER, STATE_FOLDER
from cellseg.json_text import parse_json

_LONGEST_NAME = 140
"""Bytes of a file's name; systems take 255, encrypted folders 143."""

Json = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass
class FileState:
    """What is known of the results of one image file.

    Attributes:
        path: the file with the steps.
        settings: the settings that the results were made with.
        source: path, size and time of the image file.
        place: its whole path.
        images: image id -> what was written for it: `files` (relative to the folder of results)
            and `summary`.
        failed: image id, or "" for the whole file -> why it failed.
        is_complete: all planes of the file have been tried.
        former: image id -> files of an earlier prediction, or of one that did not come to its end,
            which may be replaced.
        marks: image id -> marks of the partial files of attempts that did not come to an end.
    """

    path: Path
    settings: str = ""
    source: Json = field(default_factory=dict)
    place: str = ""
    images: dict[str, Json] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    is_complete: bool = False
    former: dict[str, list[str]] = field(default_factory=dict)
    marks: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> FileState:
        """The state on disk; an empty one where there is none, or its file is damaged."""
        state = cls(path)
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    state._take(parse_json(line))
                except ValueError:  # the end of an interrupted run
                    break
        return state

    def _take(self, step: Json) -> None:
        if "settings" in step:
            self.settings, self.source = step["settings"], step["source"]
            self.place = str(step.get("place") or self.source.get("path", ""))
        elif "failed" in step:
            self.failed[step["image"]] = step["failed"]
        elif "writes" in step:
            self._own(step["image"], step["writes"])
            if "mark" in step:
                self.marks.setdefault(step["image"], []).append(step["mark"])
        elif "image" in step:
            self.images[step["image"]] = step
            self.failed.pop(step["image"], None)
            self.marks.pop(step["image"], None)
            self._own(step["image"], step["files"])
        elif step.get("complete"):
            self.is_complete = True

    def _own(self, image_id: str, names: Sequence[str]) -> None:
        self.former[image_id] = list(dict.fromkeys([*self.former.get(image_id, ()), *names]))

    def begin(self, image_id: str, names: Sequence[str]) -> AbstractContextManager[None]:
        """The context that files of an image are written in, whose names are noted.

        Whoever goes on where the process is killed has to know whose files these are.
        """
        mark = uuid.uuid4().hex
        self.add({"image": image_id, "writes": list(names), "mark": mark})
        return marked_partials(mark)

    def add(self, step: Json) -> None:
        """Write a step behind those that are there."""
        self._take(step)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_to_line(step))


def _to_line(step: Json) -> str:
    return json.dumps(step, allow_nan=False) + "\n"


class ResultFolder:
    """The folder that predictions of image files are written to.

    Args:
        folder: made if needed.
        settings: all that results depend on beside the image, as text; results of other settings
            are no results.

    Attributes:
        folder, settings: as given.
        state_folder: where it is kept what was done.
    """

    def __init__(self, folder: str | Path, settings: str) -> None:
        self.folder, self.settings = Path(folder), settings
        self.state_folder = self.folder / STATE_FOLDER
        for name in (IMAGES_FOLDER, "cells"):
            (self.state_folder / name).mkdir(parents=True, exist_ok=True)

    def state_of(self, file: InputFile) -> FileState:
        """What is on disk of an image file's results."""
        return FileState.read(self._state_path(file.name))

    def claim_names(self, files: Sequence[InputFile]) -> list[InputFile]:
        """The files, with other names where results in this folder are those of another file.

        What `day_1/a.tif` was given earlier, `day_2/a.tif` does not take: it becomes `a_2`. A file
        that is not there any more is taken to have moved, and its results are made anew.
        """
        taken, names = {file.name for file in files}, []
        for file in files:
            name, number = file.name, 2
            while self._is_of_another(name, file.path) or (name != file.name and name in taken):
                name, number = f"{file.name}_{number}", number + 1
            if name != file.name:
                logger.warning(
                    "%s: called %s, since %s is in %s already, of another file: inputs.csv there "
                    "says which",
                    *(file.path, name, file.name, self.folder),
                )
            taken.add(name)
            names.append(name)
        return name_files([file.path for file in files], names)

    def _is_of_another(self, name: str, path: Path) -> bool:
        state = FileState.read(self._state_path(name))
        known = Path(state.place)
        both_there = bool(state.place) and known.exists() and path.exists()
        return both_there and not known.samefile(path)

    def all_images(self) -> Iterator[Json]:
        """Image file, image id and files of every image in the folder, whatever made it.

        Of what failed there are the reason and no files.
        """
        for path in sorted((self.state_folder / IMAGES_FOLDER).rglob("*.jsonl")):
            state = FileState.read(path)
            for image_id, step in state.images.items():
                if self._has_files(step):
                    outputs = "; ".join(step["files"])
                    yield {"file": state.place, "image": image_id, "outputs": outputs, "note": ""}
            for image_id, reason in state.failed.items():
                yield {"file": state.place, "image": image_id, "outputs": "", "note": reason}

    def _state_path(self, name: str) -> Path:
        return self.state_folder / IMAGES_FOLDER / _shorten(f"{name}.jsonl")

    def cells_path(self, image_id: str) -> Path:
        """Where the cells of an image are kept."""
        return self.state_folder / "cells" / _shorten(f"{image_id}.jsonl")

    def start(self, file: InputFile, *, resume: bool) -> FileState:
        """The state to go on with: that on disk if `resume` and it still holds, else a new one.

        It is written anew, since its last line may be half of one. Whatever happens next, it
        stays known which files are results. What a killed process left half-written is removed.
        """
        known = self.state_of(file)
        self._remove_partials(known)
        own = {"settings": self.settings, "source": describe_source(file.path)}
        steps: list[Json] = [{**own, "place": os.path.abspath(file.path)}]
        steps += [{"image": one, "writes": names} for one, names in known.former.items()]
        if resume and self.holds(known, file):
            steps += [step for step in known.images.values() if self._has_files(step)]
        state = FileState(known.path)
        with write_whole(state.path) as partial:
            partial.write_text("".join(map(_to_line, steps)), encoding="utf-8")
        for step in steps:
            state._take(step)
        return state

    def _remove_partials(self, state: FileState) -> None:
        for image_id, marks in state.marks.items():
            files = [self.folder / name for name in state.former[image_id]]
            for mark in marks:
                for path in (*files, self.cells_path(image_id)):
                    remove_partials(path, mark)

    def holds(self, state: FileState, file: InputFile) -> bool:
        """Whether a state is of these settings and of the image file as it is now."""
        return state.settings == self.settings and state.source == describe_source(file.path)

    def remove(self, names: Iterable[str]) -> None:
        """Remove results, named relative to the folder; those that are gone are passed over."""
        for name in names:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _has_files(self, step: Json) -> bool:
        return all((self.folder / name).exists() for name in step["files"])

    def is_done(self, file: InputFile) -> bool:
        """Whether all planes of an image file have their results, with these settings."""
        state = self.state_of(file)
        return (
            state.is_complete
            and not state.failed
            and self.holds(state, file)
            and all(map(self._has_files, state.images.values()))
        )

    def done_images(self, files: Sequence[InputFile]) -> Iterator[tuple[InputFile, str, Json]]:
        """Image file, image id and step of every image with results of these settings."""
        for file in files:
            state = self.state_of(file)
            if state.settings == self.settings:
                for image_id, step in state.images.items():
                    if self._has_files(step):
                        yield file, image_id, step

    def failures(self, files: Sequence[InputFile]) -> Iterator[tuple[InputFile, str, str]]:
        """Image file, image id ("" for the whole file) and reason of all that failed."""
        for file in files:
            state = self.state_of(file)
            if state.settings == self.settings:
                for image_id, reason in state.failed.items():
                    yield file, image_id, reason

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the context no other process makes the files of all images."""
        with (self.state_folder / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _shorten(path: str) -> str:
    """A relative path whose last part the system takes, so that of every image something is kept.

    An image may have so long a name that its results cannot have it with an ending; that is then
    noted here.
    """
    folder, slash, name = path.rpartition("/")
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return path
    return f"{folder}{slash}{name[: _LONGEST_NAME // 4]}-{hash_text([name])}{Path(name).suffix}"


def hash_text(parts: Sequence[str]) -> str:
    """One short text for several; another one if any of them changes."""
    return hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()[:32]


def describe_source(path: str | Path) -> Json:
    """What tells a file from a later one of the same name: path, size and time of change."""
    stat = Path(path).stat()
    return {"path": str(path), "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
