"""StarDist or Cellpose, predicting image files one by one in a Python of their own.

    /path/to/python benchmarks/inference_peers.py stardist

Started by `inference.py`; needs nothing of cellseg. Reads lines of JSON, {"image", "labels",
"output"}, and answers each with the seconds that reading the image, finding cells and writing the
label image took, and how many there were.

Where the pretrained weights cannot be had, the network has random ones of the same size, which take
the same time; what it gives is set aside, and the step from maps to cells gets the ideal maps of
the true label image (`labels`), made before the clock runs. Such a prediction says nothing about
accuracy.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Predict = Callable[[Any, Any], Any]  # image and ideal maps to label image


def load_stardist() -> tuple[str, Callable[[Any], Any], Predict]:
    """Name with version, from true labels to ideal maps, and what predicts."""
    import stardist
    from csbdeep.utils import normalize
    from stardist.geometry import star_dist
    from stardist.models import Config2D, StarDist2D
    from stardist.utils import edt_prob

    name = f"StarDist {stardist.__version__}"
    try:
        trained = StarDist2D.from_pretrained("2D_versatile_fluo")
    except Exception:  # whatever a download raises
        trained = None
    if trained is not None:
        return (
            name,
            lambda labels: None,
            lambda image, _: trained.predict_instances(normalize(image, 1, 99.8))[0],
        )
    # the configuration of 2D_versatile_fluo
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=1)
    model = StarDist2D(config, name="untrained", basedir=None)

    def ideal(labels: Any) -> Any:
        return edt_prob(labels)[::2, ::2], star_dist(labels, n_rays=32, grid=(2, 2))

    def predict(image: Any, maps: Any) -> Any:
        model.predict(normalize(image, 1, 99.8))
        return model._instances_from_prediction(image.shape, *maps)[0]

    return f"{name}, untrained", ideal, predict


def load_cellpose() -> tuple[str, Callable[[Any], Any], Predict]:
    """As `load_stardist`; Cellpose 3 at the diameter its nuclei model was trained with."""
    import numpy as np
    import torch
    from cellpose import core, dynamics, models, transforms, version

    name = f"Cellpose {version}"
    try:
        trained = models.Cellpose(model_type="nuclei")
    except Exception:
        trained = None
    if trained is not None:
        return (
            name,
            lambda labels: None,
            lambda image, _: trained.eval(image, diameter=17, channels=[0, 0])[0],
        )
    from cellpose.resnet_torch import CPnet

    net = CPnet([2, 32, 64, 128, 256], 3, sz=3, mkldnn=False).eval()
    device = torch.device("cpu")

    def ideal(labels: Any) -> Any:
        flows = dynamics.labels_to_flows([labels.astype(np.int32)], device=device)[0]
        return flows[2:4] * 5, np.where(flows[1] > 0, 6.0, -6.0).astype(np.float32)

    def predict(image: Any, maps: Any) -> Any:
        grey = transforms.normalize99(image.astype(np.float32))
        core.run_net(net, np.stack([grey, np.zeros_like(grey)], axis=-1)[None])
        found = dynamics.compute_masks(*maps, device=device)
        return found[0] if isinstance(found, tuple) else found

    return f"{name}, untrained", ideal, predict


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    import tifffile
    from imageio.v2 import imread

    name, ideal, predict = {"stardist": load_stardist, "cellpose": load_cellpose}[sys.argv[1]]()
    print(json.dumps({"name": name}), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        maps = ideal(tifffile.imread(task["labels"]))
        start = time.perf_counter()
        labels = predict(imread(task["image"]), maps)
        tifffile.imwrite(task["output"], labels.astype("uint16"))
        seconds = time.perf_counter() - start
        print(
            json.dumps({"seconds": seconds, "cells": int(labels.max())}), file=answers, flush=True
        )


if __name__ == "__main__":
    main()
