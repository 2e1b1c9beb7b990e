"""`score` against the packages that the field uses, where they are installed."""

from __future__ import annotations

import numpy as np
import pytest
import scoring_scenes as scenes
from cellseg.evaluation import iou_matrix, score

THRESHOLDS = [0.5, 0.611, 0.753, 0.907]  # the peers' IoU is float32: no ties but at 0.5
FLOAT32 = 1e-6
COUNTED = ("precision", "recall", "f1", "accuracy")
# What the peers do with two empty images differs (StarDist 0, Cellpose NaN, here 1).
SEEDS = [k for k in range(scenes.SCENES) if any(side.any() for side in scenes.label_scene(k))]


def label_images() -> tuple[list[np.ndarray], list[np.ndarray]]:
    true, pred = zip(*(scenes.label_scene(seed) for seed in SEEDS))
    return list(true), list(pred)


def sequential(labels: np.ndarray) -> np.ndarray:
    """Labels 1 to N, which the peers expect."""
    return (
        np.unique(np.append(0, labels), return_inverse=True)[1]
        .reshape(-1)[1:]
        .reshape(labels.shape)
    )


@pytest.mark.parametrize("by_image", [False, True])
def test_stardist(by_image: bool) -> None:
    peer = pytest.importorskip("stardist.matching")
    true, pred = label_images()
    names = {name: name for name in (*COUNTED, "mean_true_score", "mean_matched_score")} | {
        "pq": "panoptic_quality"
    }
    for threshold in THRESHOLDS:
        theirs = peer.matching_dataset(
            true, pred, thresh=threshold, by_image=by_image, show_progress=False
        )
        tail = f"{'_by_image' if by_image else ''}@{threshold}"
        mine = score(true, pred, [name + tail for name in names])
        for name, theirs_name in names.items():
            error = 1e-9 if name in COUNTED else FLOAT32
            assert mine[name + tail] == pytest.approx(getattr(theirs, theirs_name), abs=error), name
        if not by_image:
            counts = score(true, pred, [f"{name}@{threshold}" for name in ("tp", "fp", "fn")])
            assert list(counts.values()) == [theirs.tp, theirs.fp, theirs.fn]


def test_stardist_scores_each_image_alike() -> None:
    peer = pytest.importorskip("stardist.matching")
    for true, pred in zip(*label_images()):
        theirs = peer.matching(true, pred, thresh=0.5)
        mine = score([true], [pred], ["pq@0.50", "mean_matched_score@0.50"])
        expected = [theirs.panoptic_quality, theirs.mean_matched_score]
        assert list(mine.values()) == pytest.approx(expected, abs=FLOAT32)


def test_cellpose() -> None:
    peer = pytest.importorskip("cellpose.metrics")
    true, pred = label_images()
    numbered = [[sequential(labels) for labels in side] for side in (true, pred)]
    precision, tp, fp, fn = peer.average_precision(*numbered, threshold=THRESHOLDS)
    for column, threshold in enumerate(THRESHOLDS):
        names = [f"{name}@{threshold}" for name in ("ap_cellpose", "tp", "fp", "fn")]
        expected = [precision[:, column].mean(dtype=np.float64)]
        expected += [counts[:, column].sum() for counts in (tp, fp, fn)]
        assert list(score(true, pred, names).values()) == pytest.approx(expected, abs=FLOAT32)


def test_cellpose_aggregated_jaccard() -> None:
    """Theirs pairs optimally and leaves unmatched cells out of the union; compare perfect only."""
    peer = pytest.importorskip("cellpose.metrics")
    true, _ = label_images()
    numbered = [sequential(labels) for labels in true if labels.any()]
    assert peer.aggregated_jaccard_index(numbered, numbered) == pytest.approx(1)
    assert score(numbered, numbered, ["aji"]) == {"aji": 1}


def test_scikit_image() -> None:
    peer = pytest.importorskip("skimage.metrics")
    for true, pred in zip(*label_images()):
        table = peer.contingency_table(sequential(true), sequential(pred)).toarray()
        shared = table[1:, 1:]
        union = table.sum(axis=1)[1:, None] + table.sum(axis=0)[1:] - shared
        np.testing.assert_allclose(iou_matrix(true, pred), shared / union, rtol=0, atol=1e-9)
