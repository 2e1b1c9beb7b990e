"""metrics.json: a line of losses and metrics per iteration, none lost or twice after a kill."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from cellseg.files import write_whole
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

WINDOW = 20
"""Iterations over which noisy numbers are smoothed, as in Detectron2."""
OF_THE_CLOCK = ("time", "eta_seconds")
"""Begin anew with every start of a training: they tell of the machine, and not of the model."""

logger = logging.getLogger(__name__)


class MetricsFile(EventWriter):
    """Appends what is new in the storage, one JSON object per line and iteration.

    What Detectron2's `JSONWriter` writes; but a training that goes on first removes the lines that
    it will write once more, and a line that a kill or a full disk has cut.

    Args:
        path: of the file; made, with its folder, at the first line.

    Attributes:
        last_iteration: of the newest line; -1 where there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last_iteration = -1

    def go_on_after(self, last_iteration: int) -> None:
        """Keep the lines up to an iteration and remove all others; -1 keeps none."""
        self.last_iteration = last_iteration
        if not self.path.is_file():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if -1 < _iteration_of(line) <= last_iteration]
        if kept == lines:
            return
        if last_iteration >= 0:
            logger.info(
                "%s: %d lines behind iteration %d are written once more",
                *(self.path, len(lines) - len(kept), last_iteration),
            )
        with write_whole(self.path) as partial:
            partial.write_bytes(b"".join(kept))

    def write(self) -> None:
        new: defaultdict[int, dict[str, float]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(WINDOW)
        for name, (value, iteration) in latest.items():
            if iteration > self.last_iteration:
                new[iteration][name] = value
        if not new:
            return
        lines = [json.dumps(new[n] | {"iteration": n}, sort_keys=True) + "\n" for n in sorted(new)]
        self._append("".join(lines).encode())
        self.last_iteration = max(new)

    def _append(self, lines: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(lines) < len(lines):  # the disk is full; once more says so
                    file.write(lines)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise


def _iteration_of(line: bytes) -> int:
    """-1 for a line that was cut."""
    try:
        return int(json.loads(line)["iteration"]) if line.endswith(b"\n") else -1
    except (ValueError, TypeError, KeyError):
        return -1


def read_storage(storage: EventStorage) -> dict[str, Any]:
    """What the storage of a training has to know, so that its next lines are what they would be.

    Returns:
        By name: whether it is smoothed, and its values with their iterations, of which the newest
        are enough.
    """
    kept = {}
    for name, is_noisy in storage.smoothing_hints().items():
        if name in OF_THE_CLOCK:
            continue
        values = storage.history(name).values()[-WINDOW if is_noisy else -1 :]
        kept[name] = (is_noisy, [(float(value), int(iteration)) for value, iteration in values])
    return kept


def fill_storage(storage: EventStorage, kept: dict[str, Any]) -> None:
    """Put back what `read_storage` gave."""
    for name, (is_noisy, values) in kept.items():
        for value, iteration in values:
            storage.put_scalar(name, value, smoothing_hint=is_noisy, cur_iter=iteration)
