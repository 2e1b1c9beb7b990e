"""Link time-lapses and write what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cellseg.cells.records import PlaceInFile
from cellseg.cells.tracks import Frame, Tracks
from cellseg.errors import DatasetError
from cellseg.io.ctc import write_ctc
from cellseg.io.label_frames import LabelFrames, find_label_planes, write_label_stack
from cellseg.io.track_tables import write_track_tables
from cellseg.tracking.linking import LinkRules, link_cells
from cellseg.tracking.time_lapses import TimeLapse, group_time_lapses

STACK_SUFFIX = "_tracks.tif"
TRACKS_SUFFIX = "_tracks.csv"
POINTS_SUFFIX = "_track_points.csv"
CTC_SUFFIX = "_RES"
_FIRST_COLUMNS = b"track,parent,first_frame,"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LinkedTimeLapse:
    """A time-lapse whose cells have been linked.

    Attributes:
        time_lapse: its frames.
        tracks: tracks of its cells.
        files: what was written.
    """

    time_lapse: TimeLapse
    tracks: Tracks
    files: tuple[Path, ...]


def link_time_lapse(
    frames: Iterable[Frame],
    folder: str | Path,
    name: str,
    *,
    rules: LinkRules | None = None,
    ctc: bool = False,
    overwrite: bool = False,
) -> tuple[Tracks, tuple[Path, ...]]:
    """Link the cells of one time-lapse and write its tracks.

    Writes `<name>_tracks.tif` (`write_label_stack`), `<name>_tracks.csv` (`tracks_table`),
    `<name>_track_points.csv` (`points_table`) and, if asked for, the folder `<name>_RES`
    (`write_ctc`); each is there only when it is complete.

    Args:
        frames: the cells of each frame in order of time, of images of one size, at least one;
            gone through three or four times, with two frames at a time in memory: records, or
            something like `LabelFrames` that reads anew.
        folder: where the files go; made if needed.
        name: how their names begin.
        rules: how cells are linked; `LinkRules()` by default.
        ctc: also write the layout of the Cell Tracking Challenge.
        overwrite: replace files of these names that no earlier call has written.

    Returns:
        The tracks, and the paths that were written.

    Raises:
        DatasetError: one of the files is there, and no earlier call has written it.
        LabelError, ConfigError, DatasetError: as `link_cells`, `write_label_stack`, `write_ctc`.
    """
    names = [f"{name}{end}" for end in (STACK_SUFFIX, TRACKS_SUFFIX, POINTS_SUFFIX)]
    paths = [Path(folder, one) for one in names]
    if not overwrite:
        _check_free(paths)
    tracks = link_cells(frames, rules)
    write_label_stack(paths[0], frames, tracks)
    write_track_tables(frames, tracks, paths[1], paths[2])
    if ctc:
        paths.append(Path(folder, f"{name}{CTC_SUFFIX}"))
        write_ctc(paths[-1], frames, tracks)
    counts = (len(tracks.ids), len(tracks), tracks.divisions)
    logger.info("%s: %d frames, %d tracks, %d divisions", name, *counts)
    return tracks, tuple(paths)


def _check_free(paths: Sequence[Path]) -> None:
    """Raise DatasetError for a file that is there, unless a table of tracks of ours is, too."""
    there = [path for path in paths if path.exists()]
    with suppress(OSError), paths[1].open("rb") as table:
        if table.readline().startswith(_FIRST_COLUMNS):
            return
    if there:
        raise DatasetError(
            f"{there[0]}: is there, and no earlier call has written it; name another folder, or "
            "replace it with --overwrite"
        )


def link_records(
    records: Sequence[Frame],
    paths: Sequence[Path],
    output: str | Path | None = None,
    *,
    rules: LinkRules | None = None,
    ctc: bool = False,
    overwrite: bool = False,
) -> list[LinkedTimeLapse]:
    """Find the time-lapses among images whose cells are known, link each and write its tracks.

    Which images belong together say the names in `paths` and the `place` of the records. What
    belongs to no other is left out, and the log names it; it says as well where numbers of frames
    are missing.

    Args:
        records: cells of the images, in any order; they may be on disk.
        paths: of each image's file, or what it is called like. Several records may be of one file.
        output: folder of the results; by default each time-lapse's own, that of its `paths`.
        rules, ctc, overwrite: as in `link_time_lapse`.

    Returns:
        One entry per time-lapse of at least two frames, in the order of their first images.

    Raises:
        DatasetError: two images of a time-lapse have one number.
        LabelError, ConfigError: as `link_time_lapse`.
    """
    images = [(path, record.place) for path, record in zip(paths, records, strict=True)]

    def frames_of(numbers: Sequence[int]) -> Iterable[Frame]:
        return [records[number] for number in numbers]

    return _link_groups(images, frames_of, output, rules, ctc=ctc, overwrite=overwrite)


def link_label_files(
    paths: Sequence[Path],
    output: str | Path | None = None,
    *,
    rules: LinkRules | None = None,
    ctc: bool = False,
    overwrite: bool = False,
) -> list[LinkedTimeLapse]:
    """Find the time-lapses among label images, link each and write its tracks; see `link_records`.

    Args:
        paths: label images or stacks of them, in any order.
        output: folder of the results; by default the one where the label images lie.
        rules, ctc, overwrite: as in `link_time_lapse`.

    Raises:
        ImageReadError, DatasetError: a file cannot be read, or two have one number.
        LabelError, ConfigError: as `link_time_lapse`.
    """
    planes = [plane for path in paths for plane in find_label_planes(path)]
    images = [(plane.path, plane.place) for plane in planes]

    def frames_of(numbers: Sequence[int]) -> Iterable[Frame]:
        return LabelFrames([planes[number] for number in numbers])

    return _link_groups(images, frames_of, output, rules, ctc=ctc, overwrite=overwrite)


def _link_groups(
    images: Sequence[tuple[Path, PlaceInFile]],
    frames_of: Callable[[Sequence[int]], Iterable[Frame]],
    output: str | Path | None,
    rules: LinkRules | None,
    **how: bool,
) -> list[LinkedTimeLapse]:
    linked = []
    for one in group_time_lapses(images):
        if len(one) == 1:
            logger.warning("%s: belongs to no time-lapse", images[one.frames[0]][0])
            continue
        if one.missing:
            logger.warning("%s: frames are missing: %s", one.name, str(one.missing)[1:-1][:200])
        folder = one.folder if output is None else output
        frames = frames_of(one.frames)
        tracks, files = link_time_lapse(frames, folder, one.name, rules=rules, **how)
        linked.append(LinkedTimeLapse(one, tracks, files))
    return linked
