"""Exported models find the cells that PyTorch finds, and what cannot be exported is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cellseg import load_config
from cellseg.cells.synthetic import make_cells
from cellseg.errors import ConfigError, ExportError
from cellseg.export.cellseg_onnx import find_cells, normalize
from cellseg.export.graph import CellGraph
from cellseg.export.onnx_file import SCRIPT, export_onnx, open_session
from cellseg.images import normalize_image
from cellseg.inference.predictor import CellPredictor
from commands import REPOSITORY
from detectron2.config import CfgNode
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from pages import Page
from torch import Tensor
from untrained import save_untrained

SIZES = [(64, 96), (40, 50), (130, 71), (200, 240)]


def bitmaps_of(labels: np.ndarray, count: int) -> np.ndarray:
    return labels == np.arange(1, count + 1)[:, None, None]


def assert_same_cells(session: Any, predictor: CellPredictor, image: np.ndarray) -> int:
    """Compare by boxes, scores, classes and painted pixels; returns how many cells there are."""
    labels, boxes, scores, classes, masks = find_cells(session, image)
    cells = predictor(image).sort_by_score()
    assert labels.shape == image.shape[:2]
    assert len(cells) == len(scores) == len(masks)
    assert np.abs(cells.scores - scores).max(initial=0) < 1e-4
    assert np.abs(cells.boxes_xyxy - boxes).max(initial=0) < 1e-2
    assert np.array_equal(cells.classes, classes)
    expected = np.zeros(labels.shape, np.int32)
    for label, bitmap in reversed(list(enumerate(cells.to_bitmaps(), 1))):
        expected[bitmap] = label
    # Untrained masks lie around 0.5: a last bit decides about a few pixels.
    assert (labels != expected).mean() < 2e-3
    return len(cells)


@pytest.mark.parametrize("image_hw", SIZES)
def test_same_cells_as_the_predictor(exported: tuple[CfgNode, Path], image_hw: Any) -> None:
    """16-bit images, so that percentiles are at work and resizing is the same."""
    cfg, path = exported
    image = make_cells(3, image_hw, dtype="uint16").image
    assert assert_same_cells(open_session(path), CellPredictor(cfg), image) > 2


def test_an_image_without_cells(exported: tuple[CfgNode, Path]) -> None:
    image = np.zeros((60, 80), np.uint16)
    none = np.ones(1, np.float32)
    labels, *cells = find_cells(open_session(exported[1]), image, score_thresholds=none)
    assert labels.shape == (60, 80)
    assert not labels.any()
    assert [len(each) for each in cells] == [0, 0, 0, 0]


def test_the_score_threshold_is_an_input_that_may_be_left_out(
    exported: tuple[CfgNode, Path],
) -> None:
    session, image = open_session(exported[1]), make_cells(3, (64, 96), dtype="uint16").image
    assert [each.name for each in session.get_inputs()] == ["image"]
    everything = find_cells(session, image)[2]
    threshold = np.median(everything).reshape(1)
    some = find_cells(session, image, score_thresholds=threshold)[2]
    assert len(everything) > len(some) > 0
    assert some.min() >= threshold


HEADS: dict[str, dict[str, object]] = {
    "types": {
        "MODEL.ROI_HEADS.NAME": "CellTypeROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": 3,
        "CELLSEG.CELL_TYPE.VOTE": "image",
        "INPUT.MIN_SIZE_TEST": 0,
    },
    "mask_iou": {
        "MODEL.ROI_MASK_HEAD.NAME": "MaskIoUHead",
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "INPUT.FORMAT": "RGB",
        "CELLSEG.INPUT.SCALE": 1.5,
        "CELLSEG.INPUT.CHANNELS": [0, 1],
        "CELLSEG.TEST.MAX_COVERED": 1.0,
    },
}


@pytest.mark.parametrize("name", HEADS)
def test_other_heads_and_settings(checkpoint_options: list[str], name: str, tmp_path: Path) -> None:
    settings = [word for key, value in HEADS[name].items() for word in (key, str(value))]
    options = [*checkpoint_options, *settings]
    cfg = load_config(REPOSITORY / "configs/quick_start.yaml", options)
    numbers = range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    cfg.CELLSEG.TEST.SCORE_THRESHOLD = [0.01 * number for number in numbers]
    cfg.CELLSEG.TEST.MIN_AREA = [4 * number + 1 for number in numbers]  # empty ones are no cells
    cfg = save_untrained(cfg, tmp_path / "weights.pth")
    export_onnx(cfg, tmp_path / "model.onnx")
    session, predictor = open_session(tmp_path / "model.onnx"), CellPredictor(cfg)
    grey = make_cells(4, (90, 70), dtype="uint16").image
    image = np.stack([grey, grey[::-1]], axis=2) if cfg.CELLSEG.INPUT.CHANNELS else grey
    assert assert_same_cells(session, predictor, image) > 2


def test_the_head_of_the_page_on_custom_heads(
    checkpoint_options: list[str], tmp_path: Path
) -> None:
    page = Page("docs/custom_head.md")
    page.write_files(tmp_path)
    cfg = load_config(tmp_path / "my_head/my_head.yaml", checkpoint_options)
    cfg = save_untrained(cfg, tmp_path / "weights.pth")
    agreement = export_onnx(cfg, tmp_path / "model.onnx")
    assert agreement.num_cells > 10
    assert agreement.matched > 0.98
    assert agreement.mean_iou > 0.98


@ROI_MASK_HEAD_REGISTRY.register()
class SpectralMaskHead(MaskRCNNConvUpsampleHead):
    """Uses what ONNX does not have."""

    def layers(self, x: Tensor) -> Tensor:
        return super().layers(x + torch.special.bessel_j0(x))


@ROI_MASK_HEAD_REGISTRY.register()
class CountingMaskHead(MaskRCNNConvUpsampleHead):
    """Lets the number of detections become a constant."""

    def layers(self, x: Tensor) -> Tensor:
        return super().layers(x.reshape(len(x), -1).reshape(int(x.shape[0]), *x.shape[1:]))


@ROI_MASK_HEAD_REGISTRY.register()
class ForgetfulMaskHead(MaskRCNNConvUpsampleHead):
    """Computes in NumPy, which no trace sees."""

    def layers(self, x: Tensor) -> Tensor:
        return super().layers(x * (1 + float(x.detach().numpy().sum())))


@ROI_MASK_HEAD_REGISTRY.register()
class FailingMaskHead(MaskRCNNConvUpsampleHead):
    """Refuses to be traced."""

    def layers(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise ValueError("not like this")
        return super().layers(x)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("SpectralMaskHead", ["SpectralMaskHead (roi_heads.mask_head)", "aten::special_bessel_j0"]),
        ("CountingMaskHead", ["CountingMaskHead (roi_heads.mask_head)", "Reshape", "len(x)"]),
        ("ForgetfulMaskHead", ["finds other cells than PyTorch", "test_onnx_file.py"]),
        ("FailingMaskHead", ["FailingMaskHead", "cannot be traced", "not like this"]),
    ],
)
def test_heads_that_no_graph_can_hold(
    cfg: CfgNode, head: str, words: list[str], tmp_path: Path
) -> None:
    cfg.MODEL.ROI_MASK_HEAD.NAME = head
    cfg = save_untrained(cfg, tmp_path / "weights.pth")
    with pytest.raises(ExportError) as raised:
        export_onnx(cfg, tmp_path / "model.onnx")
    assert [word for word in words if word not in str(raised.value)] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.pth"]


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("TEST.AUG.ENABLED", True, ConfigError, r"TEST\.AUG\.ENABLED is True"),
        ("CELLSEG.TEST.MASK_NMS", 0.5, ConfigError, r"CELLSEG\.TEST\.MASK_NMS is 0\.5"),
        ("CELLSEG.TEST.FILL_HOLES", True, ConfigError, r"CELLSEG\.TEST\.FILL_HOLES is True"),
        ("MODEL.WEIGHTS", "", ConfigError, r"MODEL\.WEIGHTS is empty"),
    ],
)
def test_settings_that_do_not_fit(
    cfg: CfgNode, key: str, value: object, error: type[Exception], message: str, tmp_path: Path
) -> None:
    cfg.merge_from_list([key, value])
    with pytest.raises(error, match=message):
        export_onnx(cfg, tmp_path / "model.onnx")


def test_what_is_left_to_who_runs_the_model_is_said(
    cfg: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.CELLSEG.TEST.KNOWN_DIAMETERS, cfg.CELLSEG.TEST.DIAMETER = [10.0, 20.0, 30.0], "auto"
    cfg.CELLSEG.INPUT.INVERT = "auto"
    CellGraph(CellPredictor(save_untrained(cfg, tmp_path / "weights.pth")))
    assert "CELLSEG.TEST.DIAMETER is 'auto'; the exported model looks at" in caplog.text
    assert "CELLSEG.INPUT.INVERT is 'auto'; the exported" in caplog.text


def test_a_missing_package_is_said(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"onnx.*pip install 'cellseg\[export\]'"):
        export_onnx(cfg, tmp_path / "model.onnx")


def test_the_script_runs_where_neither_torch_nor_cellseg_can_be_imported(
    exported: tuple[CfgNode, Path], tmp_path: Path
) -> None:
    _, path = exported
    image = make_cells(3, (64, 96), dtype="uint16").image
    np.save(tmp_path / "image.npy", image)
    block = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(['torch', 'cellseg', 'detectron2']));"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    script = path.with_name(SCRIPT.name)
    words = [script, path, "image.npy", "labels.npy"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", block, *map(str, words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = find_cells(open_session(path), image)[0]
    assert np.array_equal(np.load(tmp_path / "labels.npy"), expected)
    assert expected.max() > 2


def test_the_script_is_short_and_knows_two_packages() -> None:
    text = SCRIPT.read_text("utf-8")
    code = text.split('"""', 2)[2]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 35
    imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert imports == {"json", "sys", "numpy", "onnxruntime"}


@pytest.mark.parametrize("mode", ["auto", "percentile", "minmax", "range", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_the_script_normalizes_as_cellseg_does(
    mode: str, dtype: str, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).integers(3, 200, shape).astype(dtype)
    image[:5] = 7
    limits, value_range = (1.0, 99.8), (20.0, 120.0)
    expected = normalize_image(image, mode, limits, value_range).astype(np.float32)
    assert np.allclose(normalize(image, mode, limits, value_range), expected, atol=1e-4)
    flat = np.full(shape, 9, dtype)
    expected = normalize_image(flat, mode, limits, value_range).astype(np.float32)
    assert np.array_equal(normalize(flat, mode, limits, value_range), expected)


def test_what_the_file_says(exported: tuple[CfgNode, Path]) -> None:
    session = onnxruntime.InferenceSession(str(exported[1]))
    settings = json.loads(session.get_modelmeta().custom_metadata_map["cellseg"])
    assert settings["normalize"] == ["auto", [1.0, 99.8], []]
    assert session.get_inputs()[0].shape == [1, "channels", "height", "width"]
    names = [each.name for each in session.get_outputs()]
    assert names == ["labels", "boxes", "scores", "classes", "masks"]
    written = sorted(path.name for path in exported[1].parent.iterdir())
    assert written == ["cellseg_onnx.py", "model.onnx"]
