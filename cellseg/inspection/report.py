"""One dataset from its splits to its findings, and the files that tell of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cellseg.images import ImageInput
from cellseg.inspection.checks import ERROR, TINY_PX, Finding, find_problems
from cellseg.inspection.contact_sheet import write_contact_sheets
from cellseg.inspection.duplicates import Duplicate, find_duplicates
from cellseg.inspection.measures import AS_THEY_ARE, ImageMeasures, measure_image
from cellseg.inspection.plots import write_plots
from cellseg.inspection.sources import Split
from cellseg.inspection.tables import (
    count_findings,
    list_findings,
    summarize_splits,
    write_tables,
)

PLOTS_FILE = "plots.png"


@dataclass(frozen=True)
class Inspection:
    """All that was found out about one dataset.

    Attributes:
        splits: as they were read.
        images: measures of every image of every split, in that order.
        duplicates: pairs of images that show the same.
        findings: errors first.
        tiny_px: cells of fewer pixels are called tiny.
        image_input: how the images were read.
    """

    splits: tuple[Split, ...]
    images: tuple[ImageMeasures, ...]
    duplicates: tuple[Duplicate, ...]
    findings: tuple[Finding, ...]
    tiny_px: int
    image_input: ImageInput = AS_THEY_ARE

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == ERROR for finding in self.findings)

    def to_text(self) -> str:
        """The table of numbers and the findings."""
        table = summarize_splits(self.images, [split.name for split in self.splits])
        found = list_findings(self.findings)
        return f"{table}\n\n{found}\n\n{count_findings(self.findings)}"

    def write(self, folder: Path, *, max_pages: int = 3) -> None:
        """Write the tables, the plots and the contact sheets; files of the same name go."""
        write_tables(folder, self.images, self.findings, self.tiny_px)
        write_plots(folder / PLOTS_FILE, self.images, [split.name for split in self.splits])
        write_contact_sheets(
            folder,
            self.images,
            self.findings,
            max_pages=max_pages,
            image_input=self.image_input,
        )


def inspect_splits(
    splits: Sequence[Split], *, tiny_px: int = TINY_PX, image_input: ImageInput = AS_THEY_ARE
) -> Inspection:
    """Read and measure every image of a dataset's splits, once.

    Args:
        splits: of one dataset.
        tiny_px: cells of fewer pixels are called tiny.
        image_input: how training reads images: which channels, page and scene.
    """
    items = [
        (record, split.name, split.classes, split.bad_masks.get(number), image_input)
        for split in splits
        for number, record in enumerate(split.records)
    ]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images = list(pool.map(lambda item: measure_image(*item), items))
    duplicates = find_duplicates([image.fingerprint for image in images])
    findings = find_problems(splits, images, duplicates, tiny_px=tiny_px)
    parts = tuple(splits), tuple(images), tuple(duplicates), tuple(findings)
    return Inspection(*parts, tiny_px, image_input)
