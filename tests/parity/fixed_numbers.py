"""Numbers that are the same on every machine: parameters, images and cells without any generator.

`spread` mixes integers, so its results do not depend on the version of torch, numpy or the CPU.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from numpy.typing import NDArray

IMAGES_HW = ((96, 128), (80, 112))
CELLS_PER_IMAGE = 6


def spread(count: int, name: str) -> NDArray[np.float64]:
    """`count` numbers in [-1, 1) that look random and depend on `name` and their index only.

    Steps of the golden ratio from the checksum of `name`, then two rounds of xor-shift and
    multiplication modulo 2**64; the upper 24 bits, which float32 holds exactly, are used.
    """
    start = zlib.crc32(name.encode()) + 1
    bits = np.arange(start << 20, (start << 20) + count, dtype=np.uint64)
    bits *= np.uint64(0x9E3779B97F4A7C15)
    for shift in (30, 27):
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(0xD6E8FEB86659FD93)
    return (bits >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def set_parameters(model: torch.nn.Module, predictor_gain: float) -> None:
    """Replace every weight and running statistic of a model by the rule.

    Weights of two or more axes are spread to the variance 2 / fan-in, which keeps the size of
    activations. Predictors (the last layers) get `predictor_gain` times that, and rows without a
    mean, so that not one class wins everywhere. Scales of norms are near 0.8, their running
    variance near 1, and everything else is near 0.
    """
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim >= 2:
                value.copy_(torch.from_numpy(_weight(tuple(value.shape), name, predictor_gain)))
            elif value.is_floating_point() and not name.startswith("pixel_"):
                offset = {"weight": 0.8, "running_var": 1.0}.get(name.rpartition(".")[2], 0.0)
                numbers = offset + 0.1 * spread(value.numel(), name)
                value.copy_(torch.from_numpy(numbers))


def _weight(shape: tuple[int, ...], name: str, predictor_gain: float) -> NDArray[np.float64]:
    rows = spread(int(np.prod(shape)), name).reshape(shape[0], -1)
    rows *= (6 / rows.shape[1]) ** 0.5
    if _is_predictor(name):
        rows = predictor_gain * (rows - rows.mean(1, keepdims=True))
    return rows.reshape(shape)


def _is_predictor(name: str) -> bool:
    layers = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "mask_head.predictor")
    return any(layer in name for layer in layers)


def cell_masks(
    image_hw: tuple[int, int], name: str, count: int, *, radii_px: tuple[float, float] = (5, 17)
) -> NDArray[np.bool_]:
    """bool [count, H, W]: discs inside the image, radii between the two given; some overlap."""
    smallest, largest = radii_px
    height, width = image_hw
    shares = (spread(3 * count, name).reshape(count, 3) + 1) / 2
    radii = smallest + (largest - smallest) * shares[:, 0]
    rows = radii + shares[:, 1] * (height - 1 - 2 * radii)
    cols = radii + shares[:, 2] * (width - 1 - 2 * radii)
    grid_rows, grid_cols = np.mgrid[:height, :width]
    return np.stack(
        [
            (grid_rows - row) ** 2 + (grid_cols - col) ** 2 <= radius**2
            for row, col, radius in zip(rows, cols, radii)
        ]
    )


def box_of(mask: NDArray[np.bool_]) -> list[float]:
    """x0, y0, x1, y1 around the pixels of a mask, half-open."""
    rows, cols = np.nonzero(mask)
    return [float(v) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]


def picture_of(masks: NDArray[np.bool_], name: str) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]: cells of different brightness and colour on a noisy background."""
    shape = (*masks.shape[1:], 3)
    image = 40 + 25 * spread(int(np.prod(shape)), name).reshape(shape)
    for number, mask in enumerate(masks):
        image[mask] += 50 + 12 * number + 20 * spread(3, f"{name} colour {number}")
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def octagon_of(box: list[float]) -> list[float]:
    """Polygon x, y, x, y, ... of the octagon inside a box."""
    x0, y0, x1, y1 = box
    angles = np.arange(8) * np.pi / 4 + np.pi / 8
    xs = (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angles)
    ys = (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angles)
    return np.stack([xs, ys], 1).round(3).ravel().tolist()


def model_inputs(*, polygons: bool = False) -> list[dict[str, Any]]:
    """Two images with cells of two classes, as a mapper would give them to a model."""
    batch = []
    for number, image_hw in enumerate(IMAGES_HW):
        masks = cell_masks(image_hw, f"cells {number}", CELLS_PER_IMAGE)
        boxes = [box_of(mask) for mask in masks]
        cells = Instances(image_hw)
        cells.gt_boxes = Boxes(torch.tensor(boxes))
        cells.gt_classes = torch.arange(len(masks)) % 2
        if polygons:
            cells.gt_masks = PolygonMasks([[octagon_of(box)] for box in boxes])
        else:
            cells.gt_masks = BitMasks(torch.from_numpy(masks))
        image = torch.from_numpy(picture_of(masks, f"image {number}").transpose(2, 0, 1).copy())
        # The frame that detections are reported in is another one than the network's.
        output_hw = {"height": 2 * image_hw[0], "width": image_hw[1] + 17}
        batch.append({"image": image, "instances": cells, **output_hw})
    return batch
