"""Everything that is known about the instances of one image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch


class Instances:
    """A table: one row per instance, one column ("field") per property.

    Fields are set and read as attributes and all have the same length:

        found = Instances((480, 640), pred_boxes=boxes, scores=scores)
        found.pred_classes = torch.zeros(len(found), dtype=torch.int64)
        sure = found[found.scores > 0.9]

    Wrong use is an AssertionError, as callers that were written for Detectron2 expect.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        """
        Args:
            image_size: (height, width) of the image, pixels.
            kwargs: fields.
        """
        self._fields: dict[str, Any] = {}
        self._image_size = image_size
        for field in kwargs.items():
            self.set(*field)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image, pixels."""
        return self._image_size

    def __setattr__(self, name: str, val: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, val)
        else:
            self.set(name, val)

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("_fields", {})  # missing while a copy is being made
        if name in fields:
            return fields[name]
        raise AttributeError(f"instances have no field {name!r}; there are: {', '.join(fields)}")

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field.

        Raises:
            AssertionError: `value` has another length than the fields that exist.
        """
        assert not self._fields or len(value) == len(self), (
            f"field {name!r} of length {len(value)} does not fit {len(self)} instances"
        )
        self._fields[name] = value

    def get(self, name: str) -> Any:
        """The field called `name`; KeyError if there is none."""
        return self._fields[name]

    def has(self, name: str) -> bool:
        """Whether there is a field called `name`."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Drop the field called `name`; KeyError if there is none."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Field by name: the dict of this object itself, not a copy."""
        return self._fields

    def __len__(self) -> int:
        if not self._fields:
            raise NotImplementedError("instances without fields have no length")
        return len(next(iter(self._fields.values())))

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("instances cannot be iterated over; iterate over a field")

    def __repr__(self) -> str:
        height, width = self._image_size
        count = len(self) if self._fields else "unknown"
        fields = ", ".join(f"{name}: {column}" for name, column in self._fields.items())
        return (
            f"{type(self).__name__}(num_instances={count}, image_height={height}, "
            f"image_width={width}, fields=[{fields}])"
        )

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy whose fields are moved by their own `to`, where they have one."""
        return self._map(lambda column: _moved(column, args, kwargs))

    def __getitem__(self, item: Any) -> Instances:
        """The instances selected by an int (one instance), slice, index tensor or bool tensor.

        Raises:
            IndexError: there are fewer instances.
        """
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"there is no instance {item} among {len(self)}")
            item = slice(item % len(self), item % len(self) + 1)
        return self._map(lambda column: column[item])

    def _map(self, change: Any) -> Instances:
        columns = {name: change(column) for name, column in self._fields.items()}
        return Instances(self._image_size, **columns)

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """All instances of several tables of one image.

        Args:
            instance_lists: one or more, with the same image size and fields; fields are tensors,
                lists or types with a `cat` of their own.

        Returns:
            A new table; the only one itself, if there is one.

        Raises:
            AssertionError: no tables, other types, or different image sizes.
            KeyError: a field of the first is missing in another.
            ValueError: a field of another type.
        """
        assert instance_lists, "nothing to concatenate"
        assert all(isinstance(one, Instances) for one in instance_lists), "expected Instances only"
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        sizes = {tuple(one.image_size) for one in instance_lists}
        assert len(sizes) == 1, f"instances of images of different sizes: {sorted(sizes)}"
        names = first.get_fields()
        columns = {name: _cat_column([one.get(name) for one in instance_lists]) for name in names}
        return Instances(first.image_size, **columns)


def _moved(column: Any, args: Any, kwargs: Any) -> Any:
    return column.to(*args, **kwargs) if hasattr(column, "to") else column


def _cat_column(parts: list[Any]) -> Any:
    kind = type(parts[0])
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(parts)
    if isinstance(parts[0], list):
        return list(itertools.chain.from_iterable(parts))
    if hasattr(kind, "cat"):
        return kind.cat(parts)
    raise ValueError(f"fields of type {kind.__name__} cannot be concatenated")
