"""Tracks as tables: a row per track, and a row per cell and frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.cells.measurements import Table
from cellseg.cells.shapes import find_centroids
from cellseg.cells.tracks import Frame, Tracks
from cellseg.io.label_frames import labels_of
from cellseg.io.tables import open_table
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TrackPoints:
    """Every cell that has a track, in the order of frames and of cells within them.

    Attributes:
        image_ids: of the frames.
        pixel_size_um: (height, width) of a pixel in the first frame; None where it is not known.
        track: number of its track, int64 [P].
        frame: number of its frame, from 0, int64 [P].
        centroids_rc: (row, column) of its centre, float64 [P, 2].
        label: in the label image of the frame, int64 [P].
        areas_px: its pixels, int64 [P].
    """

    image_ids: tuple[str, ...]
    pixel_size_um: tuple[float, float] | None
    track: IntArray
    frame: IntArray
    centroids_rc: NDArray[np.float64]
    label: IntArray
    areas_px: IntArray


def measure_track_points(frames: Iterable[Frame], tracks: Tracks) -> TrackPoints:
    """Where the cells of tracks lie.

    Args:
        frames: those that the tracks were made of; one piece of one frame at a time is in memory.
        tracks: their tracks.

    Raises:
        LabelError: frames and tracks do not belong together.
    """
    none = np.zeros(0, np.int64)
    parts = [(none, none, np.zeros((0, 2)), none, none)]
    names, sizes = [], []
    for number, (record, ids) in enumerate(tracks.along(frames)):
        measured = [(find_centroids(cells), cells.areas_px) for cells in record.batches()]
        centroids = np.concatenate([np.zeros((0, 2)), *(one for one, _ in measured)])
        areas = np.concatenate([none, *(one for _, one in measured)])
        at = np.flatnonzero(ids)
        where = np.full(len(at), number)
        parts.append((ids[at], where, centroids[at], labels_of(record)[at], areas[at]))
        names.append(record.image_id)
        sizes.append(record.place.pixel_size_um)
    columns = [np.concatenate(column) for column in zip(*parts)]
    return TrackPoints(tuple(names), sizes[0] if sizes else None, *columns)


def points_table(points: TrackPoints) -> Table:
    """A row per cell and frame.

    Columns: `track`, `frame` (from 0), `centroid_y_px` and `centroid_x_px` (the centre of the first
    pixel is 0), `label` in the label image of the frame, `area_px`, and `image`, the id of the
    frame. With `image` and `label` the table of measurements is joined to it.
    """
    return {
        "track": points.track,
        "frame": points.frame,
        "centroid_y_px": points.centroids_rc[:, 0],
        "centroid_x_px": points.centroids_rc[:, 1],
        "label": points.label,
        "area_px": points.areas_px,
        "image": np.array(points.image_ids, str)[points.frame],
    }


def tracks_table(points: TrackPoints, tracks: Tracks) -> Table:
    """A row per track.

    Columns: `track`, `parent` (0: none), `first_frame` and `last_frame` (from 0), `frames` (in how
    many it was found), `mean_area_px`, `path_px` (sum of its centre's steps), `net_px` (distance
    of the last centre from the first), `mean_step_px` (path per frame; not a number for a track of
    one frame); and the last three in `_um` where the size of pixels is known.
    """
    count = len(tracks)
    found = np.bincount(points.track - 1, minlength=count)
    areas = np.bincount(points.track - 1, points.areas_px, minlength=count)
    table = {
        "track": np.arange(1, count + 1),
        "parent": tracks.parents,
        "first_frame": tracks.first,
        "last_frame": tracks.last,
        "frames": found,
        "mean_area_px": areas / np.maximum(found, 1),
    }
    units = {"px": (1.0, 1.0)}
    if points.pixel_size_um is not None:
        units["um"] = points.pixel_size_um
    for unit, spacing in units.items():
        table |= {f"{name}_{unit}": one for name, one in _motion(points, tracks, spacing).items()}
    return table


def _motion(points: TrackPoints, tracks: Tracks, spacing: tuple[float, float]) -> Table:
    """Path, net distance and mean step of each track."""
    order = np.lexsort((points.frame, points.track))
    track, centres = points.track[order], points.centroids_rc[order] * spacing
    same = track[1:] == track[:-1]
    steps = np.hypot(*(centres[1:] - centres[:-1]).T)
    path = np.zeros(len(tracks))
    np.add.at(path, track[1:][same] - 1, steps[same])
    numbers = np.arange(1, len(tracks) + 1)
    begin, end = np.searchsorted(track, numbers), np.searchsorted(track, numbers, "right") - 1
    duration = tracks.last - tracks.first
    return {
        "path": path,
        "net": np.hypot(*(centres[end] - centres[begin]).T),
        "mean_step": np.where(duration > 0, path / np.maximum(duration, 1), np.nan),
    }


def write_track_tables(
    frames: Iterable[Frame], tracks: Tracks, tracks_path: Path, points_path: Path
) -> None:
    """Write `tracks_table` and `points_table`, each whole or not there.

    Args:
        frames: those that the tracks were made of.
        tracks: their tracks.
        tracks_path, points_path: of the tables, `.csv` or `.parquet`.

    Raises:
        LabelError: frames and tracks do not belong together.
        DatasetError: as `cellseg.io.tables.open_table`.
    """
    points = measure_track_points(frames, tracks)
    for path, table in (
        (tracks_path, tracks_table(points, tracks)),
        (points_path, points_table(points)),
    ):
        with open_table(path) as write:
            write(table)
