"""Link time-lapses and write what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.cells.records import ImageRecord
from cellseg.cells.tracks import Tracks
from cellseg.io.ctc import write_ctc
from cellseg.io.label_frames import LabelFrames, find_label_planes, write_label_stack
from cellseg.io.track_tables import (
    measure_track_points,
    write_points_table,
    write_tracks_table,
)
from cellseg.tracking.linking import LinkRules, link_cells
from cellseg.tracking.time_lapses import TimeLapse, group_time_lapses

STACK_SUFFIX = "_tracks.tif"
TRACKS_SUFFIX = "_tracks.csv"
POINTS_SUFFIX = "_track_points.csv"
CTC_SUFFIX = "_RES"

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
    frames: Iterable[ImageRecord],
    folder: str | Path,
    name: str,
    *,
    rules: LinkRules | None = None,
    ctc: bool = False,
) -> tuple[Tracks, tuple[Path, ...]]:
    """Link the cells of one time-lapse and write its tracks.

    Writes `<name>_tracks.tif` (`write_label_stack`), `<name>_tracks.csv` (`write_tracks_table`),
    `<name>_track_points.csv` (`write_points_table`) and, if asked for, the folder `<name>_RES`
    (`write_ctc`); each is there only when it is complete.

    Args:
        frames: the cells of each frame in order of time, of images of one size, at least one;
            gone through three or four times, with two frames at a time in memory: a list, or
            something like `LabelFrames` that reads anew.
        folder: where the files go; made if needed.
        name: how their names begin.
        rules: how cells are linked; `LinkRules()` by default.
        ctc: also write the layout of the Cell Tracking Challenge.

    Returns:
        The tracks, and the paths that were written.

    Raises:
        LabelError, ConfigError, DatasetError: as `link_cells`, `write_label_stack`, `write_ctc`.
    """
    tracks = link_cells(frames, rules)
    start = Path(folder, name)
    paths = [start.with_name(f"{name}{end}") for end in (STACK_SUFFIX, TRACKS_SUFFIX)]
    paths.append(start.with_name(f"{name}{POINTS_SUFFIX}"))
    write_label_stack(paths[0], frames, tracks)
    points = measure_track_points(frames, tracks)
    write_tracks_table(paths[1], points, tracks)
    write_points_table(paths[2], points)
    if ctc:
        paths.append(start.with_name(f"{name}{CTC_SUFFIX}"))
        write_ctc(paths[-1], frames, tracks)
    counts = (len(tracks.ids), len(tracks), tracks.divisions)
    logger.info("%s: %d frames, %d tracks, %d divisions", start, *counts)
    return tracks, tuple(paths)


def link_label_files(
    paths: Sequence[Path],
    output: str | Path | None = None,
    *,
    rules: LinkRules | None = None,
    ctc: bool = False,
) -> list[LinkedTimeLapse]:
    """Find the time-lapses among label images, link each and write its tracks.

    An image that belongs to no other is left out, and the log names it; it says as well where
    numbers of frames are missing.

    Args:
        paths: label images or stacks of them, in any order.
        output: folder of the results; by default the one where the label images lie.
        rules, ctc: as in `link_time_lapse`.

    Returns:
        One entry per time-lapse of at least two frames, in the order of their first images.

    Raises:
        ImageReadError, DatasetError: a file cannot be read, or two have one number.
        LabelError, ConfigError: as `link_time_lapse`.
    """
    planes = [plane for path in paths for plane in find_label_planes(path)]
    linked = []
    for one in group_time_lapses([(plane.path, plane.place) for plane in planes]):
        if len(one) == 1:
            logger.warning("%s: belongs to no time-lapse", planes[one.frames[0]].path)
            continue
        if one.missing:
            logger.warning("%s: frames are missing: %s", one.name, str(one.missing)[1:-1][:200])
        frames = LabelFrames([planes[number] for number in one.frames])
        folder = one.folder if output is None else output
        tracks, files = link_time_lapse(frames, folder, one.name, rules=rules, ctc=ctc)
        linked.append(LinkedTimeLapse(one, tracks, files))
    return linked
