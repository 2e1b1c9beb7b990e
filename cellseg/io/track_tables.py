"""Tracks as tables: a row per track, and a row per cell and frame."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.records import ImageRecord
from cellseg.cells.shapes import find_centroids
from cellseg.cells.tracks import Tracks
from cellseg.files import write_whole
from cellseg.io.label_frames import labels_of
from numpy.typing import NDArray

POINT_COLUMNS = ("track", "frame", "y_px", "x_px", "label", "area_px", "image")
TRACK_COLUMNS = ("track", "parent", "first_frame", "last_frame", "frames", "mean_area_px")
MOTION_COLUMNS = ("path", "net", "mean_step")


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


def measure_track_points(frames: Iterable[ImageRecord], tracks: Tracks) -> TrackPoints:
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
        measured = [_measure(cells) for cells in record.batches()]
        centroids = np.concatenate([np.zeros((0, 2)), *(one for one, _ in measured)])
        areas = np.concatenate([none, *(one for _, one in measured)])
        at = np.flatnonzero(ids)
        where = np.full(len(at), number)
        parts.append((ids[at], where, centroids[at], labels_of(record)[at], areas[at]))
        names.append(record.image_id)
        sizes.append(record.place.pixel_size_um)
    columns = [np.concatenate(column) for column in zip(*parts)]
    return TrackPoints(tuple(names), sizes[0] if sizes else None, *columns)


def _measure(cells: CellInstances) -> tuple[NDArray[np.float64], IntArray]:
    return find_centroids(cells), cells.areas_px


def write_points_table(path: str | Path, points: TrackPoints) -> None:
    """Write a CSV with a row per cell and frame, whole or not there.

    Columns: `track`, `frame` (from 0), `y_px` and `x_px` of the centre (that of the first pixel is
    0), `label` in the label image of the frame, `area_px`, and `image`, the id of the frame. These
    are what napari's tracks layer takes, and TrackMate's importer of tables.
    """
    rows = zip(
        points.track.tolist(),
        points.frame.tolist(),
        *np.round(points.centroids_rc, 3).T.tolist(),
        points.label.tolist(),
        points.areas_px.tolist(),
        [points.image_ids[frame] for frame in points.frame.tolist()],
    )
    _write_table(path, POINT_COLUMNS, rows)


def write_tracks_table(path: str | Path, points: TrackPoints, tracks: Tracks) -> None:
    """Write a CSV with a row per track, whole or not there.

    Columns: `track`, `parent` (0: none), `first_frame` and `last_frame` (from 0), `frames` (in how
    many it was found), `mean_area_px`, `path_px` (sum of its centre's steps), `net_px` (distance
    of the last centre from the first), `mean_step_px` (path per frame; empty for a track of one
    frame); and the last three in `_um` where the size of pixels is known.
    """
    scales: dict[str, Sequence[float]] = {"px": (1, 1)}
    if points.pixel_size_um is not None:
        scales["um"] = points.pixel_size_um
    count = len(tracks)
    found = np.bincount(points.track - 1, minlength=count)
    area = np.bincount(points.track - 1, points.areas_px, minlength=count) / np.maximum(found, 1)
    columns: list[Iterable[Any]] = [range(1, count + 1), tracks.parents, tracks.first, tracks.last]
    columns += [found, map(_short, area)]
    for scale in scales.values():
        columns += [map(_short, values) for values in _motion(points, tracks, scale)]
    names = [f"{name}_{unit}" for unit in scales for name in MOTION_COLUMNS]
    _write_table(path, (*TRACK_COLUMNS, *names), zip(*columns))


def _motion(
    points: TrackPoints, tracks: Tracks, scale: Sequence[float]
) -> tuple[NDArray[Any], ...]:
    """Path, net distance and mean step of each track, [K] each; nan for a step of none."""
    order = np.lexsort((points.frame, points.track))
    track, centres = points.track[order], points.centroids_rc[order] * scale
    same = track[1:] == track[:-1]
    steps = np.hypot(*(centres[1:] - centres[:-1]).T)
    path = np.bincount(track[1:][same] - 1, steps[same], minlength=len(tracks))
    begin = np.searchsorted(track, np.arange(1, len(tracks) + 1))
    end = np.searchsorted(track, np.arange(1, len(tracks) + 1), side="right") - 1
    net = np.hypot(*(centres[end] - centres[begin]).T)
    length = tracks.last - tracks.first
    return path, net, np.where(length > 0, path / np.maximum(length, 1), np.nan)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
