"""Load weights, of a checkpoint or a bundle, and know whether they fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellseg.errors import CheckpointError, collect_problems
from cellseg.modeling.torchvision_weights import register_torchvision_weights
from cellseg.models import bundle_file, locate_bundle, open_bundle, suggest_model
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn


class WeightsCheckpointer(DetectionCheckpointer):
    """Reads bundles too, and keeps what did not fit, which Detectron2's checkpointer only logs."""

    incompatible: Any = None

    def _load_file(self, f: str) -> Any:
        bundle = locate_bundle(f)
        if bundle is not None:
            return {"model": open_bundle(bundle).read_weights()}
        return super()._load_file(f)

    def _load_model(self, checkpoint: Any) -> Any:
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible


def load_weights(model: nn.Module, path: str | Path, *, partial: bool = False) -> None:
    """Load a checkpoint of `tools/train_net.py`, a bundle, a `state_dict` or a model-zoo file.

    Args:
        model: a model of the engine, or a `MaskRCNN`; changed in place.
        path: `.pth` or `.pkl`; a path, or a URL that Detectron2's path manager knows; or a model
            bundle: its folder, its zip or its name.
        partial: allow parameters that the file does not hold in their shape, as fine-tuning with
            other classes needs; they keep their values and are logged.

    Raises:
        CheckpointError: the file is missing or cannot be read; it lacks parameters of the model,
            or has them in another shape (with `partial`: all of them). The model may then hold
            some of the file's values.
    """
    path = find_weights_file(str(path))
    checkpointer = WeightsCheckpointer(model)
    register_torchvision_weights()  # for models that no configuration file was read for
    try:
        checkpointer.load(path, checkpointables=[])
    except CheckpointError:
        raise
    except Exception as error:  # whatever unpickling or a download raises
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {type(error).__name__}: {error}"
        ) from error
    problems = _describe_misfits(checkpointer.incompatible)
    if len(problems) > (len(model.state_dict()) - 1 if partial else 0):
        raise CheckpointError(
            collect_problems(
                f"{path}: parameters that do not fit the model",
                problems,
                "The model has to be built from the configuration it was trained with "
                "(number of classes, normalization, heads).",
            )
        )


def find_weights_file(weights: str) -> str:
    """The file that a value of `MODEL.WEIGHTS` means.

    Args:
        weights: a path, a URL, or what names a bundle; see `load_weights`.

    Returns:
        `weights` as given where it is a file; that of a bundle. URLs are left to the path manager.

    Raises:
        CheckpointError: it is empty, or there is no such file.
    """
    file = weights.partition("?")[0]  # behind it: options of Detectron2's checkpointer
    if "://" in file:
        return weights
    bundle = locate_bundle(file) if file else None
    if bundle is not None:
        return str(bundle_file(bundle))
    if not Path(file).is_file():
        hint = suggest_model(file) if file else ""
        raise CheckpointError(
            f"{weights or 'MODEL.WEIGHTS is empty'}: no such checkpoint file or model bundle "
            f"(current folder: {Path.cwd()}); a trained model is in <OUTPUT_DIR>/model_final.pth"
            f"{hint and f'; {hint}'}"
        )
    return weights


def start_from(model: nn.Module, weights: str) -> None:
    """Load the weights that a training starts from; what does not fit is logged.

    Args:
        model: of the trainer; changed in place.
        weights: `MODEL.WEIGHTS`; empty to start from nothing.

    Raises:
        CheckpointError: it names no file, or a bundle that cannot be used.
    """
    file = find_weights_file(weights) if weights else ""
    WeightsCheckpointer(model).load(file, checkpointables=[])


def _describe_misfits(incompatible: Any) -> list[str]:
    wrong_shapes = {
        name: f"{name}: {list(found)} in the file, {list(expected)} in the model"
        for name, found, expected in incompatible.incorrect_shapes
    }
    missing = [name for name in incompatible.missing_keys if name not in wrong_shapes]
    return [*wrong_shapes.values(), *(f"{name}: not in the file" for name in missing)]
