"""Load a checkpoint and know whether it fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellseg.errors import CheckpointError, collect_problems
from cellseg.modeling.torchvision_weights import register_torchvision_weights
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn


class _RememberingCheckpointer(DetectionCheckpointer):
    """Keeps what did not fit, which Detectron2's checkpointer only logs."""

    incompatible: Any = None

    def _load_model(self, checkpoint: Any) -> Any:
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible


def load_weights(model: nn.Module, path: str | Path, *, partial: bool = False) -> None:
    """Load a checkpoint of `tools/train_net.py`, a saved `state_dict` or a model-zoo file.

    Args:
        model: a model of the engine, or a `MaskRCNN`; changed in place.
        path: `.pth` or `.pkl`; a path, or a URL that Detectron2's path manager knows.
        partial: allow parameters that the file does not hold in their shape, as fine-tuning with
            other classes needs; they keep their values and are logged.

    Raises:
        CheckpointError: the file is missing or cannot be read; it lacks parameters of the model,
            or has them in another shape (with `partial`: all of them). The model may then hold
            some of the file's values.
    """
    path = str(path)
    check_weights_file(path)
    checkpointer = _RememberingCheckpointer(model)
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


def check_weights_file(path: str) -> None:
    """Fail early where a local checkpoint is missing; URLs are left to the path manager.

    Raises:
        CheckpointError: the path is empty, or no file.
    """
    file = path.partition("?")[0]  # behind it: options of Detectron2's checkpointer
    if "://" not in file and not Path(file).is_file():
        raise CheckpointError(
            f"{path or 'MODEL.WEIGHTS is empty'}: no such checkpoint file (current folder: "
            f"{Path.cwd()}); a trained model is in <OUTPUT_DIR>/model_final.pth"
        )


def _describe_misfits(incompatible: Any) -> list[str]:
    wrong_shapes = {
        name: f"{name}: {list(found)} in the file, {list(expected)} in the model"
        for name, found, expected in incompatible.incorrect_shapes
    }
    missing = [name for name in incompatible.missing_keys if name not in wrong_shapes]
    return [*wrong_shapes.values(), *(f"{name}: not in the file" for name in missing)]
