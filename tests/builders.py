"""Exact scenes for all tests: an image and the label image that goes with it, and trees of files.

Everything is made of rectangles and discs whose areas and positions can be counted by hand.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUND = 20
FOREGROUND = 180


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its label image; `masks` are the cells one by one, which may overlap."""

    image: NDArray[Any]
    labels: NDArray[Any]
    masks: NDArray[np.bool_]


def scene_of_masks(
    masks: Sequence[NDArray[np.bool_]], image_hw: tuple[int, int], dtype: type = np.uint8
) -> Scene:
    """A scene in which an earlier mask is in front of a later one."""
    stack = np.zeros((len(masks), *image_hw), bool)
    labels = np.zeros(image_hw, np.uint16 if len(masks) <= 65535 else np.uint32)
    for number, mask in reversed(list(enumerate(masks, 1))):
        stack[number - 1] = mask
        labels[mask] = number
    image = np.full(image_hw, BACKGROUND, dtype)
    # Each cell has a brightness of its own, so that a test can tell them apart.
    image[labels > 0] = (FOREGROUND + labels[labels > 0] % 50).astype(dtype)
    return Scene(image, labels, stack)


def rectangle(image_hw: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    """Mask of the pixels x0 <= x < x1, y0 <= y < y1."""
    mask = np.zeros(image_hw, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def disc(image_hw: tuple[int, int], x: float, y: float, radius: float) -> NDArray[np.bool_]:
    """Mask of the pixels whose centres are at most `radius` from (x, y)."""
    rows, cols = np.mgrid[: image_hw[0], : image_hw[1]]
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def no_cells(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    return scene_of_masks([], image_hw)


def one_pixel(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """One cell of one pixel at x 7, y 5."""
    return scene_of_masks([rectangle(image_hw, 7, 5, 8, 6)], image_hw)


def touching(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """Two rectangles of 5 x 6 and 4 x 6 (width x height) pixels, side by side."""
    return scene_of_masks(
        [rectangle(image_hw, 3, 4, 8, 10), rectangle(image_hw, 8, 4, 12, 10)], image_hw
    )


def overlapping(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """Two squares of 8 x 8 pixels that share 4 x 4."""
    return scene_of_masks(
        [rectangle(image_hw, 2, 2, 10, 10), rectangle(image_hw, 6, 6, 14, 14)], image_hw
    )


def with_hole(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """A square ring: 9 x 9 pixels less 3 x 3, and a one-pixel cell in the middle of the hole."""
    ring = rectangle(image_hw, 4, 4, 13, 13) & ~rectangle(image_hw, 7, 7, 10, 10)
    return scene_of_masks([ring, rectangle(image_hw, 8, 8, 9, 9)], image_hw)


def on_border(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """A cell in each corner, and one that fills two columns from the upper to the lower edge."""
    height, width = image_hw
    masks = [
        rectangle(image_hw, 0, 0, 3, 2),
        rectangle(image_hw, width - 3, 0, width, 2),
        rectangle(image_hw, 0, height - 2, 3, height),
        rectangle(image_hw, width - 3, height - 2, width, height),
        rectangle(image_hw, 10, 0, 12, height),
    ]
    return scene_of_masks(masks, image_hw)


def two_pieces(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """One cell of two rectangles, 2 x 3 and 4 x 3 pixels, that do not touch."""
    cell = rectangle(image_hw, 2, 2, 4, 5) | rectangle(image_hw, 20, 12, 24, 15)
    return scene_of_masks([cell], image_hw)


def many_cells(rows: int = 12, cols: int = 13) -> Scene:
    """156 squares of 3 x 3 pixels on a grid of 5 pixels."""
    image_hw = (5 * rows, 5 * cols)
    return scene_of_masks(
        [
            rectangle(image_hw, 5 * col + 1, 5 * row + 1, 5 * col + 4, 5 * row + 4)
            for row in range(rows)
            for col in range(cols)
        ],
        image_hw,
    )


def labels_beyond_uint16() -> NDArray[np.uint32]:
    """Label image [300, 220] of 66,000 cells of one pixel each."""
    return np.arange(1, 66_001, dtype=np.uint32).reshape(300, 220)


def sixteen_bit(image_hw: tuple[int, int] = (20, 30)) -> Scene:
    """`touching` with uint16 intensities of 1,000 (background) and 4,000 (cells)."""
    scene = touching(image_hw)
    image = np.where(scene.labels > 0, 4000, 1000).astype(np.uint16)
    return Scene(image, scene.labels, scene.masks)


def all_scenes() -> dict[str, Scene]:
    """Every scene by name; small, so that a test can afford full bitmaps."""
    makers = (
        no_cells,
        one_pixel,
        touching,
        overlapping,
        with_hole,
        on_border,
        two_pieces,
        many_cells,
        sixteen_bit,
    )
    return {maker.__name__: maker() for maker in makers}


def write_png(path: Path, array: NDArray[Any]) -> Path:
    """Write grey, RGB or RGBA of 8 or 16 bits, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = {2: lambda a: a, 3: lambda a: a[..., [2, 1, 0, 3][: a.shape[-1]]]}[array.ndim](array)
    assert cv2.imwrite(str(path), planes), path
    return path


def write_instance_masks(root: Path, split: str, scenes: Mapping[str, Scene]) -> Path:
    """Write scenes as `<root>/<split>/<id>/images/<id>.png` and `masks/*.png`; returns `root`."""
    for image_id, scene in scenes.items():
        case = root / split / image_id
        write_png(case / "images" / f"{image_id}.png", scene.image)
        (case / "masks").mkdir()
        for number, mask in enumerate(scene.masks):
            write_png(case / "masks" / f"{number:03d}.png", mask.astype(np.uint8) * 255)
    return root


def write_label_images(root: Path, split: str, scenes: Mapping[str, Scene]) -> Path:
    """Write scenes as `<root>/<split>/images/<id>.png` and `labels/<id>.png`; returns `root`."""
    for image_id, scene in scenes.items():
        write_png(root / split / "images" / f"{image_id}.png", scene.image)
        write_png(root / split / "labels" / f"{image_id}.png", scene.labels)
    return root


def write_classes(root: Path, split: str, image_id: str, names: Sequence[str]) -> Path:
    """Write `classes/<id>.csv`: class of label 1, 2, ..."""
    path = root / split / "classes" / f"{image_id}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("label", "class"), *enumerate(names, 1)])
    return path
