"""metrics.json: lines that are cut or would be there twice are removed."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from cellseg.engine.metrics_file import MetricsFile, fill_storage, read_storage
from detectron2.utils.events import EventStorage


def iterations(path: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("last", "kept"), [(-1, []), (4, [2, 4]), (5, [2, 4]), (9, [2, 4, 6, 8])])
def test_only_lines_up_to_an_iteration_are_kept(tmp_path: Path, last: int, kept: list[int]) -> None:
    path = tmp_path / "metrics.json"
    lines = "".join(f'{{"iteration": {n}}}\n' for n in (2, 4, 6, 8))
    path.write_text(f'{lines}not a line\n\n{{"iteration": 9, "lo')
    MetricsFile(path).go_on_after(last)
    assert iterations(path) == kept


def test_lines_are_those_of_a_storage_without_a_break(tmp_path: Path) -> None:
    def put(storage: EventStorage, iteration: int) -> None:
        storage.iter = iteration
        storage.put_scalar("loss", iteration**2 % 7)
        storage.put_scalar("time", 1.0)
        if iteration == 5:
            storage.put_scalar("ap", 0.5, smoothing_hint=False)

    whole = MetricsFile(tmp_path / "whole.json")
    with EventStorage() as storage:
        for iteration in range(12):
            put(storage, iteration)
            if iteration % 4 == 3:
                whole.write()
    first = MetricsFile(tmp_path / "cut.json")
    with EventStorage() as storage:
        for iteration in range(10):
            put(storage, iteration)
            if iteration % 4 == 3:
                first.write()
            if iteration == 5:
                kept, last_line = read_storage(storage), first.last_iteration
    second = MetricsFile(tmp_path / "cut.json")
    second.go_on_after(last_line)
    with EventStorage(6) as storage:
        fill_storage(storage, kept)
        for iteration in range(6, 12):
            put(storage, iteration)
            if iteration % 4 == 3:
                second.write()
    assert (tmp_path / "cut.json").read_text() == (tmp_path / "whole.json").read_text()


def test_of_a_line_that_has_no_room_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0}\n')
    file = MetricsFile(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventStorage() as storage:
        storage.put_scalar("loss", 1.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, before[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                file.write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert iterations(path) == [0]
        file.write()
    assert len(path.read_text().splitlines()) == 2
