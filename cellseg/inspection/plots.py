"""Distributions of a dataset, one colour per split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.files import write_whole
from cellseg.inspection.measures import ImageMeasures

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MOST_DOTS = 5000
_BINS = 30


def write_plots(path: Path, images: Sequence[ImageMeasures], names: Sequence[str]) -> None:
    """Write one picture of six panels; splits without an image or cell leave theirs empty.

    Histograms are shares of their split, so that splits of different sizes can be compared.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    by_split = {name: [image for image in images if image.split == name] for name in names}
    log: dict[str, Any] = {"log": True}
    _draw_histogram(panels[0, 0], by_split, _diameters, "diameter of cells, px", **log)
    _draw_histogram(panels[0, 1], by_split, _counts, "cells per image")
    _draw_histogram(panels[0, 2], by_split, _aspect_ratios, "height / width of cells", **log)
    _draw_histogram(panels[1, 0], by_split, _brightest, "brightest value of images (99.8 %)")
    _draw_histogram(panels[1, 1], by_split, _contrasts, "(cell - median) / range of its image")
    _draw_scatter(panels[1, 2], by_split)
    panels[0, 0].set_ylabel("share of cells")
    panels[0, 1].set_ylabel("share of images")
    panels[0, 2].set_ylabel("share of cells")
    panels[1, 0].set_ylabel("share of images")
    panels[1, 1].set_ylabel("share of cells")
    handles, labels = panels[0, 1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
    with write_whole(path) as partial:
        figure.savefig(partial)


def _diameters(image: ImageMeasures) -> Any:
    return image.cells.diameter_px


def _counts(image: ImageMeasures) -> Any:
    return [len(image.cells)]


def _aspect_ratios(image: ImageMeasures) -> Any:
    return image.cells.aspect_ratio


def _brightest(image: ImageMeasures) -> Any:
    return [] if image.intensities is None else [image.intensities.percentiles[2]]


def _contrasts(image: ImageMeasures) -> Any:
    if image.intensities is None:
        return []
    low, median, high = image.intensities.percentiles
    return np.clip((image.cells.mean - median) / (high - low), -1, 1.5) if high > low else []


def _draw_histogram(
    panel: Any,
    by_split: dict[str, list[ImageMeasures]],
    values_of: Callable[[ImageMeasures], Any],
    label: str,
    *,
    log: bool = False,
) -> None:
    values = {}
    for name, images in by_split.items():
        joined = np.concatenate([np.zeros(0), *(np.asarray(values_of(m), float) for m in images)])
        usable = joined[np.isfinite(joined)]
        values[name] = usable[usable > 0] if log else usable
    everything = np.concatenate([np.zeros(0), *values.values()])
    panel.set_xlabel(label)
    if not everything.size:
        return
    low, high = everything.min(), everything.max()
    if low == high:
        low, high = (low / 1.5, high * 1.5) if log else (low - 0.5, high + 0.5)
    edges = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    if log:
        panel.set_xscale("log")
        _label_log_axis(panel, low, high)
    for colour, (name, own) in zip(_cycle(len(values)), values.items()):
        if own.size:
            weights = np.full(own.size, 1 / own.size)
            kind = {"histtype": "stepfilled", "alpha": 0.25, "color": colour}
            panel.hist(own, edges, weights=weights, **kind)
            panel.hist(own, edges, weights=weights, histtype="step", color=colour, label=name)


def _label_log_axis(panel: Any, low: float, high: float) -> None:
    """Plain numbers, as many as fit."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    panel.xaxis.set_major_locator(
        FixedLocator([t for t in ticks if low * 0.99 <= t <= high * 1.01])
    )
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def _draw_scatter(panel: Any, by_split: dict[str, list[ImageMeasures]]) -> None:
    """Cells per image over their median diameter: images that stand apart are seen at once."""
    panel.set_xlabel("median diameter of an image's cells, px")
    panel.set_ylabel("cells per image")
    for colour, images in zip(_cycle(len(by_split)), by_split.values()):
        dots = [
            (float(np.median(m.cells.diameter_px)), len(m.cells)) for m in images if len(m.cells)
        ][:_MOST_DOTS]
        if dots:
            x, y = zip(*dots)
            panel.scatter(x, y, s=14, color=colour, alpha=0.6, linewidths=0)


def _cycle(number: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(number)]
