"""Nuclei by Otsu's threshold and a watershed of distances: what needs no training at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from cellseg.evaluation import score
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

CHOSEN_BY = "ap_dsb@0.50"


@dataclass(frozen=True)
class Settings:
    """What can be chosen, in pixels.

    Attributes:
        smoothing: standard deviation of the Gaussian that image and distances are smoothed with.
        distance: at least so far are two nuclei's centres apart.
        area: smaller ones are dust, square pixels.
    """

    smoothing: float
    distance: int
    area: int


def all_settings() -> Iterator[Settings]:
    for values in product((1.0, 2.0), (3, 5, 8, 12, 18), (20, 60)):
        yield Settings(*values)


def find_nuclei(grey: Any, settings: Settings) -> Any:
    """The label image, int32 [H, W], of bright nuclei on a dark background.

    Args:
        grey: the image [H, W], of any number type.
        settings: in pixels.
    """
    smooth = gaussian(grey.astype(float), settings.smoothing)
    if smooth.min() == smooth.max():
        return np.zeros(grey.shape, np.int32)
    bright = remove_small_objects(smooth > threshold_otsu(smooth), max_size=settings.area - 1)
    distances = gaussian(ndimage.distance_transform_edt(bright), settings.smoothing)
    parts = ndimage.label(bright)[0]
    peaks = peak_local_max(
        distances, min_distance=settings.distance, labels=parts, exclude_border=False
    )
    markers = np.zeros(grey.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distances, markers, mask=bright)


def choose_settings(images: Sequence[Any], true: Sequence[Any]) -> Settings:
    """Those with the highest `ap_dsb@0.50` on images [H, W] and their label images."""

    def value(settings: Settings) -> float:
        found = [find_nuclei(image, settings) for image in images]
        return score(true, found, [CHOSEN_BY])[CHOSEN_BY]

    return max(all_settings(), key=value)
