"""From a module of tensors to an ONNX graph whose sizes stay open."""

from __future__ import annotations

import contextlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import detectron2
import torch
import torchvision
from cellseg.errors import ExportError
from cellseg.export.graph import OUTPUTS, CellGraph
from torch import Tensor, nn
from torch.onnx.symbolic_helper import parse_args

OPSET = 17
"""Version of ONNX's operators; the first with LayerNormalization, which heads of today use."""

_TRACED_HW = (96, 128)
_AXES = {
    "image": {1: "channels", 2: "height", 3: "width"},
    "labels": {2: "height", 3: "width"},
    **{name: {0: "cells"} for name in OUTPUTS[1:]},
}
_OTHERS = tuple(str(Path(package.__file__ or "").parent) for package in (torch, torchvision))
_OURS = (*_OTHERS, str(Path(detectron2.__file__ or "").parent), str(Path(__file__).parents[1]))


def trace_to_onnx(graph: CellGraph) -> tuple[Any, list[str]]:
    """Follow a module with an image of noise, and write down what it does as ONNX.

    Noise holds enough for a detector that is asked for every detection of a score above 0: what is
    traced is the way of detections through all heads, with nothing of the image in it.

    Args:
        graph: in evaluation mode, on the CPU.

    Returns:
        The `onnx.ModelProto`; and, in one line each, what the code of a user's parts did that may
        have become a constant.

    Raises:
        ExportError: an operation or a part of the model has no counterpart; it is named.
    """
    import onnx  # needed for exports alone

    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, graph.num_channels or 1, *_TRACED_HW, generator=generator) * 255
    inputs = (image, torch.zeros(graph.num_classes))
    with (
        torch.no_grad(),
        warnings.catch_warnings(record=True) as caught,
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(None),  # to which the exporter prints whole graphs
        _group_norms_of_nothing(),
    ):
        warnings.simplefilter("always")
        path = Path(folder, "traced.onnx")
        try:
            torch.onnx.export(
                graph,
                inputs,
                path,
                input_names=["image", "score_thresholds"],
                output_names=list(OUTPUTS),
                dynamic_axes=_AXES,
                opset_version=OPSET,
                dynamo=False,  # the other one refuses sizes that follow from what is detected
            )
        except Exception as error:  # whatever a head of the user or the exporter raises
            raise _explain(error, graph, inputs) from error
        proto = onnx.load(path)
    _remove_splits_of_one(proto.graph)
    remove_unused(proto.graph)
    return proto, list(_doubts(caught))


@contextlib.contextmanager
def _group_norms_of_nothing() -> Iterator[None]:
    """Within the context, GroupNorm is exported so that it takes no regions, too.

    The exporter's own way reshapes to [N, groups, -1], and nothing follows for -1 where N is 0.
    """
    torch.onnx.register_custom_op_symbolic("aten::group_norm", _export_group_norm, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::group_norm", OPSET)


@parse_args("v", "i", "v", "v", "f", "i")
def _export_group_norm(
    g: Any, x: Any, num_groups: int, weight: Any, bias: Any, eps: float, cudnn_enabled: bool
) -> Any:
    """A group is normalised as a channel of InstanceNormalization, all of its values in a row."""

    def constant(*values: float, dtype: torch.dtype = torch.int64) -> Any:
        return g.op("Constant", value_t=torch.tensor(values, dtype=dtype))

    shape = g.op("Shape", x)
    per_image = g.op("ReduceProd", g.op("Slice", shape, constant(1), constant(9)), keepdims_i=1)
    row = g.op("Div", per_image, constant(num_groups))
    # Not by Concat: onnxruntime would put -1 in the place of what it does not know.
    place = g.op("Mul", row, constant(0, 0, 1))
    grouped = g.op("Reshape", x, g.op("Add", constant(0, num_groups, 0), place))
    ones = constant(*[1.0] * num_groups, dtype=torch.float32)
    zeros = constant(*[0.0] * num_groups, dtype=torch.float32)
    even = g.op("InstanceNormalization", grouped, ones, zeros, epsilon_f=eps)
    per_channel = constant(*range(1, x.type().dim() - 1))
    found = g.op("Reshape", even, shape)
    for kind, values in (("Mul", weight), ("Add", bias)):
        if not values.node().mustBeNone():
            found = g.op(kind, found, g.op("Unsqueeze", values, per_channel))
    return found


def describe_part(model: nn.Module, path: str) -> str:
    """`DilatedMaskHead (roi_heads.mask_head)`: the last part of a model that a path leads to.

    Args:
        model: the module that the path begins in.
        path: names joined by dots or slashes, more of them than modules perhaps.
    """
    part, names = model, list[str]()
    for name in re.split(r"[./]", path):
        inner = dict(part.named_children()).get(name)
        if inner is not None:
            part, names = inner, [*names, name]
    return f"{type(part).__name__} ({'.'.join(names) or 'the whole model'})"


def _remove_splits_of_one(graph: Any) -> None:
    """Detections of a batch are split by image; with one image nothing is to be split.

    The number of detections would be a constant of the split.
    """
    for node in (node for nested in _graphs(graph) for node in nested.node):
        if node.op_type == "Split" and len(node.output) == 1:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]


def remove_unused(graph: Any) -> None:
    """Take away what nothing reads, in place; onnxruntime warns of each such constant.

    Args:
        graph: of an `onnx.ModelProto`.
    """
    while True:
        nested = list(_graphs(graph))
        used = {name for each in nested for node in each.node for name in node.input}
        used |= {output.name for each in nested for output in each.output}
        idle = [node for node in graph.node if used.isdisjoint(node.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside of its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _doubts(caught: Sequence[warnings.WarningMessage]) -> Iterator[str]:
    for one in caught:
        if issubclass(one.category, torch.jit.TracerWarning) and not one.filename.startswith(_OURS):
            yield f"{one.filename}:{one.lineno}: {str(one.message).partition('. ')[0]}"


def _explain(error: Exception, graph: CellGraph, inputs: tuple[Tensor, ...]) -> ExportError:
    text = str(error)
    operator = re.search(r"operator '?([\w:]+(?: pooling)?)", text)
    if isinstance(error, torch.onnx.OnnxExporterError) and operator:
        part = _part_in_scope(text, graph) or _part_with_operator(graph, inputs, operator[1])
        return ExportError(
            f"{part}: its operation {operator[1]} has no counterpart in ONNX (opset {OPSET}) as it "
            "is used; replace it by other operations of torch, or predict with PyTorch"
        )
    part = _failing_part(error) or describe_part(graph.model, "")
    return ExportError(
        f"{part} cannot be traced: {type(error).__name__}: {text.partition(chr(10))[0]}"
    )


def _part_in_scope(text: str, graph: CellGraph) -> str | None:
    """The part that an exporter's message is about, `scope: CLASS::/CLASS::NAME/CLASS::NAME`."""
    scope = re.search(r"scope: (\S+)", text)
    names = re.findall(r"::(\w+)", scope[1]) if scope else []
    return describe_part(graph.model, ".".join(names)) if names else None


def _part_with_operator(graph: CellGraph, inputs: tuple[Tensor, ...], operator: str) -> str:
    """The first part of the model that uses an operation, such as `aten::fft_fft2`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph, inputs, check_trace=False)
    for node in traced.inlined_graph.nodes():
        if node.kind() == operator:
            return describe_part(graph.model, node.scopeName().rpartition("/")[2])
    return describe_part(graph.model, "")


def _failing_part(error: Exception) -> str | None:
    """The last module outside of torch that an exception went through."""
    found, trace = None, error.__traceback__
    while trace is not None:
        inside = trace.tb_frame.f_locals.get("self")
        file = trace.tb_frame.f_code.co_filename
        if isinstance(inside, nn.Module) and not file.startswith(_OTHERS):
            found = f"{type(inside).__name__} ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found
