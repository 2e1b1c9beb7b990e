"""Write a model as ONNX, from image to label image, and see that it finds the same cells."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cellseg
import numpy as np
import torch
from cellseg.arguments import FLAG, checked, of_type
from cellseg.cells.instances import CellInstances
from cellseg.cells.matching import match_overlaps
from cellseg.cells.overlaps import find_overlaps
from cellseg.cells.synthetic import make_cells
from cellseg.errors import ExportError
from cellseg.export.graph import CellGraph
from cellseg.export.tracing import OPSET, describe_part, remove_unused, trace_to_onnx
from cellseg.files import write_whole
from cellseg.inference.predictor import CellPredictor
from cellseg.rules import PATH
from detectron2.config import CfgNode
from numpy.typing import NDArray
from torch import Tensor

SCRIPT = Path(__file__).with_name("cellseg_onnx.py")
"""What runs an exported model without cellseg; a copy stands beside each."""

_CHECKED_HW = ((80, 112), (70, 60))
_SCORE_TOLERANCE = 1e-2
_MIN_AGREEMENT = 0.98
_TOO_HIGH = 2.0  # for any score

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """How an exported model compares with the one in PyTorch, over the images of a check.

    Attributes:
        num_cells: how many cells PyTorch found.
        matched: the share of cells, of those that either of them found, with a partner.
        mean_iou: of the masks of partners; 1.0 where there are none.
        max_score_difference: of the scores of partners.
    """

    num_cells: int
    matched: float
    mean_iou: float
    max_score_difference: float

    def describe(self) -> str:
        """In words, for a log."""
        return (
            f"{self.num_cells} cells, {self.matched:.2%} matched, mean IoU {self.mean_iou:.6f}, "
            f"scores differ by {self.max_score_difference:.1e} at most"
        )


@checked(cfg=of_type(CfgNode, "a config, as load_config gives it"), path=PATH, labels_only=FLAG)
def export_onnx(cfg: CfgNode, path: str | Path, *, labels_only: bool = False) -> Agreement:
    """Write a trained model as one ONNX file, and beside it `cellseg_onnx.py`, which runs it.

    Inside are resizing, network, selection and painting; what is left to the script is the
    normalisation of intensities. The file is checked with onnxruntime before it gets its name: on
    images of two sizes, one of them empty, with several score thresholds, so that there are all,
    some and no detections.

    Args:
        cfg: from `load_config`; `MODEL.WEIGHTS` names the checkpoint.
        path: of the file; folders are made as needed.
        labels_only: leave out the input `score_thresholds`, whose values become constants, and all
            outputs but `labels`, for programs that know of one input and one output.

    Returns:
        How onnxruntime and PyTorch compare.

    Raises:
        ConfigError: no weights, or a setting that does not fit into a graph.
        CheckpointError: the checkpoint is missing, broken or of another model.
        ExportError: packages are missing, a part of the model cannot be held in a graph, or the
            graph finds other cells.
    """
    onnx, _ = load_packages("onnx", "onnxruntime")
    on_cpu = cfg.clone()
    on_cpu.defrost()
    on_cpu.MODEL.DEVICE = "cpu"
    graph = CellGraph(CellPredictor(on_cpu)).eval()
    proto, doubts = trace_to_onnx(graph)
    _add_settings(proto, graph, on_cpu)
    with write_whole(path) as partial:
        onnx.save(proto, partial)
        agreement = _check(partial, graph, doubts)
        if labels_only:
            del proto.graph.input[1:], proto.graph.output[1:]
            remove_unused(proto.graph)
            onnx.save(proto, partial)
    with write_whole(Path(path).with_name(SCRIPT.name)) as partial:
        partial.write_bytes(SCRIPT.read_bytes())
    logger.info("onnxruntime against PyTorch: %s", agreement.describe())
    return agreement


def load_packages(*names: str) -> list[Any]:
    """Import what only exports need.

    Raises:
        ExportError: one is not installed; it says which, and the command.
    """
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise ExportError(
            f"exporting needs {' and '.join(names)}: {error}; pip install 'cellseg[export]'"
        ) from error


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU that keeps quiet about what it optimises."""
    (onnxruntime,) = load_packages("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a failure is an exception as well
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _add_settings(proto: Any, graph: CellGraph, cfg: CfgNode) -> None:
    """The default of the score thresholds, and how images are to be prepared."""
    (numpy_helper,) = load_packages("onnx.numpy_helper")
    thresholds = graph.default_scores().numpy()
    proto.graph.initializer.append(numpy_helper.from_array(thresholds, "score_thresholds"))
    own = cfg.CELLSEG.INPUT
    settings = {
        "version": cellseg.__version__,
        "normalize": [own.NORMALIZE, list(own.PERCENTILES), list(own.RANGE)],
        "channels": list(own.CHANNELS),
    }
    proto.producer_name, proto.producer_version = "cellseg", cellseg.__version__
    entry = proto.metadata_props.add()
    entry.key, entry.value = "cellseg", json.dumps(settings)


def _check(path: Path, graph: CellGraph, doubts: list[str]) -> Agreement:
    """Compare the file with the module that it was traced from.

    Raises:
        ExportError: it fails where PyTorch does not, or finds other cells.
    """
    session = open_session(path)
    pairs = []
    for image in _images_of_check(graph):
        for scores in _thresholds_of_check(graph, image):
            with torch.no_grad():
                expected = [each.numpy() for each in graph(torch.from_numpy(image), scores)]
            inputs = {"image": image, "score_thresholds": scores.numpy()}
            try:
                found = session.run(None, inputs)
            except Exception as error:  # onnxruntime has many
                raise ExportError(_describe_failure(error, graph, image, doubts)) from error
            pairs.append((labels_to_cells(*expected), labels_to_cells(*found)))
    agreement = _compare(pairs)
    if (
        min(agreement.matched, agreement.mean_iou) < _MIN_AGREEMENT
        or agreement.max_score_difference > _SCORE_TOLERANCE
    ):
        raise ExportError(
            f"the exported model finds other cells than PyTorch: {agreement.describe()}. "
            + _describe_doubts(doubts)
        )
    return agreement


def _images_of_check(graph: CellGraph) -> Iterator[NDArray[np.float32]]:
    for seed, image_hw in enumerate(_CHECKED_HW):
        grey = make_cells(seed, image_hw).image.astype(np.float32)
        if seed == len(_CHECKED_HW) - 1:
            grey = np.zeros(image_hw, np.float32)
        yield np.repeat(grey[None, None], graph.num_channels or 1, axis=1)


def _thresholds_of_check(graph: CellGraph, image: NDArray[np.float32]) -> Iterator[Tensor]:
    """Those that let pass what the config lets pass, everything, about half of it, and nothing."""
    yield graph.default_scores()
    everything = torch.zeros(graph.num_classes)
    yield everything
    with torch.no_grad():
        scores = graph(torch.from_numpy(image), everything)[2]
    if len(scores):
        yield everything + scores.median()
    yield everything + _TOO_HIGH


def labels_to_cells(
    labels: NDArray[np.int32],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    masks: NDArray[np.float32],
) -> CellInstances:
    """The outputs of a graph as cells; those that others hide completely are left out.

    Args:
        labels, boxes, scores, classes, masks: as `CellGraph.forward` returns them.
    """
    visible = np.unique(labels[labels > 0]) - 1
    return CellInstances.from_label_image(
        labels[0, 0], scores=scores[visible], classes=classes[visible]
    )


def _compare(pairs: list[tuple[CellInstances, CellInstances]]) -> Agreement:
    ious, differences, total = [np.ones(0)], [np.zeros(0)], 0
    for expected, found in pairs:
        matching = match_overlaps(find_overlaps(expected, found))
        ious.append(matching.iou)
        differences.append(
            np.abs(expected.scores[matching.true_index] - found.scores[matching.pred_index])
        )
        total += len(expected) + len(found)
    iou = np.concatenate(ious)
    return Agreement(
        num_cells=sum(len(expected) for expected, _ in pairs),
        matched=2 * len(iou) / total if total else 1.0,
        mean_iou=float(iou.mean()) if len(iou) else 1.0,
        max_score_difference=float(np.concatenate(differences).max(initial=0)),
    )


def _describe_failure(
    error: Exception, graph: CellGraph, image: NDArray[Any], doubts: list[str]
) -> str:
    """Which part and operation: nodes are called like `/model/roi_heads/mask_head/Reshape_2`."""
    text = str(error)
    name = text.partition("Name:'")[2].partition("'")[0]
    part = describe_part(graph.model, name.removeprefix("/model/"))
    operation = name.rpartition("/")[2].rstrip("0123456789_") or "an operation"
    height, width = image.shape[2:]
    return (
        f"{part}: {operation} of the graph fails on an image of {height} x {width}, for which "
        f"PyTorch works: {text.rpartition('Status Message: ')[2]}. {_describe_doubts(doubts)}"
    )


def _describe_doubts(doubts: list[str]) -> str:
    advice = (
        f"A graph (ONNX opset {OPSET}) keeps what a head computes with tensors; what it computes "
        "in Python (len(x) in place of x.shape[0], .item(), an if that depends on values) becomes "
        "a constant"
    )
    return "\n  - ".join([f"{advice}{':' if doubts else '.'}", *doubts])
