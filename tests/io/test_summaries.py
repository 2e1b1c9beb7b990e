"""Rows of summary.csv and plates.csv, against counts over bitmaps."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pytest
from cell_scenes import random_bitmaps
from cells_in_pieces import in_pieces
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import DatasetError
from cellseg.images.plate_positions import PlatePosition
from cellseg.io.summaries import summarize_image, summarize_wells
from cellseg.io.tables import read_rows, write_rows


def test_counts_and_areas() -> None:
    scene = builders.overlapping()  # two squares of 64 pixels that share 16, of 20 x 30
    border = builders.rectangle((20, 30), 28, 0, 30, 2)
    cells = CellInstances.from_bitmaps([*scene.masks, border], classes=[0, 2, 0])
    record = ImageRecord("a", cells, place=PlaceInFile(pixel_size_um=(0.5, 2.0)))
    assert summarize_image(record, ("a", "b", "c")) == {
        "height_px": 20,
        "width_px": 30,
        "pixel_height_um": 0.5,
        "pixel_width_um": 2.0,
        "num_cells": 3,
        "num_cells_a": 2,
        "num_cells_b": 0,
        "num_cells_c": 1,
        "num_touching_border": 1,
        "cells_per_megapixel": pytest.approx(5000),
        "cells_per_mm2": pytest.approx(5000),
        "confluence": (64 + 64 - 16 + 4) / 600,
        "mean_area_px": 44.0,
        "median_area_px": 64.0,
        "mean_area_um2": 44.0,
        "median_area_um2": 64.0,
    }


def test_what_is_not_known_is_none_in_the_same_columns() -> None:
    known = ImageRecord(
        "a", CellInstances.from_label_image([[1]]), place=PlaceInFile(pixel_size_um=(1, 1))
    )
    unknown = ImageRecord("b", CellInstances.empty((10, 10)))
    row = summarize_image(unknown)
    assert list(row) == list(summarize_image(known))
    assert {name for name, value in row.items() if value is None} == {
        *("pixel_height_um", "pixel_width_um", "cells_per_mm2"),
        *("mean_area_px", "median_area_px", "mean_area_um2", "median_area_um2"),
    }
    assert (row["num_cells"], row["confluence"], row["cells_per_megapixel"]) == (0, 0, 0)


@pytest.mark.parametrize("sizes", [[30], [1] * 30, [0, 7, 23, 0], [29, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_pieces_give_what_the_whole_gives(sizes: list[int], seed: int) -> None:
    masks = random_bitmaps(np.random.default_rng(seed), 60, (40, 50))
    tall = builders.rectangle((40, 50), 20, 0, 23, 40)
    masks = np.array([tall, *masks[masks.any(axis=(1, 2))][:29]])
    cells = CellInstances.from_bitmaps(masks).sort_by_position()
    row = summarize_image(in_pieces(cells, sizes))
    assert row["num_cells"] == 30
    assert row["confluence"] == masks.any(axis=0).mean()
    assert row["mean_area_px"] == pytest.approx(masks.sum() / 30)


def test_crowds_and_empty_masks_do_not_count() -> None:
    masks = [*builders.touching().masks, np.zeros((20, 30), bool)]
    cells = CellInstances.from_bitmaps(masks).replace(is_crowd=[False, True, False])
    row = summarize_image(ImageRecord("a", cells))
    assert (row["num_cells"], row["confluence"]) == (1, 30 / 600)
    with pytest.raises(DatasetError, match="class 1"):
        summarize_image(ImageRecord("a", cells.replace(classes=[1, 0, 0])))


def image_row(well: str | None, site: int, cells: int, area: float | None, **more) -> dict:
    """A row of summary.csv for an image of 10 x 20 pixels of 2 um."""
    return {
        "image": f"{well}_{site}",
        **PlatePosition("P", well, site, **more).columns(),
        "height_px": 10,
        "width_px": 20,
        "pixel_height_um": 2,
        "pixel_width_um": 2,
        "num_cells": cells,
        "num_touching_border": 1,
        "confluence": 0.1 * site,
        "mean_area_px": area,
        "mean_area_um2": None if area is None else 4 * area,
    }


def test_wells_are_put_together_of_their_sites() -> None:
    rows = [
        image_row("B02", 1, 3, 10.0),
        image_row("A10", 1, 2, 7.0),
        image_row("A02", 1, 0, None),
        image_row("B02", 2, 1, 30.0),
        image_row(None, 9, 9, 9.0),
        {"image": "failed", "well": "A01", "num_cells": None},
    ]
    wells = summarize_wells(rows)
    assert [well["well"] for well in wells] == ["A02", "A10", "B02"]
    assert wells[0]["mean_area_px"] is None
    assert wells[2] == {
        "plate": "P",
        "row": 2,
        "column": 2,
        "well": "B02",
        "channel": None,
        "t": None,
        "z": None,
        "num_images": 2,
        "num_cells": 4,
        "num_touching_border": 2,
        "cells_per_megapixel": 4 / 400 * 1e6,
        "cells_per_mm2": pytest.approx(4 / 1600 * 1e6),
        "confluence": pytest.approx(0.15),
        "mean_area_px": 15.0,
        "mean_area_um2": 60.0,
    }


def test_images_of_different_sizes_and_unknown_pixels() -> None:
    large = image_row("A01", 2, 1, 5.0) | {"height_px": 30, "pixel_width_um": None}
    (well,) = summarize_wells([image_row("A01", 1, 1, 5.0), large])
    assert well["confluence"] == pytest.approx((0.1 * 200 + 0.2 * 600) / 800)
    assert well["cells_per_mm2"] is None
    assert well["cells_per_megapixel"] == 2500


def test_times_and_plates_are_kept_apart() -> None:
    rows = [image_row("A01", 1, 1, 1.0, t=t) for t in (10, 9, "00d", 9)]
    assert [(well["t"], well["num_images"]) for well in summarize_wells(rows)] == [
        (9, 2),
        (10, 1),
        ("00d", 1),
    ]
    other = image_row("A01", 1, 1, 1.0) | {"plate": "O"}
    assert [well["plate"] for well in summarize_wells([*rows[:1], other])] == ["O", "P"]


def test_from_file_to_file(tmp_path: Path) -> None:
    rows = [
        image_row("A01", 1, 3, 10.0),
        image_row("A01", 2, 0, None),
        image_row("A02", 1, 0, None),
    ]
    write_rows(tmp_path / "summary.csv", rows)
    back = read_rows(tmp_path / "summary.csv")
    assert "z" not in back[0]
    assert summarize_wells(back) == summarize_wells(rows)
    assert write_rows(tmp_path / "plates.csv", summarize_wells(back)) == 2
    assert read_rows(tmp_path / "plates.csv")[0]["mean_area_px"] == 10
    assert summarize_wells([]) == []
