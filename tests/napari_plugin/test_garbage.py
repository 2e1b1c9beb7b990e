"""Work in a thread collects no garbage: widgets would be deleted there."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("napari")

from cellseg.napari import garbage
from cellseg.napari.background import run_in_background


@pytest.fixture(autouse=True)
def _python_collects() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(100, 2, 2)
    gc.collect()
    gc.enable()
    yield
    gc.disable()
    gc.set_threshold(*thresholds)


class Cycle:
    """Dies only when garbage is collected, and tells in which thread."""

    def __init__(self, died_in: list[threading.Thread]) -> None:
        self.me, self.died_in = self, died_in

    def __del__(self) -> None:
        self.died_in.append(threading.current_thread())


def make_objects() -> int:
    """More than enough for Python to collect garbage, if it may."""
    return len([[] for _ in range(20_000)])


def test_python_would_collect_in_the_thread_that_works() -> None:
    died_in: list[threading.Thread] = []
    Cycle(died_in)
    thread = threading.Thread(target=make_objects)
    thread.start()
    thread.join()
    assert died_in == [thread]


def test_garbage_dies_in_the_thread_of_the_window(qtbot, monkeypatch: pytest.MonkeyPatch) -> None:
    died_in: list[threading.Thread] = []
    monkeypatch.setattr(garbage, "EVERY_MS", 20)
    collection = garbage.GarbageCollection()
    monkeypatch.setattr("cellseg.napari.background._garbage_collection", lambda: collection)
    go_on, done = threading.Event(), []

    def work() -> int:
        Cycle(died_in)
        make_objects()
        dead = len(died_in)
        assert go_on.wait(60)
        return dead

    run_in_background(work, done=done.append)
    qtbot.waitUntil(lambda: len(died_in) == 1)  # while the work goes on
    assert done == []
    assert not gc.isenabled()
    go_on.set()
    qtbot.waitUntil(gc.isenabled)
    assert done == [0]
    assert died_in == [threading.main_thread()]


def test_it_is_held_until_the_last_work_is_over(qtbot) -> None:
    go_on = [threading.Event(), threading.Event()]
    done: list[bool] = []
    for event in go_on:
        run_in_background(lambda event=event: event.wait(60), done=done.append)
    assert not gc.isenabled()
    go_on[0].set()
    qtbot.waitUntil(lambda: len(done) == 1)
    qtbot.wait(50)
    assert not gc.isenabled()
    go_on[1].set()
    qtbot.waitUntil(gc.isenabled)


def test_work_that_fails_lets_it_go(qtbot) -> None:
    failed: list[BaseException] = []
    run_in_background(lambda: 1 / 0, done=failed.append, failed=failed.append)
    qtbot.waitUntil(gc.isenabled)
    assert [type(error) for error in failed] == [ZeroDivisionError]


def test_what_somebody_turned_off_stays_off(qtbot) -> None:
    gc.disable()
    done: list[None] = []
    collection = garbage.GarbageCollection()
    collection.hold()
    run_in_background(lambda: None, done=done.append)
    qtbot.waitUntil(lambda: done == [None])
    collection.release()
    qtbot.wait(50)
    assert not gc.isenabled()


def test_everything_is_collected_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "FULL_EVERY", 3)
    generations: list[int] = []
    collection = garbage.GarbageCollection()
    with monkeypatch.context() as patch:
        patch.setattr(gc, "collect", generations.append)
        for _ in range(7):
            collection.collect()
    assert generations == [1, 1, 2, 1, 1, 2, 1]
