"""An image to draw on, and the simple shapes that a `Visualizer` is made of."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.utils.colormap import random_color
from detectron2.utils.generic_mask import GenericMask
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

Color = Any  # whatever matplotlib takes for one


class VisImage:
    """An image to draw on.

    Args:
        img: (H, W, 3), red first, 0 to 255.
        scale: of the result.

    Attributes:
        width, height: of `img`, pixels; the coordinates to draw in.
        fig, ax, canvas: matplotlib's figure, axes and canvas.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        self.img, self.scale = img, scale
        self.height, self.width = img.shape[:2]
        self.fig = Figure(frameon=False)
        self.dpi = self.fig.get_dpi()
        # matplotlib cuts the size off to whole pixels: stay clear of the edge.
        pixels = np.array([self.width, self.height]) * scale + 0.01
        self.fig.set_size_inches(*(pixels / self.dpi))
        self.canvas = FigureCanvasAgg(self.fig)
        self.ax = self.fig.add_axes((0.0, 0.0, 1.0, 1.0))
        self.ax.axis("off")
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Put another image of the same size behind what is drawn later."""
        self.draw_pixels(img.astype(np.uint8), interpolation="nearest")

    def draw_pixels(self, pixels: np.ndarray, **options: Any) -> None:
        """Lay (H, W, 3 or 4) pixels over the image."""
        self.ax.imshow(pixels, extent=(0, self.width, self.height, 0), **options)

    def save(self, filepath: str) -> None:
        """Write to a file; its ending tells the format."""
        self.fig.savefig(filepath)

    def get_image(self) -> np.ndarray:
        """uint8 (H * scale, W * scale, 3), red first."""
        self.canvas.draw()
        return np.array(self.canvas.buffer_rgba())[..., :3]


class Painter:
    """Draws shapes; every method returns the image with all that was drawn so far.

    Args:
        output: what to draw on.
        font_size_scale: factor on the size of texts, and with it on the width of lines.
    """

    def __init__(self, output: VisImage, font_size_scale: float) -> None:
        self.output = output
        self._side = float(np.sqrt(output.height * output.width))
        self._default_font_size = max(self._side // 90, 10 // output.scale) * font_size_scale

    def get_output(self) -> VisImage:
        """What was drawn so far."""
        return self.output

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: Color = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Draw a text on a dark ground, its upper edge at `position` (x, y).

        Args:
            text: what to write.
            position: pixels.
            font_size: points at scale 1; a size that suits the image by default.
            color: made brighter where it is too dark to be read.
            horizontal_alignment: "left", "center" or "right" of the text is at `position`.
            rotation: degrees, counter-clockwise.
        """
        readable = np.maximum(rgb(color), 0.2)
        brightest = readable.argmax()
        readable[brightest] = max(readable[brightest], 0.8)
        self.output.ax.text(
            x=position[0],
            y=position[1],
            s=text,
            size=(font_size or self._default_font_size) * self.output.scale,
            color=readable,
            family="sans-serif",
            horizontalalignment=horizontal_alignment,
            verticalalignment="top",
            rotation=rotation,
            zorder=10,
            bbox={"facecolor": "black", "edgecolor": "none", "alpha": 0.8, "pad": 0.7},
        )
        return self.output

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.5,
        edge_color: Color = "g",
        line_style: str = "-",
    ) -> VisImage:
        """Draw the outline of a box x0, y0, x1, y1 (pixels), `alpha` opaque."""
        x0, y0, x1, y1 = box_coord
        return self._add(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                alpha=alpha,
                edgecolor=edge_color,
                linestyle=line_style,
                linewidth=self._line_width(self._default_font_size / 4),
            )
        )

    def draw_circle(
        self, circle_coord: Sequence[float], color: Color, radius: float = 3
    ) -> VisImage:
        """Draw a disc around x, y; all in pixels."""
        return self._add(Circle((circle_coord[0], circle_coord[1]), radius, color=color))

    def draw_line(
        self,
        x_data: Sequence[float],
        y_data: Sequence[float],
        color: Color,
        linestyle: Any = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """Draw a line through points (pixels); `linewidth` in points at scale 1."""
        width = self._line_width(linewidth or self._default_font_size / 3)
        self.output.ax.add_line(
            Line2D(x_data, y_data, color=color, linestyle=linestyle, linewidth=width)
        )
        return self.output

    def draw_polygon(
        self,
        segment: np.ndarray,
        color: Color,
        edge_color: Color | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a filled polygon.

        Args:
            segment: (N, 2) points x, y in pixels.
            color: of the area.
            edge_color: of the outline, which is never transparent; by default that of the area,
                darker if the area is hardly transparent.
            alpha: opacity of the area, 0 to 1.
        """
        return self._add(Polygon(segment, **self._area_style(color, edge_color, alpha)))

    def draw_outlines(
        self,
        polygons: Sequence[np.ndarray],
        color: Color,
        alpha: float,
        edge_color: Color | None = None,
    ) -> None:
        """All parts of an object as one area, so that its holes stay open."""
        if polygons:
            rings = [Path(_closed(p.reshape(-1, 2)), closed=True) for p in polygons]
            path = Path.make_compound_path(*rings)
            self._add(PathPatch(path, **self._area_style(color, edge_color, alpha)))

    def _area_style(self, color: Color, edge_color: Color | None, alpha: float) -> dict[str, Any]:
        if edge_color is None:
            edge_color = with_brightness(color, -0.7) if alpha > 0.8 else color
        return {
            "facecolor": (*rgb(color), alpha),
            "edgecolor": (*rgb(edge_color), 1.0),
            "linewidth": self._line_width(self._default_font_size // 15),
        }

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: Color | None = None,
        *,
        edge_color: Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: float | None = 10,
    ) -> VisImage:
        """Draw a bitmap (H, W): as outlined areas, or by pixel if it has holes.

        Args:
            binary_mask: what is not 0 is drawn.
            color: by chance if not given.
            edge_color: of the outlines; see `draw_polygon`.
            text: written onto its largest part.
            alpha: opacity, 0 to 1.
            area_threshold: parts of fewer pixels are left out.
        """
        color = rgb(random_color(rgb=True, maximum=1) if color is None else color)
        mask = GenericMask(binary_mask != 0, self.output.height, self.output.width)
        if mask.has_holes:
            self._draw_alpha(mask.mask, color, alpha)
            is_visible = True
        else:
            points = [polygon.reshape(-1, 2) for polygon in mask.polygons]
            large = [p for p in points if _polygon_area(p) >= (area_threshold or 0)]
            for polygon in large:
                self.draw_polygon(polygon, color, edge_color, alpha)
            is_visible = bool(large)
        if text is not None and is_visible:
            self._draw_text_in_mask(mask.mask, text, color)
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray,
        color: Color | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a mask (H, W) of values in 0 to 1: the larger, the more opaque, up to `alpha`."""
        color = rgb(random_color(rgb=True, maximum=1) if color is None else color)
        self._draw_alpha(soft_mask, color, alpha)
        if text is not None:
            self._draw_text_in_mask((soft_mask > 0.5).astype(np.uint8), text, color)
        return self.output

    def _draw_alpha(self, opacity: np.ndarray, color: Color, alpha: float) -> None:
        pixels = np.empty((*opacity.shape, 4), np.float32)
        pixels[..., :3] = color
        pixels[..., 3] = opacity * alpha
        self.output.draw_pixels(pixels)

    def _draw_text_in_mask(self, mask: np.ndarray, text: str, color: Color) -> None:
        count, parts, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count > 1:  # part 0 is what is not in the mask
            largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
            rows, columns = np.nonzero(parts == largest)
            middle = (float(np.median(columns)), float(np.median(rows)))
            self.draw_text(text, middle, color=with_brightness(color, 0.7))

    def _add(self, patch: Patch) -> VisImage:
        # Not `add_patch`: it would also work out the limits of the axes, which are fixed.
        self.output.ax.add_artist(patch)
        return self.output

    def _line_width(self, points: float) -> float:
        return max(points, 1) * self.output.scale


def _closed(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, points[:1]])


def _polygon_area(points: np.ndarray) -> float:
    """Area of a polygon (N, 2)."""
    return cv2.contourArea(points.astype(np.float32))


def with_brightness(color: Color, change: float) -> tuple[float, float, float]:
    """The colour, brighter (`change` up to 1) or darker (down to -1)."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*rgb(color))
    lightness = min(max(lightness * (1 + change), 0.0), 1.0)
    return colorsys.hls_to_rgb(hue, lightness, saturation)


def rgb(color: Color) -> tuple[float, float, float]:
    """Red, green and blue in 0 to 1."""
    return to_rgb(color)
