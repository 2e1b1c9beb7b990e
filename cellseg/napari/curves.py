"""Curves of a training while it runs: the loss, and the metric on the images held out."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]


class CurvesCanvas(FigureCanvasQTAgg):
    """Two curves over the iterations, one above the other.

    Attributes:
        num_points: of the curves of loss and metric that are shown.
    """

    def __init__(self) -> None:
        super().__init__(Figure(figsize=(4, 3.2), layout="constrained"))
        self.setMinimumHeight(240)
        self.num_points = (0, 0)
        self._axes = self.figure.subplots(2, 1, sharex=True)
        self.show_curves([], [], "metric")

    def show_curves(self, loss: Curve, metric: Curve, metric_name: str) -> None:
        """Draw both, in place of those before.

        Args:
            loss, metric: (iteration, value) of each point; may be empty.
            metric_name: as cellseg's table of metrics calls it.
        """
        shown = (loss, "loss", "C0", ""), (metric, metric_name, "C1", "o")
        for axes, (curve, label, colour, marker) in zip(self._axes, shown):
            axes.clear()
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
            if curve:
                axes.plot(*zip(*curve), color=colour, marker=marker)
        self._axes[-1].set_xlabel("iteration")
        self.num_points = len(loss), len(metric)
        self.draw_idle()
