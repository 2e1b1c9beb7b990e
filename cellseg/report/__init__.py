"""Pictures of results; neither torch nor detectron2."""

from cellseg.cells.drawing import draw_comparison, draw_overlay, stretch_contrast, write_picture

__all__ = ["draw_comparison", "draw_overlay", "stretch_contrast", "write_picture"]
