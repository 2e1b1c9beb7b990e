"""Cells to files that other programs read; one module per format, neither torch nor detectron2."""

from cellseg.export.coco_json import cells_to_coco_results, write_coco_results
from cellseg.export.files import write_whole
from cellseg.export.label_image import write_label_image

__all__ = ["cells_to_coco_results", "write_coco_results", "write_label_image", "write_whole"]
