from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cell_scenes import random_bitmaps, shift_some
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.errors import DatasetError, LabelError
from cellseg.evaluation import CellIoUEvaluator
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, Instances

HW = (20, 30)
NAME = "cells_for_the_iou_evaluator"


def square(row: int, col: int, size: int = 6) -> np.ndarray:
    bitmap = np.zeros(HW, dtype=bool)
    bitmap[row : row + size, col : col + size] = True
    return bitmap


def annotation(bitmap: np.ndarray, category_id: int = 0, **others) -> dict:
    rle = bitmap_to_rle(bitmap)
    return {"segmentation": rle, "category_id": category_id, "bbox": [0, 0, 1, 1]} | others


def image(image_id, *annotations: dict) -> dict:
    found = {"file_name": f"{image_id}.png", "height": HW[0], "width": HW[1]}
    return found | {"image_id": image_id, "annotations": list(annotations)}


def output(*bitmaps: np.ndarray, scores=None, classes=None, image_hw=HW) -> dict:
    instances = Instances(image_hw)
    count = len(bitmaps)
    instances.pred_boxes = Boxes(torch.zeros(count, 4))
    instances.scores = torch.tensor(scores if scores is not None else [0.9] * count)
    instances.pred_classes = torch.tensor(classes or [0] * count, dtype=torch.int64)
    masks = np.array(bitmaps, dtype=bool).reshape(count, *image_hw)
    instances.pred_masks = torch.from_numpy(masks)
    return {"instances": instances}


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    def add(*images: dict, classes: tuple[str, ...] = ("cell",)) -> str:
        DatasetCatalog.register(NAME, lambda: list(images))
        MetadataCatalog.get(NAME).set(thing_classes=list(classes))
        return NAME

    yield add
    DatasetCatalog.pop(NAME)
    MetadataCatalog.pop(NAME)


def test_two_images_by_hand(register):
    name = register(
        image("a", annotation(square(0, 0)), annotation(square(10, 10))),
        image("b", annotation(square(5, 20))),
    )
    evaluator = CellIoUEvaluator(name)
    # 36 px against 30 px of them: IoU 5/6. The third detection is no cell, by its score.
    inputs = [{"image_id": "a"}, {"image_id": "b"}]
    shorter = square(0, 0)
    shorter[5] = False
    evaluator.process(
        inputs,
        [
            output(shorter, square(10, 20), square(10, 10), scores=[0.9, 0.5, 0.49]),
            output(square(5, 20)),
        ],
    )
    figures = evaluator.evaluate()["cell_iou"]
    assert (figures["tp@0.50"], figures["fp@0.50"], figures["fn@0.50"]) == (2, 1, 1)
    assert figures["ap_dsb@0.80"] == pytest.approx((1 / 3 + 1) / 2)
    assert figures["ap_dsb@0.85"] == pytest.approx((0 + 1) / 2)
    assert figures["mean_iou@0.50"] == pytest.approx((5 / 6 + 1) / 2)
    assert figures["ap_dsb@0.80/cell"] == figures["ap_dsb@0.80"]
    assert all(isinstance(value, float) for value in figures.values())


def test_all_mask_encodings_mean_the_same(register):
    rectangle = [3.0, 2.0, 9.0, 2.0, 9.0, 8.0, 3.0, 8.0]
    bitmap = square(2, 3)
    column_runs = [3 * 20 + 2, *[6, 14] * 5, 6, (30 - 8 - 1) * 20 + 12]
    compressed = bitmap_to_rle(bitmap)
    encodings = [
        [rectangle],
        compressed,
        {"size": list(HW), "counts": compressed["counts"].encode()},
        {"size": list(HW), "counts": column_runs},
        bitmap.astype(np.uint8),
    ]
    cell = annotation(bitmap)
    name = register(*(image(k, cell | {"segmentation": s}) for k, s in enumerate(encodings)))
    evaluator = CellIoUEvaluator(name, thresholds=[1.0])
    for k in range(len(encodings)):
        evaluator.process([{"image_id": k}], [output(bitmap)])
    assert evaluator.evaluate()["cell_iou"]["ap_dsb"] == 1


def test_no_predictions(register):
    evaluator = CellIoUEvaluator(register(image(1, annotation(square(0, 0)))))
    evaluator.process([{"image_id": 1}], [output()])
    figures = evaluator.evaluate()["cell_iou"]
    assert figures["ap_dsb"] == figures["precision@0.50"] == figures["pq@0.50"] == 0
    assert figures["fn@0.50"] == 1


def test_no_ground_truth(register):
    evaluator = CellIoUEvaluator(register(image(1), image(2)))
    evaluator.process([{"image_id": 1}, {"image_id": 2}], [output(), output(square(0, 0))])
    figures = evaluator.evaluate()["cell_iou"]
    assert figures["ap_dsb"] == pytest.approx((1 + 0) / 2)
    assert figures["recall@0.50"] == figures["f1@0.50"] == 0
    assert figures["fp@0.50"] == 1


def test_neither_predictions_nor_ground_truth(register):
    evaluator = CellIoUEvaluator(register(image(1)))
    evaluator.process([{"image_id": 1}], [output()])
    figures = evaluator.evaluate()["cell_iou"]
    assert figures["ap_dsb"] == figures["f1@0.95"] == figures["mean_iou@0.50"] == 1


def test_instances_without_masks_are_fine_when_empty_only(register):
    evaluator = CellIoUEvaluator(register(image(1)))
    empty = output()["instances"]
    empty.remove("pred_masks")
    evaluator.process([{"image_id": 1}], [{"instances": empty}])
    assert evaluator.evaluate()["cell_iou"]["ap_dsb"] == 1
    boxes_only = output(square(0, 0))["instances"]
    boxes_only.remove("pred_masks")
    evaluator.reset()
    with pytest.raises(LabelError, match=r"image 1: .*no masks"):
        evaluator.process([{"image_id": 1}], [{"instances": boxes_only}])


def test_per_class_figures_leave_out_images_without_the_class(register):
    name = register(
        image(1, annotation(square(0, 0), 0)),
        image(2, annotation(square(0, 0), 1), annotation(square(10, 10), 1)),
        image(3, annotation(square(0, 0), 0)),
        classes=("round", "long", "rare"),
    )
    evaluator = CellIoUEvaluator(name)
    evaluator.process(
        [{"image_id": k} for k in (1, 2, 3)],
        [
            output(square(0, 0)),
            output(square(0, 0), classes=[1]),
            output(square(0, 0), classes=[1]),
        ],
    )
    figures = evaluator.evaluate()["cell_iou"]
    # Over all: image 1 is right, 2 finds one of two, 3 calls its cell by the wrong class.
    assert figures["ap_dsb@0.50"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert figures["ap_dsb@0.50/round"] == pytest.approx((1 + 0) / 2)
    assert figures["ap_dsb@0.50/long"] == pytest.approx((1 / 2 + 0) / 2)
    assert figures["ap_dsb@0.50/rare"] == 1
    assert figures["tp@0.50"] == 2
    assert figures["fp@0.50"] == 1
    assert figures["fn@0.50"] == 2
    assert figures["recall@0.50/round"] == pytest.approx(1 / 2)


def test_crowd_annotations_are_ignored_both_ways(register):
    crowd = np.zeros(HW, dtype=bool)
    crowd[:, 20:] = True
    name = register(image(1, annotation(square(0, 0)), annotation(crowd, iscrowd=1)))
    evaluator = CellIoUEvaluator(name)
    evaluator.process([{"image_id": 1}], [output(square(0, 0), square(4, 22), square(10, 10))])
    figures = evaluator.evaluate()["cell_iou"]
    assert (figures["tp@0.50"], figures["fp@0.50"], figures["fn@0.50"]) == (1, 1, 0)


def test_an_image_that_comes_twice_counts_once(register):
    evaluator = CellIoUEvaluator(register(image(1, annotation(square(0, 0)))))
    for _ in range(2):
        evaluator.process([{"image_id": 1}], [output(square(0, 0))])
    assert evaluator.evaluate()["cell_iou"]["tp@0.50"] == 1


def test_reset_forgets(register):
    evaluator = CellIoUEvaluator(register(image(1, annotation(square(0, 0)))))
    evaluator.process([{"image_id": 1}], [output()])
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [output(square(0, 0))])
    assert evaluator.evaluate()["cell_iou"]["f1@0.50"] == 1


def test_images_that_never_come_are_left_out_with_a_warning(register, caplog):
    evaluator = CellIoUEvaluator(register(image(1, annotation(square(0, 0))), image(2)))
    evaluator.process([{"image_id": 1}], [output()])
    with caplog.at_level(logging.WARNING, "cellseg.evaluation"):
        assert evaluator.evaluate()["cell_iou"]["ap_dsb"] == 0
    assert "1 of the 2 images" in caplog.text


def test_without_images_there_are_no_figures(register):
    assert CellIoUEvaluator(register(image(1))).evaluate() == {}


def test_images_without_ids_are_known_by_their_file(register):
    first = image("a", annotation(square(0, 0)))
    del first["image_id"]
    evaluator = CellIoUEvaluator(register(first))
    evaluator.process([{"file_name": "a.png"}], [output(square(0, 0))])
    assert evaluator.evaluate()["cell_iou"]["tp@0.50"] == 1


def test_cells_from_elsewhere_can_be_added(register):
    evaluator = CellIoUEvaluator(register(image(1, annotation(square(0, 0)))))
    evaluator.add_image(1, CellInstances.from_bitmaps(square(0, 0)[None]))
    assert evaluator.evaluate()["cell_iou"]["tp@0.95"] == 1


def test_bad_input_names_the_image(register):
    good, other = annotation(square(0, 0)), annotation(square(0, 0), 1)
    box_only = {"bbox": [0, 0, 1, 1], "category_id": 0}
    too_small = annotation(np.ones((3, 3), bool))
    name = register(
        image("a", good), image("b", box_only), image("c", too_small), image("d", other)
    )
    evaluator = CellIoUEvaluator(name)
    for image_id, given, message in [
        ("nowhere", output(), "no image with id 'nowhere'"),
        ("a", output(np.ones((9, 9), bool), image_hw=(9, 9)), r"'a'.*\(20, 30\).*\(9, 9\)"),
        ("a", output(square(0, 0), classes=[3]), "'a'.*class 3.*1 classes"),
        ("b", output(), "'b'.*needs a segmentation"),
        ("c", output(), r"(?s)'c'.*size \[3, 3\]"),
        ("d", output(), "'d'.*class 1"),
    ]:
        with pytest.raises(DatasetError, match=message):
            evaluator.process([{"image_id": image_id}], [given])


def test_repeated_ids_are_an_error(register):
    with pytest.raises(DatasetError, match=r"twice.*\n.*'a': a\.png"):
        CellIoUEvaluator(register(image("a"), image("a")))


def test_class_names_are_required(register):
    with pytest.raises(DatasetError, match="thing_classes"):
        CellIoUEvaluator(register(image("a"), classes=()))


def test_per_image_table(register, tmp_path):
    name = register(image("b", annotation(square(0, 0))), image("a"))
    evaluator = CellIoUEvaluator(name, output_dir=tmp_path / "new")
    evaluator.process([{"image_id": "a"}, {"image_id": "b"}], [output(square(0, 0)), output()])
    evaluator.evaluate()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cell_iou_per_image.csv"]
    with (tmp_path / "new" / "cell_iou_per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = [(row["image_id"], row["true_cells"], row["predicted_cells"]) for row in rows]
    assert first == [("b", "1", "0"), ("a", "0", "1")]
    assert float(rows[0]["ap_dsb@0.50"]) == 0
    assert float(rows[1]["fp@0.95"]) == 1


def test_table_in_the_log(register, caplog):
    name = register(image(1, annotation(square(0, 0), 1)), classes=("round", "long"))
    evaluator = CellIoUEvaluator(name)
    evaluator.process([{"image_id": 1}], [output(square(0, 0), classes=[1])])
    with caplog.at_level(logging.INFO, "cellseg.evaluation"):
        evaluator.evaluate()
    lines = [[cell.strip() for cell in line.split("|")] for line in caplog.text.splitlines()]
    rows = {(cells[1], cells[2]): cells[3:-1] for cells in lines if len(cells) > 3}
    ones = ["1.0000"] * 6
    assert rows["class", "IoU >="][:3] == ["ap_dsb", "precision", "recall"]
    assert rows["all", "0.50"] == rows["long", "0.95"] == [*ones, "1", "0", "0"]
    assert rows["round", "0.50"] == [*ones, "0", "0", "0"]
    assert rows["all", "mean"][0] == "1.0000"


def test_beside_another_evaluator(register):
    evaluator = CellIoUEvaluator(register(image(1)))
    both = DatasetEvaluators([evaluator])
    both.reset()
    both.process([{"image_id": 1}], [output()])
    assert list(both.evaluate()) == ["cell_iou"]


@pytest.mark.parametrize("seed", range(10))
def test_overlapping_detections_against_a_greedy_upper_bound(register, seed):
    # Brute force over bitmaps: TP cannot exceed the cells with a partner, on either side.
    rng = np.random.default_rng(seed)
    true = random_bitmaps(rng, 8, HW)
    true = true[true.any(axis=(1, 2))]
    pred = np.concatenate([shift_some(rng, true), shift_some(rng, true)])
    evaluator = CellIoUEvaluator(register(image(1, *map(annotation, true))))
    evaluator.process([{"image_id": 1}], [output(*pred)])
    figures = evaluator.evaluate()["cell_iou"]
    inter = (true[:, None] & pred[None]).sum(axis=(2, 3))
    union = (true[:, None] | pred[None]).sum(axis=(2, 3))
    for threshold in (0.5, 0.75):
        candidates = inter >= threshold * np.maximum(union, 1)
        tp = figures[f"tp@{threshold:.2f}"]
        assert tp <= min(candidates.any(axis=1).sum(), candidates.any(axis=0).sum())
        assert tp + figures[f"fn@{threshold:.2f}"] == len(true)
        assert tp + figures[f"fp@{threshold:.2f}"] == len(pred)
    assert all(math.isfinite(value) for value in figures.values())


def _evaluate_as_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    from detectron2.utils import comm

    getattr(comm, "create_local_process_group", lambda size: None)(2)
    images = [image(k, annotation(square(0, 0)), annotation(square(10, 10))) for k in range(3)]
    DatasetCatalog.register(NAME, lambda: images)
    MetadataCatalog.get(NAME).set(thing_classes=["cell"])
    evaluator = CellIoUEvaluator(NAME, output_dir=Path(folder) / "out")
    evaluator.reset()
    # Image 1 comes to both ranks, as padding samplers do it.
    for image_id in ([0, 1], [1, 2])[rank]:
        found = [square(0, 0), square(10, 10)][: 2 - (image_id == 2)]
        evaluator.process([{"image_id": image_id}], [output(*found)])
    results = evaluator.evaluate()
    torch.save(results, f"{folder}/results_{rank}.pth")
    torch.distributed.destroy_process_group()


def test_two_processes_gather_and_count_an_image_once(tmp_path):
    torch.multiprocessing.spawn(_evaluate_as_rank, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"results_{rank}.pth", weights_only=False) for rank in (0, 1)]
    assert results[1] == {}
    figures = results[0]["cell_iou"]
    assert (figures["tp@0.50"], figures["fp@0.50"], figures["fn@0.50"]) == (5, 0, 1)
    assert figures["ap_dsb"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert len((tmp_path / "out" / "cell_iou_per_image.csv").read_text().splitlines()) == 4


def test_chosen_metrics_over_all_cells_and_per_class(register, caplog) -> None:
    """Class 0: found; a low score on the same cell of class 1, which only COCO's ranking sees."""
    caplog.set_level(logging.INFO)
    first, second = square(2, 2), square(10, 20)
    name = register(
        image("a", annotation(first, 0), annotation(second, 1)), classes=("round", "long")
    )
    names = ("aji", "f1@0.50", "ap_coco_mask", "errors_missed")
    evaluator = CellIoUEvaluator(name, metrics=names)
    inputs = [{"image_id": "a"}]
    evaluator.process(inputs, [output(first, second, scores=[0.9, 0.2], classes=[0, 1])])
    figures = evaluator.evaluate()["cell_iou"]
    assert figures["aji"] == pytest.approx(0.5)
    assert figures["f1@0.50"] == pytest.approx(2 / 3)
    assert (figures["aji/round"], figures["aji/long"]) == (1, 0)
    assert (figures["errors_missed"], figures["errors_missed/long"]) == (1, 1)
    assert figures["ap_coco_mask"] == pytest.approx(1)
    assert figures["ap_coco_mask/long"] == pytest.approx(1)
    assert figures["ap_dsb@0.50"] == pytest.approx(0.5)
    assert "| metric" in caplog.text


def test_unknown_metric_fails_before_the_first_image(register) -> None:
    with pytest.raises(LabelError, match="aji"):
        CellIoUEvaluator(register(image("a")), metrics=("ajj",))
