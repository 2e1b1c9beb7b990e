"""What is known of a feature map before a tensor has flowed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of one feature map; None where it is not known.

    Attributes:
        channels: number of channels.
        height: rows, in cells of the feature map.
        width: columns, in cells of the feature map.
        stride: pixels of the network input per cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
