"""What can be seen of a fine-tuning: curves, and how good the model was and is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellseg.json_text import parse_json, read_json

METRIC = "cell_iou/ap_dsb"
"""What models are compared by: mean average precision over the IoU thresholds 0.5 to 0.95."""

State = Literal["new", "measuring", "training", "done", "failed", "stopped"]
Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Progress:
    """Where a fine-tuning is.

    Attributes:
        state: "measuring" the model as it was, "training", or how it ended.
        share: of the training's time that is over, 0 to 1.
        losses: (iteration, total loss), smoothed over some twenty iterations.
        metrics: (iteration, `METRIC`) on the images held out; empty where none are.
        before: `METRIC` of the model as it was; None until it is known, or without images held out.
        after: that of the model that came out.
        message: in words: what failed, or how the two compare; "" until then.
        model: the folder of the new model, for `cellseg.load`; None until it is there.
    """

    state: State
    share: float = 0.0
    losses: Curve = ()
    metrics: Curve = ()
    before: float | None = None
    after: float | None = None
    message: str = ""
    model: Path | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "failed", "stopped")

    @property
    def is_worse(self) -> bool:
        """Whether the new model finds less than the one before, on the images held out."""
        return self.before is not None and self.after is not None and self.after < self.before


def read_metric(path: Path) -> float | None:
    """`METRIC` in a file of metrics; None where it has none, as of images without cells."""
    value = read_json(path).get(METRIC)
    return None if value is None else float(value)


def read_curves(path: Path) -> tuple[Curve, Curve]:
    """Total loss and `METRIC` by iteration, of a training that may be running.

    Args:
        path: metrics.json of the run; empty curves where it is not there yet. A line that is being
            written is left for the next time.
    """
    losses: list[tuple[int, float]] = []
    metrics: list[tuple[int, float]] = []
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n")[:-1]:
        entry = parse_json(line)
        for name, points in (("total_loss", losses), (METRIC, metrics)):
            if isinstance(entry.get(name), (int, float)) and math.isfinite(entry[name]):
                points.append((int(entry["iteration"]), float(entry[name])))
    return tuple(losses), tuple(metrics)


def compare_in_words(before: float | None, after: float | None) -> str:
    """How a model compares with the one it comes from, for whoever has to choose.

    Example:
        >>> compare_in_words(0.5, 0.625)
        'Better on the images held out: ap_dsb 0.625, before 0.500.'
    """
    if after is None:
        return "No images were held out, so nothing says whether the new model is better."
    name = METRIC.rpartition("/")[2]
    if before is None:
        return f"On the images held out: {name} {after:.3f}; the model before knew other classes."
    figures = f"on the images held out: {name} {after:.3f}, before {before:.3f}."
    if after > before:
        return f"Better {figures}"
    if after == before:
        return f"No better {figures}"
    return f"Worse {figures} Keep the model that you had, or correct more images."
