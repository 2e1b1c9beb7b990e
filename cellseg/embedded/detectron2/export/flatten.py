"""Dicts, lists, boxes and instances as tuples of tensors, which is all that tracing passes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils.registry import _convert_target_to_string, locate
from torch import nn

__all__ = ["Schema", "TracingAdapter", "flatten_to_tuple"]

_BUILD: dict[str, Callable[[list[str], list[Any]], Any]] = {
    "list": lambda keys, parts: parts,
    "tuple": lambda keys, parts: tuple(parts),
    "dict": lambda keys, parts: dict(zip(keys, parts)),
    "instances": lambda keys, parts: Instances(parts[0], **dict(zip(keys, parts[1:]))),
}


@dataclass
class Schema:
    """How an object is put together from a tuple of values; two are equal if they do so alike.

    Attributes:
        kind: "value", one that stays as it is; one of the containers; or the dotted name of a
            class that wraps one tensor.
        keys: names of the parts of a dict, and of the fields of instances.
        parts: of a container; the first of instances is the size of their image.
    """

    kind: str
    keys: list[str] = field(default_factory=list)
    parts: list[Schema] = field(default_factory=list)

    def __call__(self, values: Sequence[Any]) -> Any:
        """The object.

        Raises:
            ValueError: more or fewer values than the object consists of.
        """
        if len(values) != (needed := self._count()):
            raise ValueError(f"The object consists of {needed} values, got {len(values)}.")
        return self._take(iter(values))

    def _count(self) -> int:
        return sum(part._count() for part in self.parts) if self.kind in _BUILD else 1

    def _take(self, values: Iterator[Any]) -> Any:
        if self.kind in _BUILD:
            return _BUILD[self.kind](self.keys, [part._take(values) for part in self.parts])
        value = next(values)
        return value if self.kind == "value" else locate(self.kind)(value)


def flatten_to_tuple(obj: Any) -> tuple[tuple[Any, ...], Schema]:
    """Take an object apart.

    Args:
        obj: lists, tuples, dicts with strings as keys, `Boxes`, `ROIMasks` and `Instances` are
            taken apart, the latter into fields and a tensor of two, their image's size;
            everything else is one value.

    Returns:
        The values, and the schema that makes an equal object of them. Dicts are ordered by key.

    Raises:
        KeyError: a dict with another key than strings.

    >>> values, schema = flatten_to_tuple({"b": [1, 2], "a": 3})
    >>> values
    (3, 1, 2)
    >>> schema((30, 10, 20))
    {'a': 30, 'b': [10, 20]}
    """
    if isinstance(obj, (list, tuple)):
        return _flatten_parts("list" if isinstance(obj, list) else "tuple", [], obj)
    if isinstance(obj, Mapping):
        if strange := [key for key in obj if not isinstance(key, str)]:
            raise KeyError(f"Keys of dicts must be strings to be flattened, got {strange}.")
        keys = sorted(obj)
        return _flatten_parts("dict", keys, [obj[key] for key in keys])
    if isinstance(obj, Instances):
        fields = obj.get_fields()
        size = torch.as_tensor(obj.image_size)
        return _flatten_parts("instances", [*fields], [size, *fields.values()])
    if isinstance(obj, (Boxes, ROIMasks)):
        return (obj.tensor,), Schema(_convert_target_to_string(type(obj)))
    return (obj,), Schema("value")


def _flatten_parts(
    kind: str, keys: list[str], parts: Sequence[Any]
) -> tuple[tuple[Any, ...], Schema]:
    flat = [flatten_to_tuple(part) for part in parts]
    values = tuple(value for of_part, _ in flat for value in of_part)
    return values, Schema(kind, keys, [schema for _, schema in flat])


class TracingAdapter(nn.Module):
    """A model that takes and gives tensors only, and so can be traced.

        adapter = TracingAdapter(model, inputs)
        traced = torch.jit.trace(adapter, adapter.flattened_inputs)
        outputs = adapter.outputs_schema(traced(*adapter.flattened_inputs))

    Args:
        model: module; of a parallel one the module inside.
        inputs: what it is called with: one argument, or a tuple of arguments.
        inference_func: called with the model and its arguments; by default the model itself.
        allow_non_tensor: leave out what is no tensor instead of refusing it. Objects can then not
            be put together again, so the adapter takes no other inputs than these.

    Attributes:
        flattened_inputs: the tensors of `inputs`.
        inputs_schema: puts `inputs` together; None where something was left out.
        outputs_schema: the same of the outputs, once the model was called.

    Raises:
        ValueError: something in the inputs is no tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        inference_func: Callable[..., Any] | None = None,
        allow_non_tensor: bool = False,
    ) -> None:
        super().__init__()
        parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
        self.model = model.module if isinstance(model, parallel) else model
        self.inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self.inference_func = inference_func or _call
        self.allow_non_tensor = allow_non_tensor
        self.inputs_schema: Schema | None
        self.outputs_schema: Schema | None = None
        self.flattened_inputs, self.inputs_schema = self._keep_tensors(self.inputs, "inputs")

    def _keep_tensors(self, obj: Any, what: str) -> tuple[tuple[torch.Tensor, ...], Schema | None]:
        values, schema = flatten_to_tuple(obj)
        tensors = tuple(value for value in values if isinstance(value, torch.Tensor))
        if len(tensors) == len(values):
            return tensors, schema
        if not self.allow_non_tensor:
            kinds = {type(v).__name__ for v in values if not isinstance(v, torch.Tensor)}
            raise ValueError(
                f"Tracing needs tensors; the model's {what} also hold {', '.join(sorted(kinds))}."
            )
        return tensors, None

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of the outputs, computed without gradients.

        Raises:
            ValueError: other inputs than the adapter can put together, or outputs that hold
                something else than tensors.
            RuntimeError: outputs are put together differently than before.
        """
        with torch.no_grad():
            outputs = self.inference_func(self.model, *self._rebuild_inputs(args))
        tensors, schema = self._keep_tensors(outputs, "outputs")
        if self.outputs_schema not in (None, schema):
            raise RuntimeError("The model's outputs are put together differently at each call.")
        self.outputs_schema = schema
        return tensors

    def _rebuild_inputs(self, args: tuple[torch.Tensor, ...]) -> Any:
        if self.inputs_schema is not None:
            return self.inputs_schema(args)
        known = self.flattened_inputs
        if len(args) != len(known) or any(a is not b for a, b in zip(args, known)):
            raise ValueError("The adapter left parts of its inputs out: it takes no others.")
        return self.inputs


def _call(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)
