"""A report of a run: from its folder to one HTML file."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import ConfigError, DatasetError, ImageReadError
from cellseg.files import write_whole
from cellseg.images import ImageInput
from cellseg.io.category_ids import CategoryIds
from cellseg.io.coco_results import EVALUATED_NAME
from cellseg.report.gallery import draw_gallery
from cellseg.report.page import Section, render_missing, render_page
from cellseg.report.plots import draw_charts, draw_training
from cellseg.report.results import (
    DatasetResult,
    read_dataset_result,
    read_history,
)
from cellseg.report.summary import summarize
from detectron2.config import CfgNode
from numpy.typing import NDArray

MAX_IMAGES = 60
_TITLES = {"results": "Results", "charts": "Charts", "gallery": "Images"}


def write_report(
    cfg: CfgNode,
    run_dir: str | Path,
    output: str | Path,
    *,
    predictions: Mapping[str, Path] | None = None,
    category_ids: CategoryIds = None,
    score_threshold: float | None = None,
    max_images: int = MAX_IMAGES,
) -> Path:
    """Write the report of a run as one self-contained HTML file.

    Args:
        cfg: of the run; `DATASETS.TEST` says what is reported.
        run_dir: its OUTPUT_DIR, with `inference/<dataset>/coco_instances_results.json` and
            `metrics.json`; a section says what is missing.
        output: the file; there only when complete.
        predictions: other files of predictions, by dataset.
        category_ids: how files of predictions count, where that is known
            (`cellseg.io.category_ids`).
        score_threshold: in place of `CELLSEG.TEST.SCORE_THRESHOLD`.
        max_images: in the gallery of each dataset.

    Returns:
        `output`.

    Raises:
        ConfigError: DATASETS.TEST is empty, or `predictions` names another dataset.
        DatasetError: predictions that cannot be read or belong to other images.
    """
    run_dir, output = Path(run_dir), Path(output)
    results = _read_results(cfg, run_dir, predictions or {}, category_ids)
    selection = DetectionThresholds.from_config(cfg)
    if score_threshold is not None:
        selection = replace(selection, score=score_threshold)
    read = functools.partial(_read_image, ImageInput.from_config(cfg).read)
    numbers = itertools.count()  # of the gallery's images, within the page
    sections: list[Section] = []
    for place, result in enumerate(results):
        if result.missing:
            bodies = {"results": render_missing(result.missing)}
        else:
            kept = result.compared.keep(selection)
            bodies = {
                "results": summarize(result, kept, selection, cfg.CELLSEG.TEST.METRICS),
                "charts": draw_charts(result, kept, selection),
                "gallery": draw_gallery(result, kept, numbers, max_images=max_images, read=read),
            }
        behind = f" ({result.name})" if len(results) > 1 else ""
        sections += [
            Section(f"{part}-{place}", f"{_TITLES[part]}{behind}", body)
            for part, body in bodies.items()
        ]
    sections.append(Section("training", "Training", draw_training(read_history(run_dir))))
    title = f"Segmentation report: {run_dir.resolve().name}"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"{cfg.MODEL.META_ARCHITECTURE}, {', '.join(r.name for r in results)}, made {made}"
    with write_whole(output) as partial:
        partial.write_text(render_page(title, subtitle, sections), "utf-8")
    return output


def _read_results(
    cfg: CfgNode, run_dir: Path, predictions: Mapping[str, Path], category_ids: CategoryIds
) -> list[DatasetResult]:
    names = list(cfg.DATASETS.TEST)
    if not names:
        raise ConfigError("DATASETS.TEST is empty: the run was evaluated on nothing")
    strangers = sorted(set(predictions) - set(names))
    if strangers:
        raise ConfigError(
            f"predictions of {', '.join(strangers)}, but DATASETS.TEST is {', '.join(names)}"
        )
    for path in predictions.values():
        if not path.is_file():
            raise DatasetError(f"{path}: no such file of predictions")
    folder = run_dir / "inference"
    return [
        read_dataset_result(
            name, predictions.get(name, folder / name / EVALUATED_NAME), category_ids
        )
        for name in names
    ]


def _read_image(read: Callable[[Path], NDArray[Any]], path: Path) -> NDArray[Any]:
    """An image; a file that is gone is an ImageReadError too."""
    if not path.is_file():
        raise ImageReadError(f"{path}: no such file")
    return read(path)
