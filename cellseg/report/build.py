"""A report of a run: from its folder to one HTML file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import ConfigError, DatasetError, ImageReadError
from cellseg.files import write_whole
from cellseg.images import ImageInput
from cellseg.report.gallery import draw_gallery
from cellseg.report.page import Section, render_missing, render_page
from cellseg.report.plots import draw_charts, draw_training
from cellseg.report.results import (
    RESULTS_FILE,
    DatasetResult,
    read_dataset_result,
    read_history,
)
from cellseg.report.summary import summarize
from detectron2.config import CfgNode
from numpy.typing import NDArray

MAX_IMAGES = 60


def write_report(
    cfg: CfgNode,
    run_dir: str | Path,
    output: str | Path,
    *,
    predictions: Mapping[str, Path] | None = None,
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
        score_threshold: in place of `CELLSEG.TEST.SCORE_THRESHOLD`.
        max_images: in the gallery of each dataset.

    Returns:
        `output`.

    Raises:
        ConfigError: DATASETS.TEST is empty, or `predictions` names another dataset.
        DatasetError: predictions that cannot be read or belong to other images.
    """
    run_dir, output = Path(run_dir), Path(output)
    results = _read_results(cfg, run_dir, predictions or {})
    selection = DetectionThresholds.from_config(cfg)
    if score_threshold is not None:
        selection = replace(selection, score=score_threshold)
    metrics = list(cfg.CELLSEG.TEST.METRICS)
    reader = functools.partial(_read_image, ImageInput.from_config(cfg).read)
    sections: list[Section] = []
    shown = 0
    for number, result in enumerate(results):
        added, images = _dataset_sections(
            result, number, len(results) > 1, selection, metrics, max_images, shown, reader
        )
        sections += added
        shown += images
    sections.append(Section("training", "Training", draw_training(read_history(run_dir))))
    title = f"Segmentation report: {run_dir.resolve().name}"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"{cfg.MODEL.META_ARCHITECTURE}, {', '.join(r.name for r in results)}, made {made}"
    with write_whole(output) as partial:
        partial.write_text(render_page(title, subtitle, sections), "utf-8")
    return output


def _read_results(
    cfg: CfgNode, run_dir: Path, predictions: Mapping[str, Path]
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
        read_dataset_result(name, predictions.get(name, folder / name / RESULTS_FILE))
        for name in names
    ]


def _dataset_sections(
    result: DatasetResult,
    number: int,
    several: bool,
    selection: DetectionThresholds,
    metrics: Sequence[str],
    max_images: int,
    first_image: int,
    read: Callable[[Path], NDArray[Any]],
) -> tuple[list[Section], int]:
    behind = f" ({result.name})" if several else ""
    if result.missing:
        body = render_missing(result.missing)
        return [Section(f"results-{number}", f"Results{behind}", body)], 0
    kept = result.compared.keep(selection)
    gallery, shown = draw_gallery(
        result, kept, max_images=max_images, first_number=first_image, read=read
    )
    return [
        Section(
            f"results-{number}", f"Results{behind}", summarize(result, kept, selection, metrics)
        ),
        Section(f"charts-{number}", f"Charts{behind}", draw_charts(result, kept, selection)),
        Section(f"gallery-{number}", f"Images{behind}", gallery),
    ], shown


def _read_image(read: Callable[[Path], NDArray[Any]], path: Path) -> NDArray[Any]:
    """An image; a file that is gone is an ImageReadError too."""
    if not path.is_file():
        raise ImageReadError(f"{path}: no such file")
    return read(path)
