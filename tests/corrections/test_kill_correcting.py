"""Somebody's window is killed in the middle of correcting; all that was done is there."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from cellseg.corrections import CorrectedImage, CorrectionFolder
from correction_scenes import look, new_folder, squares

KILLS = 12

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the window is a fork of this one")


def digest(image: CorrectedImage) -> str:
    return hashlib.sha256(json.dumps(look(image)).encode()).hexdigest()


def correct_for_ever(place: Path, seed: int, number: int) -> None:
    """Do one thing after the other, and say each time how many were done and what is seen."""
    chance = random.Random(seed)
    with CorrectionFolder.open(place) as folder, os.fdopen(number, "w", buffering=1) as said:
        image = folder.image("a")
        while True:
            ids = image.ids.tolist()
            row, column = chance.randrange(16), chance.randrange(26)
            kind = chance.choice(
                ["draw", "draw", "accept", "reject", "merge", "undo", "redo", "done"]
            )
            if kind == "draw" or not ids:
                image.draw(np.ones((4, 4)), offset_rc=(row, column))
            elif kind == "accept":
                image.accept(ids)
            elif kind == "reject":
                image.reject(chance.choice(ids))
            elif kind == "merge":
                image.merge(ids[:2], apart=True) if len(ids) > 1 else None
            elif kind == "done":
                image.mark_done(np.s_[row:, column:], done=chance.random() < 0.5)
            else:
                getattr(image, kind)()
            said.write(f"{len(image.history)} {digest(image)}\n")


def start(place: Path, seed: int) -> tuple[int, int]:
    """Begin in a process of its own: its id, and what it says."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        correct_for_ever(place, seed, writing)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def cut_to(place: Path, events: int) -> None:
    """Leave the first events of the image's journal."""
    (journal,) = (place / "images").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: events + 1]))


def test_what_a_call_returned_for_outlives_the_process(tmp_path: Path) -> None:
    chance = random.Random(5)
    place = tmp_path / "corrections"
    with new_folder(tmp_path) as folder:
        folder.image("a").begin(squares(), "nuclei")
    for kill in range(KILLS):
        child, reading = start(place, kill)
        with os.fdopen(reading) as said:
            lines = [said.readline() for _ in range(chance.randrange(1, 12))]
            time.sleep(chance.uniform(0, 0.01))
            os.kill(child, signal.SIGKILL)
            lines += said.readlines()
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), "the window has ended by itself"
        whole = [line for line in lines if line.endswith("\n")]
        events, seen = whole[-1].split()
        with CorrectionFolder.open(place) as folder:
            found = len(folder.image("a").history)
        assert found in (int(events), int(events) + 1)
        cut_to(place, int(events))
        with CorrectionFolder.open(place) as folder:
            image = folder.image("a")
            assert len(image.history) == int(events)
            assert digest(image) == seen
            assert [one.image_id for one in folder.images] == ["a"]
