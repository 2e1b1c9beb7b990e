"""The one way from a file to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import ENDS, IMAGE, check_fields, checked, several
from cellseg.config import check_value
from cellseg.errors import ConfigError, ImageReadError
from cellseg.images.normalisation import (
    DEFAULT_PERCENTILES,
    Limits,
    apply_limits,
    check_finite,
    check_normalization,
    find_limits,
    invert_limits,
    is_bright_image,
    merge_dyes,
    mirror_percentiles,
)
from cellseg.images.planes import PlaneImage
from cellseg.images.reading import read_image
from cellseg.images.window_limits import is_bright_plane, plane_limits
from cellseg.rules import PATH, TEXT
from numpy.typing import NDArray

IMAGE_FORMATS = ("BGR", "RGB")

_LISTS = {"channels": several(), "percentiles": ENDS, "value_range": ENDS}


@dataclass(frozen=True)
class ImageInput:
    """What the config says about images; reads them so.

    Attributes:
        image_format: order of the channels that the model takes, "BGR" or "RGB"; INPUT.FORMAT.
        normalize: how intensities become 0 to 255, a mode of `normalize_image`;
            CELLSEG.INPUT.NORMALIZE.
        percentiles: which become 0 and 255 in mode "percentile"; CELLSEG.INPUT.PERCENTILES.
        value_range: which intensities do in mode "range"; CELLSEG.INPUT.RANGE.
        channels: the file's channels that become R, G and B, see `select_image`;
            CELLSEG.INPUT.CHANNELS.
        page: which page of a stack, -1 where there is one only; CELLSEG.INPUT.PAGE.
        scene: number from 0 or name of a scene of files that have several, "" where they have one;
            CELLSEG.INPUT.SCENE.
        projection: what is done along Z before, "max" or "none"; CELLSEG.INPUT.PROJECTION.
        invert: whether dark becomes bright: True, False, or "auto" for images of dark cells on
            bright ground, see `is_bright`; RGB on dark ground becomes grey then, if it is
            stretched, see `merge_dyes`; CELLSEG.INPUT.INVERT.

    Raises:
        ConfigError: a value that cannot be used; it names the key and what is allowed.
    """

    image_format: str = "BGR"
    normalize: str = "auto"
    percentiles: Sequence[float] = DEFAULT_PERCENTILES
    value_range: Sequence[float] = ()
    channels: Sequence[int | str] = ()
    page: int = -1
    projection: str = "none"
    invert: bool | str = False
    scene: int | str = ""

    def __post_init__(self) -> None:
        check_fields(self, _LISTS)
        for name in ("percentiles", "value_range", "channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.image_format, str) or self.image_format not in IMAGE_FORMATS:
            raise ConfigError(f"INPUT.FORMAT is {self.image_format!r}; expected 'BGR' or 'RGB'")
        check_normalization(self.normalize, self.percentiles, self.value_range)
        check_value("INPUT.CHANNELS", self.channels)
        check_value("INPUT.PAGE", self.page)
        check_value("INPUT.PROJECTION", self.projection)
        check_value("INPUT.INVERT", self.invert)
        check_value("INPUT.SCENE", self.scene)

    @classmethod
    def from_config(cls, cfg: Any) -> ImageInput:
        """From INPUT.FORMAT and the keys below CELLSEG.INPUT.

        A config made by hand may lack RANGE, CHANNELS, PAGE, PROJECTION, INVERT and SCENE; they
        have their defaults then.
        """
        own = cfg.CELLSEG.INPUT
        return cls(
            image_format=cfg.INPUT.FORMAT,
            normalize=own.NORMALIZE,
            percentiles=own.PERCENTILES,
            value_range=getattr(own, "RANGE", ()),
            channels=getattr(own, "CHANNELS", ()),
            page=getattr(own, "PAGE", -1),
            projection=getattr(own, "PROJECTION", "none"),
            invert=getattr(own, "INVERT", False),
            scene=getattr(own, "SCENE", ""),
        )

    @checked(path=PATH)
    def read(self, path: str | Path, page: int | None = None) -> NDArray[Any]:
        """The chosen page and channels with the file's own values; see `read_image`.

        Args:
            path: the file.
            page: of a stack whose planes are images of a data set, the number of the plane; by
                default the page of this input.
        """
        if page is not None:
            return read_image(path, channels=self.channels, page=page, scene=self.scene)
        return read_image(path, scene=self.scene, **self.choices)

    @property
    def choices(self) -> dict[str, Any]:
        """Channels, page and projection, as `read_image` and `open_planes` take them."""
        return {"channels": self.channels, "page": self.page, "projection": self.projection}

    def limits_of(self, plane: PlaneImage, window_px: int = 1 << 22) -> Limits:
        """Which intensities of a whole plane become 0 and 255, found by window.

        Args:
            plane: opened with the channels of this input.
            window_px: about how many pixels are read and held at a time.

        Returns:
            (low, high) per channel, exactly those of `normalize_image` of the whole plane; empty
            where intensities stay as they are; (high, low) where the plane is to be inverted.

        Raises:
            ImageReadError: what `plane.read` raises, such as for values that are not finite.
        """
        is_inverted = self.invert is True or (
            self.invert == "auto" and is_bright_plane(plane, self.percentiles, window_px)
        )
        percentiles = mirror_percentiles(self.percentiles) if is_inverted else self.percentiles
        limits = plane_limits(plane, self.normalize, percentiles, self.value_range, window_px)
        if not is_inverted:
            return limits
        sample = plane.read(slice(0, 1), slice(0, 1))
        return invert_limits(limits, 1 if sample.ndim == 2 else sample.shape[-1])

    def _limits_of_image(self, image: NDArray[Any]) -> Limits:
        """`limits_of` an image in memory."""
        is_inverted = self.invert is True or (
            self.invert == "auto" and is_bright_image(image, self.percentiles)
        )
        percentiles = mirror_percentiles(self.percentiles) if is_inverted else self.percentiles
        limits = find_limits(image, self.normalize, percentiles, self.value_range)
        channels = 1 if image.ndim == 2 else image.shape[-1]
        return invert_limits(limits, channels) if is_inverted else limits

    def prepare(self, image: NDArray[Any], limits: Limits | None = None) -> NDArray[Any]:
        """`normalize_image`, then `to_model_input`, of an image as `read` returns it.

        Args:
            image: [H, W] or [H, W, C].
            limits: `limits_of` the plane that the image is a window of, so that it becomes what
                it is in the whole plane; None where it is a whole image.

        Returns:
            [H, W, 3], uint8 or float32.

        Raises:
            ImageReadError: another number of channels than chosen, or values that are not finite.
        """
        count = 1 if image.ndim == 2 else image.shape[-1]
        expected = (len(self.channels),) if self.channels else (1, 3)
        if image.ndim not in (2, 3) or count not in expected:
            raise ImageReadError(
                f"expected an image of {' or '.join(map(str, expected))} channels, [H, W] or "
                f"[H, W, C]; found shape {list(image.shape)}"
            )
        check_finite(image)
        if limits is None:
            limits = self._limits_of_image(image)
        pixels = apply_limits(image, limits)
        if self._is_of_dyes(pixels, limits):
            pixels = merge_dyes(pixels, limits)
        return to_model_input(pixels, self.image_format)

    def _is_of_dyes(self, image: NDArray[Any], limits: Limits) -> bool:
        """Whether "auto" takes an image for fluorescence in RGB: stretched, and not inverted."""
        is_rgb = image.ndim == 3 and image.shape[-1] == 3 and not self.channels
        return is_rgb and self.invert == "auto" and bool(limits) and limits[0][0] <= limits[0][1]

    def read_model_input(self, path: str | Path, page: int | None = None) -> NDArray[Any]:
        """`read`, then `prepare`: the file as the model takes it, [H, W, 3]."""
        return self.prepare(self.read(path, page))


@checked(image=IMAGE, image_format=TEXT)
def to_model_input(image: NDArray[Any], image_format: str = "BGR") -> NDArray[Any]:
    """Three channels in the order a model was built for.

    Args:
        image: [H, W], [H, W, 1], two channels [H, W, 2] or RGB [H, W, 3], values as
            `normalize_image` returns them. One channel is repeated; two become R and G, with a
            black B.
        image_format: order of the channels that the model takes, "BGR" or "RGB".

    Returns:
        Contiguous, writable [H, W, 3]; uint8 stays uint8, all else becomes float32.

    Raises:
        ConfigError: another format.
        ImageReadError: another number of channels.
    """
    if image_format not in IMAGE_FORMATS:
        raise ConfigError(f"INPUT.FORMAT is {image_format!r}; expected 'BGR' or 'RGB'")
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[-1] not in (1, 2, 3):
        raise ImageReadError(
            f"expected an image of one to three channels; found shape {list(image.shape)}"
        )
    if planes.shape[-1] == 2:
        planes = np.pad(planes, ((0, 0), (0, 0), (0, 1)))
    rgb = np.broadcast_to(planes, (*planes.shape[:2], 3))
    ordered = rgb[..., ::-1] if image_format == "BGR" else rgb
    dtype = np.uint8 if image.dtype == np.uint8 else np.float32
    return np.require(ordered, dtype, ["C", "W"])
