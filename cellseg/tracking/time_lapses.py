"""Which images are the frames of one time-lapse, and in which order.

A time-lapse is a file with a time axis, or the files of a folder whose names differ in the number
of the frame alone: `frame_000.tif`, `A1_t12_z0.tif`, `movie (3).png`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from cellseg.cells.records import PlaceInFile
from cellseg.errors import DatasetError
from cellseg.images import stem_of_image
from cellseg.io.segmentations import strip_label_ending
from cellseg.names import unique_names

TIME_AXES = ("T", "Q", "I")
"""The axis of time; Q and I are tifffile's where a file does not say what its pages are."""

TIME_WORDS = ("t", "tp", "time", "timepoint", "frame", "frames", "fr")
OTHER_WORDS = (
    *("c", "ch", "channel", "w", "z", "slice", "s", "site", "field", "pos", "position", "scene"),
    *("well", "xy"),
)

_NUMBER = re.compile(r"([^\W\d_]*)([=_\-. (]*)(\d+)")


@dataclass(frozen=True)
class TimeLapse:
    """The frames of a time-lapse.

    Attributes:
        name: what its results are called; no two of a call have one name.
        folder: where its files lie.
        frames: places of the images in the list that was given, in order of time.
        times: number of each frame, ascending; there may be gaps.
    """

    name: str
    folder: Path
    frames: tuple[int, ...]
    times: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def missing(self) -> list[int]:
        """Numbers between the first and the last frame that no image has.

        Numbers may go in steps: of 0, 10, 30 that is 20.
        """
        steps = [later - one for one, later in pairwise(self.times)]
        expected = range(self.times[0], self.times[-1] + 1, min(steps)) if steps else ()
        return sorted(set(expected) - set(self.times))


def group_time_lapses(images: Sequence[tuple[Path, PlaceInFile]]) -> list[TimeLapse]:
    """Sort images into time-lapses; Z positions, channels, scenes and folders stay apart.

    In a file with an axis of time, that axis decides. Otherwise the file's name does: by the number
    behind a word for time (`t`, `time`, `frame`, ...), else by its last number that is none of a
    channel, a Z position, a site or a well (that is, right behind a single letter as in `A01`, or
    behind such a word).
    Numbers are compared as numbers: 9 comes before 10.

    Args:
        images: file and place in the file of each image.

    Returns:
        Time-lapses in the order of their first image; one that belongs to no other is a time-lapse
        of one frame.

    Raises:
        DatasetError: two images of a time-lapse have one number.

    Example:
        >>> names = ["day1_t9.tif", "day1_t10.tif", "day2_t1.tif"]
        >>> found = group_time_lapses([(Path(name), PlaceInFile()) for name in names])
        >>> [(one.name, one.times) for one in found]
        [('day1', (9, 10)), ('day2', (1,))]
    """
    groups: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    names: dict[tuple[object, ...], str] = {}
    for number, (path, place) in enumerate(images):
        time, name, key = _when(path, place)
        groups.setdefault(key, []).append((time, number))
        names.setdefault(key, name)
    found: list[TimeLapse] = []
    for key, members in groups.items():
        members.sort()
        times = [time for time, _ in members]
        twice = [time for time, after in pairwise(times) if time == after]
        if twice:
            files = [images[number][0].name for time, number in members if time == twice[0]]
            raise DatasetError(
                f"{images[members[0][1]][0].parent}: frame {twice[0]} of {names[key]} is there "
                f"more than once: {', '.join(files[:5])}"
            )
        folder = images[members[0][1]][0].parent
        order = tuple(number for _, number in members)
        found.append(TimeLapse(names[key], folder, order, tuple(times)))
    unique = unique_names([one.name for one in found])
    return [replace(one, name=name) for one, name in zip(found, unique)]


def _when(path: Path, place: PlaceInFile) -> tuple[int, str, tuple[object, ...]]:
    """Number of the frame, name of the time-lapse, and what its images have in common."""
    position = dict(place.position)
    axis = next((axis for axis in TIME_AXES if axis in position), "")
    others = tuple((letter, at) for letter, at in place.position if letter != axis)
    parts = [place.scene, *(f"{letter.lower()}{at}" for letter, at in others)]
    stem = strip_label_ending(stem_of_image(path))
    if axis:
        name = "_".join(filter(None, [stem, *parts]))
        return position[axis], name, (path, place.scene, others)
    time, rest = split_off_time(stem)
    name = "_".join(filter(None, [rest or path.absolute().parent.name, *parts]))
    ending = path.name.removeprefix(stem)
    key = (path.parent, rest, time is None, ending, place.scene, others)
    return time or 0, name, key


def split_off_time(stem: str) -> tuple[int | None, str]:
    """The number of the frame in a file's name, and the name without it.

    Args:
        stem: the name without its ending.

    Returns:
        The number, None where there is none, and the rest, which may be empty.

    Example:
        >>> split_off_time("B02_t007_z1"), split_off_time("frame_12"), split_off_time("B02")
        ((7, 'B02_z1'), (12, 'frame'), (None, 'B02'))
    """
    numbers = list(_NUMBER.finditer(stem))
    timed = [one for one in numbers if one[1].lower() in TIME_WORDS]
    free = [
        one for one in numbers if one[1].lower() not in OTHER_WORDS and (len(one[1]) != 1 or one[2])
    ]
    if not (timed or free):
        return None, stem
    last = (timed or free)[-1]
    # A word such as "frame" may be all the name that there is; the letter t is none.
    start = last.start() if last[1].lower() == "t" else last.start(2)
    left, right = stem[:start].rstrip("_-=. ("), stem[last.end() :].lstrip("_-. )")
    return int(last[3]), "_".join(filter(None, [left, right]))
