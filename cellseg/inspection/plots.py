"""Distributions of a dataset, one colour per split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.drawing import PNG_METADATA
from cellseg.files import write_whole
from cellseg.inspection.measures import ImageMeasures

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MOST_DOTS = 5000
_BINS = 30


class _Histogram(NamedTuple):
    """What a panel shows: the values of an image, or of its cells."""

    label: str
    of: str
    values_of: Callable[[ImageMeasures], Any]
    log: bool = False


def _brightest_value(image: ImageMeasures) -> Any:
    return [] if image.intensities is None else [image.intensities.percentiles[2]]


def _contrast_of_cells(image: ImageMeasures) -> Any:
    if image.intensities is None:
        return []
    low, median, high = image.intensities.percentiles
    return np.clip((image.cells.mean - median) / (high - low), -1, 1.5) if high > low else []


_HISTOGRAMS = (
    _Histogram("diameter of cells, px", "cells", lambda m: m.cells.diameter_px, log=True),
    _Histogram("cells per image", "images", lambda m: [len(m.cells)]),
    _Histogram("height / width of cells", "cells", lambda m: m.cells.aspect_ratio, log=True),
    _Histogram("brightest value of images (99.8 %)", "images", _brightest_value),
    _Histogram("(cell - median) / range of its image", "cells", _contrast_of_cells),
)


def write_plots(path: Path, images: Sequence[ImageMeasures], names: Sequence[str]) -> None:
    """Write one picture of six panels; splits without an image or cell leave theirs empty.

    Histograms are shares of their split, so that splits of different sizes can be compared.
    """
    from matplotlib.figure import Figure  # takes a second, and only pictures need it

    figure = Figure(figsize=(13, 7.5), dpi=100, layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    by_split = {name: [image for image in images if image.split == name] for name in names}
    for panel, histogram in zip(panels, _HISTOGRAMS):
        _draw_histogram(panel, by_split, histogram)
    _draw_scatter(panels[-1], by_split)
    handles, labels = panels[1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
    with write_whole(path) as partial:
        figure.savefig(partial, metadata=PNG_METADATA)


def _draw_histogram(
    panel: Any, by_split: Mapping[str, Sequence[ImageMeasures]], histogram: _Histogram
) -> None:
    panel.set_xlabel(histogram.label)
    panel.set_ylabel(f"share of {histogram.of}")
    values = {}
    for name, images in by_split.items():
        joined = np.concatenate([np.zeros(0), *map(histogram.values_of, images)])
        usable = joined[np.isfinite(joined)]
        values[name] = usable[usable > 0] if histogram.log else usable
    everything = np.concatenate([np.zeros(0), *values.values()])
    if not everything.size:
        return
    low, high = everything.min(), everything.max()
    if low == high:
        low, high = (low / 1.5, high * 1.5) if histogram.log else (low - 0.5, high + 0.5)
    edges = (np.geomspace if histogram.log else np.linspace)(low, high, _BINS + 1)
    if histogram.log:
        _use_log_axis(panel)
    for colour, (name, own) in zip(cycle(_COLOURS), values.items()):
        if own.size:
            weights = np.full(own.size, 1 / own.size)
            panel.hist(own, edges, weights=weights, histtype="stepfilled", alpha=0.25, color=colour)
            panel.hist(own, edges, weights=weights, histtype="step", color=colour, label=name)


def _use_log_axis(panel: Any) -> None:
    """A logarithmic x axis with plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_locator(NullLocator())


def _draw_scatter(panel: Any, by_split: Mapping[str, Sequence[ImageMeasures]]) -> None:
    """Cells per image over their median diameter: images that stand apart are seen at once."""
    panel.set_xlabel("median diameter of an image's cells, px")
    panel.set_ylabel("cells per image")
    for colour, images in zip(cycle(_COLOURS), by_split.values()):
        dots = [(np.median(m.cells.diameter_px), len(m.cells)) for m in images if len(m.cells)]
        if dots:
            x, y = zip(*dots[:_MOST_DOTS])
            panel.scatter(x, y, s=14, color=colour, alpha=0.6, linewidths=0)
