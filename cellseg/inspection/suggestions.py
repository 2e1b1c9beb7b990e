"""Settings that suit the cells of a dataset, as a YAML fragment."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import DatasetError
from cellseg.images import ImageInput
from cellseg.inspection.measures import ImageMeasures
from cellseg.inspection.report import Inspection
from cellseg.io.base import path_of_image
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

FPN_STRIDES = (4, 8, 16, 32, 64)  # p2 to p6
# The size that a level is for when no cell says otherwise. With 2, cells lie on coarser levels, and
# fewer are found (benchmarks/README.md).
ANCHOR_PER_STRIDE = 4
TARGET_DIAMETER_PX = 35
ENLARGE_BELOW_PX = 20
SHRINK_ABOVE_PX = 80
MAX_SIDE_PX = 1333
LARGEST_CROP_PX = 512

_TEMPLATE = Path(__file__).with_name("suggested.yaml.j2")
_TEST_NAMES = ("val", "valid", "validation", "test", "devtest")
_JITTER = (0.8, 0.9, 1.0, 1.1, 1.25)
_CROP_JITTER = (0.75, 0.875, 1.0, 1.25, 1.5)
_ROUND_STEPS = (100, 200, 300, 500, 1000, 2000, 3000, 5000, 10_000)
_MAX_IMAGES_FOR_MEAN = 200
_DIM_LEVEL = 100
_DIM_SHARE = 0.2


@dataclass(frozen=True)
class Scale:
    """How images are brought to training size.

    Attributes:
        factor: by which cells grow at the middle of the size range.
        crop_px: side of the windows that are cut out before; 0 for whole images.
        min_sizes: INPUT.MIN_SIZE_TRAIN.
        max_size: INPUT.MAX_SIZE_TRAIN.
        min_size_test: INPUT.MIN_SIZE_TEST; 0 keeps the size.
        max_size_test: INPUT.MAX_SIZE_TEST.
        reason: one line for people.
    """

    factor: float
    crop_px: int
    min_sizes: tuple[int, ...]
    max_size: int
    min_size_test: int
    max_size_test: int
    reason: str


def suggest_config(inspection: Inspection, base_config: Path) -> str:
    """Settings from the training split, as YAML that `load_config` takes as it is.

    Args:
        inspection: of the whole dataset; of several splits, one called `train` (or the first) is
            for training, one called `val`, `test` or the like (or the last) for testing. The
            pixel mean is that of images read as they were inspected, with the normalisation that
            is suggested.
        base_config: the file that the settings extend.

    Raises:
        DatasetError: there is no cell to learn from.
    """
    names = [split.name for split in inspection.splits]
    train, test = choose_splits(names)
    images = [image for image in inspection.images if image.split == train]
    images = [image for image in images if image.file_hw == image.record.image_hw]
    if not any(len(image.cells) for image in images):
        raise DatasetError(f"{train}: no cell in a readable image, so nothing can be suggested")
    split = next(one for one in inspection.splits if one.name == train)
    sizes_wh = _cell_sizes(images)
    scale = suggest_scale([image.record.image_hw for image in images], _cell_diameters(images))
    most = max(len(image.cells) for image in inspection.images)
    in_window = _most_in_window(images, scale.crop_px)
    normalize = suggest_normalization(images)
    image_input = inspection.image_input
    mean, std = measure_pixels(images, replace(image_input, normalize=normalize))
    environment = Environment(trim_blocks=True, undefined=StrictUndefined)  # YAML: no HTML escapes
    environment.filters["tojson"] = json.dumps
    return environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        cells=len(sizes_wh), images=len(images), train=train, test=test, classes=split.classes,
        base=str(base_config.resolve()), declaration=_own_declaration(split.declaration),
        mean=mean, std=std, choices=_choices_of(image_input),
        normalize=normalize, scale=scale, most=most,
        anchors=[[size] for size in suggest_anchors(sizes_wh * scale.factor)],
        aspect_ratios=suggest_aspect_ratios(sizes_wh), detections=suggest_detections(most),
        topk=[
            round_up(5 * in_window, least=500), round_up(5 * most, least=500),
            round_up(2.5 * in_window, least=200), round_up(4 * most, least=200),
        ],
    ) + "\n"  # fmt: skip


def _choices_of(image_input: ImageInput) -> dict[str, Any]:
    """The keys below CELLSEG.INPUT that say what is read of a file and are not the default."""
    plain = ImageInput()
    names = ("channels", "page", "projection", "scene")
    values = {name.upper(): getattr(image_input, name) for name in names}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value != getattr(plain, key.lower())
    }


def choose_splits(names: Sequence[str]) -> tuple[str, str]:
    """Names of the splits for training and for testing."""
    train = next((name for name in names if name.endswith("train")), names[0])
    others = [name for name in names if name != train] or [train]
    tests = (name for ending in _TEST_NAMES for name in others if name.endswith(f"_{ending}"))
    return train, next(tests, others[-1])


def _own_declaration(declaration: Any) -> str:
    """The user's own YAML file; "" for those that come with cellseg, which are found anyway."""
    from cellseg.datasets.declarations import builtin_declarations

    if declaration is None:
        return ""
    path = Path(declaration.path).resolve()
    shipped = [built_in.resolve() for built_in in builtin_declarations()]
    return "" if path in shipped else str(path)


def _cell_sizes(images: Sequence[ImageMeasures]) -> NDArray[np.float64]:
    """(width, height) of all cells that have pixels, [N, 2], pixels of the file."""
    sizes = [np.stack([m.cells.width_px, m.cells.height_px], axis=1) for m in images]
    joined = np.concatenate([np.zeros((0, 2)), *sizes])
    return joined[(joined > 0).all(axis=1)]


def _cell_diameters(images: Sequence[ImageMeasures]) -> NDArray[np.float64]:
    joined = np.concatenate([np.zeros(0), *(image.cells.diameter_px for image in images)])
    return joined[joined > 0]


def _most_in_window(images: Sequence[ImageMeasures], crop_px: int) -> int:
    """Cells that a training window may hold: those of the fullest image, by its area."""
    most = 1.0
    for image in images:
        height, width = image.record.image_hw
        share = min(height, crop_px or height) * min(width, crop_px or width) / (height * width)
        most = max(most, len(image.cells) * share)
    return math.ceil(most)


def suggest_scale(image_hws: Sequence[tuple[int, int]], diameters_px: NDArray[np.float64]) -> Scale:
    """Training size such that the median cell is about 35 px where images are small enough.

    Cells between 20 and 80 px stay as they are. Where images differ in size, windows of their own
    pixels are cut out, for resizing images to one side would scale the cells of each differently.

    Args:
        image_hws: (height, width) of each image, pixels.
        diameters_px: of all cells, in the files' pixels, not empty.
    """
    shorter = sorted(min(hw) for hw in image_hws)
    longest = max(max(hw) for hw in image_hws)
    median = float(np.median(diameters_px))
    if shorter[0] < 0.95 * shorter[-1] or longest > MAX_SIDE_PX:
        crop = min(LARGEST_CROP_PX, max(64, shorter[0] // 32 * 32), shorter[0])
        sizes = tuple(_round_to(crop * jitter, 16) for jitter in _CROP_JITTER)
        reason = f"Windows of {crop} px: images differ in size; median cell {median:.0f} px."
        if longest > MAX_SIDE_PX and shorter[0] >= 0.95 * shorter[-1]:
            reason = f"Windows of {crop} px of large images; median cell {median:.0f} px."
        return Scale(1.0, crop, sizes, _round_to(sizes[-1] * 4 / 3, 16), 0, 0, reason)
    factor = 1.0
    if median < ENLARGE_BELOW_PX or median > SHRINK_ABOVE_PX:
        factor = min(TARGET_DIAMETER_PX / median, MAX_SIDE_PX / longest)
    side = _round_to(shorter[-1] * factor, 16) if factor != 1 else shorter[-1]
    factor = side / shorter[-1]
    reason = f"Median cell {median:.0f} px in the files, {median * factor:.0f} px in training."
    sizes = tuple(side if jitter == 1 else _round_to(side * jitter, 16) for jitter in _JITTER)
    longest_train = math.ceil(longest * factor * _JITTER[-1] / 16) * 16
    return Scale(factor, 0, sizes, longest_train, side, math.ceil(longest * factor), reason)


def _round_to(value: float, of: int) -> int:
    return max(of, round(value / of) * of)


def suggest_anchors(sizes_wh: NDArray[np.float64]) -> list[int]:
    """One anchor size per FPN level: the median side of the cells that belong to the level.

    A level of stride s is for cells around 4 s: from 4 s / sqrt(2) to 4 s sqrt(2), the finest for
    all smaller and the coarsest for all larger ones. A level without cells keeps 4 s.

    Args:
        sizes_wh: boxes of the cells after resizing, [N, 2], pixels.
    """
    sides = np.sqrt(sizes_wh.prod(axis=1))
    usual = np.array(FPN_STRIDES, float) * ANCHOR_PER_STRIDE
    level = np.searchsorted(usual[:-1] * math.sqrt(2), sides)
    enough = max(1, len(sides) // 200)
    anchors = []
    for number, size in enumerate(usual.tolist()):
        own = sides[level == number]
        anchors.append(max(4, round(float(np.median(own)))) if own.size >= enough else int(size))
    return anchors


def suggest_aspect_ratios(sizes_wh: NDArray[np.float64]) -> list[float]:
    """Height over width of the anchors: 1 and, symmetric to it, what nine cells of ten are within.

    Cells that are nearly round need 1 only; long ones five ratios.
    """
    longer, shorter = sizes_wh.max(axis=1), sizes_wh.min(axis=1)
    ratio = round(float(np.quantile(longer / shorter, 0.9)), 1)
    if ratio < 1.3:
        return [1.0]
    if ratio <= 3:
        return [round(1 / ratio, 2), 1.0, ratio]
    middle = round(math.sqrt(ratio), 1)
    return [round(1 / ratio, 2), round(1 / middle, 2), 1.0, middle, ratio]


def suggest_detections(most_cells: int) -> int:
    """One and a half times the most cells of an image, rounded up to a ten; 100 at least."""
    return max(100, math.ceil(1.5 * most_cells / 10) * 10)


def round_up(value: float, *, least: int) -> int:
    """The next of 100, 200, 300, 500, 1000, ..., 10,000."""
    return next((step for step in _ROUND_STEPS if step >= max(value, least)), _ROUND_STEPS[-1])


def suggest_normalization(images: Sequence[ImageMeasures]) -> str:
    """`percentile` where many 8-bit images use few of their grey levels, else `auto`."""
    known = [image.intensities for image in images if image.intensities is not None]
    dim = [v.dtype == "uint8" and v.percentiles[-1] < _DIM_LEVEL for v in known]
    return "percentile" if known and np.mean(dim) > _DIM_SHARE else "auto"


def measure_pixels(
    images: Sequence[ImageMeasures], image_input: ImageInput
) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel of what the model takes, in the order of INPUT.FORMAT.

    At most 200 images, evenly chosen, are read.
    """
    step = max(1, len(images) // _MAX_IMAGES_FOR_MEAN)
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for image in images[::step]:
        taken = image_input.read_model_input(path_of_image(image.record))
        pixels = taken.reshape(-1, 3).astype(np.float64)
        sums += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
        count += len(pixels)
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return [round(v, 1) for v in mean.tolist()], [round(v, 1) for v in std.tolist()]
