"""What to annotate next: files to places, ranks, spread, and what fails on the way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.windows import Window
from cellseg.errors import InputTypeError, InputValueError
from cellseg.inference.assessing import Assessor, Failure
from cellseg.inference.features import kept_features
from cellseg.inference.model import CellModel, plane_of_array
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.suggestions import (
    COLUMNS,
    describe_doubts,
    mean_ranks,
    spread_choice,
    suggest_images,
)
from cellseg.inference.uncertainty import NOT_KNOWN, Doubts
from detectron2.config import CfgNode
from scipy import ndimage

SURE, FAINT, LEFT_ONLY = 250, 130, 77
"""Grey values: a sure cell, one near the threshold, one that is found in the left half only."""


def find_squares(pixels: np.ndarray, limits: Any, scale: float, **how: Any) -> CellInstances:
    """What stands in for the network: connected pixels; the score is their brightness."""
    labels, count = ndimage.label(pixels > 0)
    values = ndimage.maximum(pixels, labels, range(1, count + 1)) if count else []
    middles = ndimage.center_of_mass(pixels, labels, range(1, count + 1)) if count else []
    kept = [
        value != LEFT_ONLY or middle[1] < pixels.shape[1] / 2
        for value, middle in zip(values, middles)
    ]
    scores = [0.9 if value == LEFT_ONLY else value / 255 for value in values]
    return CellInstances.from_label_image(labels, scores=scores)[np.array(kept, bool)]


@pytest.fixture
def model(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> CellModel:
    """A model whose network is `find_squares`, in the image's own pixels."""
    cfg.merge_from_list(
        [
            *("INPUT.MIN_SIZE_TEST", 0, "CELLSEG.TEST.TILE_OVERLAP", 16),
            *("CELLSEG.TEST.SCORE_THRESHOLD", 0.5, "CELLSEG.TEST.KNOWN_DIAMETERS", [5, 8, 12]),
        ]
    )
    predictor = CellPredictor(cfg)
    monkeypatch.setattr(predictor, "detect_in_window", find_squares)
    return CellModel(predictor)


def draw(value: int, count: int = 3, side: int = 8, hw: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Squares in a row, the first of them in the left half."""
    image = np.zeros(hw, np.uint8)
    for number in range(count):
        image[4 : 4 + side, 4 + 18 * number : 4 + 18 * number + side] = value
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, each with something else, and one that is none."""
    contents = {
        "sure": draw(SURE),
        "faint": draw(FAINT),
        "unstable": draw(LEFT_ONLY),
        "large": draw(SURE, side=14),
    }
    for name, image in contents.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    (tmp_path / "broken.tif").write_bytes(b"no picture")
    return tmp_path


def test_each_sign_is_found_and_one_bad_file_is_named(model: CellModel, folder: Path) -> None:
    failures: list[Failure] = []
    found = suggest_images(model, [folder, folder / "gone.tif"], on_failure=failures.append)
    by_id = {one.image_id: one for one in found}
    assert sorted(by_id) == ["faint", "large", "sure", "unstable"]
    assert [one.rank for one in found] == [1, 2, 3, 4]
    assert found[-1].image_id == "sure"
    assert by_id["faint"].doubts.num_uncertain == 3
    assert by_id["faint"].doubts.uncertainty > 0.9
    assert by_id["large"].doubts.num_odd == 3
    assert by_id["large"].doubts.odd_sizes > 0.4
    # Of three squares the first one only is in the left half; mirrored, the last one is the first.
    assert by_id["unstable"].doubts.disagreement == 1
    assert by_id["sure"].doubts.disagreement == 0
    assert {Path(one.path).name for one in failures} == {"broken.tif", "gone.tif"}
    assert all(one.path in one.reason for one in failures)


def test_it_tells_how_far_it_is_and_can_be_ended(model: CellModel, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    names = ["sure", "broken", "faint"]
    files = [folder / f"{name}.tif" for name in names]
    suggest_images(model, files, progress=lambda *numbers: told.append(numbers))
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)
    assert told == sorted(told)
    assert len(told) == 4  # once for each that was looked at

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyError("stopped")

    (folder / "broken.tif").unlink()
    with pytest.raises(KeyError, match="stopped"):
        suggest_images(model, [folder], progress=stop)


def test_the_suggestion_says_where_it_is_and_why(model: CellModel, folder: Path) -> None:
    (one,) = suggest_images(model, [folder / "faint.tif"])
    assert (one.path, one.plane, one.image_hw) == (folder / "faint.tif", "", (40, 60))
    assert (one.window, one.is_tile) == (Window(0, 0, 40, 60), False)
    assert (one.doubt, one.novelty, one.score) == (0.5, 1, 0.5)  # nothing to rank it among
    assert one.reason == "3 of 3 detections near the score threshold; views agree on 100 %"
    row = one.to_row()
    assert tuple(row) == COLUMNS
    assert (row["file"], row["top"], row["width"]) == (str(folder / "faint.tif"), 0, 60)


def test_an_image_without_cells_is_neither_first_nor_last(model: CellModel, folder: Path) -> None:
    tifffile.imwrite(folder / "empty.tif", np.zeros((40, 60), np.uint8))
    names = ["faint", "sure", "empty"]
    found = suggest_images(model, [folder / f"{name}.tif" for name in names])
    assert [one.image_id for one in found] == ["faint", "empty", "sure"]
    assert found[1].reason == "no cell found"
    assert found[1].to_row()["uncertainty"] is None


def test_planes_of_a_stack_are_images(model: CellModel, tmp_path: Path) -> None:
    stack = np.stack([draw(SURE), draw(FAINT), draw(SURE)])
    tifffile.imwrite(tmp_path / "movie.tif", stack, metadata={"axes": "TYX"}, imagej=True)
    found = suggest_images(model, [tmp_path / "movie.tif"])
    assert (found[0].image_id, found[0].plane) == ("movie_t1", "t1")
    assert found[0].place.position == (("T", 1),)
    assert {one.image_id for one in found} == {"movie_t0", "movie_t1", "movie_t2"}


def test_a_large_image_is_ranked_in_tiles(model: CellModel, tmp_path: Path) -> None:
    image = np.zeros((100, 800), np.uint8)
    image[40:48, 20:780:40] = SURE
    image[40:48, 500] = FAINT  # narrow ones, right of the middle
    image[40:48, 100] = 0
    tifffile.imwrite(tmp_path / "slide.tif", image)
    found = suggest_images(model, [tmp_path / "slide.tif"], tile_px=256, spread=0)
    assert len(found) > 1
    assert all(one.is_tile and one.image_hw == (100, 800) for one in found)
    columns = sorted((one.window.left, one.window.right) for one in found)
    assert columns[0][0] == 0
    assert columns[-1][1] == 800
    assert [left for left, _ in columns[1:]] == [right for _, right in columns[:-1]]
    assert found[0].window.left <= 500 < found[0].window.right
    _, count = ndimage.label(image)
    assert sum(one.doubts.num_detections for one in found) == count


def test_one_view_says_nothing_of_disagreement(model: CellModel, folder: Path) -> None:
    found = suggest_images(model, [folder / "sure.tif", folder / "unstable.tif"], num_views=1)
    assert all(math.isnan(one.doubts.disagreement) for one in found)
    assert "views" not in found[0].reason
    (loss,) = Assessor(model, 1024, 1).describe_losses()
    assert "disagreement" in loss
    model.predictor.cfg.CELLSEG.TEST.KNOWN_DIAMETERS = []
    (loss,) = Assessor(model, 1024, 2).describe_losses()
    assert "KNOWN_DIAMETERS" in loss


def test_wrong_arguments_are_told(model: CellModel, folder: Path) -> None:
    with pytest.raises(InputTypeError, match="model"):
        suggest_images("nuclei", [folder])  # type: ignore[arg-type]
    with pytest.raises(InputValueError, match="num_views"):
        suggest_images(model, [folder], num_views=9)
    with pytest.raises(InputValueError, match="spread"):
        suggest_images(model, [folder], spread=1.5)


def doubts(uncertainty: float, disagreement: float, odd_sizes: float = NOT_KNOWN) -> Doubts:
    return Doubts(4, 5, 1, 0, uncertainty, disagreement, odd_sizes)


def test_mean_ranks_by_hand() -> None:
    # Uncertainty ranks 1, 2, 3 of 3: 1/6, 3/6, 5/6; disagreement is tied, and unknown of the last.
    given = [doubts(0.1, 0.2), doubts(0.5, 0.2), doubts(0.7, NOT_KNOWN)]
    expected = [(1 / 6 + 0.5) / 2, 0.5, (5 / 6 + 0.5) / 2]
    assert mean_ranks(given) == pytest.approx(expected)
    assert mean_ranks([doubts(NOT_KNOWN, NOT_KNOWN)]).tolist() == [0.5]
    assert mean_ranks([]).tolist() == []


def test_frames_alike_do_not_fill_the_top() -> None:
    rng = np.random.default_rng(0)
    frames = np.tile([1.0, 0, 0], (10, 1)) + rng.normal(0, 1e-3, (10, 3))
    others = np.array([[0, 1.0, 0], [0, 0, 1.0], [0.6, 0.8, 0]])
    features = np.concatenate([frames, others]).astype(np.float32)
    doubt = np.array([*np.linspace(0.9, 1, 10), 0.4, 0.3, 0.2])
    order, novelty = spread_choice(doubt, features)
    assert order[0] == 9
    assert set(order[1:4].tolist()) == {10, 11, 12}
    assert sorted(order.tolist()) == list(range(13))
    assert (np.diff(doubt[order] * novelty) <= 0).all()
    alone, _ = spread_choice(doubt, features, spread=0)
    assert alone.tolist() == [*range(9, -1, -1), 10, 11, 12]


@pytest.mark.parametrize("features", [np.zeros((3, 0)), np.ones((3, 4))])
def test_without_differences_doubt_decides(features: np.ndarray) -> None:
    order, novelty = spread_choice(np.array([0.2, 0.9, 0.2]), features.astype(np.float32))
    assert (order.tolist(), novelty.tolist()) == ([1, 0, 2], [1, 1, 1])


def test_reasons() -> None:
    assert describe_doubts(Doubts(0, 3, 2, 0, 0.8, NOT_KNOWN, NOT_KNOWN)) == (
        "no cell found; 2 of 3 detections near the score threshold"
    )
    assert describe_doubts(Doubts(8, 9, 1, 4, 0.8, 0.25, 0.4), novelty=0.1) == (
        "1 of 9 detections near the score threshold; views agree on 75 %; 4 of 8 cells of odd "
        "size; much like one further up"
    )


def test_with_the_real_network(cfg: CfgNode) -> None:
    """The detections of both thresholds are of one network, and features tell images apart."""
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    everything = CellPredictor(cfg)(image)
    middle = float(np.median(everything.scores))
    predictor = CellPredictor(cfg, score_threshold=middle)
    lower = predictor.reaching_down_to(0.05)
    assert (predictor.thresholds.score, lower.thresholds.score) == (middle, 0.05)
    assert lower.model is predictor.model
    assert predictor.reaching_down_to(0.99).thresholds.score == middle
    high, low = predictor(image), lower(image)
    assert low.equals(everything)
    assert low[low.scores >= np.float32(middle)].equals(high)
    assert len(low) > len(high) > 0
    with kept_features(predictor.model) as kept:
        for pixels in (image, image, draw(SURE, hw=(64, 64))):
            predictor(pixels)
    predictor(image)
    assert len(kept) == 3  # nothing is kept behind the context
    assert np.linalg.norm(kept, axis=1) == pytest.approx(1)
    assert np.array_equal(kept[0], kept[1])
    assert np.linalg.norm(kept[0] - kept[2]) > 0.01
    assessor = Assessor(CellModel(predictor), 64, 8)
    ((_, seen, vectors),) = assessor.assess_plane(plane_of_array(image))
    assert (seen.num_cells, seen.num_detections) == (len(high), len(low))
    assert len(vectors) == 1
    assert 0 <= seen.disagreement <= 1
