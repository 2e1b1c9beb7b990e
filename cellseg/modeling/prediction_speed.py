"""A model's layers made fast for prediction on a CPU; the model itself stays what it is.

Nearly all of the time goes into convolutions. Left to themselves they rearrange their weights with
every image, and their maps from layer to layer; the first linear layer of a box head copies its
input into another order; a mask head sends the regions of a whole field through one layer before
the next one begins, which fits into no cache. Here each layer of a known kind gets a `forward` of
its own that

- computes with weights which oneDNN, PyTorch's library for CPUs, has rearranged once,
- keeps maps `channels_last`,
- has a norm with fixed statistics folded into the weights, and ReLU done on the way out.

Parameters, their names and `state_dict` are not touched, and weights that are loaded later on are
seen. A layer of a kind that is not known, of one's own for instance, works as ever between the
others; so does every layer on a GPU, where gradients are needed, and while a model is traced or
compiled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from cellseg.modeling.rearranged_weights import RearrangedWeights, can_rearrange_weights
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from torch import Tensor, nn
from torch.nn import functional as F

REGION_BYTES_AT_ONCE = 2**21
"""Of pooled features that the mask head takes in one go; the second-level cache has about as much.
Its maps take four times as much after they are upsampled."""
REGIONS_AT_ONCE = 128
"""That the first linear layer of a box head takes in one go, always as many: its weights are large,
and would have to be rearranged for another number."""
SHAPES_OF_HEADS = 8
"""Of maps that a layer of the heads keeps rearranged weights for: the levels of a pyramid. Those of
the backbone, which are many times as large, keep them for one."""

_CONVOLUTIONS = (nn.Conv2d, Conv2d)
_FIXED_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm, FrozenBatchNorm2d)

_WHY_NOT = "this processor, or this PyTorch, computes in float32"

logger = logging.getLogger(__name__)


def prepare_for_prediction(model: nn.Module, precision: str = "float32") -> None:
    """Make the layers of a model faster for prediction on a CPU, in place.

    Args:
        model: of either engine, in evaluation mode. Parameters and buffers stay as they are.
        precision: "float32" gives what the model gives, but for the order of sums; "bfloat16", on
            a processor that computes in it, rounds what enters convolutions and the first layer of
            box heads to three decimal digits, and is about twice as fast; sums, group norms'
            statistics and the layers that give scores, boxes and masks stay float32. Another
            processor stays with float32 and says so.
    """
    can_round = can_rearrange_weights() and computes_in_bfloat16()
    if precision == "bfloat16" and not can_round:
        logger.warning("CELLSEG.TEST.PRECISION bfloat16 has no effect: %s", _WHY_NOT)
    if not can_rearrange_weights():
        return
    rounds = precision == "bfloat16" and can_round
    backbone = getattr(model, "backbone", nn.Identity())
    parts = {id(part) for part in backbone.modules()}
    stays_rounded = rounds and _has_known_layers_only(backbone)
    for layer in model.modules():
        in_backbone = id(layer) in parts
        if type(layer) in _CONVOLUTIONS and _is_plain(layer):
            rounded = rounds and (in_backbone or getattr(layer, "activation", None) is not None)
            fast = _Convolution(
                layer,
                rounded=rounded,
                stays_rounded=in_backbone and stays_rounded,
                places=1 if in_backbone else SHAPES_OF_HEADS,
            )
            _replace(layer, "forward", fast)
        elif type(layer) is nn.GroupNorm:
            _replace(layer, "forward", _GroupNorm(layer))
        elif type(layer) is FastRCNNConvFCHead:
            _replace(layer, "forward", _BoxHead(layer, rounds))
        elif _is_ours(getattr(type(layer), "layers", None)):
            _replace(layer, "layers", _MaskLayers(layer))
    if stays_rounded:
        _replace(backbone, "forward", _Float32Maps(backbone))


def computes_in_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16, rather than by way of float32."""
    abilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _replace(layer: Any, method: str, by: Callable[..., Any]) -> None:
    vars(layer)[method] = by


def _is_plain(layer: Any) -> bool:
    """Whether oneDNN's convolution is all that a layer asks for."""
    return (
        layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and (layer.groups == 1 and tuple(layer.dilation) == (1, 1))
    )


def _is_ours(function: Any) -> bool:
    package = getattr(function, "__module__", "").partition(".")[0]
    return callable(function) and package in ("detectron2", "cellseg")


def _has_known_layers_only(part: nn.Module) -> bool:
    """Whether all that has parameters of its own takes maps in bfloat16."""
    known = (*_CONVOLUTIONS, *_FIXED_NORMS, nn.GroupNorm)
    holders = [m for m in part.modules() if [*m.parameters(False), *m.buffers(False)]]
    return all(type(m) in known and (not isinstance(m, nn.Conv2d) or _is_plain(m)) for m in holders)


def _is_prediction(x: Tensor, weight: Tensor | None) -> bool:
    """Whether all that is here holds for what a layer is called with just now."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.numel() > 0
        and (weight is None or (weight.device.type, weight.dtype) == ("cpu", torch.float32))
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def _lies_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


class _Convolution:
    """The `forward` of a convolution with its norm and its activation.

    Args:
        layer: the convolution.
        rounded: whether it computes in bfloat16.
        stays_rounded: whether what it gives is bfloat16 then, and not float32.
        places: see `RearrangedWeights`.
    """

    def __init__(self, layer: Any, *, rounded: bool, stays_rounded: bool, places: int) -> None:
        self.layer = layer
        self.given = torch.bfloat16 if stays_rounded else torch.float32
        dtype = torch.bfloat16 if rounded else torch.float32
        self.weights = RearrangedWeights(tuple(layer.stride), tuple(layer.padding), dtype, places)

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        if not _is_prediction(x, layer.weight):
            result: Tensor = type(layer).forward(layer, x)
            return result
        norm: Any = getattr(layer, "norm", None)
        activation = getattr(layer, "activation", None)
        folded = norm if _is_fixed(norm) else None
        has_relu = activation is F.relu or type(activation) is nn.ReLU
        fuses = has_relu and norm is folded
        x = x.to(self.weights.dtype).contiguous(memory_format=torch.channels_last)
        source, make = _source_of(layer, folded)
        x = self.weights.convolve(x, source, make, with_relu=fuses).to(self.given)
        if norm is not folded:
            x = norm(x)
        return x if activation is None or fuses else activation(x)


def _source_of(layer: Any, norm: Any) -> tuple[list[Any], Callable[[], Any]]:
    """What weights and bias of a convolution are made of, and how; with a fixed norm, if any."""
    if norm is None:
        return [layer.weight, layer.bias], lambda: (layer.weight, layer.bias)
    of_norm = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    return [layer.weight, layer.bias, *of_norm], lambda: _fold(layer.weight, layer.bias, norm)


def _is_fixed(norm: Any) -> bool:
    """Whether a norm does the same to every map, and nobody looks at what it does."""
    return (
        type(norm) in _FIXED_NORMS
        and norm.running_mean is not None
        and (not norm.training or type(norm) is FrozenBatchNorm2d)
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
    )


def _fold(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Weights [O, C, h, w] and bias [O] of a convolution that does what its norm did as well."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale if bias is None else (bias - norm.running_mean) * scale
    shift = shift if norm.bias is None else shift + norm.bias
    return weight * scale[:, None, None, None], shift


class _GroupNorm:
    """The `forward` of a group norm, for maps that are `channels_last`.

    PyTorch's own takes the mean square less the square of the mean there, which for an even
    background leaves nothing but rounding errors. Here the statistics of each channel are taken
    about its mean, and put together: the variance of a group is the mean of its channels' variances
    and of the squares of how far their means are from the group's.
    """

    def __init__(self, layer: nn.GroupNorm) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        if (
            not _lies_channels_last(x)
            or layer.weight is None
            or not _is_prediction(x, layer.weight)
        ):
            return type(layer).forward(layer, x)
        normed = [_group_norm(one, layer) for one in x.split(1)]
        return normed[0] if len(normed) == 1 else torch.cat(normed)


def _group_norm(x: Tensor, layer: nn.GroupNorm) -> Tensor:
    """Of one image's map [1, C, H, W]."""
    of_channels = torch.batch_norm_update_stats(x, None, None, 0.0)
    means, variances = (each.float().view(layer.num_groups, -1) for each in of_channels)
    mean = means.mean(dim=1, keepdim=True)
    variance = (variances + (means - mean) ** 2).mean(dim=1, keepdim=True)
    mean, variance = (each.expand_as(means).reshape(-1) for each in (mean, variance))
    return F.batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps)


class _BoxHead:
    """The `forward` of a box head: its first linear layer is a convolution as wide as the map.

    A linear layer wants a region's features channel by channel, which is not how they lie.
    """

    def __init__(self, head: nn.Sequential, rounded: bool) -> None:
        self.head = head
        dtype = torch.bfloat16 if rounded else torch.float32
        self.weights = RearrangedWeights((1, 1), (0, 0), dtype, places=1)

    def __call__(self, x: Tensor) -> Tensor:
        layers = iter(self.head)
        for layer in layers:
            if type(layer) is nn.Flatten and _lies_channels_last(x) and _is_prediction(x, None):
                x = self._first_linear(x, next(layers))
            else:
                x = layer(x)
        return x

    def _first_linear(self, x: Tensor, layer: nn.Module) -> Tensor:
        if type(layer) is not nn.Linear or not _is_prediction(x, layer.weight):
            result: Tensor = layer(x.flatten(1))
            return result
        shape = (-1, *x.shape[1:])
        source, make = [layer.weight, layer.bias], lambda: (layer.weight.view(shape), layer.bias)
        found = []
        for part in x.split(REGIONS_AT_ONCE):
            missing = REGIONS_AT_ONCE - len(part)
            full = F.pad(part, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else part
            full = full.to(self.weights.dtype).contiguous(memory_format=torch.channels_last)
            found.append(self.weights.convolve(full, source, make)[: len(part)].float())
        return torch.cat(found).flatten(1)


class _MaskLayers:
    """The `layers` of a mask head, a few regions at a time."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head

    def __call__(self, x: Tensor) -> Tensor:
        kind: Any = type(self.head)
        layers: Callable[[Any, Tensor], Tensor] = kind.layers
        if not _is_prediction(x, None):
            return layers(self.head, x)
        at_once = max(1, REGION_BYTES_AT_ONCE // (x[0].numel() * x.element_size()))
        return torch.cat([layers(self.head, part) for part in x.split(at_once)])


class _Float32Maps:
    """The `forward` of a backbone whose layers give bfloat16."""

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = type(self.backbone).forward(self.backbone, x)
        return {name: each.float() for name, each in maps.items()}
