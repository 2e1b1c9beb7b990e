"""How long corrections take: each kind of event, opening a folder, the queue, a long journal.

    python benchmarks/corrections.py [--cells 2025] [--images 200] [--events 10000] [--folder DIR]

An image of 2048 x 2048 pixels with so many cells is corrected; each kind of event is made twenty
times, and its median time printed, with writing it down to the disk of DIR. Then a folder of so
many images with 500 cells each is opened, and an image after so many events.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectedImage, CorrectionFolder

SIDE = 2048
SMALL_SIDE, SMALL_CELLS = 512, 500
TURNS = range(20)


def make_discs(count: int, side: int) -> CellInstances:
    """Discs on a grid, with scores from 0.5 to 1."""
    per_row = int(np.ceil(np.sqrt(count)))
    step = side // per_row
    rows, columns = np.mgrid[:step, :step] - step / 2
    disc = rows**2 + columns**2 <= (0.4 * step) ** 2
    places = [(k // per_row * step, k % per_row * step) for k in range(count)]
    scores = np.random.default_rng(0).uniform(0.5, 1, count)
    return CellInstances.from_crops([disc] * count, places, (side, side), scores=scores)


def show(name: str, act: Callable[[int], Any], turns: Sequence[int] = TURNS) -> None:
    """Print the median time of an act, which is given the number of the turn."""
    times = []
    for turn in turns:
        begin = time.perf_counter()
        act(turn)
        times.append(time.perf_counter() - begin)
    print(f"| {name} | {1000 * median(times):.1f} |")


def time_events(image: CorrectedImage, cells: CellInstances) -> None:
    """Each kind of event, on cells that no other kind touches."""
    show("begin", lambda k: image.begin(cells, "model"), range(3))
    image.keep_candidates(cells)
    ids, labels = image.ids.tolist(), image.label_image()
    x0, y0, x1, y1 = cells.boxes_xyxy.astype(int).T
    rows, columns = ((y0 + y1) // 2).tolist(), ((x0 + x1) // 2).tolist()

    def split(number: int) -> None:
        line = [(rows[number] - 99, columns[number]), (rows[number] + 99, columns[number] + 3)]
        image.split(ids[number], line)

    def repaint(number: int, everywhere: bool) -> None:
        window = np.s_[rows[number] : rows[number] + 6, columns[number] : columns[number] + 30]
        labels[window] = ids[number]
        image.repaint(labels, window=None if everywhere else window)

    show("accept", lambda k: image.accept(ids[k]))
    show("accept 100 cells", lambda k: image.accept(ids[100 * k :][:100]), range(5))
    show("set_class", lambda k: image.set_class(ids[k], 1))
    show("merge", lambda k: image.merge(ids[700 + 2 * k :][:2], apart=True))
    show("split", lambda k: split(800 + k))
    show("repaint, a window", lambda k: repaint(900 + 3 * k, False))
    show("repaint, looked for everywhere", lambda k: repaint(1000 + 3 * k, True))
    show("draw", lambda k: image.draw(np.ones((20, 20)), offset_rc=(90 * k, SIDE - 60)))
    show("mark_done, a quarter", lambda k: image.mark_done(np.s_[:1000, : 999 + k]))
    show("reject", lambda k: image.reject(ids[1500 + k]))
    show("candidate_at", lambda k: image.candidate_at(rows[1500 + k], columns[1500 + k]))
    show("add_candidate", lambda k: image.add_candidate(rows[1500 + k], columns[1500 + k]))
    show("undo", lambda k: image.undo())
    show("redo", lambda k: image.redo())


def time_looking(image: CorrectedImage, folder: CorrectionFolder) -> None:
    """What a window asks for after an event."""
    show("cells", lambda k: image.cells)
    show("label_image", lambda k: image.label_image())
    show("label_image of a window", lambda k: image.label_image(np.s_[:99, :99]))
    show("counted_region", lambda k: image.counted_region())

    def reject_and_look(turn: int) -> None:
        image.reject(image.ids[-1])
        folder.queue()

    show("reject, and the queue", reject_and_look)


def time_opening(place: Path, num_images: int) -> None:
    """A folder of images: opened, its images' states, its queue, one image, saved."""
    cells = make_discs(SMALL_CELLS, SMALL_SIDE)
    picture = cells.to_label_image().astype(np.uint8)
    (place / "images").mkdir()
    for number in range(num_images):
        cv2.imwrite(str(place / "images" / f"{number:04d}.png"), picture + np.uint8(number % 7))
    with CorrectionFolder.open(place / "many") as folder:
        show(f"add {num_images} images", lambda k: folder.add_images(place / "images"), [0])
        for status in folder.images:
            image = folder.image(status.image_id)
            image.begin(cells, "model")
            image.accept(image.ids[:50])
    folder = CorrectionFolder.open(place / "many")
    folder.close()

    def reopen(turn: int) -> None:
        nonlocal folder
        folder.close()
        folder = CorrectionFolder.open(place / "many")

    show(f"open a folder of {num_images} images", reopen)
    show("the states of all images, first time", lambda k: folder.images, [0])
    show("the states of all images, again", lambda k: folder.images)
    show("the queue of all images", lambda k: folder.queue())
    show("open an image", lambda k: folder.image(f"{k:04d}").label_image())
    show("save as training data", lambda k: folder.save_training_data(place / "saved"), [0])
    folder.close()


def time_long_journal(place: Path, num_events: int) -> None:
    """An image after many events: opened, and all of it undone."""
    cells = make_discs(SMALL_CELLS, SMALL_SIDE)
    cv2.imwrite(str(place / "long.png"), cells.to_label_image().astype(np.uint8))
    with CorrectionFolder.open(place / "long", ("nucleus", "debris")) as folder:
        folder.add_images(place / "long.png")
        image = folder.image("long")
        image.begin(cells, "model")
        begin = time.perf_counter()
        for turn in range(num_events - 1):
            if turn % 3:
                image.set_class(image.ids[turn % 400], turn % 2)
            else:
                image.draw(np.ones((9, 9)), offset_rc=(turn % 499, turn * 7 % 499))
        each = (time.perf_counter() - begin) / num_events
        print(f"| an event of {num_events}, on the average | {1000 * each:.1f} |")

    def reopen(turn: int) -> None:
        with CorrectionFolder.open(place / "long") as folder:
            folder.image("long").label_image()

    show(f"open folder and image after {num_events} events", reopen, range(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2025, help="at least 2000")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument(
        "--folder", help="on the disk that is measured; default: for temporary files"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        place = Path(folder)
        cells = make_discs(args.cells, SIDE)
        cv2.imwrite(str(place / "field.png"), cells.to_label_image().astype(np.uint8))
        print("| what | time [ms] |\n| --- | --- |")
        with CorrectionFolder.open(place / "one", ("nucleus", "debris")) as corrections:
            corrections.add_images(place / "field.png")
            image = corrections.image("field")
            time_events(image, cells)
            time_looking(image, corrections)
        time_opening(place, args.images)
        time_long_journal(place, args.events)


if __name__ == "__main__":
    main()
