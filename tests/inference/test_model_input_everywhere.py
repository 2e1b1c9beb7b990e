"""Training, evaluation and prediction give the model the same pixels of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from cellseg.evaluation.pictures import PictureEvaluator
from cellseg.images import ImageInput
from cellseg.inference.files import predict_files
from cellseg.inference.inputs import InputFile
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.result_folder import ResultFolder
from cellseg.inference.saving import ResultWriter, Saving
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances

HW = (64, 80)
RNG = np.random.default_rng(0)
CYX = (RNG.gamma(2, 1500, (3, *HW)) * np.array([1, 3, 9])[:, None, None]).astype(np.uint16)
INPUT = "CELLSEG.INPUT."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two Z planes of three channels, 16 bits."""
    stack = np.stack([CYX // 2, CYX])
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP", "RFP"]}}
    tifffile.imwrite(tmp_path / "field 1.ome.tif", stack, ome=True, metadata=metadata)
    return tmp_path / "field 1.ome.tif"


@pytest.fixture
def predictor(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> CellPredictor:
    """One that keeps what the model is given in `seen`, for images of `HW`."""
    cfg.INPUT.MIN_SIZE_TRAIN = (HW[0],)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.merge_from_list([INPUT + "CHANNELS", ["RFP", 0], INPUT + "PAGE", 1])
    predictor = CellPredictor(cfg)
    seen: list[torch.Tensor] = []
    inference = predictor.model.inference

    def record(batch: list[dict[str, Any]], **options: Any) -> Any:
        seen.append(batch[0]["image"])
        return inference(batch, **options)

    monkeypatch.setattr(predictor.model, "inference", record)
    monkeypatch.setattr(predictor, "seen", seen, raising=False)
    return predictor


def predict_all(
    predictor: CellPredictor, paths: list[Path], out: Path
) -> list[tuple[str, str, str]]:
    """What failed."""
    files = [InputFile(path, path.stem) for path in paths]
    results = ResultFolder(out, "")
    writer = ResultWriter(results, Saving())
    return predict_files(CellModel(predictor), files, results, writer).failed


@pytest.mark.parametrize(
    "options",
    [
        [],
        [INPUT + "CHANNELS", ["GFP"], INPUT + "NORMALIZE", "minmax"],
        [INPUT + "CHANNELS", [0, 1, 2], INPUT + "NORMALIZE", "range", INPUT + "RANGE", [0, 30000]],
        [INPUT + "PAGE", -1, INPUT + "PROJECTION", "max", "INPUT.FORMAT", "RGB"],
    ],
    ids=["two by name", "one", "three in a fixed range", "projection"],
)
def test_the_same_pixels_in_all_three(
    cfg: CfgNode, path: Path, predictor: CellPredictor, options: list[Any], tmp_path: Path
) -> None:
    cfg.merge_from_list(options)
    chosen = CellPredictor(cfg)
    chosen.model = predictor.model
    expected = ImageInput.from_config(cfg).read_model_input(path).transpose(2, 0, 1)
    assert expected.max() > 100
    chosen.predict_file(path)
    chosen(chosen.read_image(path))
    assert predict_all(chosen, [path], tmp_path / "out") == []
    assert len(predictor.seen) == 3
    for is_train in (True, False):
        entry = {"file_name": str(path), "height": HW[0], "width": HW[1], "annotations": []}
        predictor.seen.append(CellDatasetMapper(cfg, is_train=is_train)(entry)["image"])
    for found in predictor.seen:
        assert found.dtype == torch.float32
        assert np.array_equal(found.numpy(), expected)


def test_a_file_without_the_channels_does_not_stop_the_others(
    path: Path, predictor: CellPredictor, tmp_path: Path
) -> None:
    grey = tmp_path / "grey.tif"
    tifffile.imwrite(grey, CYX[0])
    out = tmp_path / "out"
    ((_, _, problem),) = predict_all(predictor, [grey, path], out)
    assert problem.startswith(f"{grey}: CELLSEG.INPUT.PAGE is 1; the file has page 0 only")
    assert (out / "field 1.ome_labels.tif").is_file()


def test_pictures_of_what_was_chosen(path: Path, predictor: CellPredictor, tmp_path: Path) -> None:
    entry = {"file_name": str(path), "image_id": "a", "height": HW[0], "width": HW[1]}
    DatasetCatalog.register("chosen_channels", lambda: [{**entry, "annotations": []}])
    MetadataCatalog.get("chosen_channels").thing_classes = ["cell"]
    try:
        pictures = PictureEvaluator("chosen_channels", tmp_path, read=predictor.read_image)
        nothing = Instances(HW)
        nothing.scores, nothing.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        nothing.pred_masks = torch.zeros(0, *HW, dtype=torch.bool)
        pictures.process([entry], [{"instances": nothing}])
    finally:
        DatasetCatalog.remove("chosen_channels")
        MetadataCatalog.remove("chosen_channels")
    assert (tmp_path / "pictures" / "a.png").is_file()
