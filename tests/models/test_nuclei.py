"""The model that ships: the same nuclei however an image is stored, and however large it is."""

from __future__ import annotations

from pathlib import Path

import cellseg
import cv2
import numpy as np
import pytest
from cellseg.evaluation import score
from cellseg.images import read_image, read_label_image
from cellseg.inference.model import CellModel
from cellseg.shipped import DEFAULT_MODEL, sample_images
from numpy.typing import NDArray

pytestmark = pytest.mark.slow

Image = NDArray[np.generic]


@pytest.fixture(scope="module")
def model() -> CellModel:
    return cellseg.load(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """Part of the field with most nuclei; 8 bit, grey."""
    (path,) = (path for path in sample_images() if path.stem == "monolayer")
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:256, :320]


@pytest.fixture(scope="module")
def labels(model: CellModel, image: Image) -> NDArray[np.int32]:
    found = model.predict(image).to_label_image()
    assert found.max() > 30
    return found


def in_blue(image: Image) -> Image:
    rgb = np.zeros((*image.shape, 3), image.dtype)
    rgb[..., 2] = image
    return rgb


STORED = {
    "16 bit": lambda image: image.astype(np.uint16) * 257,
    "12 of 16 bit": lambda image: image.astype(np.uint16) * 16,
    "dim": lambda image: image.astype(np.uint16) * 4 + 100,
    "float": lambda image: image.astype(np.float32) / 255,
    "RGB": lambda image: np.stack([image] * 3, axis=-1),
    "blue": in_blue,
    "inverted": lambda image: 255 - image,
    "inverted 16 bit": lambda image: 65535 - image.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("stored", STORED)
def test_images_as_they_come(
    stored: str, model: CellModel, image: Image, labels: NDArray[np.int32]
) -> None:
    found = model.predict(STORED[stored](image)).to_label_image()
    assert score([labels], [found], ["f1@0.75"])["f1@0.75"] >= 0.97


@pytest.mark.parametrize("diameter", ["auto", "known"])
@pytest.mark.parametrize("size", [0.5, 2, 4])
def test_any_magnification(
    size: float, diameter: str, model: CellModel, image: Image, labels: NDArray[np.int32]
) -> None:
    """Enlarged images have blurred edges, and in halved ones neighbours touch: hence 0.5."""
    pixels = image[:128, :160] if size == 4 else image
    expected = labels[:128, :160] if size == 4 else labels
    way = cv2.INTER_AREA if size < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, None, fx=size, fy=size, interpolation=way)
    px = float(np.median(model.predict(image).diameters_px)) * size
    found = model.predict(resized, diameter="auto" if diameter == "auto" else px)
    back = cv2.resize(
        found.to_label_image().astype(np.int32), pixels.shape[::-1], interpolation=cv2.INTER_NEAREST
    )
    assert score([expected], [back], ["f1@0.50"])["f1@0.50"] >= 0.85


def test_stained_tissue(model: CellModel, real_datasets: Path) -> None:
    """Dark nuclei in colours, of patients whose tissue it has not learned from."""
    files = sorted((real_datasets / "tnbc/val/images").glob("*.png"))[:2]
    assert files
    pixels = [read_image(path) for path in files]
    true = [read_label_image(path.parents[1] / "labels" / path.name) for path in files]
    found = [model.predict(each).to_label_image() for each in pixels]
    assert score(true, found, ["ap_dsb@0.50"])["ap_dsb@0.50"] >= 0.5
    deep = model.predict(pixels[0].astype(np.uint16) * 257).to_label_image()
    assert score([found[0]], [deep], ["f1@0.75"])["f1@0.75"] >= 0.97
