"""Whatever is done in whatever order: no pixel is shared, no id given twice, nothing forgotten."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import strategies
from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectedImage, CorrectionFolder
from cellseg.errors import CorrectionError
from correction_scenes import CLASSES, look, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

HW = (9, 11)
points = st.tuples(st.integers(-1, HW[0]), st.integers(-1, HW[1]))
windows = st.tuples(
    st.integers(0, HW[0] - 1), st.integers(1, HW[0]), st.integers(0, HW[1] - 1), st.integers(1, 5)
).map(lambda one: (slice(one[0], one[0] + one[1]), slice(one[2], one[2] + one[3])))
picks = st.lists(st.integers(0, 5), min_size=1, max_size=3)
kinds = st.integers(0, 1)
label_images = arrays(np.uint32, HW, elements=st.integers(0, 12))

steps = st.one_of(
    st.tuples(st.just("accept"), picks),
    st.tuples(st.just("reject"), picks),
    st.tuples(st.just("set_class"), picks, kinds),
    st.tuples(st.just("merge"), picks),
    st.tuples(st.just("split"), picks, st.lists(points, min_size=2, max_size=4)),
    st.tuples(st.just("draw"), arrays(bool, HW), kinds),
    st.tuples(st.just("repaint"), label_images, kinds, st.none() | windows),
    st.tuples(st.just("mark_done"), st.none() | windows, st.booleans()),
    st.tuples(st.just("add_candidate"), points, kinds),
    st.tuples(st.just("begin"), strategies.bitmaps(HW, 5), st.booleans()),
    st.tuples(st.just("undo")),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
    st.tuples(st.just("reopen")),
)


def take(image: CorrectedImage, step: tuple[Any, ...]) -> None:
    """One step; `picks` are places in the list of ids, taken round."""
    what, *given = step
    ids = image.ids.tolist()
    if what in ("accept", "reject", "set_class", "merge", "split"):
        chosen = [ids[place % len(ids)] for place in given[0]] if ids else [1]
        if what == "merge":
            image.merge(chosen, apart=len(given[0]) > 2)
        elif what == "split":
            image.split(chosen[0], given[1])
        else:
            getattr(image, what)(chosen, *given[1:])
    elif what == "repaint":
        image.repaint(given[0], given[1], window=given[2])
    elif what == "add_candidate":
        image.add_candidate(*given[0], given[1])
    elif what == "begin":
        scores = np.linspace(0.3, 0.9, len(given[0]))
        image.begin(CellInstances.from_bitmaps(given[0], scores), "m", replace=given[1])
    else:
        getattr(image, what)(*given)


def check_sound(image: CorrectedImage) -> None:
    """The views of the cells agree, and no two cells share a pixel."""
    cells, labels = image.cells, image.label_image()
    assert cells.areas_px.all()
    assert (cells.to_bitmaps().sum(axis=0) == (labels > 0)).all()
    for number, bitmap in zip(image.ids.tolist(), cells.to_bitmaps()):
        assert (bitmap == (labels == number)).all()
    states = dict(zip(image.ids.tolist(), image.states))
    counted = image.counted_region()
    for number, state in states.items():
        assert (counted[labels == number] == (state != "found")).all()


@settings(max_examples=60)
@given(st.lists(steps, max_size=14), arrays(bool, (3, *HW)))
def test_any_sequence_of_corrections_can_be_taken_back_and_read_again(
    sequence: list[tuple[Any, ...]], kept: np.ndarray
) -> None:
    """The model is a list of what was seen after each step, with a place in it."""
    with tempfile.TemporaryDirectory() as place:
        path = write_image(Path(place, "a.png"), HW)
        folder = CorrectionFolder.open(Path(place, "c"), CLASSES, author="Ada")
        folder.add_images(path)
        image = folder.image("a")
        image.keep_candidates(CellInstances.from_bitmaps(kept, scores=[0.3, 0.2, 0.1]))
        seen, at, given_ids = [look(image)], 0, set[int]()
        for step in sequence:
            before, events = look(image), len(image.history)
            if step[0] == "reopen":
                folder.close()
                folder = CorrectionFolder.open(Path(place, "c"))
                image = folder.image("a")
                assert look(image) == before
                continue
            with suppress(CorrectionError):
                take(image, step)
            after = look(image)
            check_sound(image)
            if step[0] in ("undo", "redo"):
                target = at + (-1 if step[0] == "undo" else 1)
                at = target if 0 <= target < len(seen) else at
                assert after == seen[at]
                continue
            if len(image.history) == events:
                assert after == before
                continue
            new = set(after["ids"]) - set(before["ids"])
            assert min(new, default=1000) > max(given_ids, default=0)
            given_ids |= new
            at += 1
            seen[at:] = [after]
        while image.undo():
            at -= 1
            assert look(image) == seen[at]
        assert at == 0
        folder.close()
