"""Find cells with an exported model; needs numpy and onnxruntime, nothing of cellseg.

python cellseg_onnx.py model.onnx image.npy labels.npy    (the image: [H, W] or [H, W, channels])
"""

import json
import sys

import numpy as np
import onnxruntime


def normalize(image: np.ndarray, mode: str, percentiles: list, value_range: list) -> np.ndarray:
    """Intensities of each channel to 0 to 255, as the model was trained."""
    if mode == "none" or (mode == "auto" and image.dtype == np.uint8):
        return image.astype(np.float32)
    axes = (0, 1)
    low, high = value_range if mode == "range" else (image.min(axes), image.max(axes))
    if mode in ("auto", "percentile"):
        two = np.percentile(image.astype(np.float64), percentiles, axis=axes)
        low, high = np.where(two[0] < two[1], two, (low, high))
    width = np.subtract(high, low, dtype=np.float64)
    share = (image.astype(np.float64) - low) / np.where(width > 0, width, 1)
    return (np.clip(share, 0, 1) * 255).astype(np.float32)


def find_cells(session, image: np.ndarray, **inputs: np.ndarray) -> tuple:  # type: ignore
    """Labels [H, W], 0 for background; and of cells 1, 2, ...: boxes, scores, classes, masks."""
    settings = json.loads(session.get_modelmeta().custom_metadata_map["cellseg"])
    planes = normalize(image.reshape(*image.shape[:2], -1), *settings["normalize"])
    planes = np.ascontiguousarray(planes.transpose(2, 0, 1)[None])
    labels, *cells = session.run(None, {"image": planes, **inputs})
    return labels[0, 0], *cells


if __name__ == "__main__":
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of what it optimises
    model = onnxruntime.InferenceSession(sys.argv[1], options)
    np.save(sys.argv[3], find_cells(model, np.load(sys.argv[2]))[0])
