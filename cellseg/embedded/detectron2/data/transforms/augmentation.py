# ruff: noqa: NPY002 (one seed of numpy's global generator has to cover a whole pipeline)
"""What an augmentation is: it looks at an input, decides on a transform and applies it."""

from __future__ import annotations

import inspect
import pprint
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

from .._require import require

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


class Augmentation:
    """Base of all augmentations. A subclass has to write `get_transform`.

    Random numbers come from numpy's global generator, so that one seed covers a whole pipeline.
    """

    # Names of the attributes of the input that `get_transform` is called with. None: found out at
    # the first call. A lone parameter gets the image whatever its name, several go by their names.
    input_args: tuple[str, ...] | None = None

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Keep constructor arguments, usually `locals()`, as attributes; for subclasses."""
        kept = {k: v for k, v in (params or {}).items() if k != "self" and not k.startswith("_")}
        vars(self).update(kept)

    def get_transform(self, *args: Any) -> Transform:
        """Decide what to do.

        Subclasses name the attributes of the input they need as positional parameters. By
        convention: `image`, [H, W] or [H, W, C], uint8 or float; `boxes`, float32 [N, 4] as
        x0 y0 x1 y1 in pixels; `sem_seg`, [H, W] integers.

        Returns:
            The transform, which gives the same for the same input whenever it is applied.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform.")

    def __call__(self, aug_input: Any) -> Transform:
        """Change `aug_input` in place.

        Args:
            aug_input: `AugInput`, or an object with the needed attributes and a `transform`
                method.

        Returns:
            What was applied, for use on other data that belongs to the same image.
        """
        if self.input_args is None:
            self.input_args = _needed_inputs(self)
        transform = self.get_transform(*(self._read(aug_input, arg) for arg in self.input_args))
        require(
            isinstance(transform, Transform),
            f"{type(self)}.get_transform must return a Transform, got {transform!r}.",
        )
        aug_input.transform(transform)
        return transform

    def _read(self, aug_input: Any, name: str) -> Any:
        if not hasattr(aug_input, name):
            raise AttributeError(
                f"{type(self)}.get_transform needs '{name}', which {type(aug_input)} has not."
            )
        return getattr(aug_input, name)

    def _rand_range(
        self, low: float = 1.0, high: float | None = None, size: Sequence[int] | None = None
    ) -> Any:
        """Uniform in [low, high), or in [0, low) where `high` is not given."""
        start, end = (0.0, low) if high is None else (low, high)
        return np.random.uniform(start, end, () if size is None else size)

    def __repr__(self) -> str:
        """The call that makes this one, without the arguments left at their defaults."""
        parameters = inspect.signature(type(self)).parameters
        if not all(hasattr(self, name) for name in parameters):
            return super().__repr__()
        values = {name: getattr(self, name) for name in parameters}
        shown = [
            f"{name}={_on_one_line(value)}"
            for name, value in values.items()
            if value is not parameters[name].default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        return repr(self)


def _on_one_line(value: Any) -> str:
    text = pprint.pformat(value)
    return "..." if "\n" in text else text


def _needed_inputs(augmentation: Augmentation) -> tuple[str, ...]:
    parameters = inspect.signature(augmentation.get_transform).parameters
    if len(parameters) == 1:
        return ("image",)
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        raise TypeError(
            f"{type(augmentation)}.get_transform takes *args or **kwargs, so what it needs cannot "
            "be known: name the parameters, or define __call__ instead."
        )
    return tuple(parameters)


class _FixedAugmentation(Augmentation):
    """A transform where an augmentation is wanted."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)


def _transform_to_aug(tfm_or_aug: Transform | Augmentation) -> Augmentation:
    require(
        isinstance(tfm_or_aug, (Transform, Augmentation)),
        f"Expected a Transform or an Augmentation, got {tfm_or_aug!r}.",
    )
    if isinstance(tfm_or_aug, Transform):
        return _FixedAugmentation(tfm_or_aug)
    return tfm_or_aug


class AugmentationList(Augmentation):
    """Several augmentations, each decided on what the ones before have made of the input.

    Args:
        augs: augmentations and transforms, in order.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        self.augs = [_transform_to_aug(each) for each in augs]

    def __call__(self, aug_input: Any) -> TransformList:
        return TransformList([augment(aug_input) for augment in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(repr, self.augs))}]"


class AugInput:
    """What one image brings along, changed together.

    Args:
        image: [H, W] or [H, W, C], uint8 in [0, 255] or float in [0, 1] or [0, 255].
        boxes: float32 [N, 4] as x0 y0 x1 y1 in pixels, or None.
        sem_seg: integers [H, W], or None.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        require(isinstance(image, np.ndarray), f"The image must be an array, got {type(image)}.")
        require(image.ndim in (2, 3), f"The image must be [H, W] or [H, W, C], got {image.shape}.")
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply `tfm` to everything that is there."""
        self.image = tfm.apply_image(self.image)
        self.boxes = None if self.boxes is None else tfm.apply_box(self.boxes)
        self.sem_seg = None if self.sem_seg is None else tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence[Augmentation | Transform]
    ) -> TransformList:
        """Apply them in order, in place; returns what was done."""
        return AugmentationList(augmentations)(self)


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: AugInput | np.ndarray
) -> tuple[Any, TransformList]:
    """Apply augmentations to an input in place, or to an image.

    Returns:
        (the input, or the new image where an array was given; what was done).
    """
    if isinstance(inputs, np.ndarray):
        holder = AugInput(inputs)
        done = holder.apply_augmentations(augmentations)
        return holder.image, done
    return inputs, inputs.apply_augmentations(augmentations)


# names that older code uses
apply_transform_gens = apply_augmentations
TransformGen = Augmentation
StandardAugInput = AugInput
