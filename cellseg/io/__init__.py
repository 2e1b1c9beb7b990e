"""Annotation formats on disk; one module each.

To add one: a module with a function that reads one split, and a line in `FORMATS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg.errors import DatasetError
from cellseg.io import (
    cellpose,
    coco_json,
    geojson,
    imagej_rois,
    instance_masks,
    label_images,
    run_length_tables,
    stardist,
    synthetic,
)
from cellseg.io.base import DatasetFormat, Option
from cellseg.io.records import CellRecord

FORMATS: dict[str, DatasetFormat] = {
    "cellpose": cellpose.FORMAT,
    "coco_json": coco_json.FORMAT,
    "dsb2018_table": run_length_tables.DSB2018_TABLE,
    "geojson": geojson.FORMAT,
    "imagej_rois": imagej_rois.FORMAT,
    "instance_masks": instance_masks.FORMAT,
    "label_images": label_images.FORMAT,
    "sartorius_table": run_length_tables.SARTORIUS_TABLE,
    "stardist": stardist.FORMAT,
    "synthetic": synthetic.FORMAT,
}

__all__ = ["FORMATS", "DatasetFormat", "Option", "find_format", "read_records"]


def find_format(name: str) -> DatasetFormat:
    """The format called `name`; a DatasetError with the near names if there is none."""
    if name not in FORMATS:
        near = difflib.get_close_matches(str(name), FORMATS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(FORMATS))}"
        raise DatasetError(f"no dataset format {name!r}; {hint}")
    return FORMATS[name]


def read_records(
    format_name: str,
    root: str | Path,
    split: Any,
    *,
    classes: Sequence[str] = ("cell",),
    **options: Any,
) -> list[CellRecord]:
    """Read one split of a dataset.

    Args:
        format_name: a key of `FORMATS`.
        root: the dataset's folder.
        split: what the format's splits are: the name of a folder below `root`; for `synthetic` a
            dict with `images` and `seed`.
        classes: class names; cells of a dataset with one class need no further information.
        options: the format's own.

    Returns:
        Records in the order of their ids; images without cells are among them.

    Raises:
        DatasetError: nothing there, or all offending files in one message.
    """
    return find_format(format_name).read(Path(root), split, tuple(classes), options)
