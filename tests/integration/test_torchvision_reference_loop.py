"""torchvision's references/detection, as it is, on `cellseg.maskrcnn_resnet50_fpn`.

The folder is not part of torchvision's package, so that its path has to be given:

    git clone https://github.com/pytorch/vision
    CELLSEG_TORCHVISION_REFERENCES=vision/references/detection pytest tests/integration -rs
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cellseg
import cv2
import pytest
import torch
from pages import Page
from torch.utils.data import DataLoader
from torchvision_data import SyntheticCells

VARIABLE = "CELLSEG_TORCHVISION_REFERENCES"
FAST = {"box_batch_size_per_image": 64, "rpn_post_nms_top_n_train": 200}
SMALL = {**FAST, "rpn_post_nms_top_n_test": 200, "min_size": 64, "max_size": 128}


@pytest.fixture(scope="module")
def references() -> Path:
    folder = Path(os.environ.get(VARIABLE, "")).absolute()
    if VARIABLE not in os.environ:
        pytest.skip(f"set {VARIABLE} to the folder references/detection of pytorch/vision")
    if not (folder / "engine.py").is_file():
        pytest.fail(f"{VARIABLE} is {folder}, which holds no engine.py")
    return folder


@pytest.fixture
def engine(references: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Its module `engine`; the modules beside it have names as common, and are forgotten after."""
    monkeypatch.syspath_prepend(references)
    before = set(sys.modules)
    yield importlib.import_module("engine")
    for name in set(sys.modules) - before:
        if str(references) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_epochs_of_its_engine(engine: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    train, test = SyntheticCells(16), SyntheticCells(2, first_seed=100)
    loaders = [
        DataLoader(data, size, collate_fn=engine.utils.collate_fn)
        for data, size in ((train, 2), (test, 1))
    ]
    model = cellseg.maskrcnn_resnet50_fpn(num_classes=2, **SMALL)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.02, momentum=0.9, weight_decay=0.0005)
    device = torch.device("cpu")
    means = []
    for epoch in range(2):
        log = engine.train_one_epoch(model, optimizer, loaders[0], device, epoch, print_freq=4)
        means.append(log.meters["loss"].global_avg)
        evaluator = engine.evaluate(model, loaders[1], device)
    assert means[1] < means[0]
    assert list(evaluator.coco_eval) == ["bbox", "segm"]
    printed = capsys.readouterr().out
    assert printed.count("IoU metric: segm") == 2
    assert {"loss_classifier", "loss_mask", "loss_rpn_box_reg"} <= set(log.meters)


def test_its_script_trains_and_resumes(references: Path, tmp_path: Path) -> None:
    """By the launcher and the command of docs/torchvision.md."""
    page = Page("docs/torchvision.md")
    page.write_files(tmp_path)
    for split, dataset in (("train", SyntheticCells(6)), ("val", SyntheticCells(2, first_seed=9))):
        write_coco(tmp_path / "my_coco", split, dataset)
    _, command = page.commands
    command = command.replace("vision/references/detection", str(references))

    printed = page.run(command, tmp_path)
    assert "Epoch: [0]  [2/3]" in printed
    assert printed.count("IoU metric: segm") == 1

    checkpoint = tmp_path / "output/reference/checkpoint.pth"
    again = page.run(command, tmp_path, "--resume", str(checkpoint), "--test-only")
    assert "Epoch" not in again
    tables = [
        [line for line in text.splitlines() if "maxDets" in line] for text in (printed, again)
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 24


def write_coco(root: Path, split: str, dataset: SyntheticCells) -> None:
    """Images and outlines in the folders of COCO 2017."""
    images, annotations = [], []
    (root / f"{split}2017").mkdir(parents=True)
    for index, (image, target) in enumerate(dataset, 1):
        name = f"{index}.png"
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        cv2.imwrite(str(root / f"{split}2017" / name), pixels)
        height, width = image.shape[1:]
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        for mask, area in zip(target["masks"].numpy(), target["area"].tolist()):
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            polygons = [outline.ravel().tolist() for outline in outlines]
            entry = {"id": len(annotations) + 1, "image_id": index, "category_id": 1, "iscrowd": 0}
            entry |= {"bbox": cv2.boundingRect(mask), "area": area, "segmentation": polygons}
            annotations.append(entry)
    tree = {"info": {}, "images": images, "annotations": annotations}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}2017.json").write_text(
        json.dumps({**tree, "categories": [{"id": 1, "name": "cell"}]}), "utf-8"
    )
