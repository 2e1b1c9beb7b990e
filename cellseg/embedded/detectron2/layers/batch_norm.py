"""Normalisation layers and the names that configs use for them."""

# no postponed annotations: torch.jit.script reads those of the buffers
from collections.abc import Callable
from typing import Any

import torch
from detectron2.utils import comm
from fvcore.nn.distributed import differentiable_all_reduce
from torch import nn
from torch.nn import functional as F

from .wrappers import BatchNorm2d

_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def _per_channel(vector: torch.Tensor) -> torch.Tensor:
    return vector[:, None, None]


def _replace_modules(
    module: nn.Module,
    types: type[nn.Module] | tuple[type[nn.Module], ...],
    convert: Callable[[Any], nn.Module],
) -> nn.Module:
    """Convert `module`, or its descendants in place, where it is one of `types`."""
    if isinstance(module, types):
        return convert(module)
    for name, child in list(module.named_children()):
        setattr(module, name, _replace_modules(child, types, convert))
    return module


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and a fixed affine map: y = (x - mean) / std * w + b.

    Everything is a buffer, so no optimiser touches it; a fresh one is the identity.

    Args:
        num_features: channels.
        eps: added to the variance.
    """

    _version = 3
    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        initial = (1.0, 0.0, 0.0, 1.0 - eps)
        for name, value in zip(_STATISTICS, initial):
            self.register_buffer(name, torch.full((num_features,), value))
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.requires_grad:
            moments = self.running_mean, self.running_var
            return F.batch_norm(x, *moments, self.weight, self.bias, eps=self.eps)
        # spelled out, it keeps no copy of x: the fused kernel would, for the weight's gradient
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return x * _per_channel(scale).to(x.dtype) + _per_channel(shift).to(x.dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        if (local_metadata.get("version") or 1) < 2:
            # files converted from Caffe2 hold the affine map alone
            state_dict.setdefault(f"{prefix}running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(f"{prefix}running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Freeze every BatchNorm2d and SyncBatchNorm of `module`.

        Returns:
            `module` itself, changed in place; when it is a batch norm itself, its frozen twin.
        """

        def freeze(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> nn.Module:
            frozen = cls(norm.num_features, norm.eps)
            _copy_statistics(norm, frozen)
            return frozen

        return _replace_modules(module, (nn.BatchNorm2d, nn.SyncBatchNorm), freeze)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Undo `convert_frozen_batchnorm`: frozen batch norms become trainable BatchNorm2d."""

        def thaw(frozen: FrozenBatchNorm2d) -> nn.Module:
            norm = nn.BatchNorm2d(frozen.num_features, frozen.eps)
            _copy_statistics(frozen, norm)
            return norm

        return _replace_modules(module, FrozenBatchNorm2d, thaw)


def _copy_statistics(source: nn.Module, target: nn.Module) -> None:
    for name in _STATISTICS:
        value = getattr(source, name)
        if value is not None:  # a norm without affine map has no weight
            getattr(target, name).data = value.detach().clone()
    target.num_batches_tracked = source.num_batches_tracked


class NaiveSyncBatchNorm(BatchNorm2d):
    """Batch norm over all workers whose gradient is exact for batches of different sizes.

    Args:
        stats_mode: "" gives every worker the same weight, and a batch of zero images is an
            error; "N" weighs workers by their number of images and accepts empty batches.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stats_mode not in ("", "N"):
            raise ValueError(f"stats_mode is '' or 'N', not {stats_mode!r}.")
        self._stats_mode = stats_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or comm.get_world_size() == 1:
            return super().forward(x)
        dtype = x.dtype
        x = x.float() if dtype == torch.float16 else x
        mean, mean_of_squares, total = self._moments_over_workers(x)
        var = mean_of_squares - mean.square()
        momentum = (self.momentum or 0.0) * total.clamp(max=1.0)  # nothing seen: nothing learnt
        with torch.no_grad():
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var, momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (x * _per_channel(scale) + _per_channel(self.bias - mean * scale)).to(dtype)

    def _moments_over_workers(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Mean and mean square per channel, and the sum of the workers' weights."""
        channels = x.shape[1]
        if len(x) > 0:
            moments = torch.cat([x.mean((0, 2, 3)), x.square().mean((0, 2, 3)), x.new_ones(1)])
        elif self._stats_mode == "N":
            moments = x.new_zeros(2 * channels + 1) + x.sum()  # zero, with a gradient
        else:
            raise ValueError("SyncBatchNorm with stats_mode='' does not support zero batch size.")
        weight = len(x) if self._stats_mode == "N" else 1
        summed = differentiable_all_reduce(moments * weight)
        total = summed[-1].detach()
        mean, mean_of_squares, _ = (summed / total.clamp(min=1.0)).split([channels, channels, 1])
        return mean, mean_of_squares, total


class LayerNorm(nn.Module):
    """Normalise the channels of each pixel of a [N, C, H, W] map.

    Args:
        normalized_shape: C.
        eps: added to the variance.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,)
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            self.register_parameter(name, nn.Parameter(torch.full((normalized_shape,), value)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels_last = x.movedim(1, -1)
        out = F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps)
        return out.movedim(-1, 1)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "LN": LayerNorm,
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """Build a normalisation layer.

    Args:
        norm: "BN", "SyncBN", "FrozenBN", "GN" (32 groups), "LN", "naiveSyncBN", ...; or a callable
            that takes the number of channels; None or "" for no norm.
        out_channels: channels of the map to normalise.

    Raises:
        KeyError: `norm` is no name known here.
    """
    if not norm:
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"No norm is called {norm!r}; there are: {', '.join(_NORMS)}.")
        norm = _NORMS[norm]
    return norm(out_channels)
